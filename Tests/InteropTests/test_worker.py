# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker against our queue: what scripts may do to it, and what it makes of that."""

import json
import subprocess
import sys
import time

import pytest

from support import wait_resolved
from workers import Bench, Proxy, bench, binary, check_configuration, clean_environment, processes_with, size, verdict  # noqa: F401 (a fixture)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, "completed"), (1, "failed"), (3, "malformed-payload"), (4, "resource-unavailable"), (5, "internal-error"),
        (8, "failed"), (42, "failed"), (255, "failed"),
    ],
)
def test_19_exit_codes_become_resolutions(bench, code, expected):
    task_id, state, log = bench.run(f"sys.exit({code})")
    assert (state, log.splitlines()[-1]) == (expected, f"exit code: {code}".encode())


@pytest.mark.parametrize(("code", "expected"), [(2, "worker-shutdown"), (7, "intermittent-task"), (241, "intermittent-task"), (245, "intermittent-task")])
def test_19_exit_codes_that_mean_another_attempt(bench, code, expected):
    """The queue answers these with another run, which the script lets succeed."""
    task_id = bench.create(f"sys.exit(0 if os.environ['RUN_ID'] != '0' else {code})")
    assert wait_resolved(bench.queue, task_id)["state"] == "completed"
    assert [verdict(run) for run in bench.runs(task_id)] == [expected, "completed"]


def test_20_a_short_script_is_resolved_at_once(bench):
    start = time.monotonic()
    assert bench.run("time.sleep(1)", maxRunTime=1200)[1] == "completed"
    # Far below the limit of 1200 s, however slow the machine.
    assert time.monotonic() - start < 60


def test_22_a_crash_is_told_as_log_parsers_expect(bench):
    _, state, log = bench.run("os.kill(os.getpid(), signal.SIGSEGV)")
    assert (state, log.splitlines()[-1]) == ("failed", b"Automation Error: python exited with signal -11")


def test_23_a_task_may_shorten_its_own_limit(bench):
    task_id, state, log = bench.run("print('on', flush=True); time.sleep(100)", maxRunTime=2)
    assert state == "failed"
    assert b"Exceeded max run time of 2 seconds" in log
    assert "public/chain-of-trust.json" not in bench.names(task_id)


def test_24_a_script_that_ignores_the_request_to_end_is_killed(bench):
    marker = f"deaf-{time.monotonic_ns()}"
    code = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000) # {marker}'
subprocess.Popen([sys.executable, '-c', child])
while True:
    time.sleep(1)
"""
    _, state, log = bench.run(code, maxRunTime=3)
    assert (state, log.splitlines()[-1]) == ("failed", b"Automation Error: python exited with signal -9")
    assert processes_with(marker) == []


@pytest.mark.parametrize(("tail", "limit", "expected"), [("", 60, "completed"), ("time.sleep(100)", 2, "failed")])
def test_25_nothing_a_script_started_outlives_it(bench, tail, limit, expected):
    marker = f"daemon-{time.monotonic_ns()}"
    daemon = f"import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000) # {marker}"
    code = f"subprocess.Popen([sys.executable, '-c', {daemon!r}], start_new_session=True); time.sleep(0.5); {tail}"
    _, state, log = bench.run(code, maxRunTime=limit)
    assert state == expected
    assert processes_with(marker) == []


def test_26_closing_the_output_stops_no_clock(bench):
    code = "sys.stdout.flush(); os.close(1); os.close(2); time.sleep(100)"
    assert bench.run(code, maxRunTime=2)[1] == "failed"


def test_27_a_flood_is_cut_and_bothers_nobody(running, tmp_path):
    """A gigabyte printed into a log of 20 MB (full size: 5 GB), while the claim is renewed."""
    megabytes = size("FLOOD_MB", 1000, 5000)
    proxy = Proxy(running.root_url)
    with Bench(running, tmp_path, root_url=proxy.base, task_log_max_bytes=20_000_000, reclaim_interval=1) as bench:
        assert bench.run()[1] == "completed"
        before = bench.memory("VmRSS")
        code = f"line = b'x' * 86 + b'\\n'\nfor _ in range({megabytes} * 11): os.write(1, line * 1045)\ntime.sleep(3)"
        task_id, state, log = bench.run(code, 600, maxRunTime=500)
        assert state == "completed"
        assert 20_000_000 <= len(log) < 20_001_000
        assert b"limit of 20000000 bytes" in log[-1000:]
        assert bench.memory() - before < 35_000, "kB more than at rest"
        assert proxy.count(f"{task_id}/runs/0/reclaim") >= 2
    proxy.down()


def test_28_the_log_is_byte_for_byte_what_was_printed(running, tmp_path):
    """One line of 18 MB (full size: 200 MB), bytes that are no text, and no end."""
    count = size("LINE_MB", 18, 200) * 1_000_000
    code = (
        "os.write(1, b'\\xff\\xfe')\n"
        f"for _ in range({count} // 100_000): sys.stdout.buffer.write(b'y' * 100_000)\n"
        "sys.stdout.buffer.write(b'no end'); sys.stdout.flush()"
    )
    with Bench(running, tmp_path) as bench:
        _, state, log = bench.run(code, 180)
    assert state == "completed"
    assert log == b"\xff\xfe" + b"y" * count + b"no end\nexit code: 0\n"


@pytest.mark.parametrize("code", [
    "import shutil; shutil.rmtree(out)",
    "import shutil; shutil.rmtree(out); out.symlink_to('/etc')",
])
def test_30_a_script_that_takes_the_artifacts_away_gains_nothing(bench, code):
    task_id, state, log = bench.run(code)
    assert state == "internal-error"
    assert b"artifact directory" in log
    assert not [name for name in bench.names(task_id) if "passwd" in name]
    assert bench.run()[1] == "completed"


def test_31_a_program_that_has_gone_is_an_internal_error(running, tmp_path):
    bench = Bench(running, tmp_path)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    bench.values["task_script"] = [str(program)]
    assert check_configuration(bench)[0] == 1
    program.chmod(0o755)
    with bench:
        assert bench.run()[1] == "completed"
        program.unlink()
        _, state, log = bench.run()
        assert (state, b"cannot start" in log) == ("internal-error", True)


def test_32_a_script_gets_its_tasks_credentials_and_no_others(bench):
    code = """
fd = int(os.environ['TASKCLUSTER_CREDENTIALS_FD'])
held = json.loads(os.pread(fd, 100000, 0))
try:
    os.pwrite(fd, b'x', 0)
    print('writable')
except OSError:
    print('read only')
print(sorted(held), os.environ['RUN_ID'], os.environ['TASK_ID'] == held['clientId'].split('/')[1])
print([k for k, v in os.environ.items() if v == %r])
""" % bench.running.values["TASKCLUSTER_ACCESS_TOKEN"]
    task_id, state, log = bench.run(code)
    lines = log.decode().splitlines()
    assert state == "completed"
    assert lines[0] == "read only"
    assert lines[1].startswith("['accessToken', 'certificate', 'clientId'] 0")
    assert lines[2] == "[]"


@pytest.mark.parametrize(
    "payload",
    [
        {"maxRunTime": "600"}, {"maxRunTime": 0},
        {"upstreamArtifacts": [{"taskId": "../../x", "taskType": "build", "paths": ["public/a"]}]},
        {"upstreamArtifacts": [{"taskId": "AAAAAAAAR4CAAAAAAAAAAA", "taskType": "build", "paths": ["public/../x"]}]},
        {"upstreamArtifacts": [{"taskId": "AAAAAAAAR4CAAAAAAAAAAA", "taskType": "build", "paths": ["/etc/passwd"]}]},
        {"upstreamArtifacts": [{"taskId": "AAAAAAAAR4CAAAAAAAAAAA", "taskType": "build", "paths": ["public/*"]}]},
    ],
)
def test_34_a_payload_that_reaches_out_is_malformed(bench, payload):
    task_id, state, log = bench.run("print('never')", **payload)
    assert state == "malformed-payload"
    assert b"malformed-payload:" in log and b"never" not in log


def test_a_sandboxed_script_has_its_own_temporary_files_and_limits(running, tmp_path):
    from conftest import TOP

    folder = TOP / ".local" / f"sandbox-{time.monotonic_ns()}"
    # The script itself must lie outside of what it gets anew.
    bench = Bench(running, folder, sandbox=True, script_limits={"file_bytes": 1_000_000, "open_files": 64})
    (tmp_path / "secret").write_text("secret")
    code = f"""
print(os.path.exists({str(tmp_path / 'secret')!r}), os.listdir('/tmp'))
open('/tmp/mine', 'w').close()
print([line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    (out / 'public/big').write_bytes(bytes(2_000_000))
except OSError as error:
    print(error.strerror)
(out / 'public/big').unlink()
import resource
print(resource.getrlimit(resource.RLIMIT_NOFILE), json.loads(os.pread(int(os.environ['TASKCLUSTER_CREDENTIALS_FD']), 9999, 0))['clientId'] != '')
"""
    try:
        with bench:
            for _ in range(2):
                _, state, log = bench.run(code)
                lines = log.decode().splitlines()
                assert state == "completed", log
                assert lines[:4] == ["False []", "['1']", "File too large", "(64, 64) True"]
    finally:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def test_a_script_can_be_tried_out_without_a_queue(running, tmp_path):
    bench = Bench(running, tmp_path)
    (tmp_path / "script.json").write_text(json.dumps({"work_dir": bench.values["work_dir"], "artifact_dir": "/elsewhere"}))
    definition = {
        "payload": {"maxRunTime": 10, "code": "print(os.environ['TASK_ID']); sys.exit(3)"}, "scopes": [], "dependencies": [],
        "taskGroupId": "AAAAAAAAR4CAAAAAAAAAAA", "workerType": "x",
    }
    (tmp_path / "task.json").write_text(json.dumps(definition))
    result = subprocess.run(
        [binary(), "run-local", bench.path, tmp_path / "task.json"], capture_output=True, text=True, check=False,
        env=clean_environment() | {"TASK_ID": "AAAAAAAAR4CAAAAAAAAAAA"},
    )
    assert result.returncode == 3, result.stderr
    assert "/elsewhere" in result.stdout
    assert (tmp_path / "artifact/public/logs/live_backing.log").read_text() == "AAAAAAAAR4CAAAAAAAAAAA\nexit code: 3\n"
    assert (tmp_path / "artifact/public/chain-of-trust.json").exists()
    assert sys.executable in (tmp_path / "worker.json").read_text()
