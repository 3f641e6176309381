# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker while the queue, the network or the clock misbehave, and what monitoring says meanwhile."""

import http.server
import json
import pathlib
import re
import signal
import threading
import time

import pytest

from chain import Graph
from support import eventually
from workers import SMALL_DISK, Bench, Proxy, clean_environment, size, verdict


@pytest.fixture
def proxy(running):
    proxy = Proxy(running.root_url)
    yield proxy
    proxy.shutdown()


@pytest.fixture
def bench(running, proxy, tmp_path):
    with Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1, shutdown_claim_grace=1) as bench:
        eventually(lambda: bench.heartbeat()["state"] == "polling", 30)
        yield bench


def is_claim(request):
    return "/claim-work/" in request.path


def answering(status, text=None, when=is_claim):
    return lambda request: when(request) and request.answer(status, text=text)


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


@pytest.mark.parametrize(
    "fault",
    [answering(500), answering(401), answering(403), answering(409), answering(200, b"<html>garbage"),
     answering(200, b'{"tasks": [{"nonsense": 1}]}'), lambda request: is_claim(request) and request.cut()],
)
def test_13_14_15_no_answer_of_the_queue_ends_the_worker(bench, proxy, fault):
    with proxy.failing(fault):
        seen = len(proxy.seen)
        # The request in flight may still be one from before; a task ends its patience.
        first = bench.create()
        eventually(lambda: len([path for _, path, _ in proxy.seen[seen:] if "/claim-work/" in path]) >= 1, 60)
        task_id = bench.create()
        # Whatever is wrong is told, after the client has tried a few times; a claim that makes no sense is one of these.
        eventually(lambda: "WARNING - cannot claim work" in bench.text() or "makes no sense" in bench.text(), 90)
        assert bench.process.poll() is None
    assert [bench.result(each)[0] for each in (first, task_id)] == ["completed"] * 2


def test_15_a_queue_that_refuses_connections_is_found_again(running, tmp_path):
    proxy = Proxy(running.root_url)
    with Bench(running, tmp_path, root_url=proxy.base) as bench:
        assert bench.run()[1] == "completed"
        port = proxy.down()
        eventually(lambda: bench.heartbeat()["consecutiveClaimErrors"] > 0, 90)
        task_id = bench.create()
        again = Proxy(running.root_url, port)
        assert bench.result(task_id)[0] == "completed"
    again.down()


def test_16_a_queue_that_never_answers_is_given_up_and_asked_again(running, proxy, tmp_path):
    def silent(request):
        if is_claim(request):
            time.sleep(30)
            return request.cut()
        return False

    bench = Bench(running, tmp_path, root_url=proxy.base, claim_timeout=2)
    proxy.fault = silent
    with bench:
        eventually(lambda: proxy.count("/claim-work/") >= 2, 60)
        eventually(lambda: "cannot claim work" in bench.text(), 30)
        before = bench.heartbeat()["updated"]
        eventually(lambda: bench.heartbeat()["updated"] != before, 60)
        assert bench.check("heartbeat")[0] == 0
        proxy.fault = None
        assert bench.run()[1] == "completed"


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


def test_14_new_credentials_are_taken_from_the_file(running, tmp_path):
    bench = Bench(running, tmp_path)
    good = bench.values["credentials"]
    bench.values["credentials"] = {**good, "accessToken": "wrong-" + "x" * 38}
    with bench:
        task_id = bench.create()
        eventually(lambda: bench.heartbeat()["consecutiveClaimErrors"] > 0, 30)
        eventually(lambda: bench.check("claim", "-w", "0", "-c", "1")[0] == 2, 40, 0.5)
        assert bench.process.poll() is None
        bench.values["credentials"] = good
        assert bench.path.exists()
        assert bench.result(task_id)[0] == "completed"
        assert "wrong-" not in bench.text()


def test_14_a_worker_may_be_told_to_leave_when_it_is_refused(running, tmp_path):
    bench = Bench(running, tmp_path, auth_failure_exit_after=1)
    bench.values["credentials"] = {**bench.values["credentials"], "accessToken": "wrong-" + "x" * 38}
    bench.start()
    assert bench.process.wait(120) == 4


def test_21_a_reason_that_queues_no_longer_know_becomes_a_failure(bench, proxy):
    def modern(request):
        if request.path.endswith("/exception"):
            body = request.rfile.read(int(request.headers["Content-Length"]))
            assert b"superseded" in body
            request.headers.replace_header("Content-Length", "0")
            return request.answer(400, {"code": "InputValidationError", "message": "not in the enumeration"})
        return False

    with proxy.failing(modern):
        assert bench.run("sys.exit(6)")[1] == "failed"
    assert "reporting failed instead" in bench.text()
    assert bench.run()[1] == "completed"


@pytest.mark.parametrize(
    "fault",
    [lambda request: request.answer(502), lambda request: request.cut(), lambda request: request.answer(200, text=b"<html>"),
     lambda request: request.answer(200, {"takenUntil": "soon"}), lambda request: request.answer(429)],
)
def test_36_a_claim_survives_a_queue_that_is_away_for_a_while(bench, proxy, fault):
    """Three seconds (full size: five minutes, for a queue with claims that long)."""
    away, over = size("OUTAGE", 3, 300), bench.folder / "over"
    code = bench.started + f"\nwhile not os.path.exists({str(over)!r}): time.sleep(0.1)"
    task_id = bench.create(code, maxRunTime=away + 300)
    bench.is_running(task_id)
    with proxy.failing(lambda request: "/reclaim" in request.path and fault(request)):
        time.sleep(away)
        eventually(lambda: "cannot renew the claim yet" in bench.text())
    over.touch()
    assert bench.result(task_id, away + 60)[0] == "completed"


def test_36_a_claim_survives_a_queue_that_is_restarted(running, tmp_path):
    proxy = Proxy(running.root_url)
    with Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1) as bench:
        over = tmp_path / "over"
        task_id = bench.create(bench.started + f"\nwhile not os.path.exists({str(over)!r}): time.sleep(0.1)")
        bench.is_running(task_id)
        port = proxy.down()
        eventually(lambda: "cannot renew the claim yet" in bench.text())
        again = Proxy(running.root_url, port)
        over.touch()
        assert bench.result(task_id)[0] == "completed"
    again.down()


def test_38_a_task_cancelled_while_it_is_verified_never_runs(running, tmp_path):
    graph = Graph(running, tmp_path)
    graph.make_decision()
    bench = Bench(running, tmp_path / "bench", reclaim_interval=1)
    asked = threading.Event()

    slow = Proxy(running.root_url)

    def stall(request):
        asked.set()
        time.sleep(8)
        return request.answer(503)

    slow.fault = stall
    build = graph.add("build", graph.build_queue, {"mounts": [], "maxRunTime": 60})
    sign = graph.add(
        "sign", bench.queue_id, {"maxRunTime": 60, "code": bench.started},
        [("build", build, ["public/a.zip"])],
    )
    graph.run_decision()
    graph.create(build)
    graph.run(build, {"public/a.zip": b"a"}, "generic-worker")
    configuration = graph.configuration(tmp_path / "other", bench.worker_type, "")
    for key in configuration:
        if key not in bench.values or key.startswith(("verify", "ed25519")):
            bench.values[key] = configuration[key]
    bench.values |= {"verify_chain_of_trust": True, "github_api_url": slow.base}
    with bench:
        graph.create(sign)
        assert asked.wait(90)
        bench.queue.cancelTask(sign)
        eventually(lambda: "the claim is lost" in bench.text(), 20)
        assert not (bench.folder / "started").exists()
        assert bench.process.poll() is None
    slow.shutdown()
    assert verdict(bench.runs(sign)[0]) == "canceled"
    graph.web.shutdown()


def test_39_uploads_end_when_the_run_is_over(bench, proxy):
    def conflict(request):
        return ("/artifacts/" in request.path and request.command == "POST" or "/reclaim" in request.path) and (
            request.answer(409, {"code": "RequestConflict", "message": "the run is over"})
        )

    with proxy.failing(conflict):
        task_id = bench.create("(out / 'public/a.bin').write_bytes(bytes(10))")
        eventually(lambda: "the claim is lost" in bench.text(), 30)
    eventually(lambda: bench.heartbeat()["state"] == "polling", 20)
    assert not [path for command, path, _ in proxy.seen if path.endswith(f"{task_id}/runs/0/completed")]
    bench.queue.cancelTask(task_id)
    assert bench.run()[1] == "completed"


def test_43_a_stopping_worker_does_not_wait_for_ever_for_its_storage(running, proxy, tmp_path):
    bench = Bench(running, tmp_path, root_url=proxy.base, shutdown_upload_deadline=2)

    def hang(request):
        if request.command != "PUT":
            return False
        time.sleep(300)
        return request.cut()

    with bench:
        task_id = bench.create(bench.started + "time.sleep(100)")
        bench.is_running(task_id)
        with proxy.failing(hang):
            bench.signal(signal.SIGTERM)
            assert bench.process.wait(120) == 0
    assert verdict(bench.runs(task_id)[0]) == "worker-shutdown"
    bench.queue.cancelTask(task_id)


def quick(running, proxy, folder, **changes):
    """A worker that does not wait long between attempts to move an artifact; how long it would is tested by itself."""
    return Bench(running, folder, root_url=proxy.base, transfer_retry_delay=0.05, **changes)


def test_48_an_upload_that_is_cut_begins_again_with_its_declaration(running, proxy, tmp_path):
    def declared():
        return proxy.count("big.bin", "POST")

    def cut(request):
        # The client library begins again by itself on connections that were used before, so all are cut for a while.
        is_big = request.command == "PUT" and int(request.headers.get("Content-Length", 0)) > 1_000_000
        return is_big and declared() < 3 and request.cut(100_000)

    with quick(running, proxy, tmp_path) as bench, proxy.failing(cut):
        _, state, _ = bench.run("(out / 'public/big.bin').write_bytes(os.urandom(2_000_000))", 90)
    assert (state, declared()) == ("completed", 3)


def test_49_a_storage_that_refuses_for_ever_makes_the_resource_unavailable(running, proxy, tmp_path):
    def refuse(request):
        return request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 7_777 and request.answer(500)

    with quick(running, proxy, tmp_path) as bench, proxy.failing(refuse):
        code = "(out / 'public/odd.bin').write_bytes(bytes(7777)); (out / 'public/even.bin').write_bytes(bytes(8))"
        task_id, state, _ = bench.run(code)
        assert state == "resource-unavailable"
        assert proxy.count("odd.bin", "POST") == 5
        names = {each["name"] for each in bench.queue.listArtifacts(task_id, 0)["artifacts"]}
        assert {"public/even.bin", "public/logs/live_backing.log"} <= names


@pytest.mark.parametrize(
    "fault", [lambda request: request.answer(500), lambda request: request.cut(), lambda request: request.answer(200, text=b"<html>")]
)
def test_50_a_queue_that_takes_no_artifact_lets_the_task_run_again(running, proxy, tmp_path, fault):
    def fail(request):
        return request.command == "POST" and "runs/0/artifacts" in request.path and "odd.bin" in request.path and fault(request)

    with quick(running, proxy, tmp_path) as bench, proxy.failing(fail):
        task_id = bench.create("(out / 'public/odd.bin').write_bytes(b'x')")
        assert bench.result(task_id, 120)[0] == "completed"
        assert [verdict(run) for run in bench.runs(task_id)] == ["intermittent-task", "completed"]
        # The API client repeats what it can repeat, so there are at least as many calls as attempts.
        assert proxy.count("runs/0/artifacts/public%2Fodd.bin", "POST") >= 5
        assert bench.process.poll() is None


@pytest.mark.parametrize("status", [403, 400])
def test_50_an_artifact_that_the_queue_refuses_is_not_tried_again(bench, proxy, status):
    def refuse(request):
        return request.command == "POST" and "odd.bin" in request.path and request.answer(status)

    with proxy.failing(refuse):
        task_id, state, _ = bench.run("(out / 'public/odd.bin').write_bytes(b'x')")
    assert state == "internal-error"
    assert "public/logs/live_backing.log" in bench.names(task_id)
    assert proxy.count("odd.bin", "POST") == 1


def test_51_an_upload_that_stands_still_is_ended_and_tried_again(running, proxy, tmp_path):
    stalled = []

    def stall(request):
        if request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 3_000_000 and not stalled:
            stalled.append(time.monotonic())
            time.sleep(20)
            return request.cut()
        return False

    with quick(running, proxy, tmp_path, artifact_upload_timeout=2) as bench, proxy.failing(stall):
        start = time.monotonic()
        _, state, _ = bench.run("(out / 'public/big.bin').write_bytes(os.urandom(3_000_000))", 90)
        assert (state, len(stalled)) == ("completed", 1)
        assert proxy.count("big.bin", "POST") == 2
        # The stalled attempt was not waited for to its end.
        assert time.monotonic() - start < 20 or "no answer in time" in bench.text()


def test_52_an_upload_may_take_as_long_as_its_limit_says(running, proxy, tmp_path):
    """A storage that takes six seconds (full size: 400 s, beyond every limit but the configured one)."""
    slow = size("SLOW_UPLOAD", 6, 400)

    def wait(request):
        if request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 3_000_000:
            time.sleep(slow)
        return False

    with quick(running, proxy, tmp_path, artifact_upload_timeout=1200) as bench, proxy.failing(wait):
        _, state, _ = bench.run("(out / 'public/big.bin').write_bytes(os.urandom(3_000_000))", slow + 90)
        assert (state, proxy.count("big.bin", "POST")) == ("completed", 1)


def test_what_the_storage_did_not_receive_as_sent_is_sent_again(running, proxy, tmp_path):
    lies = []

    def lie(request):
        if request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 4_444 and not lies:
            lies.append(request.path)
            return request.answer(200, headers=[("ETag", '"d41d8cd98f00b204e9800998ecf8427e"')])
        return False

    with quick(running, proxy, tmp_path) as bench, proxy.failing(lie):
        task_id, state, _ = bench.run("(out / 'public/odd.bin').write_bytes(bytes(4444))")
        assert (state, proxy.count("odd.bin", "POST")) == ("completed", 2)
        assert "holds other bytes than were sent" in bench.text()


def test_57_a_report_is_repeated_while_the_queue_stumbles(bench, proxy):
    failures = []

    def stumble(request):
        if request.path.endswith("/completed") and len(failures) < 8:
            failures.append(request.path)
            return request.answer(500)
        return False

    with proxy.failing(stumble):
        assert bench.run(seconds=90)[1] == "completed"
    assert len(failures) == 8


def test_57_a_report_whose_answer_is_garbage_is_made_sure_of(bench, proxy):
    told = []

    def garble(request):
        if request.path.endswith("/completed") and not told:
            told.append(request.path)
            return request.answer(200, text=b"<html>")
        return False

    with proxy.failing(garble):
        assert bench.run(seconds=90)[1] == "completed"
    assert proxy.count("/completed") >= 2


@pytest.mark.parametrize("status", [409, 401, 404])
def test_57_a_report_that_is_not_taken_is_told_and_over(bench, proxy, status):
    with proxy.failing(lambda request: request.path.endswith("/completed") and request.answer(status)):
        task_id = bench.create()
        eventually(lambda: "Reporting task complete" in bench.text(), 30)
        eventually(lambda: bench.heartbeat()["state"] == "polling", 30)
    bench.queue.cancelTask(task_id)
    assert bench.run()[1] == "completed"


@pytest.mark.parametrize("phase", ["claimed", "fetching", "running", "declaring", "uploading", "reporting"])
def test_a_worker_killed_in_any_phase_loses_no_task(running, tmp_path, phase):
    proxy = Proxy(running.root_url)
    bench = Bench(running, tmp_path, root_url=proxy.base, download_upstream_artifacts="always")
    reached = threading.Event()

    def is_there(request):
        return {
            "claimed": is_claim(request), "fetching": "public%2Finput" in request.path, "running": False,
            "declaring": request.command == "POST" and "/artifacts/" in request.path,
            "uploading": request.command == "PUT", "reporting": request.path.endswith("/completed"),
        }[phase]

    def hold(request):
        if reached.is_set() or not is_there(request):
            return False
        if phase == "claimed":
            # The answer arrives, and the worker is gone before it can do anything with it.
            request.forward()
        reached.set()
        time.sleep(3)
        return phase == "claimed" or request.cut()

    with bench:
        given = bench.run("(out / 'public/input').write_text('input')")[0]
        inputs = [{"taskId": given, "taskType": "build", "paths": ["public/input"]}]
        code = bench.started + ("os.environ['RUN_ID'] == '0' and time.sleep(100)" if phase == "running" else "")
        if phase != "claimed":
            proxy.fault = hold
        task_id = bench.create(code, upstreamArtifacts=inputs)
        if phase == "claimed":
            eventually(lambda: bench.runs(task_id)[0]["state"] == "running", 60, 0.001)
        elif phase == "running":
            bench.is_running(task_id)
        else:
            assert reached.wait(60)
        bench.signal(signal.SIGKILL)
        bench.process.wait()
        proxy.fault = None
        bench.process = None
        with bench.start():
            # The claim of the dead ends by time; then the task runs again, unless it was done already.
            assert bench.result(task_id, 120)[0] == "completed"
            assert bench.run()[1] == "completed"
    assert [verdict(run) for run in bench.runs(task_id)] in (["claim-expired", "completed"], ["completed"])
    proxy.down()


# Monitoring


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


def test_89_no_secret_reaches_a_log_or_an_artifact(running, tmp_path):
    with Bench(running, tmp_path, verbose=True, github_oauth_token="ghp_" + "k" * 36) as bench:
        code = (
            "held = json.loads(os.pread(int(os.environ['TASKCLUSTER_CREDENTIALS_FD']), 9999, 0))\n"
            "(out / 'private').mkdir(); (out / 'private/a.txt').write_text('a')\n"
        )
        printed = bench.run(code + "print('t=' + held['accessToken'])")[0]
        # What a script prints into its own log is its own affair; the worker's log blots it out.
        assert b"t=*" not in bench.log(printed)
        eventually(lambda: "t=********" in (tmp_path / "log" / "worker.log").read_text())
        given = bench.run(code)[0]
        texts = [bench.text(), (tmp_path / "log" / "heartbeat.json").read_text()]
        from chain import artifact

        texts += [artifact(running, given, name).decode(errors="replace") for name in bench.names(given) if name.startswith("public/")]
        for text in texts:
            for secret in (running.values["TASKCLUSTER_ACCESS_TOKEN"], "bewit=", "Signature=", "ghp_k", "access_token="):
                assert secret not in text, secret
