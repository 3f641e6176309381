# SPDX-License-Identifier: MPL-2.0
"""Each service as an operator meets it: wrong configuration, servers that are away, a port that is taken, bad input, the end.

Every failure is told in a line that says what to do, by an exit status, without a password and without partial state.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest
import taskcluster

from local_queue import free_port
from support import BINARIES, TOP, eventually, unique

DAEMONS = ["taskcluster-local", "hooks-service", "scheduler", "pulse-listener"]
# What every daemon needs a database for is told by its heartbeat; the others by name.
USES_BROKER = ["taskcluster-local", "hooks-service", "pulse-listener"]
PASSWORD = "hunter2"


def environment(running, name, **changes):
    """The environment of a service of the suite on a port of its own; None removes a variable."""
    values = running.suite.service_environment(name) | {"HTTP_PORT": str(free_port())} | changes
    return {key: value for key, value in values.items() if value is not None}


def run(name, *arguments, env):
    return subprocess.run([str(BINARIES / name), *arguments], env=env, capture_output=True, text=True, timeout=120)


class Daemon:
    """A second instance of a service, with its own port and its own log."""

    def __init__(self, name, env, log):
        self.port = int(env["HTTP_PORT"])
        self.log = log
        self.started = time.monotonic()
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(
                [str(BINARIES / name), "run"], env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    def request(self, method, path, body=None, headers={}):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or "null")
        finally:
            connection.close()

    def status(self, path):
        try:
            return self.request("GET", path)[0]
        except OSError:
            assert self.process.poll() is None, self.text()
            return None

    def metric(self, name):
        """The value of a metric without labels; None before it has one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), None)

    def wait(self, path, status, seconds=120):
        eventually(lambda: self.status(path) == status, seconds, 0.005)

    def text(self):
        return self.log.read_text()

    def stop(self, seconds=120):
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextlib.contextmanager
def daemon(name, env, tmp_path):
    instance = Daemon(name, env, tmp_path / f"{name}.log")
    try:
        yield instance
    finally:
        if instance.process.poll() is None:
            instance.process.kill()
        instance.process.wait()


class Forwarder:
    """A server that is away until it is opened: then its port leads to the real one."""

    def __init__(self, url):
        self.parts = urllib.parse.urlsplit(url)
        self.port = free_port()
        self.listener = None

    def url(self):
        user, _, _ = self.parts.netloc.rpartition("@")
        prefix = f"{user}@" if user else ""
        return self.parts._replace(netloc=f"{prefix}127.0.0.1:{self.port}").geturl()

    def open(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection((self.parts.hostname, self.parts.port))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    @staticmethod
    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        if self.listener:
            self.listener.close()


@pytest.fixture
def forwarder():
    made = []

    def make(url):
        made.append(Forwarder(url))
        return made[-1]

    yield make
    for each in made:
        each.close()


# ---------------------------------------------------------------- configuration

WRONG = {
    "DATABASE_URL": f"mysql://me:{PASSWORD}@host/x",
    "AMQP_URL": f"http://me:{PASSWORD}@host",
    "TASKCLUSTER_ROOT_URL": "tc.example.com",
    "HTTP_PORT": "eighty",
    "LOG_LEVEL": "loud",
    "KEEP_ALIVE_TIMEOUT_SECONDS": "for ever",
    "TRUST_PROXY": "perhaps",
}


@pytest.mark.parametrize("verb", ["run", "check-configuration"])
@pytest.mark.parametrize("name", DAEMONS)
def test_all_mistakes_are_told_at_once_each_by_its_variable(running, name, verb):
    wrong = {key: value for key, value in WRONG.items() if key != "AMQP_URL" or name in USES_BROKER}
    done = run(name, verb, env=environment(running, name, **wrong))
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"{name}: ") for line in lines), done.stderr
    told = {line.split()[1] for line in lines}
    assert told == set(wrong) and len(lines) == len(wrong), done.stderr
    assert PASSWORD not in done.stderr and done.stdout == ""


@pytest.mark.parametrize("name", DAEMONS)
def test_a_good_configuration_is_good(running, name):
    done = run(name, "check-configuration", env=environment(running, name))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_check_has_a_short_form(running):
    assert run("shipit-signoff", "--check-config", env=environment(running, "shipit-signoff")).returncode == 0
    done = run("shipit-signoff", "--check-config", env=environment(running, "shipit-signoff", DATABASE_URL=None))
    assert done.returncode == 1 and done.stderr.startswith("shipit-signoff: DATABASE_URL is not set"), done.stderr


@pytest.mark.parametrize("name", DAEMONS)
@pytest.mark.parametrize(
    "arguments, word",
    [
        (["run", "--port", "eighty"], "--port"),
        (["run", "--set", "nonsense"], "NAME=VALUE"),
        (["run", "--config", "/nonexistent/file"], "/nonexistent/file"),
        (["dance"], "dance"),
    ],
    ids=["port", "set", "config", "verb"],
)
def test_wrong_arguments_are_told_in_a_few_lines(running, name, arguments, word):
    done = run(name, *arguments, env=environment(running, name))
    assert done.returncode == 2, done.stderr
    assert word in done.stderr and len(done.stderr.splitlines()) <= 4, done.stderr


def test_a_file_of_settings_is_checked_line_by_line(running, tmp_path):
    path = tmp_path / "settings"
    path.write_text("# a comment\nexport LOG_LEVEL='debug'\nHTTP_PORT 80\n\nTRUST_PROXY=maybe\n")
    done = run("scheduler", "check-configuration", "--config", str(path), env=environment(running, "scheduler", LOG_LEVEL=None))
    assert done.returncode == 2
    assert [line.split(": ", 1)[1] for line in done.stderr.splitlines()] == [
        f"--config: line 3 of {path} is not NAME=VALUE",
        "TRUST_PROXY must be true or false; it is believe X-Forwarded-For and X-Forwarded-Proto",
    ]


@pytest.mark.parametrize(
    "content, word",
    [(None, "worker.json"), ("{", "worker.json"), ("{}", "work_dir needs to be defined"), ('{"poll_interval": "often"}', "poll_interval")],
    ids=["missing", "no JSON", "incomplete", "wrong type"],
)
def test_a_worker_tells_what_is_wrong_with_its_file(running, tmp_path, content, word):
    path = tmp_path / "worker.json"
    if content is not None:
        path.write_text(content)
    done = run("scriptworker", str(path), env=environment(running, "scriptworker"))
    assert done.returncode != 0 and word in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 20 and "Fatal error" not in done.stderr


# ---------------------------------------------------------------- servers that are away


@pytest.mark.parametrize("name", ["taskcluster-local", "hooks-service"])
@pytest.mark.parametrize("kind", ["away", "wrong password", "no such database"])
def test_migrating_without_a_database_says_so_and_fails(running, name, kind):
    url = urllib.parse.urlsplit(running.values["DATABASE_URL"])
    user, host = url.username, url.hostname
    changed = {
        "away": f"postgres://{user}:{PASSWORD}@{host}:{free_port()}{url.path}",
        "wrong password": f"postgres://nobody:{PASSWORD}@{host}:{url.port}{url.path}",
        "no such database": url._replace(path="/no-such-database").geturl(),
    }[kind]
    done = run(name, "migrate", env=environment(running, name, DATABASE_URL=changed))
    assert done.returncode == 1 and done.stderr == "", done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["severity"] == "CRITICAL" and "DATABASE_URL" in last["Fields"]["error"], last
    assert PASSWORD not in done.stdout
    assert len(done.stdout.splitlines()) <= 3, done.stdout


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_waits_for_its_database(running, name, forwarder, tmp_path):
    database = forwarder(running.values["DATABASE_URL"])
    with daemon(name, environment(running, name, DATABASE_URL=database.url()), tmp_path) as instance:
        instance.wait("/__lbheartbeat__", 200)
        status, body = instance.request("GET", "/__heartbeat__")
        assert status == 503 and "database" in body["failed"], body

        def told():
            return [line for line in instance.text().splitlines() if '"severity":"ERROR"' in line or "WARN" in line]

        eventually(told)
        time.sleep(1)
        complaints = told()
        # Each part of the process says once that it waits.
        assert len(complaints) <= 15, instance.text()
        assert all("DATABASE_URL" in line for line in complaints if "127.0.0.1" in line), instance.text()
        database.open()
        instance.wait("/__heartbeat__", 200)
        assert instance.stop() == 0, instance.text()
        assert urllib.parse.urlsplit(running.values["DATABASE_URL"]).password not in instance.text()


@pytest.mark.parametrize("name", USES_BROKER)
def test_a_daemon_waits_for_its_broker(running, name, forwarder, tmp_path):
    broker = forwarder(running.values["AMQP_URL"])
    with daemon(name, environment(running, name, AMQP_URL=broker.url()), tmp_path) as instance:
        instance.wait("/__lbheartbeat__", 200)

        def is_alone_away():
            status, body = instance.request("GET", "/__heartbeat__")
            return status == 503 and "broker" in body["failed"] and "database" not in body["failed"]

        eventually(is_alone_away)
        time.sleep(1)
        assert len(instance.text().splitlines()) <= 20, instance.text()
        broker.open()
        instance.wait("/__heartbeat__", 200)
        assert instance.stop() == 0, instance.text()
        assert urllib.parse.urlsplit(running.values["AMQP_URL"]).password not in instance.text()


def test_hooks_without_the_deployment_answer_500_and_go_on_when_it_is_back(running, forwarder, tmp_path):
    """A32 for whole processes: nobody can be authenticated while the auth service is away."""
    deployment = forwarder(running.root_url)
    env = environment(running, "hooks-service", TASKCLUSTER_ROOT_URL=deployment.url())
    with daemon("hooks-service", env, tmp_path) as instance:
        instance.wait("/__heartbeat__", 200)
        status, body = instance.request("GET", "/api/hooks/v1/hooks")
        assert status == 500 and body["code"] == "InternalServerError" and "incidentId" in body["message"], body
        assert instance.request("GET", "/api/hooks/v1/ping")[0] == 200
        incident = body["message"].split("incidentId ")[1].split(".")[0]
        line = json.loads(eventually(lambda: next(line for line in instance.text().splitlines() if incident in line)))
        assert line["Type"] == "monitor.error" and line["Fields"]["incidentId"] == incident
        assert str(deployment.port) in line["Fields"]["error"], "the log says who did not answer"
        deployment.open()
        eventually(lambda: instance.request("GET", "/api/hooks/v1/hooks")[0] == 200)


@pytest.mark.parametrize("name", DAEMONS)
def test_a_taken_port_is_told_and_harms_nobody(running, name, tmp_path):
    taken = running.suite.ports()[name]
    done = run(name, "run", env=environment(running, name, HTTP_PORT=str(taken)))
    assert done.returncode == 1 and done.stderr == "", done.stderr
    last = json.loads([line for line in done.stdout.splitlines() if "CRITICAL" in line][-1])
    assert last["Fields"]["error"] == (
        f"cannot listen on 127.0.0.1:{taken}: another process listens there; stop it or choose another HTTP_PORT"
    )
    assert running.suite.is_ready(name)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("service", ["hooks", "queue", "auth", "index", "secrets", "notify"])
def test_bad_requests_are_refused_and_forgotten(running, service):
    targets = {
        "hooks": ("PUT", "hooks/demo/bad-input"),
        "queue": ("PUT", "task/VdYnEtzpQs6ZdoNrVAj9Mw"),
        "auth": ("PUT", "clients/bad%2Finput"),
        "index": ("PUT", "task/bad.input"),
        "secrets": ("PUT", "secret/bad-input"),
        "notify": ("POST", "email"),
    }
    method, path = targets[service]
    target = f"/api/{service}/v1/{path}"
    port = urllib.parse.urlsplit(running.root_url).port

    def send(body, kind="application/json", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request(method, target, body, {"Content-Type": kind, **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    cases = [
        (send(b'{"a": '), 400, "MalformedPayload"),
        (send(b'"text"'), 400, "MalformedPayload"),
        (send(b"\xff\xfe"), 400, "MalformedPayload"),
        (send(b"not gzip", **{"Content-Encoding": "gzip"}), 400, "MalformedPayload"),
        (send(b'{"a": "' + b"x" * (11 << 20) + b'"}'), 413, "InputTooLarge"),
    ]
    for (status, body), wanted, code in cases:
        assert (status, body["code"]) == (wanted, code), body
    # Whether scopes or the schema come first depends on what the scopes are made of.
    status, body = send(b"{}")
    assert (status, body["code"]) in ((403, "InsufficientScopes"), (400, "InputValidationError")), body
    assert running.suite.is_ready("taskcluster-local") and running.suite.is_ready("hooks-service")


@pytest.mark.parametrize("name", DAEMONS)
def test_bytes_that_are_no_request_end_their_connection_only(running, name):
    port = running.suite.ports()[name]
    for bytes in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            answer = b""
            # Who hangs up before it has read everything resets the connection, which is an end as well.
            with contextlib.suppress(ConnectionError, OSError):
                connection.sendall(bytes)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(4096):
                    answer += piece
            assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    assert running.suite.is_ready(name)


# ---------------------------------------------------------------- beginning and end


@pytest.mark.parametrize("name", DAEMONS)
def test_the_first_answer_comes_soon(running, name, tmp_path):
    with daemon(name, environment(running, name), tmp_path) as instance:
        eventually(lambda: instance.status("/__lbheartbeat__") == 200, every=0.001)
        first = time.monotonic() - instance.started
        instance.wait("/__heartbeat__", 200)
        healthy = time.monotonic() - instance.started
        print(f"{name}: first answer {first * 1000:.0f} ms after exec, healthy after {healthy * 1000:.0f} ms")
        assert instance.stop() == 0, instance.text()


def test_a_request_in_progress_is_answered_before_the_process_ends(running, tmp_path):
    """A37 for whole processes."""
    import mohawk

    env = environment(running, "taskcluster-local", TCL_CLAIM_WORK_TIMEOUT="25s")
    with daemon("taskcluster-local", env, tmp_path) as instance:
        instance.wait("/__heartbeat__", 200)
        target = f"/api/queue/v1/claim-work/interop%2F{unique('nobody')[:30].lower()}"
        body = json.dumps({"workerGroup": "interop", "workerId": "interop"})
        credentials = running.options["credentials"]
        sender = mohawk.Sender(
            {"id": credentials["clientId"], "key": credentials["accessToken"], "algorithm": "sha256"},
            f"http://127.0.0.1:{instance.port}{target}",
            "POST",
            content=body,
            content_type="application/json",
        )
        answers = []

        def poll():
            headers = {"Content-Type": "application/json", "Authorization": sender.request_header}
            answers.append(instance.request("POST", target, body, headers))

        thread = threading.Thread(target=poll)
        thread.start()
        # The claim asks for its client and its queue first; then it waits.
        eventually(lambda: instance.metric("queue_waiting_workers") == 1)
        assert not answers, "the poll waits for work"
        assert instance.stop() == 0, instance.text()
        thread.join(120)
        assert answers == [(200, {"tasks": []})]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", instance.port))


@pytest.mark.parametrize("name", DAEMONS)
def test_two_signals_are_as_good_as_one(running, name, tmp_path):
    with daemon(name, environment(running, name), tmp_path) as instance:
        instance.wait("/__heartbeat__", 200)
        os.kill(instance.process.pid, signal.SIGINT)
        time.sleep(0.02)
        assert instance.stop() == 0, instance.text()


PROGRAMS = sorted(path.name for path in (TOP / "services").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", PROGRAMS)
def test_arguments_that_a_program_does_not_know_end_it_with_2(name, tmp_path):
    done = subprocess.run([str(BINARIES / name), "--nonsense"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ") and f"Usage: {name}" in done.stderr


@pytest.mark.parametrize(
    "arguments, status",
    [
        (["verify-cot"], 2), (["verify-cot", "--task-type", "build", "--nonsense"], 2), (["gen_ed25519_key", "--nonsense"], 2),
        # A monitoring system takes 2 for a worker in trouble, and 3 for a check that could not be made.
        (["check"], 3), (["check", "queue", "--nonsense"], 3), (["--help"], 0), (["check", "--help"], 0), (["--version"], 0),
    ],
)
def test_wrong_usage_of_scriptworker_ends_as_its_callers_expect(arguments, status, tmp_path):
    done = subprocess.run([str(BINARIES / "scriptworker"), *arguments], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert (done.stdout == "") == (status != 0)


# ---------------------------------------------------------------- settings from a Taskcluster secret

ACCESS = {"TASKCLUSTER_ROOT_URL", "TASKCLUSTER_CLIENT_ID", "TASKCLUSTER_ACCESS_TOKEN", "SCHEMAS_DIRECTORY"}


@pytest.fixture
def secret(running):
    """Puts a document of settings into the secrets service; answers what tells a daemon to read it."""
    names = []
    service = taskcluster.Secrets(running.options)

    def put(document):
        name = "project/slipway/" + unique("settings")
        service.set(name, {"secret": document, "expires": taskcluster.fromNowJSON("1 hour")})
        names.append(name)
        return {"TASKCLUSTER_SECRET": name}

    yield put
    for name in names:
        service.remove(name)


def told(running, name, **more):
    """What a daemon needs to be told itself, and what its secret says instead."""
    values = environment(running, name, **more)
    here = {key: value for key, value in values.items() if key in ACCESS | set(more) or key in os.environ}
    credentials = running.options["credentials"]
    here |= {"TASKCLUSTER_CLIENT_ID": credentials["clientId"], "TASKCLUSTER_ACCESS_TOKEN": credentials["accessToken"]}
    return here, {key: value for key, value in values.items() if key not in here}


@pytest.mark.parametrize("name", ["hooks-service", "shipit-signoff", "roller-api"])
def test_a_daemon_takes_from_a_secret_what_it_was_not_told(running, secret, tmp_path, name):
    here, kept = told(running, name)
    assert "DATABASE_URL" in kept and "HTTP_PORT" in kept
    wrong = {key: "never" for key in kept}
    named = secret({"common": wrong | {"LOG_LEVEL": "loud"}, name: kept, "somebody-else": wrong})
    with daemon(name, here | named | {"HTTP_PORT": kept["HTTP_PORT"]}, tmp_path) as started:
        started.wait("/__lbheartbeat__", 200)
        text = started.text()
        assert named["TASKCLUSTER_SECRET"] in text
        for value in (kept["DATABASE_URL"], kept["AMQP_URL"], here["TASKCLUSTER_ACCESS_TOKEN"]):
            assert value not in text


def test_what_is_wrong_in_a_secret_is_told_without_the_values(running, secret):
    here, kept = told(running, "shipit-signoff")
    named = secret({"common": kept | {"AUTH_DOMAIN": f"http://me:{PASSWORD}@host", "APP_CHANNEL": PASSWORD}})
    done = run("shipit-signoff", "check-configuration", env=here | named)
    assert done.returncode == 2 and "APP_CHANNEL must be" in done.stderr and PASSWORD not in done.stderr, done.stderr
    # What the process is told wins.
    done = run("shipit-signoff", "check-configuration", env=here | named | {"APP_CHANNEL": "local", "AUTH_DOMAIN": "http://host"})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_secret_that_cannot_be_read_ends_the_start(running, secret):
    here, kept = told(running, "shipit-signoff")
    named = secret({"common": kept})

    def reason(**changes):
        done = run("shipit-signoff", "check-configuration", env=here | named | changes)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("shipit-signoff: TASKCLUSTER_SECRET cannot be"), done.stderr
        return done.stderr

    assert "there is no secret" in reason(TASKCLUSTER_SECRET=unique("none"))
    assert "does not accept" in reason(TASKCLUSTER_ACCESS_TOKEN="wrong")
    assert "has neither a part common nor a part" in reason(**secret({"other": kept}))
