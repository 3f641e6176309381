# SPDX-License-Identifier: MPL-2.0
"""Two queue processes and eight workers under random kills, while the broker and the database restart.

QUEUE_CHAOS_SECONDS says for how long (20 unless told; the full run is 180), QUEUE_CHAOS_SEED repeats its choices.
"""

import asyncio
import collections
import datetime
import json
import os
import random
import subprocess
import sys
import threading
import time

import pika
import pytest
import taskcluster
from taskcluster.exceptions import TaskclusterFailure, TaskclusterRestFailure

from local_queue import ROOT, Deployment
from support import eventually, task
from workers import SCRIPT, binary, clean_environment

EVENTS = ("task-defined", "task-pending", "task-running", "task-completed", "task-exception")
QUEUE = "chaos/work"
CLAIM_TIMEOUT = 4


class Balancer:
    """One address before several processes: passes connections on, byte for byte, to one that takes them."""

    def __init__(self):
        self.ports = []
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait(30)
        self.url = f"http://127.0.0.1:{self.port}"

    def _run(self, ready):
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    async def _serve(self, reader, writer):
        for port in random.sample(self.ports, len(self.ports)):
            try:
                upstream = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                continue
        else:
            writer.close()
            return
        await asyncio.gather(self._copy(reader, upstream[1]), self._copy(upstream[0], writer))

    @staticmethod
    async def _copy(reader, writer):
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)


class Mailbox:
    """A durable queue of somebody else, bound to everything; it outlives the broker's restart."""

    def __init__(self, deployment):
        self.url, self.name = deployment.amqp_url, f"{deployment.name}-events"
        channel = self._channel()
        channel.queue_declare(self.name, durable=True)
        for name in EVENTS:
            channel.exchange_declare(deployment.exchange_prefix + name, "topic", durable=True)
            channel.queue_bind(self.name, deployment.exchange_prefix + name, "#")
        channel.connection.close()
        self.messages = []

    def _channel(self):
        return pika.BlockingConnection(pika.URLParameters(self.url)).channel()

    def drain(self):
        channel = eventually(self._channel, 120)
        while True:
            how, _, body = channel.basic_get(self.name, auto_ack=True)
            if not how:
                channel.connection.close()
                return self.messages
            self.messages.append((how.exchange.rpartition("/")[2], json.loads(body)))

    def delete(self):
        channel = eventually(self._channel, 120)
        channel.queue_delete(self.name)
        channel.connection.close()


class Worker:
    """One of ours, with a script that does nothing; it is killed and started again."""

    def __init__(self, folder, name, url, token):
        self.folder = folder / name
        for each in ("work", "artifact", "log"):
            (self.folder / each).mkdir(parents=True)
        (self.folder / "script.py").write_text(SCRIPT)
        script = {"work_dir": str(self.folder / "work"), "artifact_dir": str(self.folder / "artifact")}
        (self.folder / "script.json").write_text(json.dumps(script))
        (self.folder / "key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        (self.folder / "key").chmod(0o600)
        values = {
            "taskcluster_root_url": url,
            "provisioner_id": QUEUE.split("/")[0],
            "worker_type": QUEUE.split("/")[1],
            "worker_group": "chaos",
            "worker_id": name,
            "credentials": {"clientId": ROOT, "accessToken": token},
            "task_script": [sys.executable, str(self.folder / "script.py"), str(self.folder / "script.json")],
            "work_dir": str(self.folder / "work"),
            "artifact_dir": str(self.folder / "artifact"),
            "task_log_dir": str(self.folder / "artifact" / "public" / "logs"),
            "log_dir": str(self.folder / "log"),
            "ed25519_private_key_path": str(self.folder / "key"),
            "sign_chain_of_trust": False,
            "poll_interval": 1,
            "reclaim_interval": 1,
            "verbose": False,
        }
        self.path = self.folder / "worker.json"
        self.path.write_text(json.dumps(values))
        self.process = None

    def start(self):
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(
                [str(binary()), str(self.path)], stdout=output, stderr=output, cwd=self.folder, env=clean_environment()
            )

    def kill(self):
        self.process.kill()
        self.process.wait()


class Ledger:
    """What the scripted workers were given and what they reported."""

    def __init__(self):
        self.lock = threading.Lock()
        self.created, self.claims, self.completed, self.problems = [], collections.Counter(), [], []
        self.over = threading.Event()

    def is_done(self):
        with self.lock:
            return self.over.is_set()


def persistently(call):
    """Repeats a call until the queue has answered it; refusals are answers."""
    while True:
        try:
            return call()
        except TaskclusterRestFailure as failure:
            if failure.status_code < 500:
                raise
        except (TaskclusterFailure, OSError):
            pass
        time.sleep(0.05)


def create(client, ledger):
    while not ledger.over.is_set():
        task_id = taskcluster.slugId()
        definition = task("chaos", queue_id=QUEUE, payload={"maxRunTime": 60}, retries=49)
        persistently(lambda: client().createTask(task_id, definition))
        with ledger.lock:
            ledger.created.append(task_id)
        time.sleep(0.05)


def work(client, ledger, name, dice, finished):
    while not finished.is_set():
        try:
            tasks = client().claimWork(QUEUE, {"workerGroup": "chaos", "workerId": name, "tasks": 2})["tasks"]
        except (TaskclusterFailure, OSError):
            time.sleep(0.05)
            continue
        for each in tasks:
            run = (each["status"]["taskId"], each["runId"])
            with ledger.lock:
                ledger.claims[run] += 1
            if dice.random() < 0.15:
                continue  # this worker has died; the claim has to come back by itself
            if dice.random() < 0.3:
                time.sleep(dice.uniform(0, 0.5))
            try:
                persistently(lambda: client().reportCompleted(*run))
                with ledger.lock:
                    ledger.completed.append(run)
            except TaskclusterRestFailure as late:
                if late.status_code != 409:
                    ledger.problems.append(late)


@pytest.fixture
def stage(servers, tmp_path):
    balancer = Balancer()
    settings = {"TCL_CLAIM_TIMEOUT": CLAIM_TIMEOUT, "TCL_CLAIM_WORK_TIMEOUT": "1", "TCL_DEADLINE_DELAY": "1"}
    with Deployment(servers, tmp_path, **settings) as deployment:
        yield deployment, balancer
    balancer.close()


def until_all_are_completed(deployment, patience=300):
    """Waits as long as there is progress: how many tasks are left depends on how fast the machine is, and so does their end."""
    left, moved = None, time.monotonic()
    while (now := deployment.query("select count(*) from tcl.task_status where state <> 'completed'")) != "0":
        if now != left:
            left, moved = now, time.monotonic()
        if time.monotonic() - moved > patience:
            stuck = deployment.query("select task_id, state, runs from tcl.task_status where state <> 'completed' limit 5")
            raise AssertionError(f"{left} tasks have not moved for {patience} s, such as {stuck}")
        time.sleep(0.5)


def test_every_task_is_resolved_once_while_processes_workers_and_servers_die(servers, stage, tmp_path):
    seconds = float(os.environ.get("QUEUE_CHAOS_SECONDS", "20"))
    seed = os.environ.get("QUEUE_CHAOS_SEED", str(random.randrange(10**9)))
    dice = random.Random(seed)
    print(f"QUEUE_CHAOS_SEED={seed} repeats these choices")
    deployment, balancer = stage
    processes = [deployment.start(root_url=balancer.url) for _ in range(2)]
    balancer.ports = [each.port for each in processes]
    mailbox = Mailbox(deployment)

    def client():
        credentials = {"clientId": ROOT, "accessToken": deployment.token}
        return taskcluster.Queue({"rootUrl": balancer.url, "credentials": credentials, "maxRetries": 0})

    ledger, finished = Ledger(), threading.Event()
    threads = [threading.Thread(target=create, args=(client, ledger), daemon=True)]
    for number in range(6):
        own = random.Random(f"{seed} {number}")
        threads.append(threading.Thread(target=work, args=(client, ledger, f"w{number}", own, finished), daemon=True))
    ours = [Worker(tmp_path / "workers", f"ours{number}", balancer.url, deployment.token) for number in range(2)]
    for each in [*threads, *ours]:
        each.start()

    kills = collections.Counter()
    begun = time.monotonic()
    restarts = [(seconds / 3, "restart-postgres"), (seconds * 2 / 3, "restart-rabbitmq")]
    try:
        while time.monotonic() - begun < seconds or restarts:
            time.sleep(dice.uniform(0.3, 1.2))
            if restarts and time.monotonic() - begun >= restarts[0][0]:
                servers.run(restarts[0][1])
                kills[restarts.pop(0)[1]] += 1
            if dice.random() < 0.6:
                position = dice.randrange(2)
                processes[position].kill()
                processes[position] = deployment.start(root_url=balancer.url, wait=False)
                balancer.ports = [each.port for each in processes]
                kills["queue"] += 1
            else:
                worker = dice.choice(ours)
                worker.kill()
                worker.start()
                kills["worker"] += 1
        ledger.over.set()
        threads[0].join(120)
        assert not threads[0].is_alive(), "a task could not be created for two minutes"
        for process in processes:
            process.wait_ready(120)

        until_all_are_completed(deployment)
    finally:
        finished.set()
        for worker in ours:
            worker.kill()
    for thread in threads:
        thread.join(60)
    assert not ledger.problems, ledger.problems[:3]

    queue = client()
    late, expired, by_ours = [], 0, 0
    for start in range(0, len(ledger.created), 500):
        wish = {"taskIds": ledger.created[start : start + 500]}
        statuses = persistently(lambda: queue.statuses(wish))["statuses"]
        assert len(statuses) == len(wish["taskIds"]), "a task that was created is gone"
        for each in statuses:
            runs = each["status"]["runs"]
            states = [run["state"] for run in runs]
            assert states[-1] == "completed" and states.count("completed") == 1, each
            by_ours += runs[-1]["workerId"].startswith("ours")
            for before, after in zip(runs, runs[1:]):
                assert after["reasonCreated"] == "retry", each
                if before["reasonResolved"] == "claim-expired":
                    expired += 1
                    moment = datetime.datetime.fromisoformat
                    late.append((moment(before["resolved"]) - moment(before["takenUntil"])).total_seconds())
                else:
                    assert before["reasonResolved"] == "worker-shutdown", each
    assert len(ledger.completed) == len({task_id for task_id, _ in ledger.completed}), "a task was completed twice"
    assert max(ledger.claims.values()) == 1, "a run was handed to two workers"
    assert expired > 0 and min(late) >= 0, "a claim came back before its time"
    for table in ("pending", "claims", "resolutions", "notices"):
        assert eventually(lambda: deployment.query(f"select count(*) from tcl.{table}") == "0", 60)

    # Every event reached the bus, in spite of the broker, and no run was announced for two workers.
    eventually(lambda: deployment.query("select count(*) from tcl.outbox") == "0", 120)
    # A claim whose worker was killed before it had the answer is given back: then the run is pending again in between.
    seen, holders, twice, returned = collections.defaultdict(set), {}, [], 0
    for name, body in mailbox.drain():
        seen[body["status"]["taskId"]].add(name)
        run = (body["status"]["taskId"], body.get("runId"))
        if name == "task-pending":
            returned += holders.pop(run, None) is not None
        elif name == "task-running":
            if holders.setdefault(run, body["workerId"]) != body["workerId"]:
                twice.append(run)
    mailbox.delete()
    whole = {"task-defined", "task-pending", "task-running", "task-completed"}
    assert [task_id for task_id in ledger.created if not whole <= seen[task_id]] == [], "events are missing"
    assert not twice, "a run was claimed twice"
    print(
        f"{len(ledger.created)} tasks, {by_ours} of them by our worker, {sum(ledger.claims.values())} claims by scripts, "
        f"{returned} given back, {expired} expired (returned {min(late):.2f}-{max(late):.2f} s after takenUntil), kills {dict(kills)}"
    )
    assert kills["queue"] > 2 and kills["worker"] > 0 and by_ours > 0
