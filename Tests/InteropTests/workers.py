# SPDX-License-Identifier: MPL-2.0
"""Workers of both kinds with a script that does what the task says, and a queue that misbehaves on demand."""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest
import taskcluster

from conftest import load_suite
from support import eventually, task, unique, wait_resolved

# The payload's code runs with the script's own configuration and task at hand.
SCRIPT = """
import json, os, pathlib, signal, subprocess, sys, time
config = json.load(open(sys.argv[1]))
work, out = pathlib.Path(config["work_dir"]), pathlib.Path(config["artifact_dir"])
task = json.load(open(work / "task.json"))
exec(task["payload"].get("code", ""))
"""


def binary():
    return load_suite().BINARIES / "scriptworker"


def size(name, usual, full):
    """How big a check is made: `usual` by default, `full` with SLIPWAY_TEST_FULL, or what SLIPWAY_TEST_<name> says."""
    return int(os.environ.get(f"SLIPWAY_TEST_{name}", full if os.environ.get("SLIPWAY_TEST_FULL") else usual))


class Alone:
    """A queue process of a test's own, in the form in which the suite's is known."""

    def __init__(self, process):
        self.process = process
        self.root_url = process.own_url
        credentials = process.options()["credentials"]
        self.values = {
            "TASKCLUSTER_ROOT_URL": self.root_url,
            "TASKCLUSTER_CLIENT_ID": credentials["clientId"],
            "TASKCLUSTER_ACCESS_TOKEN": credentials["accessToken"],
        }

    @property
    def options(self):
        return self.process.options()

    def queue(self):
        return self.process.queue


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on to the queue, unless a fault is set for them.

    A fault is called with the handler and says True when it has dealt with the request.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root_url, port=None):
        # Not one that the kernel chooses: it could lend that to somebody else while this proxy is down.
        super().__init__(("127.0.0.1", port or load_suite().free_port()), ProxyHandler)
        self.lock = threading.Lock()
        self.puts = self.most_puts = 0
        self.edit = None
        self.connections = set()
        self.upstream = urllib.parse.urlsplit(root_url).netloc
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault = None
        self.seen = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def down(self):
        """Refuses connections from now on; the port can be taken up again."""
        self.shutdown()
        self.server_close()
        # Connections that were kept open would be served on.
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return self.server_address[1]

    def count(self, part, method=None):
        """How many requests held a text in their path."""
        return len([path for command, path, _ in self.seen if part in path and method in (None, command)])

    @contextlib.contextmanager
    def failing(self, fault):
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self):
        self.server.connections.discard(self.connection)
        super().finish()

    def handle_one(self):
        server = self.server
        server.seen.append((self.command, self.path, time.monotonic()))
        is_put = self.command == "PUT" and not self.path.startswith("/api/")
        with server.lock:
            server.puts += is_put
            server.most_puts = max(server.most_puts, server.puts)
        try:
            fault = server.fault
            if fault is None or not fault(self):
                self.forward()
        finally:
            with server.lock:
                server.puts -= is_put

    def forward(self):
        server = self.server
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        # Storage addresses lead back here, so that uploads and downloads can fail as well.
        is_storage = not self.path.startswith("/api/")
        headers = dict(self.headers.items())
        if is_storage:
            headers["Host"] = server.upstream
        connection = http.client.HTTPConnection(server.upstream, timeout=120)
        try:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            if self.command == "POST" and b'"putUrl"' in content:
                content = content.replace(f"http://{server.upstream}".encode(), server.base.encode())
            if server.edit is not None:
                content = server.edit(self, response, content)
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() == "location":
                    value = value.replace(f"http://{server.upstream}", server.base)
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            if response.status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:
            self.close_connection = True
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_one

    def answer(self, status, value=None, text=None, headers=()):
        length = int(self.headers.get("Content-Length", 0))
        if length:
            self.rfile.read(length)
        body = text if text is not None else json.dumps(value or {"code": "Fault", "message": "injected"}).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        return True

    def send_some(self, status, headers, body):
        """Answers with less than the headers announce, and breaks the connection off."""
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        time.sleep(0.2)
        return self.cut()

    def cut(self, after=0):
        """Reads some of the request and breaks the connection off."""
        if after:
            self.rfile.read(min(after, int(self.headers.get("Content-Length", 0))))
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()
        return True

    def log_message(self, *arguments):
        pass


class Bench:
    """One worker of ours with a queue of its own, and what tests want to know about it."""

    def __init__(self, running, folder, root_url=None, **changes):
        self.running = running
        self.folder = pathlib.Path(folder)
        self.queue = running.queue()
        self.worker_type = unique("bench").lower()
        self.queue_id = f"slipway/{self.worker_type}"
        for name in ("work", "artifact", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "script.py").write_text(SCRIPT)
        (self.folder / "script.json").write_text(
            json.dumps({"work_dir": str(self.folder / "work"), "artifact_dir": str(self.folder / "artifact")})
        )
        (self.folder / "key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        (self.folder / "key").chmod(0o600)
        self.values = {
            "taskcluster_root_url": root_url or running.root_url,
            "provisioner_id": "slipway",
            "worker_type": self.worker_type,
            "worker_group": "interop",
            "worker_id": self.worker_type,
            "credentials": {
                "clientId": running.values["TASKCLUSTER_CLIENT_ID"],
                "accessToken": running.values["TASKCLUSTER_ACCESS_TOKEN"],
            },
            "task_script": [sys.executable, str(self.folder / "script.py"), str(self.folder / "script.json")],
            "work_dir": str(self.folder / "work"),
            "artifact_dir": str(self.folder / "artifact"),
            "task_log_dir": str(self.folder / "artifact" / "public" / "logs"),
            "log_dir": str(self.folder / "log"),
            "ed25519_private_key_path": str(self.folder / "key"),
            "sign_chain_of_trust": True,
            "poll_interval": 1,
            "verbose": False,
            "shutdown_claim_grace": 0.5,
            **changes,
        }
        self.process = None

    @property
    def path(self):
        path = self.folder / "worker.json"
        text = json.dumps(self.values)
        # A file that is written again looks changed to the checks.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return path

    def start(self, program=None, environment=None, prefix=()):
        if program is not None:
            # The Python worker refuses keys that it does not know.
            self.values.pop("shutdown_claim_grace", None)
        path = self.path
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(
                [*prefix, str(program or binary()), str(path)], stdout=output, stderr=output, cwd=self.folder,
                env=environment if environment is not None else clean_environment(),
            )
        return self

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(120) == 0, self.text()[-3000:]

    def text(self):
        log = self.folder / "log" / "worker.log"
        return (self.folder / "output").read_text(errors="replace") + (
            log.read_text(errors="replace") if log.exists() else ""
        )

    def heartbeat(self):
        return json.loads((self.folder / "log" / "heartbeat.json").read_text())

    def create(self, code="", **payload):
        task_id = taskcluster.slugId()
        payload = {"maxRunTime": 60, "code": code, **payload}
        self.queue.createTask(task_id, task("bench", self.queue_id, payload))
        return task_id

    def run(self, code="", seconds=60, **payload):
        """Runs a task to its end: its state or reason, and its log."""
        task_id = self.create(code, **payload)
        return task_id, *self.result(task_id, seconds)

    def result(self, task_id, seconds=60):
        status = wait_resolved(self.queue, task_id, seconds)
        run = status["runs"][-1]
        return verdict(run), self.log(task_id)

    def log(self, task_id):
        from chain import artifact

        return artifact(self.running, task_id, "public/logs/live_backing.log")

    def names(self, task_id):
        return {each["name"] for each in self.queue.listLatestArtifacts(task_id)["artifacts"]}

    def runs(self, task_id):
        return self.queue.status(task_id)["status"]["runs"]

    def is_running(self, task_id, path="started"):
        """Waits until the script of a task has made a file."""
        eventually(lambda: (self.folder / path).exists(), 60)
        (self.folder / path).unlink()

    @property
    def started(self):
        return f"open({str(self.folder / 'started')!r}, 'w').close();"

    def memory(self, what="VmHWM"):
        """Kilobytes of the worker's memory."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(what + ":")).split()[1])

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def check(self, name, *arguments, environment=None, prefix=()):
        result = subprocess.run(
            [*prefix, binary(), "check", name, "--config", self.path, *arguments],
            capture_output=True, text=True, check=False, env=environment or clean_environment(), timeout=120,
        )
        return result.returncode, result.stdout

    def signal(self, number):
        self.process.send_signal(number)


def verdict(run):
    return run["reasonResolved"] if run["state"] == "exception" else run["state"]


def clean_environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("TASKCLUSTER_")}


def processes_with(marker):
    """Processes whose command line holds a text."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


# A filesystem of its own for a worker, which can be filled without harm: unshare … sh -c SMALL_DISK size folder worker …
SMALL_DISK = [
    "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
    'mount -t tmpfs -o size="$1",mode=755 tmpfs "$2" && shift 2 && exec "$@"', "sh",
]


@pytest.fixture(scope="module")
def bench(running, tmp_path_factory):
    bench = Bench(running, tmp_path_factory.mktemp("bench"), pipe_drain_timeout=1, task_log_max_bytes=20_000_000)
    with bench:
        yield bench


def check_configuration(bench):
    result = subprocess.run(
        [binary(), "check-configuration", bench.path], capture_output=True, text=True, check=False,
        env=clean_environment(),
    )
    return result.returncode, result.stdout + result.stderr
