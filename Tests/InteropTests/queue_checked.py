# SPDX-License-Identifier: MPL-2.0
"""A queue of a file's own, and clients whose every answer is held against its published schema."""

import datetime
import json
import urllib.request

import jsonschema
import pytest
import referencing
import referencing.jsonschema
import taskcluster
from taskcluster.exceptions import TaskclusterAuthFailure, TaskclusterRestFailure

from local_queue import ROOT, TOP, Deployment
from support import stamp, task, unique


CLASSES = {
    "auth": taskcluster.Auth,
    "index": taskcluster.Index,
    "notify": taskcluster.Notify,
    "object": taskcluster.Object,
    "purge-cache": taskcluster.PurgeCache,
    "queue": taskcluster.Queue,
    "secrets": taskcluster.Secrets,
    "worker-manager": taskcluster.WorkerManager,
}

POOLS = "taskcluster-local starts no machines, so there are no pools, providers or launch configurations to manage"
OUT_OF_SCOPE = {
    ("auth", "awsS3Credentials"): "there is no AWS account behind a local deployment",
    ("auth", "gcpCredentials"): "there is no Google project behind a local deployment",
    ("auth", "githubRepoToken"): "there is no GitHub application; scriptworker falls back to its own token",
    ("auth", "sentryDSN"): "there is no Sentry",
    ("auth", "websocktunnelToken"): "there is no websocktunnel",
    **{
        ("worker-manager", name): POOLS
        for name in (
            "createWorker createWorkerPool deleteWorkerPool getWorker listProviders listWorkerPoolErrors "
            "listWorkerPoolLaunchConfigs listWorkerPoolsStats listWorkers listWorkersForWorkerGroup "
            "listWorkersForWorkerPool registerWorker reportWorkerError reregisterWorker updateWorker updateWorkerPool "
            "worker workerPool workerPoolErrorStats workerPoolStats"
        ).split()
    },
}


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    settings = {
        "TCL_CLAIM_TIMEOUT": "30",
        "TCL_CLAIM_WORK_TIMEOUT": "2",
        "TCL_DEADLINE_DELAY": "1",
        "TCL_EXPIRY_INTERVAL": "1",
    }
    with Deployment(servers, tmp_path_factory.mktemp("queue"), **settings) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def server(deployment):
    return deployment.start()


class Schemas:
    """The schemas that are served, to hold answers against."""

    def __init__(self):
        resources = []
        for path in sorted((TOP / "schemas").glob("*/v1/*.json")):
            document = json.loads(path.read_text())
            uri = "/" + str(path.relative_to(TOP))
            document.pop("$schema", None)
            document["$id"] = uri
            resource = referencing.Resource(document, referencing.jsonschema.DRAFT6)
            resources.append((uri, resource))
        self.registry = referencing.Registry().with_resources(resources)

    def check(self, uri, value):
        validator = jsonschema.Draft6Validator({"$ref": uri}, registry=self.registry)
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not problems, f"{uri}: {problems}"


SCHEMAS = Schemas()


class Checked:
    """A client whose every answer is held against the schema its reference names."""

    def __init__(self, service, options):
        self._service = service
        self._client = CLASSES[service](options)
        url = f"{options['rootUrl']}/references/{service}/v1/api.json"
        with urllib.request.urlopen(url) as answer:
            entries = json.load(answer)["entries"]
        self._outputs = {entry["name"]: entry.get("output") for entry in entries}

    def __getattr__(self, name):
        method = getattr(self._client, name)
        if name.startswith("build"):
            return method

        def call(*args, **kwargs):
            answer = method(*args, **kwargs)
            output = self._outputs.get(name)
            if output and answer is not None:
                SCHEMAS.check(f"/schemas/{self._service}/{output.split('#')[0]}", answer)
            return answer

        return call


def client(server, service, **credentials):
    return Checked(service, server.options(**credentials))


@pytest.fixture(scope="module")
def queue(server):
    return client(server, "queue")


@pytest.fixture(scope="module")
def auth(server):
    return client(server, "auth")


def later(**delta):
    return stamp(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta))


def claimed(queue, queue_id=None, **fields):
    """A task that worker g/w has just taken."""
    queue_id = queue_id or f"test/{unique('q').lower()}"
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("claimed", queue_id=queue_id, payload={"n": 1}, **fields))
    (claim,) = queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w"})["tasks"]
    assert claim["status"]["taskId"] == task_id
    return claim


def refused(status, call, *args, code=None, **kwargs):
    kind = TaskclusterAuthFailure if status == 401 else TaskclusterRestFailure
    with pytest.raises(kind) as failure:
        call(*args, **kwargs)
    assert failure.value.status_code == status, failure.value
    if code:
        assert failure.value.body["code"] == code
    return failure.value


def fetch(url, headers=None, method="GET", data=None):
    request = urllib.request.Request(url, headers=headers or {}, method=method, data=data)
    with urllib.request.urlopen(request) as answer:
        return answer.status, dict(answer.headers), answer.read()


def put(url, body, content_type, **headers):
    return fetch(url, {"Content-Type": content_type, **headers}, "PUT", body)


def upload(queue, claim, name, body, content_type="text/plain", **headers):
    run = claim["runId"]
    wish = {"storageType": "s3", "expires": claim["task"]["expires"], "contentType": content_type}
    answer = queue.createArtifact(claim["status"]["taskId"], run, name, wish)
    status, _, _ = put(answer["putUrl"], body, content_type, **headers)
    assert status == 200
    return answer


def sign(server, url, method="GET", ext=None, body="", **more):
    import mohawk

    credentials = {"id": ROOT, "key": server.deployment.token, "algorithm": "sha256"}
    content = {"content": body, "content_type": "application/json"} if body else {"content": "", "content_type": ""}
    return mohawk.Sender(credentials, url, method, ext=ext, **content, **more).request_header
