# SPDX-License-Identifier: MPL-2.0
"""The demo's release: one worker signs by scope, another publishes by rename; both are the example scripts as they are."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import taskcluster

TOP = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = TOP / "services" / "scriptworker" / "examples"


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options).stdout


def openssl_key(folder, name):
    key, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
    key.chmod(0o600)
    run("openssl", "pkey", "-in", key, "-pubout", "-out", public)
    return key, public


class Guarded:
    """A scriptworker that runs one of the example scripts and signs a statement about what it did."""

    def __init__(self, binary, folder, values, kind, script, configuration):
        self.folder = folder / kind
        for name in ("work", "artifact", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not (self.folder / "private_key").exists():
            run(binary, "gen-ed25519-key", cwd=self.folder)
        paths = {"work_dir": str(self.folder / "work"), "artifact_dir": str(self.folder / "artifact")}
        (self.folder / "script.json").write_text(json.dumps(paths | configuration))
        worker = paths | {
            "taskcluster_root_url": values["TASKCLUSTER_ROOT_URL"],
            "provisioner_id": "slipway", "worker_type": kind, "worker_group": "local", "worker_id": f"{kind}-1",
            "task_script": [sys.executable, str(EXAMPLES / script), str(self.folder / "script.json")],
            "task_log_dir": str(self.folder / "artifact" / "public" / "logs"), "log_dir": str(self.folder / "log"),
            "ed25519_private_key_path": str(self.folder / "private_key"),
            "sign_chain_of_trust": True, "verify_chain_of_trust": False, "download_upstream_artifacts": "always",
            "poll_interval": 1, "shutdown_claim_grace": 0.5, "verbose": False,
        }
        (self.folder / "worker.json").write_text(json.dumps(worker, indent=2))
        # The credentials travel in the environment, and the worker keeps them from its script.
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")} | {
            key: values[key] for key in ("TASKCLUSTER_CLIENT_ID", "TASKCLUSTER_ACCESS_TOKEN")
        }
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(
                [str(binary), str(self.folder / "worker.json")],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def release(timeline, check, fetch, suite, binaries, values, queue, bus, definition, built):
    """Signs and publishes the artifact of task `built`; `definition` makes a task's definition from name and payload."""
    folder = suite.local / "release"
    folder.mkdir(parents=True, exist_ok=True)
    keys = {level: openssl_key(folder, level) for level in ("test", "release")}
    binary = pathlib.Path(binaries) / "scriptworker"
    signing = {
        "scope_prefix": "project:demo:signing:cert:",
        "keys": {level: {"ed25519": {"key_file": str(key)}} for level, (key, _) in keys.items()},
    }
    publishing = {"scope_prefix": "project:demo:publish:place:", "places": {"www": str(folder / "www")}}
    version = taskcluster.slugId()[:6].replace("-", "x").replace("_", "y")

    def finished(kind, scopes, payload):
        task = taskcluster.slugId()
        queue.createTask(task, definition(kind, payload) | {"taskQueueId": f"slipway/{kind}", "scopes": scopes})
        name, message = bus.wait_any(("task-completed", "task-failed", "task-exception"), lambda m: m["status"]["taskId"] == task)
        return task, name, message["status"]["runs"][-1]["reasonResolved"]

    def inputs(task, kind, *paths):
        entry = {"taskId": task, "taskType": kind, "paths": list(paths), "formats": ["ed25519"]}
        return {"maxRunTime": 60, "upstreamArtifacts": [entry]}

    with Guarded(binary, folder, values, "signing", "signing/sign.py", signing), Guarded(
        binary, folder, values, "publishing", "publishing/publish.py", publishing
    ):
        timeline("two guarded workers are up: one holds the signing keys, one may write to the web root")
        file = "public/build/target.txt"
        refused, event, reason = finished("signing", ["project:demo:signing:cert:nobody"], inputs(built, "build", file))
        check((event, reason) == ("task-exception", "malformed-payload"), f"a scope without keys was answered with {reason}")
        timeline(f"task {refused} asked for a key that the worker does not hold: {reason}, nothing signed")
        signed, event, _ = finished("signing", ["project:demo:signing:cert:release"], inputs(built, "build", file))
        check(event == "task-completed", "the signing task did not complete")
        timeline(f"task {signed} was signed with the release key, which its scope chose and its payload could not")
        payload = inputs(signed, "signing", file, f"{file}.sig") | {"product": "demo", "version": version, "latest": True}
        published, event, _ = finished("publishing", ["project:demo:publish:place:www"], payload)
        check(event == "task-completed", "the publishing task did not complete")
        timeline(f"task {published} published version {version}: staged, renamed into place, latest turned to it")

    latest = folder / "www" / "demo" / "latest"
    check(os.readlink(latest) == version, "latest does not lead to the new version")
    run("sha256sum", "-c", "SHA256SUMS", cwd=latest)
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", keys["release"][1]]
    run(*verify, "-sigfile", latest / "target.txt.sig", "-in", latest / "target.txt")
    statement = folder / "chain-of-trust.json"
    for suffix in ("", ".sig"):
        url = f"{values['TASKCLUSTER_ROOT_URL']}/api/queue/v1/task/{signed}/artifacts/public/chain-of-trust.json{suffix}"
        pathlib.Path(f"{statement}{suffix}").write_bytes(fetch(url))
    public = folder / "signing" / "public_key"
    run(binary, "verify-ed25519-signature", "--pubkey", public, statement, f"{statement}.sig")
    listed = json.loads(statement.read_text())["artifacts"]
    check({file, f"{file}.sig"} <= set(listed), "the signing worker's statement does not list what it made")
    timeline("openssl, sha256sum and the worker's public key agree with what is on the web root")
    timeline.detail(str(latest.resolve()))
