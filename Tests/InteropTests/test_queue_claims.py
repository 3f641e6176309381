# SPDX-License-Identifier: MPL-2.0
"""Behaviour checks of the queue about claims and runs: patience, wake-ups, credentials, reports and deadlines."""

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

import pytest
import taskcluster
import taskcluster.aio

from local_queue import ROOT
from queue_checked import later, refused
from queue_place import ASK, Events, auth, created, deployment, make_client, new_queue, queue, server, signed  # noqa: F401
from support import eventually, task, unique


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
    queue_id, soon = new_queue(), later(seconds=8)
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
