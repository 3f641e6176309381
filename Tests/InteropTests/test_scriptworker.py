# SPDX-License-Identifier: MPL-2.0
"""The unmodified PyPI scriptworker against our queue."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import taskcluster

from support import eventually, task, unique, wait_resolved
from workers import processes_with, size, verdict

SCRIPT = """
import json, os, pathlib, sys, time
config = json.load(open(sys.argv[1]))
task = json.load(open(config["work_dir"] + "/task.json"))
out = pathlib.Path(config["artifact_dir"]) / "public" / "build"
out.mkdir(parents=True, exist_ok=True)
(out / "answer.json").write_text(json.dumps({"text": task["payload"]["text"]}))
(out / "raw.bin").write_bytes(bytes(range(256)) * 64)
print("done", flush=True)
if os.environ["RUN_ID"] != "0":
    sys.exit(0)
if "signal" in task["payload"]:
    os.kill(os.getpid(), task["payload"]["signal"])
if "started" in task["payload"]:
    open(task["payload"]["started"], "w").close()
time.sleep(task["payload"].get("sleep", 0))
sys.exit(task["payload"].get("exit", 0))
"""


def write_worker(running, folder, worker_type, worker_id="python-1"):
    for name in ("work", "artifact", "log"):
        (folder / name).mkdir(parents=True)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "script.json").write_text(
        json.dumps({"work_dir": str(folder / "work"), "artifact_dir": str(folder / "artifact")})
    )
    (folder / "key").write_text("")
    configuration = {
        "taskcluster_root_url": running.root_url,
        "provisioner_id": "slipway",
        "worker_type": worker_type,
        "worker_group": "interop",
        "worker_id": worker_id,
        "credentials": {
            "clientId": running.values["TASKCLUSTER_CLIENT_ID"],
            "accessToken": running.values["TASKCLUSTER_ACCESS_TOKEN"],
        },
        "task_script": [sys.executable, str(folder / "script.py"), str(folder / "script.json")],
        "work_dir": str(folder / "work"),
        "artifact_dir": str(folder / "artifact"),
        "task_log_dir": str(folder / "artifact" / "public" / "logs"),
        "log_dir": str(folder / "log"),
        "ed25519_private_key_path": str(folder / "key"),
        "sign_chain_of_trust": False,
        "verify_chain_of_trust": False,
        "poll_interval": 1,
        "reclaim_interval": 3,
        "verbose": True,
    }
    path = folder / "scriptworker.yaml"
    path.write_text(json.dumps(configuration))
    return path


def test_the_python_scriptworker_claims_and_completes_tasks(running, tmp_path):
    worker_type = unique("python").lower()
    path = write_worker(running, tmp_path, worker_type)
    queue = running.queue()
    good, bad = taskcluster.slugId(), taskcluster.slugId()
    queue.createTask(good, task("good", f"slipway/{worker_type}", {"text": "hello", "maxRunTime": 60}))
    queue.createTask(bad, task("bad", f"slipway/{worker_type}", {"text": "hello", "maxRunTime": 60, "exit": 3}))

    binary = pathlib.Path(sys.executable).parent / "scriptworker"
    with open(tmp_path / "output", "wb") as output:
        worker = subprocess.Popen([binary, path], stdout=output, stderr=output, env=dict(os.environ))
    try:
        status = wait_resolved(queue, good, 90)
        assert status["state"] == "completed", (tmp_path / "output").read_text()[-3000:]
        assert status["runs"][0]["workerId"] == "python-1"
        status = wait_resolved(queue, bad, 60)
        assert (status["state"], status["runs"][0]["reasonResolved"]) == ("exception", "malformed-payload")
        names = {each["name"] for each in queue.listLatestArtifacts(good)["artifacts"]}
        assert {"public/build/answer.json", "public/build/raw.bin", "public/logs/live_backing.log"} <= names
        assert worker.poll() is None, "the worker must survive"
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0


# What a script does, and how the Python worker has the run resolved. Those that the queue lets run again succeed then.
OUTCOMES = {
    "success": ({"exit": 0}, "completed"),
    "failure": ({"exit": 1}, "failed"),
    "a code without a meaning": ({"exit": 9}, "failed"),
    "death by a signal": ({"signal": int(signal.SIGKILL)}, "failed"),
    "too long": ({"sleep": 100, "maxRunTime": 2}, "failed"),
    "worker-shutdown": ({"exit": 2}, "worker-shutdown"),
    "malformed-payload": ({"exit": 3}, "malformed-payload"),
    "resource-unavailable": ({"exit": 4}, "resource-unavailable"),
    "internal-error": ({"exit": 5}, "internal-error"),
    "intermittent-task": ({"exit": 7}, "intermittent-task"),
    "a child ended by SIGTERM": ({"exit": 241}, "intermittent-task"),
    "a child that crashed": ({"exit": 245}, "intermittent-task"),
}


@contextlib.contextmanager
def python_worker(path):
    with open(path.parent / "output", "ab") as output:
        process = subprocess.Popen([pathlib.Path(sys.executable).parent / "scriptworker", path], stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(90) == 0
        process.wait()


def test_q108_the_python_scriptworker_runs_ten_tasks_of_each_outcome(running, tmp_path):
    """Twelve outcomes; two workers share the work and both survive all of it."""
    queue, worker_type = running.queue(), unique("outcomes").lower()
    tasks = {}
    for name, (payload, expected) in OUTCOMES.items():
        for _ in range(size("OUTCOMES", 10, 10)):
            task_id = taskcluster.slugId()
            queue.createTask(task_id, task(name, f"slipway/{worker_type}", {"text": name, "maxRunTime": 60} | payload))
            tasks[task_id] = (name, expected)
    paths = [write_worker(running, tmp_path / each, worker_type, each) for each in ("python-1", "python-2")]
    with python_worker(paths[0]) as first, python_worker(paths[1]) as second:
        for task_id, (name, expected) in tasks.items():
            status = wait_resolved(queue, task_id, 600)
            verdicts = [verdict(run) for run in status["runs"]]
            again = expected in ("worker-shutdown", "intermittent-task")
            assert verdicts == [expected] + ["completed"] * again, (name, verdicts)
            artifacts = {each["name"] for each in queue.listArtifacts(task_id, 0)["artifacts"]}
            assert "public/logs/live_backing.log" in artifacts, name
        assert (first.poll(), second.poll()) == (None, None)


def test_q108_ten_tasks_superseded_by_the_python_scriptworker_end_it_ten_times(running, tmp_path):
    """The queue no longer takes that reason, and the original dies of it; the task runs again when its claim has ended."""
    queue, worker_type = running.queue(), unique("superseded").lower()
    tasks = [taskcluster.slugId() for _ in range(size("SUPERSEDED", 10, 10))]
    for task_id in tasks:
        payload = {"text": "superseded", "maxRunTime": 60, "exit": 6}
        queue.createTask(task_id, task("superseded", f"slipway/{worker_type}", payload))
    path = write_worker(running, tmp_path / "worker", worker_type)
    deaths = 0
    for _ in range(len(tasks) + 20):
        with python_worker(path) as process:
            eventually(lambda: process.poll() is not None or all_resolved(queue, tasks), 120, 0.5)
            if process.poll() is None:
                break
            assert process.poll() == 1
            deaths += 1
    assert deaths == len(tasks)
    for task_id in tasks:
        assert [verdict(run) for run in queue.status(task_id)["status"]["runs"]] == ["claim-expired", "completed"]


def all_resolved(queue, tasks):
    return all(queue.status(task_id)["status"]["state"] == "completed" for task_id in tasks)


def test_q108_a_python_scriptworker_told_to_stop_gives_its_task_back(running, tmp_path):
    queue, worker_type = running.queue(), unique("stopped").lower()
    path = write_worker(running, tmp_path / "worker", worker_type)
    started = tmp_path / "started"
    task_id = taskcluster.slugId()
    payload = {"text": "stopped", "maxRunTime": 120, "sleep": 100, "started": str(started)}
    queue.createTask(task_id, task("stopped", f"slipway/{worker_type}", payload))
    with python_worker(path):
        eventually(started.exists, 90)
    runs = queue.status(task_id)["status"]["runs"]
    assert (verdict(runs[0]), runs[1]["state"]) == ("worker-shutdown", "pending")
    assert processes_with(str(tmp_path / "worker" / "script.json")) == []
    queue.cancelTask(task_id)


def test_q108_a_cancelled_task_of_the_python_scriptworker_does_not_end_it(running, tmp_path):
    """Its reclaim is answered with a conflict, and so is its report."""
    queue, worker_type = running.queue(), unique("cancelled").lower()
    path = write_worker(running, tmp_path / "worker", worker_type)
    started = tmp_path / "started"
    cancelled, after = taskcluster.slugId(), taskcluster.slugId()
    payload = {"text": "cancelled", "maxRunTime": 120, "sleep": 100, "started": str(started)}
    queue.createTask(cancelled, task("cancelled", f"slipway/{worker_type}", payload))
    with python_worker(path) as process:
        eventually(started.exists, 90)
        queue.cancelTask(cancelled)
        queue.createTask(after, task("after", f"slipway/{worker_type}", {"text": "after", "maxRunTime": 60}))
        assert wait_resolved(queue, after, 120)["state"] == "completed"
        assert process.poll() is None
    assert verdict(queue.status(cancelled)["status"]["runs"][0]) == "canceled"
