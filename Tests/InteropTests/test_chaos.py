# SPDX-License-Identifier: MPL-2.0
"""Three replicas of each hooks process, killed at random under load, before a queue that fails in every way.

CHAOS_SECONDS says for how long (25 unless told; the full run is 120), CHAOS_SEED repeats a run.
"""

import datetime
import itertools
import os
import random
import signal
import subprocess
import threading
import time

from bus import Publisher
from conftest import BINARIES
from faulty_queue import FAULTS, FaultyQueue
from support import eventually, hook, template, unique

from demo import wait_for_binding

EXCHANGE = "exchange/interop-team/v1/chaos"
SERVICES = ["hooks-service", "pulse-listener", "scheduler"]
REPLICAS = 3


class Replicas:
    """Several processes of each hooks service, in place of the suite's own."""

    def __init__(self, suite, root_url):
        self.suite, self.root_url = suite, root_url
        # Taken before anything stops: the suite looks for another port when a stranger holds one of its own.
        self.environments = {name: suite.service_environment(name) for name in SERVICES}
        self.processes = {}
        self.kills = 0

    def __enter__(self):
        for name in SERVICES:
            self.suite.stop(name)
            for number in range(REPLICAS):
                self.start((name, number))
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.suite.start_services()

    def start(self, replica):
        name, number = replica
        environment = self.environments[name] | {"TASKCLUSTER_ROOT_URL": self.root_url}
        if number > 0:
            # The first one keeps the suite's own port: that is where the front door passes hooks' calls on to.
            environment["HTTP_PORT"] = "0"
        with open(self.suite.logs / f"chaos-{name}-{number}.log", "ab") as log:
            self.processes[replica] = subprocess.Popen(
                [str(BINARIES / name), "run"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.suite.local,
            )

    def kill(self, replica):
        self.processes[replica].send_signal(signal.SIGKILL)
        self.processes[replica].wait()
        self.kills += 1


def disturb(replicas, seconds, dice):
    """Kills and restarts processes, and once the broker and once the database, until the time is over."""
    end = time.monotonic() + seconds
    servers = [(end - seconds * 2 / 3, "restart-rabbitmq"), (end - seconds / 3, "restart-postgres")]
    while time.monotonic() < end:
        if servers and time.monotonic() > servers[0][0]:
            replicas.suite.run_servers(servers.pop(0)[1])
        replica = dice.choice(list(replicas.processes))
        replicas.kill(replica)
        time.sleep(dice.uniform(0, 0.6))
        replicas.start(replica)
        time.sleep(dice.uniform(0.1, 0.8))


def instant(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def ledger(running, name):
    """Every entry of a hook's ledger, oldest first."""
    entries, query = [], {"limit": "1000"}
    while True:
        page = running.get(f"hooks/v1/hooks/demo/{name}/ledger", query)
        entries += page["entries"]
        if not page.get("continuationToken"):
            return entries[::-1]
        query["continuationToken"] = page["continuationToken"]


def test_every_event_has_exactly_one_task_whatever_dies(running):
    seconds = float(os.environ.get("CHAOS_SECONDS", "25"))
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 100_000))
    print(f"chaos: {seconds:.0f} s, seed {seed}")
    dice = random.Random(seed)
    hooks, queue = running.hooks(), running.queue()
    events, ticks = unique("chaos-events"), unique("chaos-ticks")
    schema = {"type": "object", "required": ["event"], "properties": {"event": {"type": "integer"}}}
    binding = {"exchange": EXCHANGE, "routingKeyPattern": f"{events}.#"}
    # No worker takes these tasks: only their making is at stake here.
    idle = {"taskQueueId": "slipway/none", "priority": "lowest"}
    by_event = hook(events, schema=schema, bindings=[binding])
    by_event["task"] = template(f"{events} ${{payload.event}}") | idle
    by_clock = hook(ticks, schedule=["* * * * * *"], scheduling={"catchUp": "all", "catchUpLimit": 1000})
    by_clock["task"] = template(f"{ticks} ${{firedBy}}") | idle

    publisher = Publisher(running.amqp_url)
    publisher.publish(EXCHANGE, "nobody", {})
    sent = 0
    stop = threading.Event()

    def publish():
        nonlocal sent
        while not stop.is_set():
            publisher.publish(EXCHANGE, f"{events}.x", {"event": sent}, message_id=f"{events}-{sent}")
            sent += 1
            time.sleep(0.02)

    with FaultyQueue(running.root_url, hang=3, seed=seed) as proxy, Replicas(running.suite, proxy.url) as replicas:
        eventually(lambda: hooks.createHook("demo", events, by_event), 30)
        hooks.createHook("demo", ticks, by_clock)
        wait_for_binding(running.values, EXCHANGE, f"{events}.ready", 180)
        # A queue's making reaches the broker's disk a moment later; before that a killed broker forgets it.
        time.sleep(3)
        proxy.share = 0.15
        loader = threading.Thread(target=publish)
        loader.start()
        disturb(replicas, seconds, dice)
        stop.set()
        loader.join()
        proxy.share = 0
        print(f"chaos: {sent} events, {replicas.kills} kills, faults {proxy.counts}")
        assert sum(proxy.counts.values()) >= len(FAULTS), "the proxy has spoiled too few calls to prove anything"


        def has_caught_up():
            entries = ledger(running, ticks)
            return entries and time.time() - instant(entries[-1]["due"]).timestamp() < 10

        # The schedule goes only after what was missed has come: an update forgets it.
        eventually(has_caught_up, 180, 0.5)
        hooks.updateHook("demo", ticks, {**by_clock, "schedule": []})

        def all_settled():
            entries = ledger(running, events)
            pending = [entry for entry in entries + ledger(running, ticks) if entry["outcome"] == "pending"]
            return not pending and sum(entry["outcome"] == "created" for entry in entries) >= sent

        try:
            eventually(all_settled, 180, 0.5)
        except AssertionError:
            print("chaos: not everything settled; what follows says what is missing")
        wrong = [entry for entry in ledger(running, events) + ledger(running, ticks) if entry["outcome"] not in ("created", "declined")]
        assert wrong == [], wrong[:5]
        made = [entry for entry in ledger(running, events) if entry["outcome"] == "created"]
        names = [queue.task(entry["taskId"])["metadata"]["name"] for entry in made]
        wanted = {f"{events} {number}" for number in range(sent)}
        assert sorted(wanted - set(names)) == [], "events without a task"
        assert sorted(names) == sorted(wanted), "events with more than one task"
        latencies = sorted(entry["latency"]["total"] for entry in made)
        print(f"chaos: event to task p50 {latencies[len(latencies) // 2]} ms, worst {latencies[-1]} ms")

        due = [instant(entry["due"]) for entry in ledger(running, ticks)]
        assert len(due) == len(set(due)), "an instant of the schedule fired twice"
        gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(due)]
        assert set(gaps) <= {1.0}, "instants of the schedule were lost"
        assert len(due) >= seconds
        for entry in ledger(running, ticks):
            assert queue.status(entry["taskId"])["status"]["state"] in ("pending", "unscheduled")
    for name in (events, ticks):
        hooks.removeHook("demo", name)
