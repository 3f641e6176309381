# SPDX-License-Identifier: MPL-2.0
"""Real clients in full: every method by the PyPI client, sync and async, and what the Go programs say on the wire.

The Go command line and generic-worker are in no registry that this project may use. Their checks (107, 109) replay the
requests they make, as the specification of the local deployment describes them: raw sockets, their order of headers,
their spelling of paths, signatures without a payload hash and without `ext`.
"""

import asyncio
import base64
import datetime
import gzip
import hashlib
import hmac
import http.client
import inspect
import json
import secrets
import socket
import time
import urllib.parse
import urllib.request

import pytest
import taskcluster
import taskcluster.aio

from local_queue import ROOT, Deployment
from queue_checked import CLASSES, OUT_OF_SCOPE
from support import hook, task, unique


@pytest.fixture(scope="module")
def server(servers, tmp_path_factory):
    settings = {"TCL_CLAIM_WORK_TIMEOUT": "2", "TCL_CLAIM_TIMEOUT": "1200"}
    with Deployment(servers, tmp_path_factory.mktemp("clients"), **settings) as deployment:
        yield deployment.start()


# ---------------------------------------------------------------- every method, sync and async


class SyncCalls:
    """Calls methods of the sync client."""

    def __init__(self, server):
        self.server = server
        self.called = set()

    async def __call__(self, service, method, *args, credentials=None, **options):
        settings = self.server.options()
        if credentials:
            settings["credentials"] = dict(credentials)
        answer = getattr(CLASSES[service](settings), method)(*args, **options)
        self.called.add((service, method))
        return answer


class AsyncCalls(SyncCalls):
    """Calls methods of the async client, on one session."""

    def __init__(self, server, session):
        super().__init__(server)
        self.session = session

    async def __call__(self, service, method, *args, credentials=None, **options):
        settings = self.server.options()
        if credentials:
            settings["credentials"] = dict(credentials)
        kind = getattr(taskcluster.aio, CLASSES[service].__name__)
        answer = getattr(kind(settings, session=self.session), method)(*args, **options)
        answer = await answer if inspect.isawaitable(answer) else answer
        self.called.add((service, method))
        return answer


def put(url, body, headers):
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="PUT")) as answer:
        assert answer.status == 200


async def tell_auth(call):
    name = unique("client/of")
    wish = {"expires": taskcluster.fromNow("1 hour"), "description": "d", "scopes": ["a:*"]}
    assert len((await call("auth", "createClient", name, wish))["accessToken"]) == 44
    assert (await call("auth", "client", name))["clientId"] == name
    assert (await call("auth", "updateClient", name, wish | {"description": "e"}))["description"] == "e"
    assert len((await call("auth", "resetAccessToken", name))["accessToken"]) == 44
    assert (await call("auth", "disableClient", name))["disabled"] is True
    assert (await call("auth", "enableClient", name))["disabled"] is False
    assert [each["clientId"] for each in (await call("auth", "listClients", query={"prefix": name}))["clients"]] == [name]
    assert await call("auth", "deleteClient", name) is None
    role = unique("role of")
    assert (await call("auth", "createRole", role, {"scopes": ["x:y"], "description": "d"}))["roleId"] == role
    assert (await call("auth", "updateRole", role, {"scopes": ["x:z"], "description": "d"}))["scopes"] == ["x:z"]
    assert (await call("auth", "role", role))["scopes"] == ["x:z"]
    assert role in [each["roleId"] for each in await call("auth", "listRoles")]
    assert role in (await call("auth", "listRoleIds"))["roleIds"]
    assert (await call("auth", "listRoles2", query={"limit": 1}))["roles"]
    assert "x:z" in (await call("auth", "expandScopes", {"scopes": [f"assume:{role}"]}))["scopes"]
    assert await call("auth", "deleteRole", role) is None
    assert "*" in (await call("auth", "currentScopes"))["scopes"]
    assert (await call("auth", "getEntityHistory", "client", name))["auditHistory"]
    assert (await call("auth", "listAuditHistory", ROOT))["auditHistory"]
    tester = {"clientId": "tester", "accessToken": "no-secret"}
    wish = {"clientScopes": ["test:a"], "requiredScopes": ["test:a"]}
    assert (await call("auth", "testAuthenticate", wish, credentials=tester))["clientId"] == "tester"
    assert (await call("auth", "testAuthenticateGet", credentials=tester))["clientId"] == "tester"
    request = {"method": "get", "resource": "/api/queue/v1/ping", "host": "localhost", "port": 80}
    answer = await call("auth", "authenticateHawk", request)
    assert answer["status"] == "no-auth" and answer["scheme"] == "none" and answer["expires"]


async def tell_queue(call):
    queue_id = f"told/{unique('q').lower()}"
    place = queue_id.split("/")
    ask = {"workerGroup": "g", "workerId": "w"}
    group, claimed, blocked, named = (taskcluster.slugId() for _ in range(4))
    for task_id, fields in (
        (group, {"priority": "highest"}),
        (claimed, {}),
        (blocked, {"dependencies": [group]}),
        (named, {}),
    ):
        made = await call("queue", "createTask", task_id, task("told", queue_id=queue_id, taskGroupId=group, **fields))
        assert made["status"]["taskId"] == task_id
    assert (await call("queue", "task", group))["metadata"]["name"] == "told"
    assert (await call("queue", "status", blocked))["status"]["state"] == "unscheduled"
    ids = {"taskIds": [group, blocked]}
    assert len((await call("queue", "tasks", ids))["tasks"]) == len((await call("queue", "statuses", ids))["statuses"]) == 2
    assert (await call("queue", "listDependentTasks", group))["tasks"][0]["status"]["taskId"] == blocked
    assert len((await call("queue", "listTaskGroup", group))["tasks"]) == 4
    assert (await call("queue", "getTaskGroup", group))["taskGroupId"] == group
    assert (await call("queue", "changeTaskPriority", named, {"newPriority": "low"}))["status"]["priority"] == "low"
    assert (await call("queue", "changeTaskGroupPriority", group, {"newPriority": "high"}))["tasksAffected"] == 4
    assert (await call("queue", "claimTask", named, 0, ask))["runId"] == 0
    await call("queue", "reportFailed", named, 0)
    assert (await call("queue", "rerunTask", named))["status"]["state"] == "pending"
    assert (await call("queue", "pendingTasks", queue_id))["pendingTasks"] == 3
    assert len((await call("queue", "listPendingTasks", queue_id))["tasks"]) == 3
    claims = (await call("queue", "claimWork", queue_id, ask | {"tasks": 2}))["tasks"]
    assert {each["status"]["taskId"] for each in claims} == {group, claimed}
    counts = await call("queue", "taskQueueCounts", queue_id)
    assert (counts["pendingTasks"], counts["claimedTasks"]) == (1, 2)
    assert len((await call("queue", "taskQueueCountsBatch", {"taskQueueIds": [queue_id]}))["taskQueueCounts"]) == 1
    assert len((await call("queue", "listClaimedTasks", queue_id))["tasks"]) == 2
    own = next(each["credentials"] for each in claims if each["status"]["taskId"] == group)
    assert (await call("queue", "reclaimTask", group, 0, credentials=own))["runId"] == 0
    await tell_artifacts(call, group, own)
    assert (await call("queue", "reportCompleted", group, 0, credentials=own))["status"]["state"] == "completed"
    again = await call("queue", "reportException", claimed, 0, {"reason": "worker-shutdown"})
    assert again["status"]["runs"][1]["reasonCreated"] == "retry"
    assert (await call("queue", "scheduleTask", blocked))["status"]["state"] == "pending"
    assert (await call("queue", "cancelTask", blocked))["status"]["state"] == "exception"
    assert (await call("queue", "sealTaskGroup", group))["sealed"]
    assert (await call("queue", "cancelTaskGroup", group))["cancelledCount"] == 2
    assert (await call("queue", "getTaskQueue", queue_id))["taskQueueId"] == queue_id
    assert (await call("queue", "listTaskQueues"))["taskQueues"]
    assert (await call("queue", "getProvisioner", "told"))["provisionerId"] == "told"
    assert (await call("queue", "listProvisioners"))["provisioners"]
    assert (await call("queue", "getWorkerType", *place))["workerType"] == place[1]
    assert (await call("queue", "listWorkerTypes", "told"))["workerTypes"]
    assert (await call("queue", "declareWorker", *place, "g", "x", {"expires": taskcluster.fromNow("1 day")}))["workerId"] == "x"
    until = {"quarantineUntil": taskcluster.fromNow("1 hour"), "quarantineInfo": "smoke"}
    assert (await call("queue", "quarantineWorker", *place, "g", "x", until))["quarantineDetails"]
    assert (await call("queue", "getWorker", *place, "g", "w"))["recentTasks"]
    assert len((await call("queue", "listWorkers", *place))["workers"]) == 2
    assert (await call("worker-manager", "shouldWorkerTerminate", queue_id, "g", "w"))["terminate"] is False
    assert (await call("worker-manager", "listWorkerPools"))["workerPools"] == []
    assert await call("worker-manager", "removeWorker", queue_id, "g", "w") is None


async def tell_artifacts(call, task_id, own):
    expires = (await call("queue", "task", task_id))["expires"]
    create = lambda name, **wish: call("queue", "createArtifact", task_id, 0, name, {"expires": expires} | wish, credentials=own)
    target = await create("public/a b", storageType="s3", contentType="text/plain")
    put(target["putUrl"], b"hello", {"Content-Type": "text/plain"})
    assert (await call("queue", "artifact", task_id, 0, "public/a b"))["storageType"] == "s3"
    assert (await call("queue", "latestArtifact", task_id, "public/a b"))["storageType"] == "s3"
    assert (await call("queue", "artifactInfo", task_id, 0, "public/a b"))["contentType"] == "text/plain"
    assert (await call("queue", "latestArtifactInfo", task_id, "public/a b"))["name"] == "public/a b"
    for method, args in (("getArtifact", (task_id, 0)), ("getLatestArtifact", (task_id,))):
        assert (await call("queue", method, *args, "public/a b"))["storageType"] == "s3"
    made = await create("public/object", storageType="object", contentType="a/b")
    name, terms = made["name"], {"projectId": made["projectId"], "uploadId": made["uploadId"]}
    data = base64.b64encode(b"inline").decode()
    hashes = {"sha256": hashlib.sha256(b"inline").hexdigest()}
    wish = terms | {
        "expires": made["expires"],
        "hashes": hashes,
        "proposedUploadMethods": {"dataInline": {"contentType": "a/b", "objectData": data}},
    }
    uploader = made["credentials"]
    assert (await call("object", "createUpload", name, wish, credentials=uploader))["uploadMethod"]["dataInline"] is True
    assert await call("object", "finishUpload", name, terms | {"hashes": hashes}, credentials=uploader) == {}
    assert await call("queue", "finishArtifact", task_id, 0, "public/object", {"uploadId": made["uploadId"]}, credentials=own) is None
    assert (await call("object", "object", name))["hashes"]["sha256"] == hashes["sha256"]
    begun = await call("object", "startDownload", name, {"acceptDownloadMethods": {"simple": True}})
    assert begun["method"] == "simple"
    assert await call("object", "download", name)
    assert [each["name"] for each in (await call("queue", "listArtifacts", task_id, 0))["artifacts"]] == ["public/a b", "public/object"]
    assert len((await call("queue", "listLatestArtifacts", task_id))["artifacts"]) == 2
    path = unique("told") + ".x"
    entry = {"taskId": task_id, "rank": 1, "data": {}, "expires": taskcluster.fromNow("1 hour")}
    assert (await call("index", "insertTask", path, entry))["taskId"] == task_id
    assert (await call("index", "findTask", path))["taskId"] == task_id
    assert (await call("index", "findTasksAtIndex", {"indexes": [path]}))["tasks"][0]["taskId"] == task_id
    assert (await call("index", "listTasks", path.split(".")[0]))["tasks"]
    assert (await call("index", "listNamespaces", ""))["namespaces"]
    assert await call("index", "findArtifactFromTask", path, "public/a b")
    assert await call("index", "deleteTask", path) == {}


async def tell_the_rest(call):
    name = unique("secret/of")
    assert await call("secrets", "set", name, {"secret": {"a": 1}, "expires": taskcluster.fromNow("1 hour")}) == {}
    assert (await call("secrets", "get", name))["secret"] == {"a": 1}
    assert name in (await call("secrets", "list"))["secrets"]
    assert await call("secrets", "remove", name) == {}
    address = unique("someone") + "@example.com"
    assert await call("notify", "email", {"address": address, "subject": "s", "content": "c"}) is not None
    assert await call("notify", "matrix", {"roomId": unique("!room"), "body": "hello"}) is not None
    assert await call("notify", "slack", {"channelId": unique("C"), "text": "hello"}) is not None
    assert await call("notify", "pulse", {"routingKey": "told", "message": {"a": 1}}) is not None
    entry = {"notificationType": "email", "notificationAddress": address}
    assert await call("notify", "addDenylistAddress", entry) == {}
    assert entry in (await call("notify", "listDenylist"))["addresses"]
    assert await call("notify", "deleteDenylistAddress", entry) == {}
    pool = f"told/{unique('pool').lower()}"
    assert await call("purge-cache", "purgeCache", pool, {"cacheName": "c"}) is None
    assert len((await call("purge-cache", "purgeRequests", pool))["requests"]) == 1
    assert (await call("purge-cache", "allPurgeRequests"))["requests"]
    for service in CLASSES:
        assert (await call(service, "ping"))["alive"] is True
        assert await call(service, "lbheartbeat") == {} and await call(service, "heartbeat") == {}
        assert (await call(service, "version"))["version"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_python_client_calls_every_method_that_is_served(server, kind):
    async def tell():
        async with taskcluster.aio.createSession() as session:
            call = SyncCalls(server) if kind == "sync" else AsyncCalls(server, session)
            for part in (tell_auth, tell_queue, tell_the_rest):
                await part(call)
            return call.called

    called = asyncio.run(tell())
    known = {(service, name) for service, client in CLASSES.items() for name in client.funcinfo}
    assert known - set(OUT_OF_SCOPE) - called == set(), "these were never called"


def test_q106_hooks_are_reached_through_the_same_root_with_their_signatures(running):
    name = unique("a/b")
    hooks = running.hooks()
    hooks.createHook("interop", name, hook("slashes"))
    try:
        request_line = f"/api/hooks/v1/hooks/interop/{urllib.parse.quote(name, safe='')}"
        assert "a%2Fb" in request_line
        assert hooks.hook("interop", name)["hookId"] == name
        # The signature covers the path as it was sent; the same path spelled in another way is not signed.
        with urllib.request.urlopen(hooks.buildSignedUrl("hook", "interop", name)) as answer:
            assert json.load(answer)["hookId"] == name
        assert urllib.parse.urlsplit(hooks.buildUrl("hook", "interop", name)).path == request_line
    finally:
        hooks.removeHook("interop", name)


# ---------------------------------------------------------------- what Go programs say on the wire


class GoClient:
    """Speaks as clients written in Go do: one connection, their headers in their order, no hash of the payload."""

    def __init__(self, server, client_id=ROOT, token=None, certificate=None, agent="Go-http-client/1.1"):
        self.address = urllib.parse.urlsplit(server.own_url)
        self.client_id, self.token, self.certificate = client_id, token or server.deployment.token, certificate
        self.agent = agent

    def authorization(self, method, resource):
        ext = ""
        if self.certificate:
            text = json.dumps({"certificate": json.loads(self.certificate)}, separators=(",", ":"))
            ext = base64.b64encode(text.encode()).decode()
        stamp, nonce = str(int(time.time())), secrets.token_urlsafe(6)
        lines = ["hawk.1.header", stamp, nonce, method, resource, self.address.hostname, str(self.address.port), "", ext, ""]
        mac = base64.b64encode(hmac.new(self.token.encode(), "\n".join(lines).encode(), hashlib.sha256).digest()).decode()
        parts = [f'id="{self.client_id}"', f'mac="{mac}"', f'ts="{stamp}"', f'nonce="{nonce}"']
        return "Hawk " + ", ".join(parts + ([f'ext="{ext}"'] if ext else []))

    def send(self, method, resource, body=None, signed=True, headers=()):
        """Status, headers and body of the answer to one request; redirects are answers."""
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {resource} HTTP/1.1", f"Host: {self.address.netloc}", f"User-Agent: {self.agent}"]
        if method not in ("GET", "HEAD"):
            lines.append(f"Content-Length: {len(payload)}")
        if signed:
            lines.append(f"Authorization: {self.authorization(method, resource)}")
        if body is not None:
            lines.append("Content-Type: application/json")
        lines += [f"{name}: {value}" for name, value in headers] + ["Accept-Encoding: gzip"]
        with socket.create_connection((self.address.hostname, self.address.port), timeout=120) as connection:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            content, facts = answer.read(), dict(answer.getheaders())
            # Go's transport asks for gzip by itself and unpacks what comes.
            return answer.status, facts, gzip.decompress(content) if facts.get("Content-Encoding") == "gzip" else content

    def call(self, method, path, body=None, signed=True):
        status, _, answer = self.send(method, f"/api/queue/v1{path}", body, signed)
        assert status in (200, 303, 424), (path, status, answer)
        return json.loads(answer)

    def claimed(self, server, claim):
        own = claim["credentials"]
        return GoClient(server, own["clientId"], own["accessToken"], own["certificate"], self.agent)

    def get(self, url):
        """A plain GET of an absolute URL, following redirects as net/http does."""
        for _ in range(10):
            parts = urllib.parse.urlsplit(url)
            resource = parts.path + (f"?{parts.query}" if parts.query else "")
            status, headers, body = self.send("GET", resource, signed=False)
            if status not in (301, 302, 303, 307, 308):
                return status, headers, body
            url = urllib.parse.urljoin(url, headers["Location"])
        raise AssertionError("too many redirects")


def go_time(text):
    """As Go prints an instant in RFC 3339: no fraction if it is zero."""
    return text.replace(".000Z", "Z")


def test_q107_what_the_go_command_line_asks_is_answered(server):
    """The command line itself cannot be had here: its requests are replayed, command by command."""
    go = GoClient(server, agent="taskcluster/v113")
    server_url = server.own_url

    # task run: the definition with every field of the Go structure that is not empty.
    group = taskcluster.slugId()
    worker_type = unique("cli").lower()
    made = task("Taskcluster-cli Task", queue_id=f"cli/{worker_type}")
    del made["taskQueueId"]
    definition = made | {
        "created": go_time(made["created"]),
        "dependencies": [],
        "payload": {"image": "ubuntu:14.04", "command": ["true"], "env": {"A": "b"}, "maxRunTime": 7200},
        "provisionerId": "cli",
        "schedulerId": "taskcluster-cli",
        "taskGroupId": group,
        "workerType": worker_type,
    }
    assert go.call("PUT", f"/task/{group}", definition)["status"]["state"] == "pending"
    others = [taskcluster.slugId() for _ in range(3)]
    for other in others:
        go.call("PUT", f"/task/{other}", definition)

    # task status, def, name, group.
    status = go.call("GET", f"/task/{group}/status")["status"]
    assert status["runs"][-1]["state"] == "pending" and status["workerType"] == worker_type
    assert go.call("GET", f"/task/{group}")["metadata"]["name"] == "Taskcluster-cli Task"

    # task complete: claimTask in the name of the command line, then a report with the credentials of the claim.
    claim = go.call("POST", f"/task/{group}/runs/0/claim", {"workerGroup": worker_type, "workerId": "taskcluster-cli"})
    own = go.claimed(server, claim)
    # task log: a plain GET of live.log; the command line falls back to the backing log when there is none.
    log = f"{server_url}/api/queue/v1/task/{group}/artifacts/public/logs/live.log"
    backing = log.replace("live.log", "live_backing.log")
    assert go.get(log)[0] == 404 and go.get(backing)[0] == 404
    expires = go_time(made["expires"])
    wish = {"storageType": "s3", "contentType": "text/plain; charset=utf-8", "expires": expires}
    target = own.call("POST", f"/task/{group}/runs/0/artifacts/public%2Flogs%2Flive_backing.log", wish)
    packed = gzip.compress(b"[taskcluster] one\n[taskcluster] two\n")
    put(target["putUrl"], packed, {"Content-Type": wish["contentType"], "Content-Encoding": "gzip"})
    code, headers, text = go.get(backing)
    assert code == 200 and text == b"[taskcluster] one\n[taskcluster] two\n" and go.get(log)[0] == 404
    assert headers["Content-Length"] == str(len(packed))
    report = own.call("POST", f"/task/{group}/runs/0/completed")
    assert report["status"]["runs"][0]["reasonResolved"] == "completed"

    # task artifacts, and download artifact: artifact-content names an address.
    names = [each["name"] for each in go.call("GET", f"/task/{group}/runs/0/artifacts")["artifacts"]]
    assert names == ["public/logs/live_backing.log"]
    content = go.call("GET", f"/task/{group}/artifact-content/public%2Flogs%2Flive_backing.log")
    assert content["storageType"] == "s3" and go.get(content["url"])[2].startswith(b"[taskcluster]")

    # task cancel, rerun, retrigger.
    assert go.call("POST", f"/task/{others[0]}/cancel")["status"]["runs"][-1]["reasonResolved"] == "canceled"
    assert go.call("POST", f"/task/{others[0]}/rerun")["status"]["runs"][-1]["state"] == "pending"
    stored = go.call("GET", f"/task/{others[0]}")
    fields = (
        "created deadline expires taskGroupId schedulerId workerType provisionerId priority extra metadata payload requires "
        "scopes tags"
    ).split()
    retrigger = {name: stored[name] for name in fields} | {"retries": 0, "dependencies": [], "routes": []}
    assert go.call("PUT", f"/task/{taskcluster.slugId()}", retrigger)["status"]["retriesLeft"] == 0

    # group list, status and cancel: page by page, then one cancelTask for each that is not resolved.
    def listed():
        token, tasks = "", []
        while True:
            more = f"&continuationToken={urllib.parse.quote(token)}" if token else ""
            page = go.call("GET", f"/task-group/{group}/list?limit=2{more}")
            tasks += page["tasks"]
            token = page.get("continuationToken", "")
            if not token:
                return tasks

    open_ones = [each for each in listed() if each["status"]["state"] in ("unscheduled", "pending", "running")]
    assert len(listed()) == 5 and len(open_ones) == 4
    for each in open_ones:
        go.call("POST", f"/task/{each['status']['taskId']}/cancel")
    assert {each["status"]["state"] for each in listed()} == {"completed", "exception"}
    assert go.call("GET", f"/pending/cli/{worker_type}")["pendingTasks"] == 0


def test_q109_what_generic_worker_asks_is_answered(server):
    """generic-worker itself cannot be had here: two of its capacity run tasks by the requests it makes."""
    worker_type = unique("generic").lower()
    queue_id = f"proj/{worker_type}"
    go = GoClient(server, agent="generic-worker/106.0.0")
    tasks = [taskcluster.slugId() for _ in range(2)]
    for task_id in tasks:
        payload = {"command": [["/bin/bash", "-c", "true"]], "maxRunTime": 60, "artifacts": []}
        server.queue.createTask(task_id, task("generic", queue_id=queue_id, payload=payload))

    # Static configuration, capacity 2: one request asks for as many tasks as it has room for.
    ask = {"tasks": 2, "workerGroup": "local", "workerId": "generic-1"}
    claims = go.call("POST", f"/claim-work/{queue_id.replace('/', '%2F')}", ask)["tasks"]
    assert sorted(each["status"]["taskId"] for each in claims) == sorted(tasks)
    assert {each["workerId"] for each in claims} == {"generic-1"}

    for claim in claims:
        task_id, own = claim["status"]["taskId"], go.claimed(server, claim)
        # It reclaims three minutes before the end, and never if that is less than half a minute away.
        until, started = claim["takenUntil"], claim["status"]["runs"][0]["started"]
        length = datetime.datetime.fromisoformat(until) - datetime.datetime.fromisoformat(started)
        assert length == datetime.timedelta(seconds=1200), "claims of less than 210 s would never be renewed"
        renewed = own.call("POST", f"/task/{task_id}/runs/0/reclaim")
        assert renewed["takenUntil"] >= claim["takenUntil"] and renewed["credentials"]["certificate"]
        own = go.claimed(server, renewed)
        expires = claim["task"]["expires"]
        artifacts = f"/task/{task_id}/runs/0/artifacts"
        live, backing = "public%2Flogs%2Flive.log", "public%2Flogs%2Flive_backing.log"
        # While the task runs the live log is somewhere else; afterwards it is a link to the complete log.
        there = {"storageType": "reference", "contentType": "text/plain; charset=utf-8", "expires": expires}
        own.call("POST", f"{artifacts}/{live}", there | {"url": "http://127.0.0.1:60098/log/x"})
        assert go.call("GET", f"/task/{task_id}/artifacts/{live}", signed=False)["storageType"] == "reference"
        wish = {"storageType": "s3", "contentType": "text/plain; charset=utf-8", "expires": expires}
        target = own.call("POST", f"{artifacts}/{backing}", wish)
        body = gzip.compress(f"log of {task_id}\n".encode())
        put(
            target["putUrl"],
            body,
            {"Content-Type": wish["contentType"], "Content-Encoding": "gzip", "Content-Length": str(len(body))},
        )
        link = {"storageType": "link", "artifact": "public/logs/live_backing.log", "contentType": wish["contentType"], "expires": expires}
        own.call("POST", f"{artifacts}/{live}", link)
        missing = {"storageType": "error", "expires": expires, "reason": "file-missing-on-worker", "message": "no such file"}
        own.call("POST", f"{artifacts}/public%2Fmissing", missing)

    # Both run at once and end one after the other.
    for claim, how in zip(claims, ("completed", "failed")):
        task_id, own = claim["status"]["taskId"], go.claimed(server, claim)
        assert own.call("POST", f"/task/{task_id}/runs/0/{how}")["status"]["state"] == how
        # After a report that failed it asks without credentials how the task stands.
        assert go.call("GET", f"/task/{task_id}/status", signed=False)["status"]["state"] == how
        status, _, text = go.get(f"{server.own_url}/api/queue/v1/task/{task_id}/artifacts/public/logs/live.log")
        assert status == 200 and text == f"log of {task_id}\n".encode()
        status, _, why = go.get(f"{server.own_url}/api/queue/v1/task/{task_id}/artifacts/public/missing")
        assert status == 424 and json.loads(why)["reason"] == "file-missing-on-worker"
        # A cancelled or resolved task takes no more artifacts: 409, which it takes for the fault of the task.
        late = {"storageType": "s3", "contentType": "a/b", "expires": claim["task"]["expires"]}
        status, _, _ = own.send("POST", f"/api/queue/v1/task/{task_id}/runs/0/artifacts/public%2Flate", late)
        assert status == 409
