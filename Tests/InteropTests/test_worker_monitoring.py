# SPDX-License-Identifier: MPL-2.0
"""What the checks of our scriptworker tell a monitoring system, of good workers and of bad ones."""

import http.server
import json
import pathlib
import re
import signal
import threading
import time


from support import eventually
from worker_faults import answering, bench, proxy  # noqa: F401 (two fixtures)
from workers import SMALL_DISK, Bench, Proxy, size


def perfdata(output):
    """The measures behind the bar, by label."""
    line = output.splitlines()[0]
    assert re.fullmatch(r"SCRIPTWORKER [A-Z]+ (OK|WARNING|CRITICAL|UNKNOWN) - [^|]+( \| .*)?", line), line
    measures = {}
    for each in (line.split(" | ")[1] if " | " in line else "").split():
        match = re.fullmatch(r"'?([a-z_0-9]+)'?=(-?[\d.]+)([a-zA-Z%]*)((;[\d.:~@-]*){0,4})", each)
        assert match, each
        measures[match[1]] = float(match[2])
    return measures


def test_13_the_claim_check_tells_a_queue_that_fails(bench, proxy):
    with proxy.failing(answering(503)):
        # A request that was on its way before may still claim it; those that follow fail.
        bench.create()
        eventually(lambda: bench.heartbeat()["consecutiveClaimErrors"] > 0)
        eventually(lambda: bench.check("claim", "-w", "1", "-c", "1000")[0] == 1, 40, 0.5)
        status, output = bench.check("claim", "-w", "0", "-c", "1")
        assert status == 2
        assert perfdata(output)["errors"] >= 1
    eventually(lambda: bench.check("claim")[0] == 0, 40, 0.5)


def test_84_85_checks_of_a_worker_that_works_and_of_one_that_hangs(running, tmp_path):
    bench = Bench(running, tmp_path)
    with bench:
        assert bench.run()[1] == "completed"
        for name in ("process", "log", "heartbeat", "claim", "config", "host", "time"):
            status, output = bench.check(name)
            assert status == 0, output
            perfdata(output)
        assert bench.check("key")[0] == 2
        bench.signal(signal.SIGSTOP)
        try:
            eventually(lambda: bench.check("heartbeat", "-w", "1", "-c", "2")[0] == 2, 60, 0.5)
            assert bench.check("log", "-w", "1", "-c", "600")[0] == 1
            assert bench.check("process")[0] == 0
        finally:
            bench.signal(signal.SIGCONT)
    assert bench.check("process")[0] == 2


def test_84_an_idle_quiet_worker_still_writes_its_log(running, tmp_path):
    """Three of the worker's intervals, 2 s each (full size: ten minutes of the usual ones)."""
    rest = size("IDLE", 6, 600)
    interval = 2 if rest < 60 else 60
    with Bench(running, tmp_path, log_alive_interval=interval) as bench:
        log = tmp_path / "log" / "worker.log"
        eventually(lambda: bench.heartbeat()["state"] == "polling", 30)
        for _ in range(rest // interval):
            before = log.stat().st_mtime
            eventually(lambda: log.stat().st_mtime > before, 2 * interval + 60, 0.1)
        assert bench.text().count("alive state=") >= rest // interval
        assert bench.check("log")[0] == 0


class Quota(http.server.BaseHTTPRequestHandler):
    """GitHub's answer about its limits, as far as the check reads it."""

    def do_GET(self):
        token = self.headers.get("Authorization", "")
        status, limits = self.server.answers.get(token, (401, None))
        core = limits and {"limit": limits[0], "remaining": limits[1], "reset": int(time.time()) + 1800}
        body = json.dumps({"resources": {"core": core}} if core else {"message": "no"}).encode()
        self.send_response(status if self.path == "/rate_limit" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_the_quota_at_github_is_told_before_it_is_used_up(running, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quota) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.answers = {
            "": (200, (60, 2)), "token rich": (200, (5000, 4900)), "token poor": (200, (5000, 600)), "token free": (404, None),
        }
        bench = Bench(running, tmp_path, github_api_url=f"http://127.0.0.1:{server.server_address[1]}")
        told = {}
        for token in ("", "rich", "poor", "free", "revoked"):
            bench.values["github_oauth_token"] = token
            told[token] = bench.check("github")
        bench.values["github_oauth_token"] = "poor"
        assert bench.check("github", "-w", "10:", "-c", "5:")[0] == 0
        server.shutdown()
    assert {token: status for token, (status, _) in told.items()} == {"": 2, "rich": 0, "poor": 1, "free": 0, "revoked": 2}
    values = perfdata(told["poor"][1])
    assert (values["remaining"], values["limit"], values["left"]) == (600, 5000, 12)
    assert 1500 < values["reset"] <= 1800
    assert "2 of 60 requests left without a token" in told[""][1]
    assert not any(token in output for token, (_, output) in told.items() if token in ("poor", "revoked"))
    # With nobody there the check cannot be made.
    assert bench.check("github")[0] == 3


def test_86_the_length_of_the_queue_is_told(running, tmp_path):
    bench = Bench(running, tmp_path)
    tasks = [bench.create() for _ in range(60)]
    status, output = bench.check("queue", "-w", "20", "-c", "50", "--oldest")
    assert status == 2, output
    assert perfdata(output)["pending"] == 60
    assert "60 pending" in output and bench.queue_id in output
    assert bench.check("queue", "-w", "100", "-c", "200")[0] == 0
    assert bench.check("queue", "-w", "50:", "-c", "~:100")[0] == 0
    assert bench.check("queue", "-w", "@60:70", "-c", "100")[0] == 1
    for task_id in tasks:
        bench.queue.cancelTask(task_id)


def test_87_a_check_that_cannot_be_made_says_so_in_one_line(running, tmp_path):
    bench = Bench(running, tmp_path)
    cases = [bench.check("nonsense"), bench.check("log", "-w", "ten"), bench.check("log", "-w", "20:10")]
    missing = Bench(running, tmp_path / "missing")
    missing.values["work_dir"] = "..."
    cases.append(missing.check("log"))
    stalled = Proxy(running.root_url)
    stalled.fault = lambda request: time.sleep(8) or request.cut()
    slow = Bench(running, tmp_path / "slow", root_url=stalled.base)
    cases.append(slow.check("queue", "-t", "1"))
    stalled.shutdown()
    for status, output in cases:
        assert (status, len(output.splitlines())) == (3, 1), output
        perfdata(output)


def test_the_status_endpoint_says_what_the_checks_say(running, tmp_path):
    import http.client

    bench = Bench(running, tmp_path, status_listen="127.0.0.1:0", sign_chain_of_trust=False)
    with bench:
        assert bench.run()[1] == "completed"
        port = int(re.search(r"status on port (\d+)", bench.text())[1])

        def get(path):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()

        assert get("/__lbheartbeat__")[0] == 200
        assert '"version"' in get("/__version__")[2]
        # While it still reports, the rest of a short claim is too little for the checks.
        eventually(lambda: '"taskId":null' in get("/__heartbeat__")[2])
        status, _, body = get("/__heartbeat__")
        assert (status, '"tasksResolved":{"completed":1' in body) == (200, True), body
        status, headers, body = get("/check?name=log&w=300&c=360")
        assert (status, headers["X-Check-Exit"]) == (200, "0")
        perfdata(body)
        status, headers, _ = get("/check?name=log&c=@0:1000")
        assert (status, headers["X-Check-Exit"]) == (503, "2")
        assert 'scriptworker_tasks_resolved_total{state="completed"} 1' in get("/metrics")[2]
        assert get("/control")[0] == 404
        assert running.values["TASKCLUSTER_ACCESS_TOKEN"] not in get("/__heartbeat__")[2]


def test_88_a_worker_without_room_claims_nothing_until_there_is_some(running, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    bench = Bench(running, tmp_path, min_free_disk_bytes=20_000_000)
    for key, name in (("work_dir", "work"), ("artifact_dir", "artifact"), ("task_log_dir", "artifact/public/logs")):
        bench.values[key] = str(disk / name)
    (tmp_path / "script.json").write_text(json.dumps({"work_dir": str(disk / "work"), "artifact_dir": str(disk / "artifact")}))
    bench.start(prefix=[*SMALL_DISK, "64m", str(disk)])
    with bench:
        assert bench.run()[1] == "completed"
        # The disk exists for the worker alone; its process is the way there.
        filler = pathlib.Path(f"/proc/{bench.process.pid}/root{disk}/filler")
        filler.write_bytes(bytes(64_500_000))
        eventually(lambda: bench.heartbeat()["state"] == "disk_full", 60)
        inside = ["nsenter", "--preserve-credentials", f"--target={bench.process.pid}", "--user", "--mount"]
        status, output = bench.check("disk", prefix=inside)
        assert (status, perfdata(output)["work_dir"] < 10) == (2, True), output
        task_id = bench.create()
        time.sleep(3)
        assert bench.runs(task_id)[0]["state"] == "pending"
        filler.unlink()
        assert bench.result(task_id)[0] == "completed"


def test_the_summary_holds_every_check(running, tmp_path):
    bench = Bench(running, tmp_path)
    bench.values["ed25519_public_keys"] = {"scriptworker": ["A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="]}
    with bench:
        assert bench.run()[1] == "completed"
        status, output = bench.check("all")
        lines = output.splitlines()
        assert len(lines) == 10, output
        # Whatever this machine's disks say, the rest is well.
        assert {line.split()[1] for line in lines[1:] if not line.startswith("DISK")} == {"OK"}, output
