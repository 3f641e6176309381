# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker's claims: how soon it starts, how it keeps them, and what credentials and clocks do to them meanwhile."""

import datetime
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
import urllib.parse

import pytest
import taskcluster

from local_queue import Deployment
from support import eventually, unique
from workers import Alone, Bench, Proxy, clean_environment, size, verdict


@pytest.fixture
def proxy(running):
    proxy = Proxy(running.root_url)
    yield proxy
    proxy.shutdown()


@pytest.fixture
def deployment(servers, tmp_path):
    with Deployment(servers, tmp_path, exchanges=False) as deployment:
        yield deployment


def patience():
    """How long a start may take here: half a second, or more where starting an interpreter alone takes long."""
    times = []
    for _ in range(5):
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", ""], check=True)
        times.append(time.monotonic() - start)
    return max(0.5, 25 * statistics.median(times))


@pytest.mark.alone
def test_12_work_is_begun_soon_after_it_has_come_whenever_that_is(running, tmp_path):
    """Forty arrivals at random moments of the queue's long poll, with the usual pause of ten seconds after empty answers."""
    chance, waits = random.Random(12), []
    with Bench(running, tmp_path, poll_interval=10) as bench:
        assert bench.run()[1] == "completed"
        for _ in range(size("ARRIVALS", 40, 40)):
            time.sleep(chance.uniform(0, 0.6))
            task_id, state, log = bench.run("print(time.time(), flush=True)")
            assert state == "completed"
            scheduled = datetime.datetime.fromisoformat(bench.runs(task_id)[0]["scheduled"].replace("Z", "+00:00"))
            waits.append(float(log.split()[0]) - scheduled.timestamp())
    limit = patience()
    late = [wait for wait in waits if wait > limit]
    assert len(late) <= len(waits) / 20, f"{late} of {len(waits)} took longer than {limit:.2f} s"
    assert max(waits) < 10, "no start may wait for poll_interval"


def certificate_of(credentials):
    return json.loads(credentials["certificate"])


def test_18_two_claims_in_one_answer_are_both_kept_and_done(running, proxy, tmp_path):
    bench = Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1)
    tasks = [bench.create("time.sleep(4)"), bench.create("time.sleep(4)")]
    given = []

    def both(request):
        if "/claim-work/" not in request.path or given:
            return False
        body = {"workerGroup": "interop", "workerId": bench.worker_type, "tasks": 2}
        given.append(running.queue().claimWork(bench.queue_id, body))
        return request.answer(200, given[0])

    with proxy.failing(both), bench:
        for task_id in tasks:
            assert bench.result(task_id, 90)[0] == "completed"
    assert len(given[0]["tasks"]) == 2
    for task_id in tasks:
        assert [run["runId"] for run in bench.runs(task_id)] == [0]
        assert proxy.count(f"{task_id}/runs/0/reclaim") >= 2
    second = max(tasks, key=lambda task_id: bench.runs(task_id)[0]["resolved"])
    first = min(tasks, key=lambda task_id: bench.runs(task_id)[0]["resolved"])
    # One after the other, and the one that waits is kept claimed while the other runs.
    ended = next(moment for _, path, moment in proxy.seen if path.endswith(f"{first}/runs/0/completed"))
    assert [path for _, path, moment in proxy.seen if moment < ended and f"{second}/runs/0/reclaim" in path]


def test_33_a_script_reads_valid_and_fresh_credentials_at_any_moment(running, proxy, tmp_path):
    """Renewed credentials are shorter than the first ones: these get a certificate with blanks in it."""

    def pad(request, response, content):
        if "/claim-work/" in request.path and response.status == 200:
            answer = json.loads(content)
            for claim in answer["tasks"]:
                held = claim["credentials"]
                held["certificate"] = json.dumps(certificate_of(held), indent=40)
            return json.dumps(answer).encode()
        return content

    proxy.edit = pad
    code = """
fd, seen, tokens = int(os.environ['TASKCLUSTER_CREDENTIALS_FD']), [], []
limit = time.monotonic() + 45
while time.monotonic() < limit and (len(tokens) < 3 or seen[0] <= seen[-1]):
    text = os.pread(fd, 100000, 0)
    held = json.loads(text)
    seen.append(len(text.rstrip()))
    if not tokens or tokens[-1] != held['accessToken']:
        tokens.append(held['accessToken'])
    time.sleep(0.1)
print(len(tokens), seen[0] > seen[-1])
"""
    with Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1) as bench:
        _, state, log = bench.run(code)
    assert state == "completed", log
    count, is_shorter = log.decode().splitlines()[0].split()
    assert (int(count) >= 3, is_shorter) == (True, "True")


def test_35_a_claim_shorter_than_the_interval_is_renewed_in_time(deployment, tmp_path):
    """Claims of 10 s, 300 s between renewals, a task of 22 s whose last act needs credentials of the last renewal."""
    running = Alone(deployment.start(tcl_claim_timeout="10s"))
    code = """
import taskcluster
time.sleep(22)
held = json.loads(os.pread(int(os.environ['TASKCLUSTER_CREDENTIALS_FD']), 100000, 0))
held = {key: value for key, value in held.items() if value}
queue = taskcluster.Queue({'rootUrl': os.environ['TASKCLUSTER_ROOT_URL'], 'credentials': held})
queue.createArtifact(os.environ['TASK_ID'], os.environ['RUN_ID'], 'public/late', {
    'storageType': 'error', 'reason': 'file-missing-on-worker', 'message': 'made late', 'expires': task['expires']})
"""
    with Bench(running, tmp_path / "worker", reclaim_interval=300) as bench:
        task_id, state, log = bench.run(code, 90)
        assert state == "completed", log
        assert len(bench.runs(task_id)) == 1
        assert "public/late" in bench.names(task_id)


def test_credentials_of_the_worker_that_end_during_a_task_do_not_end_it(running, proxy, tmp_path):
    # They end when the task has begun, and the task when they have ended, however fast or slow the machine is.
    auth = taskcluster.Auth(running.options)
    wish = {"expires": taskcluster.fromNowJSON("1 hour"), "description": "a test", "scopes": ["*"]}
    made = auth.createClient(unique("short"), wish)
    held = {"clientId": made["clientId"], "accessToken": made["accessToken"]}
    bench = Bench(running, tmp_path, root_url=proxy.base, credentials=held, reclaim_interval=1)
    go = tmp_path / "go"
    with bench:
        code = f"while not os.path.exists({str(go)!r}): time.sleep(0.1)"
        task_id = bench.create(bench.started + "\n" + code, maxRunTime=600)
        bench.is_running(task_id)
        auth.deleteClient(made["clientId"])
        with pytest.raises(taskcluster.exceptions.TaskclusterAuthFailure):
            taskcluster.Auth({**running.options, "credentials": held}).currentScopes()
        kept = proxy.count(f"{task_id}/runs/0/reclaim")
        eventually(lambda: proxy.count(f"{task_id}/runs/0/reclaim") >= kept + 3)
        go.touch()
        assert bench.result(task_id, 120)[0] == "completed"
        eventually(lambda: bench.heartbeat()["consecutiveClaimErrors"] > 0, 60)
        bench.values["credentials"] = {
            "clientId": running.values["TASKCLUSTER_CLIENT_ID"], "accessToken": running.values["TASKCLUSTER_ACCESS_TOKEN"],
        }
        assert bench.path.exists()
        assert bench.run()[1] == "completed"


@pytest.fixture(scope="module")
def skew(tmp_path_factory):
    """The environment of a process whose clock is wrong by some seconds."""
    library = tmp_path_factory.mktemp("skew") / "skew.so"
    source = pathlib.Path(__file__).with_name("skew.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(library)], check=True)
    return lambda seconds: clean_environment() | {"LD_PRELOAD": str(library), "SKEW_SECONDS": str(seconds)}


@pytest.mark.parametrize(("seconds", "is_told"), [(600, False), (1200, True), (-1200, True)])
def test_17_a_wrong_clock_is_corrected_by_the_queues(deployment, skew, tmp_path, seconds, is_told):
    running = Alone(deployment.start(tcl_claim_timeout="1200s"))
    bench = Bench(running, tmp_path / "worker")
    environment = skew(seconds)
    bench.start(environment=environment)
    with bench:
        assert bench.run(seconds=90)[1] == "completed"
        assert (abs(bench.heartbeat()["clockOffset"] + seconds) < 60) == is_told
        status, output = bench.check("time", environment=environment)
        assert status == 2, output
    assert ("this host's clock is" in bench.text()) == is_told


@pytest.mark.alone
def test_41_work_on_big_files_holds_up_no_renewal(running, proxy, tmp_path):
    """A text of 1 GiB is hashed and compressed while the claim is renewed every second (full size: 10 GiB, 5 s)."""
    megabytes = size("BIG_MB", 1024, 10240)
    with Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1) as bench:
        task_id, state, _ = bench.run(f"open(out / 'public/big.txt', 'wb').truncate({megabytes} << 20)", 600)
        assert state == "completed"
    moments = [moment for _, path, moment in proxy.seen if f"{task_id}/runs/0/reclaim" in path]
    ended = next(moment for _, path, moment in proxy.seen if path.endswith(f"{task_id}/runs/0/completed"))
    assert len(moments) >= 2
    assert max(after - before for before, after in zip(moments, moments[1:] + [ended])) < 6


def test_a_directory_without_the_marker_is_not_emptied(running, tmp_path):
    bench = Bench(running, tmp_path, require_dir_marker=True)
    (tmp_path / "work" / "precious").write_text("precious")
    bench.start()
    assert bench.process.wait(120) == 1
    assert ".scriptworker-directory" in bench.text()
    assert (tmp_path / "work" / "precious").read_text() == "precious"
    (tmp_path / "work" / "precious").unlink()
    for _ in range(2):
        bench.process = None
        with bench.start():
            task_id, state, _ = bench.run("(out / 'public/a.bin').write_bytes(b'a'); (work / 'left').write_text('x')")
            assert state == "completed"
            assert ".scriptworker-directory" not in bench.names(task_id)
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".scriptworker-directory"]


def test_a_signing_key_may_come_through_a_descriptor_that_no_script_sees(running, tmp_path):
    bench = Bench(running, tmp_path, ed25519_private_key_path="...")
    bench.values["ed25519_public_keys"] = {"scriptworker": ["A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="]}
    reader, writer = os.pipe()
    pipe = os.fstat(reader).st_ino
    os.write(writer, (tmp_path / "key").read_bytes())
    os.close(writer)
    (tmp_path / "key").unlink()
    bench.values["signing_key_fd"] = reader
    with open(tmp_path / "output", "ab") as output:
        from workers import binary

        bench.process = subprocess.Popen(
            [str(binary()), str(bench.path)], stdout=output, stderr=output, cwd=tmp_path, env=clean_environment(), pass_fds=[reader]
        )
    os.close(reader)
    with bench:
        task_id, state, log = bench.run("print([os.stat(f'/proc/self/fd/{fd}').st_ino for fd in range(64) if os.path.exists(f'/proc/self/fd/{fd}')])")
        assert state == "completed"
        # The pipe that the key came through, under whatever number.
        assert pipe not in json.loads(log.decode().splitlines()[0])
        assert "public/chain-of-trust.json.sig" in bench.names(task_id)
        assert bench.check("key")[0] == 0
    bench.process = None
    # Without the descriptor there is no key, which is told at once.
    bench.start()
    assert bench.process.wait(120) == 1
    assert "signing_key_fd" in bench.text()


def test_a_schema_of_ones_own_for_statements_is_kept(running, tmp_path):
    schema = {"type": "object", "required": ["approvedBy"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    with Bench(running, tmp_path, cot_schema_path=str(tmp_path / "schema.json")) as bench:
        task_id, state, _ = bench.run()
        assert state == "malformed-payload"
        assert "public/chain-of-trust.json" not in bench.names(task_id)
        assert "cot_schema_path" in bench.text()


def test_each_phase_of_a_claim_is_under_the_same_run(running, proxy, tmp_path):
    """Every call for a task names the run that was claimed: nothing is ever reported for another one."""
    with Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1) as bench:
        task_id = bench.create("os.environ['RUN_ID'] == '0' and sys.exit(7)")
        assert bench.result(task_id)[0] == "completed"
    assert [verdict(run) for run in bench.runs(task_id)] == ["intermittent-task", "completed"]
    paths = [urllib.parse.unquote(path) for command, path, _ in proxy.seen if command == "POST" and task_id in path]
    order = [path.split("/runs/")[1].split("/")[0] for path in paths]
    assert order == sorted(order) and set(order) == {"0", "1"}
