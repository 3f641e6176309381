# SPDX-License-Identifier: MPL-2.0
"""Several taskcluster-local processes on one database, killed at random, and stores that are elsewhere."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.parse
import urllib.request

import pytest
import taskcluster
from taskcluster.exceptions import TaskclusterFailure, TaskclusterRestFailure

from local_queue import ROOT, Deployment, free_port
from support import eventually, task, unique

ASK = {"workerGroup": "g", "workerId": "w"}


@pytest.fixture
def pair(servers, tmp_path):
    """Two processes that serve one database and one directory of blobs."""
    settings = {"TCL_CLAIM_WORK_TIMEOUT": "10", "TCL_CLAIM_TIMEOUT": "30", "TCL_DEADLINE_DELAY": "1"}
    with Deployment(servers, tmp_path, **settings) as deployment:
        first = deployment.start()
        yield deployment, first, deployment.start()


def in_background(call, *args):
    box = []
    thread = threading.Thread(target=lambda: box.append(call(*args)))
    thread.start()
    return thread, box


@pytest.mark.alone
def test_a_worker_at_one_process_gets_work_created_at_the_other(pair):
    _, first, second = pair
    queue_id, seconds = f"test/{unique('cross').lower()}", []
    for _ in range(4):
        thread, answers = in_background(first.queue.claimWork, queue_id, ASK)
        time.sleep(0.5)
        task_id = taskcluster.slugId()
        second.queue.createTask(task_id, task("cross", queue_id=queue_id))
        start = time.monotonic()
        thread.join(60)
        seconds.append(time.monotonic() - start)
        assert [each["status"]["taskId"] for each in answers[0]["tasks"]] == [task_id]
    # The probe comes every five seconds: alone it could not have found two of four as soon as this.
    assert sorted(seconds)[1] < 2.5, f"it was told, not found by the probe: {seconds}"


def test_what_one_process_changes_the_other_knows(pair):
    _, first, second = pair
    queue_id = f"test/{unique('both').lower()}"
    task_id = taskcluster.slugId()
    first.queue.createTask(task_id, task("both", queue_id=queue_id))
    (claim,) = second.queue.claimWork(queue_id, ASK)["tasks"]
    worker = taskcluster.Queue({"rootUrl": first.own_url, "credentials": claim["credentials"]})
    assert worker.reclaimTask(task_id, 0)["status"]["state"] == "running", "credentials work everywhere"
    second.queue.cancelTask(task_id)
    with pytest.raises(TaskclusterRestFailure) as gone:
        worker.reclaimTask(task_id, 0)
    assert gone.value.status_code == 409

    made = first.auth.createClient(unique("shared"), {"expires": taskcluster.fromNow("1 hour"), "description": "d"})
    there = taskcluster.Auth(second.options(made["clientId"], made["accessToken"]))
    eventually(lambda: there.currentScopes()["scopes"], 3)
    first.auth.resetAccessToken(made["clientId"])

    def refused():
        try:
            there.currentScopes()
        except taskcluster.exceptions.TaskclusterAuthFailure:
            return True
        return False

    eventually(refused, 3)


def test_two_processes_never_hand_out_a_run_twice(pair):
    _, first, second = pair
    queue_id = f"test/{unique('many').lower()}"
    ids = [taskcluster.slugId() for _ in range(60)]
    taken, lock = [], threading.Lock()

    def work(process, name):
        queue = process.queue
        while True:
            tasks = queue.claimWork(queue_id, {"workerGroup": "g", "workerId": name, "tasks": 4})["tasks"]
            with lock:
                taken.extend((each["status"]["taskId"], each["runId"]) for each in tasks)
                if len(taken) >= len(ids):
                    return
            if not tasks:
                return
            for each in tasks:
                queue.reportCompleted(each["status"]["taskId"], each["runId"])

    for task_id in ids:
        random.choice((first, second)).queue.createTask(task_id, task("many", queue_id=queue_id))
    threads = [threading.Thread(target=work, args=((first, second)[n % 2], f"w{n}")) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert sorted(taken) == sorted((task_id, 0) for task_id in ids)


def test_a_held_claim_does_not_delay_the_end_of_the_process(servers, tmp_path):
    with Deployment(servers, tmp_path, TCL_CLAIM_WORK_TIMEOUT="20") as deployment:
        process = deployment.start()
        waiting = [in_background(process.queue.claimWork, f"test/hold{number}", ASK) for number in range(5)]
        eventually(lambda: process.metric("queue_waiting_workers") == 5)
        seconds, status = process.stop(signal.SIGTERM)
        assert status == 0 and seconds < 15, f"took {seconds:.1f} s, the claims were held for 20"
        for thread, answers in waiting:
            thread.join(60)
            assert answers == [{"tasks": []}], "waiting workers get an answer, not a broken connection"


def test_q38_q39_a_worker_that_hung_up_gets_nothing(servers, tmp_path):
    import json
    import socket

    import mohawk

    with Deployment(servers, tmp_path, exchanges=False, TCL_CLAIM_WORK_TIMEOUT="10") as deployment:
        process = deployment.start()
        queue_id = "test/hangup"
        url = f"{process.own_url}/api/queue/v1/claim-work/test%2Fhangup"
        body = json.dumps(ASK)
        credentials = {"id": ROOT, "key": deployment.token, "algorithm": "sha256"}
        header = mohawk.Sender(credentials, url, "POST", content=body, content_type="application/json").request_header
        with socket.create_connection(("127.0.0.1", process.port)) as connection:
            connection.sendall(
                f"POST /api/queue/v1/claim-work/test%2Fhangup HTTP/1.1\r\nHost: 127.0.0.1:{process.port}\r\n"
                f"Authorization: {header}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            time.sleep(0.5)
        task_id = taskcluster.slugId()
        process.queue.createTask(task_id, task("hangup", queue_id=queue_id))
        (claim,) = process.queue.claimWork(queue_id, ASK)["tasks"]
        assert claim["status"]["taskId"] == task_id and claim["runId"] == 0
        assert claim["status"]["retriesLeft"] == 5


def test_q47_q69_claims_end_in_time_and_survive_a_restart(servers, tmp_path):
    with Deployment(servers, tmp_path, TCL_CLAIM_TIMEOUT="3", TCL_CLAIM_WORK_TIMEOUT="1") as deployment:
        process = deployment.start()
        kept, lost = taskcluster.slugId(), taskcluster.slugId()
        for task_id in (kept, lost):
            process.queue.createTask(task_id, task("restart", queue_id="test/restart"))
        claims = process.queue.claimWork("test/restart", ASK | {"tasks": 2})["tasks"]
        process.stop(signal.SIGKILL)
        again = deployment.start()
        (mine,) = [each for each in claims if each["status"]["taskId"] == kept]
        worker = taskcluster.Queue({"rootUrl": again.own_url, "credentials": mine["credentials"]})
        try:
            worker.reclaimTask(kept, 0)
            expected = {lost}
        except TaskclusterRestFailure as late:
            # The start took longer than the claim.
            assert late.status_code == 409
            expected = {lost, kept}
        for task_id in expected:
            runs = eventually(
                lambda: (lambda runs: runs if len(runs) == 2 else None)(again.queue.status(task_id)["status"]["runs"]), 15
            )
            assert (runs[0]["reasonResolved"], runs[1]["reasonCreated"]) == ("claim-expired", "retry")


def test_q30_a_broker_that_is_away_delays_events_and_loses_none(servers, tmp_path):
    import json

    import pika

    names = ("task-defined", "task-pending", "task-running")

    def channel():
        return pika.BlockingConnection(pika.URLParameters(servers.amqp_url)).channel()

    with Deployment(servers, tmp_path, TCL_CLAIM_WORK_TIMEOUT="1") as deployment:
        process = deployment.start()
        mailbox = f"{deployment.name}-events"
        broker = channel()
        # One that outlives the broker, as a consumer's queue does.
        broker.queue_declare(mailbox, durable=True)
        for name in names:
            broker.exchange_declare(deployment.exchange_prefix + name, "topic", durable=True)
            broker.queue_bind(mailbox, deployment.exchange_prefix + name, "#")
        broker.connection.close()
        # In good order: the mailbox is a moment old, and what it is made of must be on the broker's disk.
        servers.run("stop-rabbitmq", "TERM")
        try:
            task_id = taskcluster.slugId()
            process.queue.createTask(task_id, task("during", queue_id="test/away"))
            (claim,) = process.queue.claimWork("test/away", ASK)["tasks"]
            assert claim["status"]["taskId"] == task_id
        finally:
            servers.run("start-rabbitmq")
        broker = eventually(channel, 60)
        received = []

        def all_there():
            how, _, body = broker.basic_get(mailbox, auto_ack=True)
            if how and json.loads(body)["status"]["taskId"] == task_id:
                received.append(how.exchange.rpartition("/")[2])
            return len(received) >= 3

        eventually(all_there, 60)
        assert received == list(names)
        broker.queue_delete(mailbox)
        broker.connection.close()


@pytest.mark.alone
def test_q110_a_thousand_waiters_cost_little_and_are_all_served(servers, tmp_path):
    import asyncio
    import resource

    import taskcluster.aio

    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with Deployment(servers, tmp_path, exchanges=False, TCL_CLAIM_WORK_TIMEOUT="25") as deployment:
        process = deployment.start()
        pid = process.process.pid
        memory = lambda: int(next(l for l in open(f"/proc/{pid}/status") if l.startswith("VmRSS")).split()[1]) / 1024
        ticks = lambda: sum(map(int, open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11:13]))
        before = memory()

        async def everybody():
            import aiohttp

            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                queue = taskcluster.aio.Queue(process.options(), session=session)

                async def ask(number):
                    # As workers do: who gets nothing in time asks again.
                    while True:
                        answer = await queue.claimWork("test/idle", {"workerGroup": "g", "workerId": f"w{number}"})
                        if answer["tasks"]:
                            return answer

                waiting = [asyncio.create_task(ask(number)) for number in range(count)]
                # Quiet comes once all have asked, sooner or later on a busy machine; the least of many looks tells.
                share = 1.0
                for _ in range(12):
                    start = ticks(), time.monotonic()
                    await asyncio.sleep(1)
                    share = min(share, (ticks() - start[0]) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start[1]))
                idle = memory() - before
                definition = task("idle", queue_id="test/idle")
                begun = time.monotonic()
                await asyncio.gather(*(queue.createTask(taskcluster.slugId(), definition) for _ in range(count)))
                created = time.monotonic() - begun
                answers = await asyncio.gather(*waiting)
                return idle, share, created, time.monotonic() - begun, answers

        idle, share, created, served, answers = asyncio.run(everybody())
        taken = [each["status"]["taskId"] for answer in answers for each in answer["tasks"]]
        print(f"idle {idle:.0f} MiB, {share:.1%} of a core, created in {created:.1f} s, served in {served:.1f} s")
        assert len(taken) == len(set(taken)) == count
        assert share < 0.2, f"waiting costs {share:.1%} of a core"
        assert idle < 180, f"waiting costs {idle:.0f} MiB"


@pytest.fixture(scope="module")
def store():
    """A real S3 server: moto's, in a process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    import boto3

    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret/key+example", "region_name": "us-east-1"}
    store = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
    try:
        eventually(lambda: store.list_buckets()["ResponseMetadata"])
        yield store
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def stored(servers, tmp_path, store):
    """A queue whose artifacts are in a bucket of their own, and a task that has been claimed."""
    bucket = unique("artifacts").lower()
    store.create_bucket(Bucket=bucket)
    settings = {
        "TCL_S3_ENDPOINT": store.meta.endpoint_url,
        "TCL_S3_BUCKET": bucket,
        "TCL_S3_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "TCL_S3_SECRET_ACCESS_KEY": "secret/key+example",
        "TCL_EXPIRY_INTERVAL": "1",
    }
    with Deployment(servers, tmp_path, exchanges=False, **settings) as deployment:
        process = deployment.start()
        process.queue.createTask(taskcluster.slugId(), task("s3", queue_id="test/s3"))
        (claim,) = process.queue.claimWork("test/s3", ASK)["tasks"]
        yield types.SimpleNamespace(
            deployment=deployment,
            process=process,
            queue=process.queue,
            claim=claim,
            address=f"{store.meta.endpoint_url}/{bucket}/",
            count=lambda: store.list_objects_v2(Bucket=bucket)["KeyCount"],
        )


def test_artifacts_and_objects_live_in_an_s3_compatible_store(stored):
    from taskcluster.download import downloadArtifactToBuf
    from taskcluster.upload import uploadFromBuf

    deployment, process, queue, claim = stored.deployment, stored.process, stored.queue, stored.claim
    task_id = claim["status"]["taskId"]
    wish = {"storageType": "s3", "expires": claim["task"]["expires"], "contentType": "text/html"}
    put_url = queue.createArtifact(task_id, 0, "public/page.html", wish)["putUrl"]
    assert put_url.startswith(stored.address)
    verify_signature(put_url, "PUT", {"content-type": "text/html"})
    body = b"<p>" + os.urandom(100_000)
    request = urllib.request.Request(
        put_url, body, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, method="PUT"
    )
    assert urllib.request.urlopen(request).status == 200
    location = queue.getLatestArtifact(task_id, "public/page.html")["url"]
    verify_signature(location, "GET", {})
    with urllib.request.urlopen(location) as answer:
        assert answer.read() == body and answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["Content-Encoding"] == "gzip"
    part = urllib.request.Request(location, headers={"Range": "bytes=0-2"})
    with urllib.request.urlopen(part) as answer:
        assert answer.status == 206 and answer.read() == b"<p>"

    for size in (1000, 100_000):
        name = f"public/object-{size}"
        data = os.urandom(size)
        wish = {"storageType": "object", "expires": claim["task"]["expires"], "contentType": "a/b"}
        made = queue.createArtifact(task_id, 0, name, wish)
        uploadFromBuf(
            data=data,
            projectId=made["projectId"],
            name=made["name"],
            contentType="a/b",
            contentLength=size,
            expires=made["expires"],
            uploadId=made["uploadId"],
            objectService=taskcluster.Object({"rootUrl": process.own_url, "credentials": made["credentials"]}),
        )
        queue.finishArtifact(task_id, 0, name, {"uploadId": made["uploadId"]})
        got, _ = downloadArtifactToBuf(taskId=task_id, runId=0, name=name, queueService=queue)
        assert bytes(got) == data

    # Without hashes from the uploader the deployment computes them from what the store has.
    objects = taskcluster.Object(process.options())
    terms = {"projectId": "p", "uploadId": taskcluster.slugId()}
    begun = objects.createUpload(
        "plain",
        terms
        | {
            "expires": taskcluster.fromNow("1 hour"),
            "proposedUploadMethods": {"putUrl": {"contentType": "a/b", "contentLength": 4}},
        },
    )
    target = begun["uploadMethod"]["putUrl"]
    with pytest.raises(TaskclusterRestFailure) as early:
        objects.finishUpload("plain", terms)
    assert early.value.status_code == 400
    headers = {key: value for key, value in target["headers"].items() if key != "Content-Length"}
    urllib.request.urlopen(urllib.request.Request(target["url"], b"data", headers, method="PUT"))
    objects.finishUpload("plain", terms)
    import hashlib

    assert objects.object("plain")["hashes"]["sha256"] == hashlib.sha256(b"data").hexdigest()

    before = stored.count()
    deployment.query("update tcl.artifacts set expires = now() - interval '1 s'")
    deployment.query("update tcl.objects set expires = now() - interval '1 s'")
    eventually(lambda: stored.count() == 0, 20)
    assert before == 4


def test_uploads_to_an_s3_compatible_store_are_whole_and_verbatim(stored, tmp_path):
    import gzip
    import hashlib
    import socket

    process, queue, claim = stored.process, stored.queue, stored.claim
    task_id = claim["status"]["taskId"]
    wish = {"storageType": "s3", "expires": claim["task"]["expires"], "contentType": "text/plain"}

    def announced(name):
        return queue.createArtifact(task_id, 0, name, wish)["putUrl"]

    def put(url, body, **headers):
        request = urllib.request.Request(url, body, {"Content-Type": "text/plain", **headers}, method="PUT")
        with urllib.request.urlopen(request) as answer:
            return answer.headers["ETag"].strip('"')

    def get(name, **headers):
        location = queue.getLatestArtifact(task_id, name)["url"]
        with urllib.request.urlopen(urllib.request.Request(location, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read()

    # What the store says it has is what was sent, gzip included; parts of it can be had.
    packed = gzip.compress(os.urandom(50_000))
    url = announced("public/log.txt")
    assert put(url, packed, **{"Content-Encoding": "gzip"}) == hashlib.md5(packed).hexdigest()
    status, headers, body = get("public/log.txt")
    assert body == packed and headers["Content-Encoding"] == "gzip" and headers["Content-Length"] == str(len(packed))
    assert headers["ETag"].strip('"') == hashlib.md5(packed).hexdigest()
    status, headers, body = get("public/log.txt", Range="bytes=100-199")
    assert (status, body) == (206, packed[100:200])
    assert headers["Content-Range"] == f"bytes 100-199/{len(packed)}"

    # An upload that breaks off leaves what was there, and nothing where nothing was.
    for name in ("public/log.txt", "public/never.txt"):
        parts = urllib.parse.urlsplit(announced(name))
        with socket.create_connection((parts.hostname, parts.port)) as half:
            half.sendall(
                f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: text/plain\r\n"
                "Content-Length: 1000\r\n\r\nhalf".encode()
            )
            half.shutdown(socket.SHUT_WR)
            # The server has seen the end when it answers or closes.
            half.settimeout(60)
            answer = half.recv(4096)
            assert not answer.startswith(b"HTTP/1.1 200"), answer
    assert get("public/log.txt")[2] == packed
    with pytest.raises(urllib.error.HTTPError) as missing:
        get("public/never.txt")
    assert missing.value.code == 404

    # An upload may be repeated, and a repeated announcement names the same place.
    assert put(announced("public/log.txt"), b"second") == hashlib.md5(b"second").hexdigest()
    assert get("public/log.txt")[2] == b"second"

    # An object is finished only as it was announced, and only once the store has it.
    objects = taskcluster.Object(process.options())
    terms = {"projectId": "p", "uploadId": taskcluster.slugId()}
    proposal = {"putUrl": {"contentType": "a/b", "contentLength": 4}}
    right = {"sha256": hashlib.sha256(b"data").hexdigest(), "sha512": hashlib.sha512(b"data").hexdigest()}
    announcement = {"expires": taskcluster.fromNow("1 hour"), "proposedUploadMethods": proposal, "hashes": right}
    target = objects.createUpload("stated", terms | announcement)["uploadMethod"]["putUrl"]
    with pytest.raises(TaskclusterRestFailure) as early:
        objects.finishUpload("stated", terms)
    assert early.value.status_code == 400
    request = urllib.request.Request(target["url"], b"data", {"Content-Type": "a/b"}, method="PUT")
    urllib.request.urlopen(request).close()
    with pytest.raises(TaskclusterRestFailure) as wrong:
        objects.finishUpload("stated", terms | {"hashes": {"sha256": "0" * 64}})
    assert wrong.value.status_code == 409
    objects.finishUpload("stated", terms | {"hashes": right})
    assert objects.object("stated")["hashes"] == right
    left = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert left == [], "nothing of it stays among our own files"


def verify_signature(url, method, headers):
    """Recomputes a signature with Amazon's own library."""
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    parts = urllib.parse.urlsplit(url)
    options = dict(urllib.parse.parse_qsl(parts.query))
    signature = options.pop("X-Amz-Signature")
    request = botocore.awsrequest.AWSRequest(
        method, urllib.parse.urlunsplit(parts._replace(query="")), headers={"Host": parts.netloc, **headers}, params=options
    )
    request.context["timestamp"] = options["X-Amz-Date"]
    signer = botocore.auth.S3SigV4QueryAuth(
        botocore.credentials.Credentials("AKIDEXAMPLE", "secret/key+example"), "s3", "us-east-1"
    )
    request.url = url.replace(f"&X-Amz-Signature={signature}", "")
    request.params = {}
    canonical = signer.canonical_request(request)
    expected = signer.signature(signer.string_to_sign(request, canonical), request)
    assert signature == expected
