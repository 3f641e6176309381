# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker when its task or itself has to stop: cancelled, killed, terminated, drained."""

import signal
import subprocess
import time


from support import eventually
from workers import Bench, Proxy, binary, processes_with, size, verdict


def test_37_a_cancelled_task_is_stopped_and_not_reported(running, tmp_path):
    proxy = Proxy(running.root_url)
    bench = Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1)
    with bench:
        task_id = bench.create(bench.started + "time.sleep(100)")
        bench.is_running(task_id)
        bench.queue.cancelTask(task_id)
        eventually(lambda: "the claim is lost" in bench.text(), 20)
        assert bench.run()[1] == "completed"
        assert verdict(bench.runs(task_id)[0]) == "canceled"
        assert "Reporting task exception" not in bench.text()
        for report in ("completed", "failed", "exception"):
            assert proxy.count(f"{task_id}/runs/0/{report}") == 0
        assert b"the claim is lost" in bench.log(task_id)
    proxy.down()


def test_40_a_killed_worker_is_followed_by_one_that_cleans_up(running, tmp_path):
    bench = Bench(running, tmp_path)
    marker = f"orphan-{time.monotonic_ns()}"
    with bench:
        child = f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000) # {marker}']);"
        code = "os.environ['RUN_ID'] == '0' or sys.exit(0);" + child + bench.started
        task_id = bench.create(code + "(work / 'left').write_text('x'); time.sleep(1000)")
        bench.is_running(task_id)
        bench.signal(signal.SIGKILL)
        bench.process.wait()
        assert processes_with(marker)
        bench.process = None
        with bench.start():
            eventually(lambda: not processes_with(marker), 20)
            assert not (tmp_path / "work" / "left").exists()
            assert bench.run()[1] == "completed"
            # When the claim of the dead has ended, the queue lets the task run again.
            assert bench.result(task_id, 120)[0] == "completed"
        assert [verdict(run) for run in bench.runs(task_id)] == ["claim-expired", "completed"]


def test_42_a_stopped_worker_gives_its_task_back_with_what_there_is(running, tmp_path):
    bench = Bench(running, tmp_path)
    with bench:
        task_id = bench.create("(out / 'public' / 'part.txt').write_text('half');" + bench.started + "time.sleep(100)")
        bench.is_running(task_id)
        bench.signal(signal.SIGTERM)
        assert bench.process.wait(120) == 0
    runs = bench.runs(task_id)
    assert (verdict(runs[0]), runs[1]["state"]) == ("worker-shutdown", "pending")
    names = {each["name"] for each in bench.queue.listArtifacts(task_id, 0)["artifacts"]}
    assert names == {"public/part.txt", "public/logs/live_backing.log"}
    bench.queue.cancelTask(task_id)


def test_44_no_task_is_lost_to_a_worker_about_to_stop(running, tmp_path):
    """Eight workers told to stop just before there is a task (full size: a hundred)."""
    for attempt in range(size("STOPS", 8, 100)):
        bench = Bench(running, tmp_path / str(attempt), shutdown_claim_grace=2)
        with bench:
            eventually(lambda: bench.heartbeat()["state"] == "polling", 20)
            bench.signal(signal.SIGTERM)
            task_id = bench.create()
            assert bench.process.wait(120) == 0
        # Either nobody has claimed it, or it was given back at once and waits again.
        assert [verdict(run) for run in bench.runs(task_id)] in (["pending"], ["worker-shutdown", "pending"])
        bench.queue.cancelTask(task_id)


def test_45_a_drained_worker_finishes_its_task_and_goes(running, tmp_path):
    bench = Bench(running, tmp_path)
    with bench:
        task_id = bench.create(bench.started + "time.sleep(2)")
        bench.is_running(task_id)
        for _ in range(20):
            bench.signal(signal.SIGUSR1)
        assert bench.process.wait(120) == 0
        assert verdict(bench.runs(task_id)[0]) == "completed"
        assert bench.text().count("told to finish") == 1
    bench.process = None
    with bench.start():
        eventually(lambda: bench.heartbeat()["state"] == "polling", 20)
        result = subprocess.run([binary(), "drain", "--config", bench.path, "--timeout", "60"], check=False)
        assert result.returncode == 0
        assert bench.process.wait(120) == 0


def test_46_a_drained_worker_can_still_be_stopped(running, tmp_path):
    bench = Bench(running, tmp_path)
    with bench:
        task_id = bench.create(bench.started + "time.sleep(100)")
        bench.is_running(task_id)
        bench.signal(signal.SIGUSR1)
        bench.signal(signal.SIGTERM)
        assert bench.process.wait(120) == 0
    assert verdict(bench.runs(task_id)[0]) == "worker-shutdown"
    bench.queue.cancelTask(task_id)
