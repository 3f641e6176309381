# SPDX-License-Identifier: MPL-2.0
"""Behaviour checks of the queue that need more than one look: exact answers, refusals, groups and artifacts."""

import datetime
import json
import urllib.error
import urllib.parse
import urllib.request

import pytest
import taskcluster

from local_queue import ROOT, Deployment
from queue_checked import client, fetch, later, put, refused
from queue_place import ASK, Events, auth, created, deployment, make_client, new_queue, queue, server, signed, status_of  # noqa: F401
from support import eventually, hook, stamp, task, unique


def test_q3_named_credentials_act_under_their_name(server, auth):
    client_id, token = make_client(server, auth, ["auth:create-client:mine/*", "a:b"])

    def ask(name, scopes=("a:b",)):
        times = taskcluster.fromNow("-1 minute"), taskcluster.fromNow("1 hour")
        credentials = taskcluster.createTemporaryCredentials(client_id, token, *times, list(scopes), name)
        url = f"{server.own_url}/api/auth/v1/scopes/current"
        own = taskcluster.Auth({"rootUrl": server.own_url, "credentials": credentials})
        header = own.buildSignedUrl("currentScopes")
        parts = urllib.parse.urlsplit(header)
        request = {"method": "get", "resource": f"{parts.path}?{parts.query}", "host": parts.hostname, "port": parts.port}
        return auth.authenticateHawk(request) | {"url": url}

    answer = ask("mine/worker")
    assert answer["status"] == "auth-success" and answer["clientId"] == "mine/worker" and "a:b" in answer["scopes"]
    assert ask("theirs/worker")["status"] == "auth-failed"
    assert ask("mine/worker", ["b:c"])["status"] == "auth-failed"


def test_q8_a_signed_address_is_good_for_one_path_method_and_time(server, queue):
    task_id = created(queue, "test/none")
    url = queue.buildSignedUrl("task", task_id)
    assert status_of(url) == 200 and status_of(url, method="HEAD") == 200
    assert status_of(url.replace("?", "/status?")) == 401, "another path"
    assert status_of(url.replace("?", "/cancel?"), method="POST") == 401, "another method"
    plain = queue.buildUrl("task", task_id)
    assert status_of(url, {"Authorization": signed(plain, "GET", ROOT, server.deployment.token)}) == 401, "both at once"
    assert status_of(queue.buildSignedUrl("task", task_id, expiration=-10)) == 401, "expired"


def test_q13_a_literal_slash_in_the_name_of_a_queue_claims_alike(server, queue):
    queue_id = new_queue()
    first, second = created(queue, queue_id), created(queue, queue_id)
    taken = []
    for spelled in (queue_id, queue_id.replace("/", "%2F")):
        url = f"{server.own_url}/api/queue/v1/claim-work/{spelled}"
        headers = {
            "Content-Type": "application/json",
            "Authorization": signed(url, "POST", ROOT, server.deployment.token, json.dumps(ASK)),
        }
        (claim,) = json.loads(fetch(url, headers, "POST", json.dumps(ASK).encode())[2])["tasks"]
        taken.append(claim["status"]["taskId"])
    assert taken == [first, second]


def test_q18_the_smallest_definition_is_filled_in_completely(queue):
    task_id = taskcluster.slugId()
    full = task("smallest", payload={})
    definition = {key: full[key] for key in ("created", "deadline", "metadata", "payload")}
    definition |= {"provisionerId": "test", "workerType": "none"}
    assert queue.createTask(task_id, definition)["status"]["state"] == "pending"
    deadline = datetime.datetime.fromisoformat(full["deadline"])
    assert queue.task(task_id) == definition | {
        "taskQueueId": "test/none",
        "schedulerId": "-",
        "projectId": "none",
        "taskGroupId": task_id,
        "dependencies": [],
        "requires": "all-completed",
        "routes": [],
        "priority": "lowest",
        "retries": 5,
        "expires": stamp(deadline.replace(year=deadline.year + 1)),
        "scopes": [],
        "tags": {},
        "extra": {},
    }


def test_q19_the_same_task_in_other_words_is_the_same_task(queue):
    queue_id, task_id = new_queue(), taskcluster.slugId()
    definition = task("same", queue_id=queue_id, payload={"a": 1, "b": [1, 2]})
    queue.createTask(task_id, definition)
    moment = datetime.datetime.fromisoformat(definition["created"])
    elsewhere = moment.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
    again = dict(reversed(definition.items())) | {
        "payload": {"b": [1, 2], "a": 1},
        "created": elsewhere.isoformat(timespec="microseconds"),
        "deadline": definition["deadline"].replace("Z", "000+00:00"),
        "provisionerId": queue_id.split("/")[0],
        "workerType": queue_id.split("/")[1],
        "retries": 5,
    }
    assert len(queue.createTask(task_id, again)["status"]["runs"]) == 1
    assert queue.pendingTasks(queue_id)["pendingTasks"] == 1
    refused(409, queue.createTask, task_id, again | {"payload": {"a": 1, "b": [2, 1]}}, code="RequestConflict")
    assert queue.task(task_id)["payload"] == {"a": 1, "b": [1, 2]}


def test_q25_a_queue_named_whole_is_shown_in_halves_too(queue):
    queue_id = new_queue()
    stored = queue.task(created(queue, queue_id))
    assert [stored["provisionerId"], stored["workerType"]] == queue_id.split("/")


def test_q29_groups_refuse_other_schedulers_and_everything_once_sealed(queue):
    group = created(queue, "test/none", schedulerId="one")
    member = task("member", queue_id="test/none", taskGroupId=group, schedulerId="one")
    member_id = taskcluster.slugId()
    queue.createTask(member_id, member)
    refused(409, queue.createTask, taskcluster.slugId(), member | {"schedulerId": "two"}, code="RequestConflict")
    queue.sealTaskGroup(group)
    refused(409, queue.createTask, taskcluster.slugId(), member, code="RequestConflict")
    refused(409, queue.createTask, member_id, member, code="RequestConflict")


def test_q16_every_refusal_has_a_code_a_message_and_the_name_of_the_method(server, auth, queue):
    client_id, token = make_client(server, auth, [])
    nobody = client(server, "queue", client_id=client_id, token=token)
    missing = taskcluster.slugId()
    bad = task("bad", queue_id="test/none", more=1)
    for status, code, method, call in (
        (400, "InputValidationError", "createTask", lambda: queue.createTask(missing, bad)),
        (400, "InvalidRequestArguments", "status", lambda: queue.status("nonsense")),
        (403, "InsufficientScopes", "createTask", lambda: nobody.createTask(missing, task("x", queue_id="test/none"))),
        (404, "ResourceNotFound", "status", lambda: queue.status(missing)),
        (409, "RequestConflict", "reportCompleted", lambda: queue.reportCompleted(created(queue, "test/none"), 0)),
    ):
        body = refused(status, call, code=code).body
        assert body["requestInfo"]["method"] == method and code in body["message"] and body["requestInfo"]["time"]


def test_q70_q80_events_of_dependents_and_groups(deployment, queue):
    queue_id = new_queue()
    with Events(deployment, "task-pending", "task-group-resolved") as events:
        first = created(queue, queue_id)
        second = created(queue, queue_id, taskGroupId=first)
        blocked = created(queue, queue_id, taskGroupId=first, dependencies=[first, second])
        assert queue.status(blocked)["status"]["state"] == "unscheduled"
        resolved = lambda: [body for name, _, body in events.all() if name == "task-group-resolved"]
        pending = lambda: [body["runId"] for _, key, body in events.all() if f".{blocked}." in key and "runId" in body]
        for task_id in (first, second):
            (claim,) = queue.claimWork(queue_id, ASK)["tasks"]
            assert claim["status"]["taskId"] == task_id and not pending()
            queue.reportCompleted(task_id, 0)
        eventually(pending, 30)
        assert pending() == [0] and not resolved(), "one task of the group was never resolved"
        queue.claimWork(queue_id, ASK)
        queue.reportCompleted(blocked, 0)
        (event,) = eventually(resolved, 30)
        assert event["taskGroupId"] == first and event["schedulerId"] == "-" and event["expires"]
        queue.rerunTask(second)
        queue.claimWork(queue_id, ASK)
        assert len(resolved()) == 1
        queue.reportFailed(second, 1)
        eventually(lambda: len(resolved()) == 2, 30)


def test_q74_dependencies_that_cannot_be_are_named(queue):
    missing, task_id = taskcluster.slugId(), taskcluster.slugId()
    brief = created(queue, "test/none", deadline=later(minutes=1), expires=later(minutes=2))
    definition = task("depends", queue_id="test/none")
    failure = refused(400, queue.createTask, task_id, definition | {"dependencies": [missing, brief]}, code="InputError")
    assert missing in str(failure) and brief in str(failure)
    refused(404, queue.task, task_id)
    whole = created(queue, "test/none")
    assert queue.createTask(task_id, definition | {"dependencies": [whole]})["status"]["state"] == "unscheduled"


def test_q82_pages_of_a_growing_group_hold_no_task_twice(queue):
    group = created(queue, "test/none")
    members = [group] + [created(queue, "test/none", taskGroupId=group) for _ in range(4)]
    seen, options = [], {"limit": 2}
    while True:
        page = queue.listTaskGroup(group, query=options)
        seen += [each["status"]["taskId"] for each in page["tasks"]]
        if "continuationToken" not in page:
            break
        options["continuationToken"] = page["continuationToken"]
        if len(members) < 11:
            members.append(created(queue, "test/none", taskGroupId=group))
    assert len(seen) == len(set(seen)) and set(members[:5]) <= set(seen) <= set(members)
    refused(404, queue.listTaskGroup, taskcluster.slugId())


def test_q84_an_artifact_is_a_redirect_that_says_what_it_is(server, queue):
    queue_id = new_queue()
    task_id = created(queue, queue_id)
    (claim,) = queue.claimWork(queue_id, ASK)["tasks"]
    wish = {"storageType": "s3", "contentType": "text/plain", "expires": claim["task"]["expires"]}
    target = queue.createArtifact(task_id, 0, "public/x.txt", wish)
    assert put(target["putUrl"], b"text", "text/plain")[0] == 200

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    url = f"{server.own_url}/api/queue/v1/task/{task_id}/artifacts/public/x.txt"
    with pytest.raises(urllib.error.HTTPError) as redirect:
        urllib.request.build_opener(Stay).open(url)
    answer = redirect.value
    body = json.loads(answer.read())
    assert answer.code == 303 and answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["x-taskcluster-artifact-storage-type"] == "s3"
    assert body == {"storageType": "s3", "url": answer.headers["Location"]}
    assert fetch(body["url"])[2] == b"text"


def test_small_artifacts_are_read_together_as_far_as_the_caller_may(server, queue, auth):
    import base64
    import gzip

    queue_id = new_queue()
    packed = gzip.compress(b"packed")
    contents = {
        "public/a.txt": b"a", "public/b.bin": bytes(range(256)) * 256, "public/empty": b"", "public/long": bytes((64 << 10) + 1),
        "private/c": b"secret", "public/packed.json": packed,
    }
    task_id = created(queue, queue_id)
    (claim,) = queue.claimWork(queue_id, ASK)["tasks"]
    expires = claim["task"]["expires"]
    for name, content in contents.items():
        target = queue.createArtifact(task_id, 0, name, {"storageType": "s3", "contentType": "text/plain", "expires": expires})
        encoding = {"Content-Encoding": "gzip"} if content is packed else {}
        assert put(target["putUrl"], content, "text/plain", **encoding)[0] == 200
    # Announced, but never uploaded; and one that only leads to another.
    queue.createArtifact(task_id, 0, "public/promised", {"storageType": "s3", "contentType": "text/plain", "expires": expires})
    link = {"storageType": "link", "artifact": "public/a.txt", "contentType": "text/plain", "expires": expires}
    queue.createArtifact(task_id, 0, "public/link", link)
    names = [*contents, "public/promised", "public/link", "public/nothing"]
    url = f"{server.own_url}/api/queue/v1/artifacts/read"

    def read(wanted, authorization=None):
        body = json.dumps({"artifacts": wanted})
        headers = {"Content-Type": "application/json"}
        if authorization:
            headers["Authorization"] = signed(url, "POST", *authorization, body)
        found = json.loads(fetch(url, headers, "POST", body.encode())[2])["artifacts"]
        assert {entry["taskId"] for entry in found} <= {task_id}
        return {entry["name"]: (base64.b64decode(entry["content"]), entry.get("contentEncoding")) for entry in found}

    wanted = [{"taskId": task_id, "name": name} for name in names] + [{"taskId": taskcluster.slugId(), "name": "public/a.txt"}]
    expected = {name: (content, "gzip" if content is packed else None) for name, content in contents.items() if len(content) <= 64 << 10}
    public = {name: content for name, content in expected.items() if name.startswith("public/")}
    assert read(wanted) == public
    assert read(wanted, make_client(server, auth, ["queue:get-artifact:private/*"])) == expected
    assert read(wanted, make_client(server, auth, [])) == public
    with pytest.raises(urllib.error.HTTPError) as refusal:
        read(wanted, ("nobody", "x" * 44))
    assert refusal.value.code == 401
    with pytest.raises(urllib.error.HTTPError) as refusal:
        read([])
    assert refusal.value.code == 400
    # Only the last run counts.
    queue.reportException(task_id, 0, {"reason": "worker-shutdown"})
    assert read(wanted) == {}


def test_q95_expired_artifacts_are_gone_and_after_the_sweep_unknown(servers, tmp_path):
    with Deployment(servers, tmp_path, exchanges=False, TCL_EXPIRY_INTERVAL="86400") as deployment:
        process = deployment.start()
        queue = process.queue
        task_id = created(queue, "test/brief")
        queue.claimWork("test/brief", ASK)
        wish = {"storageType": "s3", "contentType": "a/b", "expires": later(seconds=3)}
        put(queue.createArtifact(task_id, 0, "public/brief", wish)["putUrl"], b"brief", "a/b")
        file = tmp_path / "blobs" / deployment.query("select file from tcl.blobs")
        assert file.exists()

        def status():
            try:
                queue.getLatestArtifact(task_id, "public/brief")
            except taskcluster.exceptions.TaskclusterRestFailure as failure:
                return failure.status_code

        eventually(lambda: status() == 410, 30)
        assert file.exists()
        process.stop()
        # Everything is swept when a process starts.
        queue = deployment.start().queue
        eventually(lambda: status() == 404 and not file.exists(), 30)


def test_q104_a_hook_that_fails_mails_its_owner_once(running):
    hooks, name = running.hooks(), unique("broken")
    owner = f"{unique('owner')}@example.com"
    # Only the schedule tells the owner; who triggers a hook sees the error. It fails every second and mails once.
    definition = hook("broken", schedule=["* * * * * *"])
    definition["metadata"] |= {"owner": owner, "emailOnError": True}
    definition["task"]["payload"]["text"] = {"$eval": "nothing.there"}
    hooks.createHook("demo", name, definition)
    try:
        folder = running.suite.local / "blobs" / "mail"
        mails = lambda: [path for path in folder.glob("*.eml") if f"To: {owner}" in path.read_text(errors="replace")]
        failures = lambda: [each for each in hooks.listLastFires("demo", name)["lastFires"] if each["result"] == "error"]
        eventually(mails, 120)
        eventually(lambda: len(failures()) >= 3, 120)
        assert len(mails()) == 1
    finally:
        hooks.removeHook("demo", name)
