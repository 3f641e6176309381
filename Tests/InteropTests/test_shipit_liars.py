# SPDX-License-Identifier: MPL-2.0
"""A step service that answers questions with floods: the real process believes nothing, and does not grow."""

import http.server
import json
import pathlib
import threading

from conftest import load_suite
from support import unique
from test_shipit import call, wait
from test_shipit_replicas import Replicas

STEPS = 8


class Flood(http.server.ThreadingHTTPServer):
    """Takes every step, and answers each question about one with more than anybody wants to read, until it is told to stop."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", load_suite().free_port()), Handler)
        self.floods = True
        self.sent = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/steps"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *arguments):
        pass

    def answer(self, body, pieces=()):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if pieces:
            # No length: it ends when the connection does.
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        for piece in pieces:
            self.wfile.write(piece)
            self.server.sent += len(piece)

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(b"{}")

    def do_GET(self):
        uid = self.path.split("/")[2]
        status = json.dumps({"uid": uid, "state": "completed"}).encode()
        if not self.server.floods:
            return self.answer(status)
        blank, nested = b" " * (1 << 16), b"[" * (1 << 16)
        try:
            if uid.endswith("0"):
                # Five megabytes, and then what everybody waits for.
                self.answer(b" " * (5 << 20) + status)
            elif uid.endswith(("1", "2")):
                self.answer(b"", (nested for _ in range(1 << 14)))
            else:
                self.answer(status[:-1], (blank for _ in range(1 << 14)))
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True


def memory(pid, name):
    """A number of the kernel's about a process's memory, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} of {pid}")


def test_13_floods_are_not_believed_and_not_kept(running):
    service, names = Flood(), [f"{unique('flood')}-{number}" for number in range(STEPS)]
    with Replicas(running, service, 1) as replicas:
        pid = replicas.processes[0].pid
        url = lambda name: f"{replicas.url(0)}/{name}"
        step = lambda name: call(running, "GET", f"{url(name)}/status")[1]["info"]["steps"][0]
        before = memory(pid, "VmRSS")
        # From here on the peak is that of the floods.
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        for name in names:
            steps = [{"uid": name, "api_url": service.url, "timeout_s": 3600}]
            status, body = call(running, "PUT", url(name), {"parameters": {"steps": steps}})
            assert status == 200, body
        for name in names:
            wait(f"failures of {name}", lambda: step(name).get("poll_failures", 0) >= 2)
            assert step(name)["state"] == "running", step(name)
        grown = memory(pid, "VmHWM") - before
        # What one service may have under way, eight answers, each of them cut at a megabyte, and room for all else.
        assert grown < 96 << 20, f"{grown >> 20} MiB more"
        assert service.sent > STEPS << 20
        service.floods = False
        for name in names:
            wait(f"{name} completed", lambda: step(name)["state"] == "completed")
    service.shutdown()
