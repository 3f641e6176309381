# SPDX-License-Identifier: MPL-2.0
"""A small release graph on our queue, with workers of our own making, for the chain-of-trust tests.

decision → build → sign → push: the test plays the workers of decision and build, real scriptworkers run the rest.
"""

import base64
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.request

import jsone
import taskcluster
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from conftest import load_suite
from support import eventually, stamp, unique, wait_resolved

REPOSITORY = "https://github.com/acme/product"
REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = f"{REPOSITORY}/raw/{REVISION}/.taskcluster.yml"

TEMPLATE = """
version: 1
tasks:
  - taskId: {$eval: 'as_slugid("decision")'}
    taskGroupId: {$eval: 'as_slugid("decision")'}
    schedulerId: acme-level-3
    taskQueueId: glean-3/decision
    created: {$fromNow: ''}
    deadline: {$fromNow: '1 hour'}
    expires: {$fromNow: '1 day'}
    priority: lowest
    retries: 5
    requires: all-completed
    metadata:
      name: Decision for ${repository.project}
      description: makes the graph
      owner: release@example.com
      source: ${event.repository.html_url}/raw/${push.revision}/.taskcluster.yml
    payload:
      image: 'acme/decision@sha256:0000000000000000000000000000000000000000000000000000000000000000'
      command: [taskgraph, decision, --level, '${repository.level}']
      maxRunTime: 600
      features: {chainOfTrust: true}
      env:
        GLEAN_HEAD_REPOSITORY: ${repository.url}
        GLEAN_HEAD_REV: ${push.revision}
        GLEAN_HEAD_REF: ${push.branch}
    extra:
      tasks_for: ${tasks_for}
      cron: '{"job_name": "nightly"}'
"""


class Key:
    """An ed25519 pair in the form of key files."""

    def __init__(self):
        self.key = Ed25519PrivateKey.generate()
        raw = self.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self.private = base64.b64encode(raw).decode()
        self.public = base64.b64encode(self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    def write(self, path):
        path.write_text(self.private)
        path.chmod(0o600)
        return path


class Web(http.server.ThreadingHTTPServer):
    """What would be GitHub and the list of projects."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/api/repos/acme/product/contents/.taskcluster.yml"):
            content = base64.b64encode(TEMPLATE.encode()).decode()
            return self.answer(200, {"content": content, "encoding": "base64"})
        if self.path == "/projects.yml":
            project = {"repo": REPOSITORY, "repo_type": "git", "branches": [{"name": "main", "level": 3}]}
            return self.answer(200, {"product": project})
        return self.answer(404, {"message": "Not Found"})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Graph:
    """The decision task's graph, and the means to act as the workers of its first tasks."""

    def __init__(self, running, folder):
        self.running = running
        self.queue = running.queue()
        self.folder = folder
        self.web = Web()
        self.keys = {name: Key() for name in ("docker-worker", "generic-worker", "scriptworker")}
        self.scheduler = "acme-level-3"
        self.decision_id = taskcluster.slugId()
        self.tasks = {}
        self.build_queue = f"glean-3/{unique('build').lower()}"

    # Definitions

    def context(self, created):
        ids = {"decision": self.decision_id}
        return {
            "now": created,
            "as_slugid": lambda name: ids.get(name, self.decision_id),
            "tasks_for": "cron",
            "ownTaskId": self.decision_id,
            "taskId": None,
            "cron": {"job_name": "nightly"},
            "event": {"repository": {"html_url": REPOSITORY}},
            "repository": {"url": REPOSITORY, "project": "product", "level": "3", "type": "git"},
            "push": {"revision": REVISION, "branch": "main"},
        }

    def make_decision(self):
        import datetime

        created = stamp(datetime.datetime.now(datetime.timezone.utc))
        rendered = jsone.render(yaml.safe_load(TEMPLATE), self.context(created))["tasks"][0]
        del rendered["taskId"]
        self.queue.createTask(self.decision_id, rendered)
        self.created = rendered

    def add(self, name, queue_id, payload, inputs=(), scopes=(), **fields):
        """Announces a task; `inputs` are (type, task id, paths[, optional])."""
        task_id = taskcluster.slugId()
        definition = {
            "taskQueueId": queue_id,
            "taskGroupId": self.decision_id,
            "schedulerId": self.scheduler,
            "dependencies": [self.decision_id],
            "requires": "all-completed",
            "priority": "lowest",
            "retries": 5,
            "scopes": list(scopes),
            "routes": [],
            "created": self.created["created"],
            "deadline": self.created["deadline"],
            "expires": self.created["expires"],
            "metadata": {
                "name": name, "description": name, "owner": "release@example.com", "source": SOURCE,
            },
            "tags": {},
            "extra": {"parent": self.decision_id},
            "payload": dict(payload),
            **fields,
        }
        upstream = [
            {"taskType": kind, "taskId": other, "paths": list(paths), "formats": ["demo"],
             **({"optional": True} if optional else {})}
            for kind, other, paths, optional in ((*each, False)[:4] for each in inputs)
        ]
        if upstream:
            definition["payload"]["upstreamArtifacts"] = upstream
        self.tasks[task_id] = definition
        return task_id

    def create(self, task_id, **changes):
        self.queue.createTask(task_id, {**self.tasks[task_id], **changes})
        return task_id

    def graph(self):
        """The announcement, which names pools in the older way."""
        announced = {}
        for task_id, definition in self.tasks.items():
            provisioner, worker_type = definition["taskQueueId"].split("/")
            task = {key: value for key, value in definition.items() if key != "taskQueueId"}
            task |= {"provisionerId": provisioner, "workerType": worker_type}
            announced[task_id] = {"task": task, "label": task["metadata"]["name"]}
        return announced

    # Acting as a worker

    def upload(self, queue, task_id, run_id, name, content, content_type="application/octet-stream"):
        answer = queue.createArtifact(
            task_id, run_id, name,
            {"storageType": "s3", "contentType": content_type, "expires": self.created["expires"]},
        )
        request = urllib.request.Request(answer["putUrl"], content, {"Content-Type": content_type}, method="PUT")
        urllib.request.urlopen(request, timeout=120).close()

    def run(self, task_id, artifacts, implementation, stated=None, key=None, change=lambda statement: statement):
        """Claims and completes a task with artifacts; `stated` are other contents that its statement speaks of."""
        definition = self.queue.task(task_id)
        claims = self.queue.claimWork(
            definition["taskQueueId"], {"workerGroup": "interop", "workerId": "played", "tasks": 1}
        )["tasks"]
        assert [claim["status"]["taskId"] for claim in claims] == [task_id]
        claim = claims[0]
        queue = taskcluster.Queue(
            {"rootUrl": self.running.root_url, "credentials": claim["credentials"]}
        )
        stated = {**artifacts, **(stated or {})}
        statement = change({
            "artifacts": {
                name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in stated.items()
            },
            "chainOfTrustVersion": 1,
            "environment": {},
            "runId": claim["runId"],
            "task": claim["task"],
            "taskId": task_id,
            "workerGroup": "interop",
            "workerId": "played",
        })
        text = json.dumps(statement, indent=2, sort_keys=True).encode()
        for name, content in artifacts.items():
            self.upload(queue, task_id, claim["runId"], name, content)
        self.upload(queue, task_id, claim["runId"], "public/chain-of-trust.json", text, "text/plain")
        signature = (key or self.keys[implementation]).key.sign(text)
        self.upload(queue, task_id, claim["runId"], "public/chain-of-trust.json.sig", signature)
        queue.reportCompleted(task_id, claim["runId"])

    def run_decision(self):
        self.run(
            self.decision_id,
            {
                "public/task-graph.json": json.dumps(self.graph()).encode(),
                "public/actions.json": json.dumps({"version": 1, "actions": [], "variables": {}}).encode(),
                "public/parameters.yml": b"level: '3'\n",
            },
            "docker-worker",
        )

    # Configurations

    def configuration(self, folder, worker_type, script, job_type="signing", **changes):
        """What both the Python worker and ours take."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("work", "artifact", "log"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "script.json").write_text(
            json.dumps({"work_dir": str(folder / "work"), "artifact_dir": str(folder / "artifact")})
        )
        (folder / "script.py").write_text(script)
        key = self.keys["scriptworker"].write(folder / "key")
        host = self.running.root_url.split("://")[1]
        return {
            "taskcluster_root_url": self.running.root_url,
            "provisioner_id": "slipway",
            "worker_type": worker_type,
            "worker_group": "interop",
            "worker_id": worker_type[:38],
            "credentials": credentials(self.running),
            "task_script": [sys.executable, str(folder / "script.py"), str(folder / "script.json")],
            "work_dir": str(folder / "work"),
            "artifact_dir": str(folder / "artifact"),
            "task_log_dir": str(folder / "artifact" / "public" / "logs"),
            "log_dir": str(folder / "log"),
            "ed25519_private_key_path": str(key),
            "ed25519_public_keys": {name: [key.public] for name, key in self.keys.items()},
            "sign_chain_of_trust": True,
            "verify_chain_of_trust": True,
            "verify_cot_signature": True,
            "cot_job_type": job_type,
            "cot_product": "glean",
            "poll_interval": 1,
            "project_configuration_url": f"{self.web.base}/projects.yml",
            "scriptworker_provisioners": ["slipway"],
            "valid_decision_worker_pools": ["glean-3/decision"],
            "trusted_vcs_rules": [
                {
                    "schemes": ["https", "ssh"], "netlocs": ["github.com"], "require_secret": True,
                    "path_regexes": ["^(?P<path>/acme/product)(/|\\.git|$)"],
                }
            ],
            "official_github_repos_owner": "acme",
            "cot_restricted_scopes": {"project:acme:cert:release": "product-trees"},
            "cot_restricted_trees": {"product-trees": ["/acme/product"]},
            "valid_artifact_rules": [
                {
                    "schemes": ["http"], "netlocs": [host],
                    "path_regexes": [
                        "^/api/queue/v1/task/(?P<taskId>[^/]+)(/runs/\\d+)?/artifacts/(?P<filepath>.*)$"
                    ],
                }
            ],
            **changes,
        }

    def ours(self, configuration):
        """The same for our worker: where it finds what is not on the web."""
        return {"github_api_url": f"{self.web.base}/api", "shutdown_claim_grace": 0.5, **configuration}

    def seed_python_cache(self, work_dir):
        """Full revisions of files on GitHub are looked up here first by the Python worker."""
        digest = hashlib.sha1(f"acme/product@{REVISION}:.taskcluster.yml".encode()).hexdigest()
        place = pathlib.Path(work_dir) / ".cache" / "github_files" / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(TEMPLATE)


class Worker:
    """A worker process of either kind."""

    def __init__(self, binary, path, output):
        self.output = output
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TASKCLUSTER_")}
        with open(output, "wb") as file:
            self.process = subprocess.Popen([str(binary), str(path)], stdout=file, stderr=file, env=environment)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        assert self.process.wait(120) == 0, self.text()[-3000:]

    def text(self):
        return self.output.read_text(errors="replace")


def credentials(running):
    """Plain text, which the client's own options do not stay."""
    return {
        "clientId": running.values["TASKCLUSTER_CLIENT_ID"],
        "accessToken": running.values["TASKCLUSTER_ACCESS_TOKEN"],
    }


def our_binary(running):
    return load_suite().BINARIES / "scriptworker"


def python_binary(name="scriptworker"):
    return pathlib.Path(sys.executable).parent / name


def artifact(running, task_id, name):
    """The decoded content of a public artifact."""
    import gzip

    url = f"{running.root_url}/api/queue/v1/task/{task_id}/artifacts/{name}"
    with urllib.request.urlopen(url, timeout=120) as response:
        content = response.read()
        return gzip.decompress(content) if response.headers["Content-Encoding"] == "gzip" else content


__all__ = [
    "Graph", "Key", "Worker", "artifact", "eventually", "our_binary", "python_binary", "unique", "wait_resolved",
]
