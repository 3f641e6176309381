# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker while the queue, the network or the clock misbehave."""

import signal
import threading
import time

import pytest

from chain import Graph
from support import eventually
from worker_faults import answering, bench, is_claim, proxy  # noqa: F401 (two fixtures)
from workers import Bench, Proxy, size, verdict


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
