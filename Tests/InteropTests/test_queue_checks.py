# SPDX-License-Identifier: MPL-2.0
"""Behaviour checks of the queue that need more than one look: exact answers, refusals, patience and events."""

import asyncio
import datetime
import json
import pathlib
import socket
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import mohawk
import pika
import pytest
import taskcluster
import taskcluster.aio

from local_queue import ROOT, Deployment
from queue_checked import client, fetch, later, put, refused
from support import eventually, hook, stamp, task, unique

ASK = {"workerGroup": "g", "workerId": "w"}


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    settings = {"TCL_CLAIM_TIMEOUT": "1200", "TCL_CLAIM_WORK_TIMEOUT": "2", "TCL_DEADLINE_DELAY": "1"}
    with Deployment(servers, tmp_path_factory.mktemp("checks"), **settings) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def server(deployment):
    return deployment.start()


@pytest.fixture(scope="module")
def queue(server):
    return client(server, "queue")


@pytest.fixture(scope="module")
def auth(server):
    return client(server, "auth")


def new_queue():
    return f"test/{unique('c').lower()}"


def created(queue, queue_id, **fields):
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("check", queue_id=queue_id, **fields))
    return task_id


def make_client(server, auth, scopes):
    made = auth.createClient(unique("limited"), {"expires": later(hours=1), "description": "d", "scopes": scopes})
    return made["clientId"], made["accessToken"]


def signed(url, method, client_id, token, body=""):
    credentials = {"id": client_id, "key": token, "algorithm": "sha256"}
    content = {"content": body, "content_type": "application/json" if body else ""}
    return mohawk.Sender(credentials, url, method, **content).request_header


def status_of(url, headers=None, method="GET", data=None):
    try:
        return fetch(url, headers, method, data)[0]
    except urllib.error.HTTPError as answer:
        return answer.code


class Events:
    """What a queue of our own got from some exchanges: exchange, routing key and body, in order."""

    def __init__(self, deployment, *names):
        self.connection = pika.BlockingConnection(pika.URLParameters(deployment.amqp_url))
        self.channel = self.connection.channel()
        self.mailbox = self.channel.queue_declare("", exclusive=True).method.queue
        self.received = []
        for name in names:
            self.channel.exchange_declare(deployment.exchange_prefix + name, "topic", durable=True)
            self.channel.queue_bind(self.mailbox, deployment.exchange_prefix + name, "#")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def all(self):
        while True:
            how, _, body = self.channel.basic_get(self.mailbox, auto_ack=True)
            if not how:
                return self.received
            self.received.append((how.exchange.rpartition("/")[2], how.routing_key, json.loads(body)))


# ---------------------------------------------------------------- auth


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


# ---------------------------------------------------------------- creation


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


# ---------------------------------------------------------------- claiming


@pytest.fixture(scope="module")
def patient(deployment, server):
    """A process that holds a request for work as long as deployments do."""
    return deployment.start(TCL_CLAIM_WORK_TIMEOUT="20")


def test_q31_q37_q40_q44_workers_wait_twenty_seconds_and_one_gets_the_task(patient, auth):
    empty, busy, sick_queue = new_queue(), new_queue(), new_queue()
    root = patient.queue
    patient.auth.createRole(unique("warm"), {"scopes": [], "description": "d"})
    place = sick_queue.split("/")
    root.declareWorker(*place, "g", "sick", {})
    root.quarantineWorker(*place, "g", "sick", {"quarantineUntil": later(hours=1)})
    sick_task = created(root, sick_queue)
    limited = [make_client(patient, auth, scopes) for scopes in (["queue:claim-work:*"], ["queue:worker-id:*"])]

    async def everybody():
        import aiohttp

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(queue_id, worker, **credentials):
                own = taskcluster.aio.Queue(patient.options(**credentials, maxRetries=0), session=session)
                start = time.monotonic()
                try:
                    answer = await own.claimWork(queue_id, {"workerGroup": "g", "workerId": worker})
                except taskcluster.exceptions.TaskclusterRestFailure as failure:
                    return failure.status_code, time.monotonic() - start
                return answer["tasks"], time.monotonic() - start

            waiting = [asyncio.create_task(ask(busy, f"w{number}")) for number in range(100)]
            alone = asyncio.create_task(ask(empty, "w"))
            sick = asyncio.create_task(ask(sick_queue, "sick"))
            refusals = [asyncio.create_task(ask(empty, "w", client_id=name, token=token)) for name, token in limited]
            await asyncio.wait(refusals)
            assert not alone.done(), "those without scopes do not wait"
            await asyncio.sleep(3)
            made = await taskcluster.aio.Queue(patient.options(), session=session).createTask(
                taskcluster.slugId(), task("one", queue_id=busy)
            )
            return (
                made["status"]["taskId"],
                await asyncio.gather(*waiting),
                await alone,
                await sick,
                [each.result() for each in refusals],
            )

    made, waiters, alone, sick, refusals = asyncio.run(everybody())
    assert [status for status, _ in refusals] == [403, 403]
    # The clock of a waiter begins when its request arrives, a moment after it was sent.
    assert alone[0] == [] and alone[1] >= 19.5
    assert sick[0] == [] and sick[1] >= 19.5
    winners = [(tasks, seconds) for tasks, seconds in waiters if tasks]
    assert [each[0][0]["status"]["taskId"] for each in winners] == [made]
    assert min(seconds for tasks, seconds in waiters if not tasks) >= 19.5
    assert winners[0][1] < min(seconds for tasks, seconds in waiters if not tasks)
    assert [each["workerId"] for each in root.listWorkers(*place, query={"quarantined": "true"})["workers"]] == ["sick"]
    root.quarantineWorker(*place, "g", "sick", {"quarantineUntil": later(hours=-1)})
    (claim,) = root.claimWork(sick_queue, {"workerGroup": "g", "workerId": "sick"})["tasks"]
    assert claim["status"]["taskId"] == sick_task


@pytest.mark.alone
def test_q32_a_waiter_is_woken_and_does_not_wait_for_the_probe(patient):
    # The probe comes every five seconds: found by it alone, five in a row would take far longer than being told.
    queue_id, seconds = new_queue(), []
    for _ in range(5):
        answers = []
        worker = threading.Thread(target=lambda: answers.append(patient.queue.claimWork(queue_id, ASK)))
        worker.start()
        time.sleep(0.3)
        task_id = created(patient.queue, queue_id)
        start = time.monotonic()
        worker.join(60)
        seconds.append(time.monotonic() - start)
        assert [each["status"]["taskId"] for each in answers[0]["tasks"]] == [task_id]
    assert sorted(seconds)[1] < 2, seconds


def test_q34_without_a_number_a_worker_gets_one_task(queue):
    queue_id = new_queue()
    created(queue, queue_id), created(queue, queue_id)
    assert len(queue.claimWork(queue_id, ASK)["tasks"]) == 1


def test_q39_claims_whose_answer_could_not_be_written_go_back_at_once(deployment, server, queue):
    queue_id = new_queue()
    # More than the buffers of two sockets hold, so the answer cannot have left the process.
    buffers = int(pathlib.Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
    count = min(32, max(4, 2 + buffers // 2_500_000))
    ids = [created(queue, queue_id, payload={"filling": "x" * 2_500_000}) for _ in range(count)]
    url = f"{server.own_url}/api/queue/v1/claim-work/{queue_id.replace('/', '%2F')}"
    body = json.dumps(ASK | {"tasks": count})
    header = signed(url, "POST", ROOT, deployment.token, body)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(
            f"POST {urllib.parse.urlsplit(url).path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Authorization: {header}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        eventually(lambda: queue.taskQueueCounts(queue_id)["claimedTasks"] == count, 120)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: queue.taskQueueCounts(queue_id)["pendingTasks"] == count, 120)
    claims = queue.claimWork(queue_id, ASK | {"tasks": count})["tasks"]
    assert [each["status"]["taskId"] for each in claims] == ids, "at their old places"
    assert {(each["runId"], each["status"]["retriesLeft"]) for each in claims} == {(0, 5)}


def test_q41_credentials_of_a_claim_leave_artifacts_of_their_run_alone(server, queue):
    queue_id = new_queue()
    created(queue, queue_id), created(queue, queue_id)
    mine, other = queue.claimWork(queue_id, ASK | {"tasks": 2})["tasks"]
    worker = taskcluster.Queue({"rootUrl": server.own_url, "credentials": mine["credentials"]})
    wish = {"storageType": "s3", "contentType": "a/b", "expires": mine["task"]["expires"]}
    assert worker.createArtifact(mine["status"]["taskId"], 0, "public/x", wish)["putUrl"]
    refused(403, worker.createArtifact, other["status"]["taskId"], 0, "public/x", wish, code="InsufficientScopes")
    refused(403, worker.reportCompleted, other["status"]["taskId"], 0, code="InsufficientScopes")


def test_q42_credentials_of_a_claim_authenticate_for_five_minutes_more(server, queue):
    queue_id = new_queue()
    task_id = created(queue, queue_id)
    (claim,) = queue.claimWork(queue_id, ASK)["tasks"]
    certificate = json.loads(claim["credentials"]["certificate"])
    until = datetime.datetime.fromisoformat(claim["takenUntil"])
    assert certificate["expiry"] == round(until.timestamp() * 1000), "they end with the claim"
    queue.reportCompleted(task_id, 0)

    def late(minutes):
        """The same credentials, of a claim that ended so long ago."""
        now = datetime.datetime.now(datetime.timezone.utc)
        times = now - datetime.timedelta(hours=1), now - datetime.timedelta(minutes=minutes)
        scopes = certificate["scopes"]
        made = taskcluster.createTemporaryCredentials(
            ROOT, server.deployment.token, *times, scopes, claim["credentials"]["clientId"]
        )
        return taskcluster.Queue({"rootUrl": server.own_url, "credentials": made, "maxRetries": 0})

    refused(409, late(4).reclaimTask, task_id, 0, code="RequestConflict")
    refused(401, late(6).reclaimTask, task_id, 0, code="AuthenticationFailed")


# ---------------------------------------------------------------- running


def test_q48_the_run_of_the_next_worker_is_not_touched_by_the_last_one(deployment, server, queue):
    brief = deployment.start(TCL_CLAIM_TIMEOUT="1")
    queue_id = new_queue()
    task_id = created(queue, queue_id)
    (first,) = brief.queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w1"})["tasks"]
    brief.stop()
    eventually(lambda: len(queue.status(task_id)["status"]["runs"]) == 2, 30)
    (second,) = queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w2"})["tasks"]
    assert (first["runId"], second["runId"]) == (0, 1)
    before = queue.status(task_id)["status"]
    late = taskcluster.Queue({"rootUrl": server.own_url, "credentials": first["credentials"], "maxRetries": 0})
    for call in (late.reportCompleted, late.reportFailed, late.reclaimTask):
        refused(409, call, task_id, 0, code="RequestConflict")
    assert queue.status(task_id)["status"] == before and before["runs"][1]["workerId"] == "w2"
    assert queue.reportCompleted(task_id, 1)["status"]["state"] == "completed"


def test_q53_reports_may_be_repeated_and_not_contradicted(queue):
    queue_id = new_queue()
    waiting, task_id = created(queue, queue_id, priority="low"), created(queue, queue_id, priority="high")
    queue.claimWork(queue_id, ASK)
    assert queue.reportCompleted(task_id, 0) == queue.reportCompleted(task_id, 0)
    refused(409, queue.reportFailed, task_id, 0)
    refused(409, queue.reportException, task_id, 0, {"reason": "worker-shutdown"})
    refused(409, queue.reportCompleted, waiting, 0)
    refused(404, queue.reportCompleted, waiting, 7)
    refused(404, queue.reportCompleted, taskcluster.slugId(), 0)
    assert queue.status(task_id)["status"]["state"] == "completed"


def test_q64_q68_the_end_of_a_deadline_names_no_worker_and_leaves_the_resolved_alone(deployment, queue):
    queue_id, soon = new_queue(), later(seconds=4)
    done = created(queue, queue_id, deadline=soon, priority="high")
    running = created(queue, queue_id, deadline=soon, priority="medium")
    waiting = created(queue, queue_id, deadline=soon)
    with Events(deployment, "task-exception") as events:
        claims = queue.claimWork(queue_id, ASK | {"tasks": 2})["tasks"]
        assert [each["status"]["taskId"] for each in claims] == [done, running]
        queue.reportCompleted(done, 0)
        about = lambda task_id: [each for each in events.all() if each[2]["status"]["taskId"] == task_id]
        eventually(lambda: about(waiting) and about(running), 60)
        provisioner, worker_type = queue_id.split("/")
        for task_id in (waiting, running):
            ((_, key, body),) = about(task_id)
            assert key == f"primary.{task_id}.0._._.{provisioner}.{worker_type}.-.{task_id}._" and "workerId" not in body
            assert body["status"]["runs"][0]["reasonResolved"] == "deadline-exceeded"
        assert not about(done) and queue.status(done)["status"]["state"] == "completed"
    refused(409, queue.reclaimTask, running, 0)
    refused(409, queue.reportCompleted, running, 0)
    assert queue.claimWork(queue_id, ASK)["tasks"] == []


# ---------------------------------------------------------------- dependencies and groups


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


# ---------------------------------------------------------------- artifacts


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
