# SPDX-License-Identifier: MPL-2.0
"""Replicas of the pipelines' service that die at random, over step services that are down, slow, lying or talking nonsense."""

import http.server
import json
import os
import random
import signal
import subprocess
import threading
import time
import urllib.request

import pytest

from conftest import load_suite
from support import BINARIES, unique
from test_shipit import call, slipway, token, wait

SECONDS = float(os.environ.get("SHIPIT_CHAOS_SECONDS", "4"))
PIPELINES = int(os.environ.get("SHIPIT_CHAOS_PIPELINES", "5"))


class Service(http.server.ThreadingHTTPServer):
    """A step service that counts what it begins, and behaves badly meanwhile."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", load_suite().free_port()), Handler)
        self.lock = threading.Lock()
        self.random = random.Random(7)
        self.steps = {}
        self.repeated = 0
        self.differing = []
        self.bad = True
        self.down_until = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/steps"

    def mood(self):
        """How this call is answered: mostly well."""
        with self.lock:
            if not self.bad:
                return "good"
            now = time.monotonic()
            if now < self.down_until:
                return "down"
            mood = self.random.choices(["good", "down", "slow", "garbage", "lost"], [80, 3, 5, 6, 6])[0]
            if mood == "down":
                self.down_until = now + 0.7
            return mood

    def begin(self, uid, body):
        with self.lock:
            known = self.steps.get(uid)
            if known is None:
                self.steps[uid] = {"body": body, "polls": 0}
                return 200
            if known["body"] == body:
                self.repeated += 1
                return 200
            self.differing.append(uid)
            return 409

    def status(self, uid, lies):
        with self.lock:
            step = self.steps.get(uid)
            if step is None:
                return 404, {"detail": "unknown"}
            step["polls"] += 1
            state = "running"
            if step["polls"] > 2:
                # Each pipeline's `b` fails the first time.
                state = "failed" if uid.endswith(".b") else "completed"
            status = {"uid": uid, "state": state, "output": {"polls": 3}}
            if lies == "garbage":
                status = self.random.choice(
                    [
                        status | {"uid": "another"},
                        status | {"state": "splendid"},
                        {"uid": uid, "state": "completed", "status": "failure"},
                        {},
                        [],
                        "text",
                    ]
                )
            return 200, status


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *arguments):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_PUT(self):
        mood = self.server.mood()
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if mood == "down":
            return self.answer(503, {"detail": "down"})
        if mood == "slow":
            time.sleep(1.5)
        status = self.server.begin(self.path.split("/")[2], body)
        if mood == "lost":
            # It has begun, and whoever asked never hears of it.
            self.close_connection = True
            return None
        return self.answer(status, {})

    def do_GET(self):
        mood = self.server.mood()
        if mood == "down":
            return self.answer(503, {"detail": "down"})
        if mood == "slow":
            time.sleep(1.5)
        if mood == "lost":
            self.close_connection = True
            return None
        uid, last = self.path.split("/")[2:4]
        if last == "definition":
            with self.server.lock:
                return self.answer(200, self.server.steps[uid]["body"])
        return self.answer(*self.server.status(uid, mood))


class Replicas:
    """The suite's own process and others beside it."""

    def __init__(self, running, service, count):
        self.running, self.count = running, count
        allowed = {"SHIPIT_STEP_SERVICES": service.url, "SHIPIT_LEASE_S": "2", "SHIPIT_TICK_S": "500ms"}
        self.environment = running.suite.service_environment("shipit-pipeline") | allowed
        self.ports = [load_suite().free_port() for _ in range(count)]
        self.processes = [None] * count

    def start(self, number):
        port = self.ports[number]
        environment = self.environment | {"HTTP_PORT": str(port), "SHIPIT_BASE_URL": f"http://127.0.0.1:{port}"}
        log = open(self.running.suite.logs / f"shipit-pipeline-{number}.log", "ab")
        self.processes[number] = subprocess.Popen(
            [str(BINARIES / "shipit-pipeline")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def kill(self, number):
        self.processes[number].kill()
        self.processes[number].wait()

    def sleep(self, number, seconds):
        """Stops a replica for longer than its leases last; then it goes on as if nothing had happened."""
        self.processes[number].send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self.processes[number].send_signal(signal.SIGCONT)

    def url(self, number):
        return f"http://127.0.0.1:{self.ports[number]}"

    def is_up(self, number):
        try:
            return call(self.running, "GET", f"{self.url(number)}/?limit=1")[0] == 200
        except OSError:
            return False

    def __enter__(self):
        # The suite's own process would be one more that never dies.
        self.running.suite.stop("shipit-pipeline", signal.SIGKILL)
        for number in range(self.count):
            self.start(number)
        for number in range(self.count):
            wait(f"replica {number}", lambda: self.is_up(number))
        return self

    def __exit__(self, *exception):
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self.running.suite.start_services()


def definition(service, uid):
    step = lambda name, *requires, **more: {
        "uid": name, "api_url": service.url, "requires": list(requires), "parameters": {"of": uid},
    } | more
    retries = {"limit": 2, "backoff_s": 1, "on": ["failed", "exception"]}
    return {
        "namespace_steps": True,
        "parameters": {
            "steps": [
                step("a"),
                step("b", "a", retries=retries),
                step("c", "a", parameters={"polls": "${steps.a.output.polls}"}),
                step("d", "b", "c"),
            ]
        },
    }


@pytest.mark.parametrize("count", [2, 5])
def test_replicas_that_die_start_each_step_once(running, count):
    """18, 19 and 20: whatever dies and whoever lies, each attempt of each step is begun once, and nothing is left behind."""
    service, dice, kills, naps = Service(), random.Random(11), 0, 0
    names = [unique(f"chaos{count}") for _ in range(PIPELINES)]
    with Replicas(running, service, count) as replicas:
        begun = time.monotonic()
        end = begun + SECONDS
        left = list(names)
        # However slow the machine, something dies.
        while left or not kills or time.monotonic() < end:
            if left:
                # Spread over the whole time, so that there is always something to lose.
                due = PIPELINES * min(1, (time.monotonic() - begun) / (SECONDS * 0.8))
                while left and PIPELINES - len(left) <= due:
                    name, number = left[-1], dice.randrange(count)
                    try:
                        url = f"{replicas.url(number)}/{name}"
                        status, body = call(running, "PUT", url, definition(service, name))
                    except OSError:
                        status = 503
                    if status >= 500:
                        assert time.monotonic() < end + 300, f"no replica takes {name}: {status}"
                        time.sleep(0.05)
                        continue
                    assert status == 200, body
                    left.pop()
            victim = dice.randrange(count)
            if replicas.is_up(victim) and (time.monotonic() < end or not kills):
                if dice.random() < 0.25:
                    replicas.sleep(victim, 3)
                    naps += 1
                else:
                    replicas.kill(victim)
                    kills += 1
                    replicas.start(victim)
            time.sleep(dice.uniform(0.1, 0.9))
        with service.lock:
            service.bad = False
        for number in range(count):
            wait(f"replica {number}", lambda: replicas.is_up(number))
        for name in names:
            url = f"{replicas.url(0)}/{name}/status"
            wait(f"{name} completed", lambda: call(running, "GET", url)[1].get("state") == "completed", 300)
        service.shutdown()
        expected = {f"{name}.{step}" for name in names for step in ("a", "b", "b.r2", "c", "d")}
        assert set(service.steps) == expected
        assert service.differing == []
        assert kills > 0
        for name in names:
            status, answer = call(running, "GET", f"{replicas.url(0)}/{name}/events?verify=true")
            assert (status, answer) == (200, {"verified": True, "broken_at": None})
    print(f"{count} replicas: {kills} kills, {naps} naps, {len(expected)} steps begun once, {service.repeated} repetitions had no effect")


def waiting_release(running, name):
    """A pipeline that waits for one person, and is followed by another step."""
    policy = {"method": "local", "definition": [{"releng": 1}]}
    approve = {"uid": "approve", "api_url": running.values["SHIPIT_SIGNOFF_URL"], "parameters": {"policy": policy}}
    publish = {
        "uid": "publish",
        "api_url": running.values["SHIPIT_PIPELINE_URL"],
        "requires": ["approve"],
        "parameters": {"parameters": {"steps": []}},
    }
    body = {"namespace_steps": True, "parameters": {"steps": [approve, publish]}}
    status, answer = call(running, "PUT", f"{running.values['SHIPIT_PIPELINE_URL']}/{name}", body)
    assert status == 200, answer


def approve(running, name):
    url = f"{running.values['SHIPIT_SIGNOFF_URL']}/{name}.approve"
    wait("the sign-off", lambda: call(running, "GET", f"{url}/status")[1].get("state") == "running")
    status, answer = call(running, "PUT", f"{url}/sign", {"group": "releng"}, token=token(running, "releng1"))
    assert status == 200, answer


def is_completed(running, name):
    return call(running, "GET", f"{running.values['SHIPIT_PIPELINE_URL']}/{name}/status")[1].get("state") == "completed"


def test_a_database_that_restarts_loses_no_pipeline(running):
    """21: the processes stay, and what waited goes on; meanwhile whoever asks is told to come back."""
    name = unique("restart")
    waiting_release(running, name)
    pids = [running.suite.pid(f"shipit-{service}") for service in ("pipeline", "signoff")]
    person, codes, over = token(running, "releng1"), set(), threading.Event()
    calls = [
        ("GET", f"{running.values['SHIPIT_PIPELINE_URL']}/{name}/status", None, None),
        ("PUT", f"{running.values['SHIPIT_PIPELINE_URL']}/{unique('late')}", {"parameters": {"steps": []}}, None),
        ("PUT", f"{running.values['SHIPIT_SIGNOFF_URL']}/{unique('late')}/sign", {"group": "releng"}, person),
    ]

    def ask():
        while not over.is_set():
            try:
                codes.add(call(running, *calls[0])[0])
            except OSError:
                codes.add("closed")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        running.suite.run_servers("stop-postgres", "immediate")
        for method, url, body, who in calls:
            status, answer = call(running, method, url, body, token=who)
            assert status == 503 and answer["code"] and "detail" in answer, (url, answer)
        running.suite.run_servers("start-postgres")
    finally:
        over.set()
        asking.join()
    assert codes <= {200, 503}, codes
    wait("the database", lambda: call(running, "GET", f"{running.values['SHIPIT_PIPELINE_URL']}/{name}/status")[0] == 200)
    approve(running, name)
    wait("the end", lambda: is_completed(running, name), 240)
    assert [running.suite.pid(f"shipit-{service}") for service in ("pipeline", "signoff")] == pids


def test_without_a_bus_pipelines_go_on_and_their_messages_come_later(running):
    """22: pipelines ask for themselves, and what was to be told waits for the broker."""
    name = unique("busless")
    depth = lambda: next(
        float(line.split()[-1])
        for line in urllib.request.urlopen(f"{running.values['SHIPIT_PIPELINE_URL']}/metrics", timeout=60).read().decode().splitlines()
        if line.startswith("outbox_depth")
    )
    running.suite.run_servers("stop-rabbitmq")
    try:
        waiting_release(running, name)
        approve(running, name)
        wait("the end", lambda: is_completed(running, name), 240)
    finally:
        running.suite.run_servers("start-rabbitmq")
    wait("the messages", lambda: depth() == 0, 240)


def test_a_token_in_an_address_is_refused_and_not_written_down(running):
    """56: whoever puts a token into an address is told so, and no log shows it."""
    secret = unique("secrettoken")
    for service in ("PIPELINE", "SIGNOFF"):
        for path in ("/x/status", "/"):
            url = f"{running.values[f'SHIPIT_{service}_URL']}{path}?access_token={secret}"
            status, body = call(running, "GET", url)
            assert status == 400, body
            assert secret not in json.dumps(body)
    for log in running.suite.logs.glob("shipit-*.log"):
        assert secret not in log.read_text(errors="replace"), log


def test_the_command_line_follows_what_replicas_do(running):
    name = unique("templated")
    template = {
        "version": "1",
        "schema": {"type": "object", "required": ["what"]},
        "definition": {
            "dry_run": True,
            "description": "${parameters.what}",
            "parameters": {"steps": [{"uid": "a", "api_url": running.values["SHIPIT_SIGNOFF_URL"], "manual": True}]},
        },
    }
    kind = unique("kind")
    slipway(running, "pipeline", "template", "save", kind, "-", stdin=json.dumps(template))
    assert kind in slipway(running, "pipeline", "template", "list")
    slipway(running, "pipeline", "create", "--template", kind, "--uid", name, "--parameter", "what=a test")
    assert "manual" in slipway(running, "pipeline", "explain", name)
    slipway(running, "pipeline", "start", name, "a")
    assert f"{name}  completed" in slipway(running, "pipeline", "watch", name)
