# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker while the queue, the network or the clock misbehave, and what monitoring says meanwhile."""

import re
import signal
import threading
import time

import pytest

from chain import Graph
from support import eventually
from workers import Bench, Proxy, verdict


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
        # The request in flight may still be one from before.
        eventually(lambda: len([path for _, path, _ in proxy.seen[seen:] if "/claim-work/" in path]) >= 1, 60)
        task_id = bench.create()
        time.sleep(1)
        assert bench.process.poll() is None
    assert bench.result(task_id)[0] == "completed"


def test_13_the_claim_check_tells_a_queue_that_fails(bench, proxy):
    with proxy.failing(answering(503)):
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
        bench.values["credentials"] = good
        assert bench.path.exists()
        assert bench.result(task_id)[0] == "completed"
        assert "wrong-" not in bench.text()


def test_14_a_worker_may_be_told_to_leave_when_it_is_refused(running, tmp_path):
    bench = Bench(running, tmp_path, auth_failure_exit_after=1)
    bench.values["credentials"] = {**bench.values["credentials"], "accessToken": "wrong-" + "x" * 38}
    bench.start()
    assert bench.process.wait(60) == 4


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


@pytest.mark.parametrize("fault", [lambda request: request.answer(502), lambda request: request.cut()])
def test_36_a_claim_survives_a_queue_that_is_away_for_a_while(bench, proxy, fault):
    task_id = bench.create(bench.started + "time.sleep(5)")
    bench.is_running(task_id)
    with proxy.failing(lambda request: "/reclaim" in request.path and fault(request)):
        time.sleep(3)
    assert bench.result(task_id)[0] == "completed"
    assert "cannot renew the claim yet" in bench.text()


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
        assert asked.wait(30)
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
        time.sleep(30)
        return request.cut()

    with bench:
        task_id = bench.create(bench.started + "time.sleep(100)")
        bench.is_running(task_id)
        with proxy.failing(hang):
            bench.signal(signal.SIGTERM)
            assert bench.process.wait(25) == 0
    assert verdict(bench.runs(task_id)[0]) == "worker-shutdown"
    bench.queue.cancelTask(task_id)


def test_48_an_upload_that_is_cut_begins_again_with_its_declaration(bench, proxy):
    def declared():
        return [path for command, path, _ in proxy.seen if command == "POST" and "big.bin" in path]

    def cut(request):
        # The client library begins again by itself on connections that were used before, so all are cut for a while.
        is_big = request.command == "PUT" and int(request.headers.get("Content-Length", 0)) > 1_000_000
        return is_big and len(declared()) < 2 and request.cut(100_000)

    with proxy.failing(cut):
        _, state, _ = bench.run("(out / 'public/big.bin').write_bytes(os.urandom(2_000_000))", 90)
    assert (state, len(declared())) == ("completed", 2)


@pytest.mark.parametrize(("status", "expected"), [(403, "internal-error"), (400, "internal-error")])
def test_50_an_artifact_that_the_queue_refuses_is_not_tried_again(bench, proxy, status, expected):
    def refuse(request):
        return request.command == "POST" and "odd.bin" in request.path and request.answer(status)

    with proxy.failing(refuse):
        task_id, state, _ = bench.run("(out / 'public/odd.bin').write_bytes(b'x')")
    assert state == expected
    assert "public/logs/live_backing.log" in bench.names(task_id)
    assert len([path for command, path, _ in proxy.seen if command == "POST" and "odd.bin" in path]) == 1


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


@pytest.mark.parametrize("status", [409, 401, 404])
def test_57_a_report_that_is_not_taken_is_told_and_over(bench, proxy, status):
    with proxy.failing(lambda request: request.path.endswith("/completed") and request.answer(status)):
        task_id = bench.create()
        eventually(lambda: "Reporting task complete" in bench.text(), 30)
        eventually(lambda: bench.heartbeat()["state"] == "polling", 30)
    bench.queue.cancelTask(task_id)
    assert bench.run()[1] == "completed"


@pytest.mark.parametrize("state", ["claimed", "running", "finishing", "reporting"])
def test_a_worker_killed_in_any_phase_loses_no_task(running, tmp_path, state):
    proxy = Proxy(running.root_url)
    bench = Bench(running, tmp_path, root_url=proxy.base)
    reached = threading.Event()
    place = {"claimed": "/artifacts/", "running": None, "finishing": "/artifacts/", "reporting": "/completed"}[state]

    def hold(request):
        if place and place in request.path and request.command == "POST":
            reached.set()
            time.sleep(3)
            return request.cut()
        return False

    with bench:
        proxy.fault = hold
        task_id = bench.create(bench.started + ("time.sleep(30)" if state in ("running", "claimed") else ""))
        if place and state != "claimed":
            assert reached.wait(30)
        else:
            bench.is_running(task_id)
        bench.signal(signal.SIGKILL)
        bench.process.wait()
        proxy.fault = None
        # The queue still thinks it is running; the claim ends by time, which other tests wait for.
        assert verdict(bench.runs(task_id)[0]) in ("running", "completed")
        bench.queue.cancelTask(task_id)
        bench.process = None
        with bench.start():
            assert bench.run()[1] == "completed"
    proxy.shutdown()


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


def test_86_the_length_of_the_queue_is_told(running, tmp_path):
    bench = Bench(running, tmp_path)
    tasks = [bench.create() for _ in range(6)]
    status, output = bench.check("queue", "-w", "2", "-c", "5", "--oldest")
    assert status == 2, output
    assert perfdata(output)["pending"] == 6
    assert "6 pending" in output and bench.queue_id in output
    assert bench.check("queue", "-w", "10", "-c", "20")[0] == 0
    assert bench.check("queue", "-w", "5:", "-c", "~:100")[0] == 0
    assert bench.check("queue", "-w", "@6:7", "-c", "100")[0] == 1
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


def test_88_a_worker_without_room_claims_nothing(running, tmp_path):
    bench = Bench(running, tmp_path, min_free_disk_bytes=900_000_000_000_000)
    with bench:
        task_id = bench.create()
        eventually(lambda: bench.heartbeat()["state"] == "disk_full", 30)
        assert bench.runs(task_id)[0]["state"] == "pending"
    bench.queue.cancelTask(task_id)
    status, output = bench.check("disk", "-w", "100.1%:", "-c", "1%:")
    assert status == 1, output
    assert bench.check("disk", "-w", "1%:", "-c", "0.1%:")[0] in (0, 1, 2)


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


def test_89_no_secret_reaches_a_log(running, tmp_path):
    with Bench(running, tmp_path, verbose=True) as bench:
        code = "held = json.loads(os.pread(int(os.environ['TASKCLUSTER_CREDENTIALS_FD']), 9999, 0)); print('t=' + held['accessToken'])"
        bench.run(code)
        log = (tmp_path / "log" / "worker.log").read_text()
        assert "t=********" in log
        assert running.values["TASKCLUSTER_ACCESS_TOKEN"] not in bench.text()
        assert "bewit=" not in bench.text()
