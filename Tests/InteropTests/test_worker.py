# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker against our queue: what scripts may do to it, and what it makes of that."""

import base64
import json
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from chain import artifact, python_binary
from support import eventually, wait_resolved
from workers import SMALL_DISK, Bench, Proxy, binary, clean_environment, processes_with, size, verdict


@pytest.fixture(scope="module")
def bench(running, tmp_path_factory):
    bench = Bench(running, tmp_path_factory.mktemp("bench"), pipe_drain_timeout=1, task_log_max_bytes=20_000_000)
    with bench:
        yield bench


# Configuration and start


def start(path, environment=None, cwd=None):
    result = subprocess.run(
        [binary(), path], capture_output=True, text=True, check=False, timeout=120, cwd=cwd,
        env=clean_environment() if environment is None else environment,
    )
    return result.returncode, result.stderr


def test_1_every_problem_is_told_before_anything_is_claimed(running, tmp_path):
    bench = Bench(running, tmp_path, wibble=1, task_script="echo", work_dir="...")
    status, text = start(bench.path)
    assert status == 1
    assert [word for word in ("wibble", "task_script", "work_dir", "Exiting...") if word not in text] == []


def test_2_an_empty_environment_is_enough_and_is_the_scripts_too(running, tmp_path):
    bench = Bench(running, tmp_path)
    bench.start(environment={})
    with bench:
        _, state, log = bench.run("print(sorted(os.environ))")
    assert state == "completed"
    assert b"'HOME'" not in log and b"'PATH'" not in log


def test_3_credentials_are_found_where_they_may_be(running, tmp_path):
    bench = Bench(running, tmp_path)
    credentials = bench.values.pop("credentials")
    plain = clean_environment() | {"HOME": str(tmp_path)}
    status, text = start(bench.path, plain, tmp_path)
    assert (status, "credentials needs to be defined" in text) == (1, True)
    named = {"TASKCLUSTER_CLIENT_ID": credentials["clientId"], "TASKCLUSTER_ACCESS_TOKEN": credentials["accessToken"]}
    for environment, file in ((plain | named, None), (plain, ".scriptworker")):
        if file:
            (tmp_path / file).write_text(json.dumps({"credentials": credentials}))
        bench.process = None
        with bench.start(environment=environment):
            assert bench.run()[1] == "completed"


@pytest.mark.parametrize("worker_id", ["x" * 39, 5, None])
def test_4_identifiers_are_checked_without_a_traceback(running, tmp_path, worker_id):
    bench = Bench(running, tmp_path, worker_id=worker_id)
    path = bench.path
    if worker_id is None:
        path.write_text("")
    status, text = start(path)
    assert (status, "Fatal" in text, "Exiting" in text) == (1, False, True)


def acme(bench):
    bench.values |= {
        "verify_chain_of_trust": True, "verify_cot_signature": True, "cot_job_type": "signing", "cot_product": "acme",
        "cot_product_type": "github", "valid_decision_worker_pools": ["acme-3/decision"],
        "valid_docker_image_worker_pools": [], "trusted_vcs_rules": [], "hg_git_mirrors": {},
        "valid_tasks_for": ["github-push"], "official_github_repos_owner": "acme", "cot_restricted_scopes": {},
        "cot_restricted_trees": {}, "prebuilt_docker_image_task_types": "any", "source_env_prefix": "ACME",
        "scriptworker_provisioners": ["slipway"],
    }


def check_configuration(bench):
    result = subprocess.run(
        [binary(), "check-configuration", bench.path], capture_output=True, text=True, check=False,
        env=clean_environment(),
    )
    return result.returncode, result.stdout + result.stderr


def test_6_a_product_of_ones_own_needs_all_its_keys(running, tmp_path):
    bench = Bench(running, tmp_path)
    acme(bench)
    assert check_configuration(bench)[0] == 0
    for key in (
        "cot_product_type", "valid_decision_worker_pools", "valid_docker_image_worker_pools", "trusted_vcs_rules",
        "hg_git_mirrors", "valid_tasks_for", "official_github_repos_owner", "cot_restricted_scopes", "cot_restricted_trees",
        "prebuilt_docker_image_task_types", "source_env_prefix",
    ):
        without = Bench(running, tmp_path)
        acme(without)
        del without.values[key]
        status, text = check_configuration(without)
        assert (status, key in text) == (1, True), text


def test_6_products_can_be_declared_in_a_file(running, tmp_path):
    example = pathlib.Path(__file__).resolve().parents[2] / "services/scriptworker/examples/products.yaml"
    bench = Bench(running, tmp_path)
    bench.values |= {
        "verify_chain_of_trust": True, "cot_job_type": "signing", "cot_product": "acme",
        "cot_products_file": str(example), "scriptworker_provisioners": ["slipway"],
    }
    status, text = check_configuration(bench)
    assert status == 0
    assert "verify_cot_signature is off" in text
    bench.values["cot_product"] = "other"
    assert check_configuration(bench)[0] == 1
    # The built-in products come out of the program as such a file.
    products = subprocess.run([binary(), "config", "--products"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "products.yaml").write_text(products)
    bench.values |= {"cot_product": "firefox", "cot_products_file": str(tmp_path / "products.yaml")}
    assert check_configuration(bench)[0] == 0


def test_6_a_product_brings_the_keys_and_pools_of_its_own_workers(running, tmp_path):
    import yaml

    example = pathlib.Path(__file__).resolve().parents[2] / "services/scriptworker/examples/products.yaml"
    products = yaml.safe_load(example.read_text())
    keys = {"acme": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=", "other": "KO3FX9JnNga/XViTRBiUMHYnji9Fu3s332sU2lXjSwE="}
    for name, key in keys.items():
        products[name] = products["acme"] | {
            "ed25519_public_keys": {"scriptworker": [key]}, "scriptworker_provisioners": [f"{name}-workers"],
        }
    (tmp_path / "products.yaml").write_text(yaml.safe_dump(products))
    for index, name in enumerate(keys):
        (tmp_path / f"{name}-key").write_text(base64.b64encode(bytes([index + 1] * 32)).decode())
        (tmp_path / f"{name}-key").chmod(0o600)

    def effective(product, **values):
        bench = Bench(running, tmp_path)
        bench.values |= {
            "verify_chain_of_trust": True, "cot_job_type": "signing", "cot_product": product,
            "cot_products_file": str(tmp_path / "products.yaml"),
            "ed25519_private_key_path": {"by-cot-product": {name: str(tmp_path / f"{name}-key") for name in keys}},
        } | values
        done = subprocess.run(
            [binary(), "config", bench.path], capture_output=True, text=True, check=False, env=clean_environment(),
        )
        return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr

    for name, key in keys.items():
        status, values = effective(name)
        assert status == 0, values
        assert values["ed25519_public_keys"] == {"scriptworker": [key]}
        assert values["scriptworker_provisioners"] == [f"{name}-workers"]
        assert values["ed25519_private_key_path"] == str(tmp_path / f"{name}-key")
    # What the configuration says itself counts more, and a table must know the product.
    own = {"scriptworker": [keys["other"]]}
    assert effective("acme", ed25519_public_keys=own)[1]["ed25519_public_keys"] == own
    status, text = effective("acme", ed25519_public_keys={"by-cot-product": {"other": own}})
    assert (status, "ed25519_public_keys: no value for the product acme" in text) == (1, True)
    # A declaration is no place for private keys, nor for words that mean nothing.
    products["acme"]["ed25519_private_key_path"] = "/key"
    (tmp_path / "products.yaml").write_text(yaml.safe_dump(products))
    status, text = effective("acme")
    assert (status, "acme has the unknown key ed25519_private_key_path" in text) == (1, True)


def test_7_the_signing_key_is_looked_at_before_the_first_task(running, tmp_path):
    bench = Bench(running, tmp_path)
    key = tmp_path / "key"
    key.chmod(0o644)
    assert check_configuration(bench)[0] == 0
    assert "readable by group or others" in check_configuration(bench)[1]
    key.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==")
    assert check_configuration(bench)[0] == 1
    key.unlink()
    status, text = check_configuration(bench)
    assert (status, "ed25519_private_key_path" in text) == (1, True)


def test_8_the_type_of_ones_own_tasks_has_to_be_a_type(running, tmp_path):
    bench = Bench(running, tmp_path)
    acme(bench)
    del bench.values["cot_job_type"]
    status, text = check_configuration(bench)
    assert (status, "cot_job_type" in text) == (1, True)


def test_9_two_workers_never_share_directories(bench):
    # Whoever comes first has them; it shall be ours.
    eventually(lambda: "starting up" in bench.text())
    status, text = start(bench.path)
    assert status == 1
    assert "another worker uses" in bench.text()
    assert bench.run()[1] == "completed"


def test_10_what_is_left_over_is_removed_and_nothing_else(running, tmp_path):
    bench = Bench(running, tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("keep")
    locked = tmp_path / "work" / "a" / "b"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    locked.chmod(0)
    (tmp_path / "artifact" / "link").symlink_to(outside)
    with bench:
        eventually(lambda: "polling" in bench.heartbeat()["state"], 30)
        assert list((tmp_path / "work").iterdir()) == []
        assert {path.name for path in (tmp_path / "artifact").iterdir()} <= {"public"}
    assert (outside / "keep").read_text() == "keep"


def encoding(bench, task_id, name):
    """What the storage says a public artifact is encoded with."""
    if not name.startswith("public/"):
        return None
    url = f"{bench.running.root_url}/api/queue/v1/task/{task_id}/artifacts/{name}"
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.headers["Content-Encoding"]


def test_11_python_and_ours_do_the_same_with_the_same(running, tmp_path):
    code = (
        "print(sorted(k for k in os.environ if k in ('TASK_ID','RUN_ID','TASKCLUSTER_ROOT_URL',"
        "'TASKCLUSTER_CREDENTIALS_FD')));"
        "(out / 'public/build').mkdir(parents=True); (out / 'public/build/a.json').write_text('{}');"
        "(out / 'public/build/b.zip').write_bytes(bytes(9)); (out / 'KEY').write_text('k');"
        "print(json.dumps(task, sort_keys=True)); sys.exit(0)"
    )
    seen = {}
    for name, program in (("ours", None), ("python", python_binary())):
        bench = Bench(running, tmp_path / name)
        bench.start(program)
        with bench:
            task_id, state, log = bench.run(code, 300)
        artifacts = {
            (each["name"], each["contentType"], encoding(bench, task_id, each["name"]))
            for each in bench.queue.listLatestArtifacts(task_id)["artifacts"] if not each["name"].endswith(".sig")
        }
        lines = log.decode().splitlines()
        assert json.loads(lines[1]) == bench.queue.task(task_id)
        seen[name] = (state, artifacts, lines[0], lines[2:])
    assert seen["ours"] == seen["python"]


# Running


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


# Upkeep


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


# Signals


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


# Upload


def test_47_what_is_compressed_and_what_is_hashed(bench):
    names = ["a.json", "a.log", "a.tar.gz", "a.tgz", "a.gz", "a.xz", "a.bin", "dir/b.xml", "KEY"]
    code = f"""
import hashlib
for name in {names!r}:
    path = out / 'public' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode() * 1000)
"""
    task_id, state, _ = bench.run(code)
    assert state == "completed"
    statement = json.loads(artifact(bench.running, task_id, "public/chain-of-trust.json"))
    import hashlib
    import urllib.request

    encodings = []
    for name in names:
        url = f"{bench.running.root_url}/api/queue/v1/task/{task_id}/artifacts/public/{name}"
        with urllib.request.urlopen(url) as response:
            encodings.append(response.headers["Content-Encoding"])
        content = artifact(bench.running, task_id, f"public/{name}")
        assert content == name.encode() * 1000
        assert statement["artifacts"][f"public/{name}"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert [each == "gzip" for each in encodings] == [True, True, False, False, False, False, False, True, False]


def test_53_hundreds_of_files_arrive_a_few_at_a_time(running, tmp_path):
    """500 files (full size: 2000) through four uploads at once."""
    count = size("FILES", 500, 2000)
    proxy = Proxy(running.root_url)
    with Bench(running, tmp_path, root_url=proxy.base, max_concurrent_uploads=4) as bench:
        assert bench.run()[1] == "completed"
        before = bench.memory("VmRSS")
        code = "\n".join([
            "(out / 'public/many').mkdir()",
            f"for i in range({count}): (out / f'public/many/{{i}}.bin').write_bytes(bytes([i % 256]) * 100)",
        ])
        task_id, state, _ = bench.run(code, 300)
        assert state == "completed"
        names, query = set(), {}
        while query is not None:
            page = bench.queue.listLatestArtifacts(task_id, query=query)
            names |= {each["name"] for each in page["artifacts"] if each["name"].startswith("public/many/")}
            token = page.get("continuationToken")
            query = {"continuationToken": token} if token else None
        assert len(names) == count
        assert 1 <= proxy.most_puts <= 4
        assert bench.memory() - before < 50_000, "kB more than at rest"
    proxy.down()


def test_54_55_odd_files_are_left_out_and_told(bench):
    code = """
public = out / 'public'
(public / 'passwd').symlink_to('/etc/passwd')
(public / 'dangling').symlink_to('nowhere')
os.mkfifo(public / 'pipe')
(work / 'mine').write_text('mine')
(public / 'copied').symlink_to(work / 'mine')
(public / 'etc').symlink_to('/etc')
(public / 'new\\nline').write_text('x')
(public / 'umlaut-\\u00fc').write_text('x')
(public / 'space and+plus').write_text('x')
"""
    task_id, state, log = bench.run(code)
    assert state == "internal-error"
    assert bench.names(task_id) >= {"public/copied", "public/space and+plus", "public/logs/live_backing.log"}
    outside = ("public/passwd", "public/dangling", "public/pipe", "public/etc")
    assert not [name for name in bench.names(task_id) if name.startswith(outside)]
    assert artifact(bench.running, task_id, "public/copied") == b"mine"
    assert log.count(b"not uploading") == 6


def test_56_a_statement_of_the_scripts_own_is_replaced(bench):
    task_id, state, log = bench.run("(out / 'public/chain-of-trust.json').write_text('{\"forged\": true}')")
    assert state == "completed"
    statement = json.loads(artifact(bench.running, task_id, "public/chain-of-trust.json"))
    assert statement["taskId"] == task_id
    assert set(statement["artifacts"]) == {"public/logs/live_backing.log"}
    assert b"removed public/chain-of-trust.json" in log


# The sandbox and the disk


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


def test_29_a_full_disk_ends_a_task_and_not_the_worker(running, tmp_path):
    """The script fills a disk of 8 MB, which its log is on, too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    bench = Bench(running, tmp_path)
    for key, name in (("work_dir", "work"), ("artifact_dir", "artifact"), ("task_log_dir", "artifact/public/logs")):
        bench.values[key] = str(disk / name)
    (tmp_path / "script.json").write_text(json.dumps({"work_dir": str(disk / "work"), "artifact_dir": str(disk / "artifact")}))
    bench.start(prefix=[*SMALL_DISK, "8m", str(disk)])
    with bench:
        code = """
print("filling", flush=True)
for name, piece in (("big.bin", bytes(65536)), ("rest.bin", b"x")):
    try:
        with open(out / "public" / name, "wb", buffering=0) as file:
            while file.write(piece):
                pass
    except OSError:
        pass
print("full", flush=True)
"""
        task_id, state, log = bench.run(code, 120)
        assert state in ("internal-error", "resource-unavailable"), bench.text()[-3000:]
        assert log.startswith(b"filling\n")
        assert "public/big.bin" in bench.names(task_id)
        assert "public/chain-of-trust.json" not in bench.names(task_id)
        assert bench.run("(out / 'public/small.bin').write_bytes(bytes(1_000_000))")[1] == "completed"


def test_29_a_file_that_is_large_on_paper_only_is_not_sent(running, tmp_path):
    """A sparse file of 30 GB, with a limit for artifacts: it is neither hashed nor sent."""
    with Bench(running, tmp_path, artifact_max_bytes=1_000_000_000) as bench:
        code = "f = open(out / 'public/sparse.bin', 'wb'); f.truncate(30_000_000_000)"
        task_id, state, log = bench.run(code, 120)
        assert (state, b"not uploading public/sparse.bin" in log) == ("internal-error", True)
        assert "public/sparse.bin" not in bench.names(task_id)
        assert bench.run()[1] == "completed"


def test_29_a_script_whose_files_may_not_grow_ends_like_any_other(running, tmp_path):
    """Files stop growing in the middle of an artifact; the worker resolves the task and goes on."""
    bench = Bench(running, tmp_path, script_limits={"file_bytes": 100_000})
    with bench:
        code = "f = open(out / 'public/big', 'wb')\nfor _ in range(1000): f.write(bytes(1000)); f.flush()"
        task_id, state, log = bench.run(code)
        assert state == "failed"
        assert "public/big" in bench.names(task_id)
        assert bench.run()[1] == "completed"


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
