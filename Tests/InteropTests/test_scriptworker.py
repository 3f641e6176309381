# SPDX-License-Identifier: MPL-2.0
"""The unmodified PyPI scriptworker against our queue."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import taskcluster

from support import task, unique, wait_resolved

SCRIPT = """
import json, pathlib, sys
config = json.load(open(sys.argv[1]))
task = json.load(open(config["work_dir"] + "/task.json"))
out = pathlib.Path(config["artifact_dir"]) / "public" / "build"
out.mkdir(parents=True, exist_ok=True)
(out / "answer.json").write_text(json.dumps({"text": task["payload"]["text"]}))
(out / "raw.bin").write_bytes(bytes(range(256)) * 64)
print("done")
sys.exit(task["payload"].get("exit", 0))
"""


def write_worker(running, folder, worker_type):
    for name in ("work", "artifact", "log"):
        (folder / name).mkdir()
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
        "worker_id": "python-1",
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
        assert worker.wait(30) == 0
