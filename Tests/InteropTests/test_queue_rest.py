# SPDX-License-Identifier: MPL-2.0
"""What else a deployment has: lists and workers, messages, secrets, the index, notifications, caches."""

import base64
import json
import re
import threading

import taskcluster

from bus import Bus
from local_queue import ROOT, Deployment
from queue_checked import (  # noqa: F401 (fixtures)
    auth,
    claimed,
    client,
    deployment,
    fetch,
    later,
    queue,
    refused,
    SCHEMAS,
    server,
    upload,
)
from support import eventually, task, unique


# ---------------------------------------------------------------- G. the rest


def test_q96_q97_counts(server, queue):
    queue_id = f"test/{unique('count').lower()}"
    place = queue_id.split("/")
    anonymous = taskcluster.Queue({"rootUrl": server.own_url})
    empty = {"provisionerId": place[0], "workerType": place[1], "taskQueueId": queue_id, "pendingTasks": 0}
    assert anonymous.pendingTasks(queue_id) == empty
    for number in range(3):
        queue.createTask(taskcluster.slugId(), task(f"{number}", queue_id=queue_id))
    (claim,) = queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w"})["tasks"]
    queue.reclaimTask(claim["status"]["taskId"], 0)
    assert anonymous.taskQueueCounts(queue_id) == empty | {"pendingTasks": 2, "claimedTasks": 1}
    batch = queue.taskQueueCountsBatch({"taskQueueIds": [queue_id, "test/never-seen"]})["taskQueueCounts"]
    assert [(each["pendingTasks"], each["claimedTasks"]) for each in batch] == [(2, 1), (0, 0)]
    assert [each["taskId"] for each in queue.listClaimedTasks(queue_id)["tasks"]] == [claim["status"]["taskId"]]
    assert len(queue.listPendingTasks(queue_id)["tasks"]) == 2
    first = queue.listPendingTasks(queue_id, query={"limit": 1})
    second = queue.listPendingTasks(queue_id, query={"limit": 1, "continuationToken": first["continuationToken"]})
    assert first["tasks"] != second["tasks"] and "continuationToken" not in second


def test_q98_workers_leave_traces(queue):
    queue_id = f"test/{unique('trace').lower()}"
    place = queue_id.split("/")
    ask = {"workerGroup": "g", "workerId": "w"}
    queue.claimWork(queue_id, ask)
    worker = queue.getWorker(*place, "g", "w")
    assert worker["recentTasks"] == [] and worker["lastDateActive"]
    for number in range(22):
        queue.createTask(taskcluster.slugId(), task(f"{number}", queue_id=queue_id))
    taken = [each["status"]["taskId"] for each in queue.claimWork(queue_id, ask | {"tasks": 22})["tasks"]]
    recent = [each["taskId"] for each in queue.getWorker(*place, "g", "w")["recentTasks"]]
    assert recent == taken[2:]
    (listed,) = queue.listWorkers(*place)["workers"]
    assert listed["latestTask"] == {"taskId": taken[-1], "runId": 0}
    assert queue.getTaskQueue(queue_id)["stability"] == "experimental"
    assert queue_id in [each["taskQueueId"] for each in queue.listTaskQueues()["taskQueues"]]
    assert "test" in [each["provisionerId"] for each in queue.listProvisioners()["provisioners"]]
    assert queue.getProvisioner("test")["provisionerId"] == "test"
    assert place[1] in [each["workerType"] for each in queue.listWorkerTypes("test")["workerTypes"]]
    assert queue.getWorkerType(*place)["taskQueueId"] == queue_id
    refused(404, queue.getWorker, *place, "g", "nobody")


def test_q99_workers_are_declared_property_by_property(server, auth, queue):
    place = ("test", unique("decl").lower())
    scope = f"queue:declare-worker:{place[0]}/{place[1]}/g/w#"
    make = lambda scopes: auth.createClient(
        unique("declarer"), {"expires": later(hours=1), "description": "d", "scopes": scopes}
    )
    without = make([scope + "other"])
    limited = client(server, "queue", client_id=without["clientId"], token=without["accessToken"])
    refused(403, limited.declareWorker, *place, "g", "w", {"expires": later(days=2)})
    allowed = make([scope + "expires"])
    limited = client(server, "queue", client_id=allowed["clientId"], token=allowed["accessToken"])
    assert limited.declareWorker(*place, "g", "w", {"expires": later(days=2)})["workerId"] == "w"
    refused(400, queue.declareWorker, "0", "0", "0", "0", {}, code="InputError")
    refused(404, queue.getWorker, "0", "0", "0", "0")
    refused(404, queue.quarantineWorker, "0", "0", "0", "0", {"quarantineUntil": later(days=1)})
    assert queue.listWorkers("0", "0")["workers"] == []


def test_registration_tools_of_old_declare_actions(server, queue):
    name = unique("hardware")
    action = {
        "name": "reboot", "title": "Reboot", "context": "worker", "url": "https://example.com/reboot", "method": "POST",
        "description": "Turns it off and on again.",
    }
    body = json.dumps({"description": "racks", "actions": [action]}).encode()
    url = f"{server.own_url}/api/queue/v1/provisioners/{name}"
    import mohawk

    credentials = {"id": ROOT, "key": server.deployment.token, "algorithm": "sha256"}
    sender = mohawk.Sender(credentials, url, "PUT", content=body, content_type="application/json")
    _, _, answer = fetch(url, {"Content-Type": "application/json", "Authorization": sender.request_header}, "PUT", body)
    SCHEMAS.check("/schemas/queue/v1/provisioner-response.json", json.loads(answer))
    queue.claimWork(f"{name}/type", {"workerGroup": "g", "workerId": "w"})
    assert queue.getWorker(name, "type", "g", "w")["actions"] == [action]
    assert queue.getProvisioner(name)["actions"] == [action] and queue.getWorkerType(name, "type")["actions"] == []

    body = json.dumps({"description": "the first rack", "stability": "stable"}).encode()
    url += "/worker-types/other"
    sender = mohawk.Sender(credentials, url, "PUT", content=body, content_type="application/json")
    _, _, answer = fetch(url, {"Content-Type": "application/json", "Authorization": sender.request_header}, "PUT", body)
    SCHEMAS.check("/schemas/queue/v1/workertype-response.json", json.loads(answer))
    assert queue.getWorkerType(name, "other")["description"] == "the first rack"
    assert queue.getTaskQueue(f"{name}/other")["stability"] == "stable"


def test_q100_the_index(server, queue):
    index = client(server, "index")
    path = unique("a") + ".b"
    claim = claimed(queue, routes=[f"index.{path}"], extra={"index": {"rank": 5, "data": {"x": 1}}})
    task_id = claim["status"]["taskId"]
    upload(queue, claim, "public/x", b"indexed")
    upload(queue, claim, "private/x", b"quiet")
    queue.reportCompleted(task_id, 0)
    found = eventually(lambda: index.findTask(path), 10)
    assert (found["taskId"], found["rank"], found["data"]) == (task_id, 5, {"x": 1})
    entry = {"taskId": taskcluster.slugId(), "rank": 4, "data": {}, "expires": later(hours=1)}
    assert index.insertTask(path, entry)["taskId"] == task_id
    assert index.insertTask(path, entry | {"rank": 5})["taskId"] == entry["taskId"]
    index.insertTask(path, entry | {"rank": 6, "taskId": task_id})
    assert fetch(index.buildUrl("findArtifactFromTask", path, "public/x"))[2] == b"indexed"
    assert fetch(index.buildSignedUrl("findArtifactFromTask", path, "private/x"))[2] == b"quiet"
    namespace = path.split(".")[0]
    assert [each["namespace"] for each in index.listTasks(namespace)["tasks"]] == [path]
    assert namespace in [each["name"] for each in index.listNamespaces("")["namespaces"]]
    single = unique("single")
    index.insertTask(single, entry)
    assert single in [each["namespace"] for each in index.listTasks("")["tasks"]]
    several = index.findTasksAtIndex({"indexes": [path, "not.there", single]})["tasks"]
    assert sorted(each["namespace"] for each in several) == sorted([path, single])
    assert index.deleteTask(path) == {}
    refused(404, index.findTask, path)


def test_q101_q102_messages_on_the_bus(deployment, queue):
    import pika

    route = unique("route")
    received = []
    connection = pika.BlockingConnection(pika.URLParameters(deployment.amqp_url))
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    exchange = deployment.exchange_prefix
    for last in ("task-defined", "task-pending", "task-running", "task-completed", "artifact-created", "task-group-resolved"):
        channel.exchange_declare(exchange + last, "topic", durable=True)
        channel.queue_bind(name, exchange + last, "primary.#")
        channel.queue_bind(name, exchange + last, f"route.{route}")
    channel.basic_consume(name, lambda _, how, what, body: received.append((how, what, json.loads(body))), auto_ack=True)
    queue_id = f"test/{unique('bus').lower()}"
    claim = claimed(queue, queue_id, routes=[route], tags={"kind": "build"})
    task_id = claim["status"]["taskId"]
    wish = {"storageType": "link", "artifact": "public/y", "expires": claim["task"]["expires"]}
    queue.createArtifact(task_id, 0, "public/x", wish)
    queue.reportCompleted(task_id, 0)

    def mine():
        connection.process_data_events(0.1)
        found = [each for each in received if task_id in each[0].routing_key]
        names = [how.exchange.rpartition("/")[2] for how, _, _ in found]
        return found if "task-group-resolved" in names and "task-completed" in names else None

    found = eventually(mine, 20)
    by_name = {}
    for how, what, body in found:
        last = how.exchange.rpartition("/")[2]
        assert last not in by_name, f"two copies of {last}"
        by_name[last] = (how, what, body)
        schema = "task-group-changed" if last == "task-group-resolved" else last
        SCHEMAS.check(f"/schemas/queue/v1/{schema}-message.json", body)
    connection.close()
    how, what, _ = by_name["task-running"]
    worker_type = queue_id.split("/")[1]
    assert how.routing_key == f"primary.{task_id}.0.g.w.test.{worker_type}.-.{task_id}._"
    assert what.headers["CC"] == [f"route.{route}"] and what.content_type == "application/json" and what.delivery_mode == 2
    defined = by_name["task-defined"][2]
    assert defined["status"]["state"] == "unscheduled" and defined["status"]["runs"] == []
    assert defined["task"]["tags"] == {"kind": "build"}
    order = [how.exchange.rpartition("/")[2] for how, _, _ in found]
    assert order.index("task-defined") < order.index("task-pending") < order.index("task-running")


def test_q103_secrets(server, auth):
    secrets = client(server, "secrets")
    name = unique("a/b") + "/c"
    assert secrets.set(name, {"secret": {"k": "v"}, "expires": later(hours=1)}) == {}
    assert secrets.get(name)["secret"] == {"k": "v"}
    assert name in secrets.list()["secrets"]
    made = auth.createClient(unique("nosy"), {"expires": later(hours=1), "description": "d", "scopes": []})
    nosy = client(server, "secrets", client_id=made["clientId"], token=made["accessToken"])
    refused(403, nosy.get, name)
    refused(403, nosy.get, unique("missing"))
    assert secrets.remove(name) == {} and secrets.remove(name) == {}
    refused(404, secrets.get, name)
    secrets.set(name, {"secret": {}, "expires": later(seconds=-1)})
    refused(404, secrets.get, name)


def test_q104_notify(deployment, server):
    notify = client(server, "notify")
    address = f"{unique('someone')}@example.com"
    mail = {"address": address, "subject": "Grüße & more", "content": "It *works*.", "link": {"text": "here", "href": "https://example.com/x"}}
    assert notify.email(mail) is not None
    assert notify.email(mail) is None, "the same again is dropped with 204"

    def spooled():
        import email

        mails = [email.message_from_bytes(path.read_bytes()) for path in (deployment.folder / "blobs" / "mail").glob("*.eml")]
        return [each for each in mails if each["To"] == address]

    (only,) = eventually(spooled, 15)
    import email.header

    assert str(email.header.make_header(email.header.decode_header(only["Subject"]))) == mail["subject"]
    text = only.get_payload(decode=True).decode()
    assert "It *works*." in text and "https://example.com/x" in text
    notify.addDenylistAddress({"notificationType": "email", "notificationAddress": address})
    assert {"notificationType": "email", "notificationAddress": address} in notify.listDenylist()["addresses"]
    refused(400, notify.email, mail | {"subject": "another"}, code="DenylistedAddress")
    notify.deleteDenylistAddress({"notificationType": "email", "notificationAddress": address})
    assert notify.email(mail | {"subject": "a third"}) is not None
    room = {"roomId": f"!{unique('room')}:example.com", "body": "hello"}
    assert notify.matrix(room) is not None
    assert notify.slack({"channelId": unique("C"), "text": "hello"}) is not None

    exchange = deployment.exchange_prefix.replace("-queue/", "-notify/") + "notification"
    bus = Bus(deployment.amqp_url, [(exchange, "primary.some.key")])
    try:
        notify.pulse({"routingKey": "some.key", "message": {"hello": 1}})
        _, body = bus.wait("notification", lambda body: body["message"] == {"hello": 1})
        SCHEMAS.check("/schemas/notify/v1/notification-message.json", body)
    finally:
        bus.close()


def spooled(deployment, address):
    """The subjects of the mails to an address."""
    spool = deployment.folder / "blobs" / "mail"
    mails = [path.read_text() for path in spool.glob("*.eml")]
    return sorted(re.search("^Subject: (.*)$", text, re.M)[1] for text in mails if f"To: {address}" in text)


def test_tasks_send_mail_by_their_routes(deployment, queue):
    failed, every, quiet = (f"{unique(name)}@example.com" for name in ("failed", "every", "quiet"))
    routes = [
        f"notify.email.{failed}.on-failed",
        f"notify.email.{failed}.on-completed",
        f"notify.email.{every}.on-transition",
        f"notify.email.{quiet}.on-resolved",
    ]
    claim = claimed(queue, routes=routes, retries=1)
    task_id = claim["status"]["taskId"]
    queue.reportException(task_id, 0, {"reason": "intermittent-task"})
    queue.claimWork(claim["status"]["taskQueueId"], {"workerGroup": "g", "workerId": "w"})
    queue.reportFailed(task_id, 1)
    eventually(lambda: len(spooled(deployment, every)) >= 6 and spooled(deployment, failed), 30)
    said = [subject.split()[1].rstrip(":") for subject in spooled(deployment, every)]
    assert sorted(said) == ["defined", "failed", "pending", "pending", "running", "running"]
    assert spooled(deployment, failed) == spooled(deployment, quiet) == [f"Task failed: claimed - {task_id}"]
    gone = claimed(queue, routes=[f"notify.email.{quiet}.on-exception", f"notify.email.{failed}.on-running"])
    queue.cancelTask(gone["status"]["taskId"])
    eventually(lambda: len(spooled(deployment, failed)) == 2, 30)
    assert len(spooled(deployment, quiet)) == 1, "a cancelled task is what somebody wanted"
    assert deployment.query("select count(*) from tcl.notices") == "0"


def test_tasks_wait_for_others_and_tell_when_they_may_start(deployment, queue):
    address = f"{unique('pending')}@example.com"
    first = claimed(queue)["status"]["taskId"]
    second = taskcluster.slugId()
    routes = [f"notify.email.{address}.on-pending", f"notify.email.{address}.on-defined"]
    queue.createTask(second, task("second", queue_id="test/none", dependencies=[first], routes=routes))
    eventually(lambda: spooled(deployment, address) == [f"Task defined: second - {second}"], 30)
    queue.reportCompleted(first, 0)
    eventually(lambda: f"Task pending: second - {second}" in spooled(deployment, address), 30)


def test_tasks_tell_rooms_channels_and_the_bus_in_their_own_words(deployment, queue):
    key, room, channel = unique("told") + ".by.task", unique("!room") + ":example.com", unique("C")
    exchange = deployment.exchange_prefix.replace("-queue/", "-notify/") + "notification"
    bus = Bus(deployment.amqp_url, [(exchange, f"primary.{key}")])
    try:
        extra = {"notify": {"matrixBody": "${task.metadata.name} in ${taskId}", "slackText": "state ${status.state}"}}
        routes = [
            f"notify.pulse.{key}.on-running",
            f"notify.matrix-room.{room}.on-completed",
            f"notify.slack-channel.{channel}.on-any",
        ]
        task_id = claimed(queue, routes=routes, extra=extra)["status"]["taskId"]
        _, body = bus.wait("notification", lambda body: body["message"]["taskId"] == task_id)
        SCHEMAS.check("/schemas/notify/v1/notification-message.json", body)
        assert body["message"]["state"] == "running" and body["message"]["runs"][0]["workerId"] == "w"
        queue.reportCompleted(task_id, 0)
        recorded = lambda address: deployment.query(f"select body from tcl.notifications where address = '{address}'")
        eventually(lambda: recorded(room) and recorded(channel), 30)
        assert json.loads(recorded(room)) == {"msgtype": "m.notice", "body": f"claimed in {task_id}"}
        assert json.loads(recorded(channel)) == {"text": "state completed"}
    finally:
        bus.close()


def test_notifications_are_delivered_to_real_servers_and_tried_again(servers, tmp_path):
    import http.server
    import socketserver

    calls, mails = [], []

    class Chat(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            first = not any(path == self.path for path, _, _ in calls)
            calls.append((self.path, self.headers["Authorization"], body))
            # The first attempt of each fails, the second one succeeds.
            self.send_response(500 if first else 200)
            self.end_headers()
            self.wfile.write(b'{"ok": true}')

        do_POST = do_PUT = answer

        def log_message(self, *_):
            pass

    class Mail(socketserver.StreamRequestHandler):
        def handle(self):
            say = lambda text: self.wfile.write(text.encode() + b"\r\n")
            say("220 test")
            envelope = []
            for line in self.rfile:
                line = line.decode().strip()
                envelope.append(line)
                if line == "DATA":
                    say("354 go on")
                    data = []
                    for line in self.rfile:
                        if line == b".\r\n":
                            break
                        data.append(line.decode())
                    mails.append((envelope, "".join(data)))
                    say("250 taken")
                elif line == "QUIT":
                    say("221 bye")
                    return
                elif line.startswith("EHLO"):
                    self.wfile.write(b"250-test\r\n250 AUTH PLAIN\r\n")
                else:
                    say("235 in" if line.startswith("AUTH") else "250 fine")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat) as chat, socketserver.ThreadingTCPServer(
        ("127.0.0.1", 0), Mail
    ) as smtp, Deployment(servers, tmp_path, exchanges=False) as deployment:
        for each in (chat, smtp):
            threading.Thread(target=each.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{chat.server_address[1]}"
        server = deployment.start(
            TCL_SMTP_HOST="127.0.0.1",
            TCL_SMTP_PORT=smtp.server_address[1],
            TCL_SMTP_USER="user",
            TCL_SMTP_PASSWORD="password",
            TCL_MAIL_FROM="queue@example.com",
            TCL_MATRIX_URL=base,
            TCL_MATRIX_TOKEN="matrix-token",
            TCL_SLACK_URL=base,
            TCL_SLACK_TOKEN="slack-token",
        )
        notify = client(server, "notify")
        notify.email({"address": "a@example.com", "subject": "s", "content": "c"})
        notify.matrix({"roomId": "!a:b", "body": "hello"})
        notify.slack({"channelId": "C1", "text": "hello"})
        (envelope, text) = eventually(lambda: mails[0] if mails else None, 15)
        assert "MAIL FROM:<queue@example.com>" in envelope and "RCPT TO:<a@example.com>" in envelope
        assert base64.b64encode(b"\0user\0password").decode() in envelope[1] and "Subject: s" in text
        eventually(lambda: len(calls) >= 4, 30)
        paths = [path for path, _, _ in calls]
        assert paths.count("/chat.postMessage") == 2
        (matrix,) = {path for path in paths if "matrix" in path}
        assert matrix.startswith("/_matrix/client/v3/rooms/%21a%3Ab/send/m.room.message/")
        assert {token for path, token, _ in calls if path == matrix} == {"Bearer matrix-token"}
        assert next(body for path, _, body in calls if path == "/chat.postMessage") == {"channel": "C1", "text": "hello"}
        chat.shutdown()
        smtp.shutdown()


def test_q105_caches_are_purged(server):
    purge = client(server, "purge-cache")
    pool = f"test/{unique('pool').lower()}"
    assert purge.purgeCache(pool, {"cacheName": "one"}) is None
    (request,) = purge.purgeRequests(pool)["requests"]
    assert request["cacheName"] == "one" and request["provisionerId"] == "test"
    assert purge.purgeRequests(pool, query={"since": later(minutes=1)})["requests"] == []
    assert len(purge.purgeRequests(pool, query={"since": request["before"]})["requests"]) == 1
    assert request in purge.allPurgeRequests()["requests"]


def test_worker_manager_has_little_to_say(server, queue):
    manager = client(server, "worker-manager")
    assert manager.shouldWorkerTerminate("test/none", "g", "w") == {"terminate": False, "reason": "local"}
    assert manager.listWorkerPools() == {"workerPools": []}
    queue_id = f"test/{unique('dead').lower()}"
    claim = claimed(queue, queue_id)
    manager.removeWorker(queue_id, "g", "w")
    runs = queue.status(claim["status"]["taskId"])["status"]["runs"]
    assert [run.get("reasonResolved") for run in runs] == ["worker-shutdown", None]


def test_q12_a_private_deployment_names_the_missing_scope(servers, tmp_path):
    with Deployment(servers, tmp_path, exchanges=False, TCL_ANONYMOUS_PROFILE="private") as deployment:
        server = deployment.start()
        task_id = taskcluster.slugId()
        failure = refused(403, taskcluster.Queue({"rootUrl": server.own_url}).task, task_id)
        assert f"queue:get-task:{task_id}" in str(failure)


def test_a_file_says_what_anonymous_callers_may_do(servers, tmp_path):
    profile = tmp_path / "anonymous.json"
    profile.write_text(json.dumps(["queue:get-task:*"]))
    with Deployment(servers, tmp_path, exchanges=False, TCL_ANONYMOUS_PROFILE=str(profile)) as deployment:
        server = deployment.start()
        anonymous = taskcluster.Queue({"rootUrl": server.own_url})
        refused(404, anonymous.task, taskcluster.slugId())
        refused(403, anonymous.status, taskcluster.slugId())
