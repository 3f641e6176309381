# SPDX-License-Identifier: MPL-2.0
"""The life of tasks in our queue: made, claimed, run and depended upon, by the PyPI client."""

import datetime
import json
import re
import threading
import time
import urllib.error

import pytest
import taskcluster
from taskcluster.exceptions import TaskclusterRestFailure

from bus import Bus
from local_queue import ROOT
from queue_checked import (  # noqa: F401 (fixtures)
    auth,
    Checked,
    claimed,
    client,
    deployment,
    fetch,
    later,
    queue,
    refused,
    server,
    sign,
    upload,
)
from support import eventually, task, unique


# ---------------------------------------------------------------- B. tasks


def test_q15_unknown_options_are_refused_but_bewits_are_not(server, queue):
    group = queue.createTask(taskcluster.slugId(), task("bewit", queue_id="test/none"))["status"]["taskGroupId"]
    url = f"{server.own_url}/api/queue/v1/task-group/{group}/list"
    assert fetch(url)[0] == 200
    with pytest.raises(urllib.error.HTTPError) as unknown:
        fetch(url + "?what=1")
    assert unknown.value.code == 400
    assert fetch(queue.buildSignedUrl("listTaskGroup", group))[0] == 200


def test_q18_defaults_are_filled_in(queue):
    task_id = taskcluster.slugId()
    definition = task("defaults", queue_id="test/none", payload={"big": 2**60, "exact": 1})
    del definition["expires"]
    status = queue.createTask(task_id, definition)["status"]
    assert status["state"] == "pending" and status["retriesLeft"] == 5 and status["priority"] == "lowest"
    stored = queue.task(task_id)
    assert stored["payload"] == {"big": 2**60, "exact": 1} and stored["dependencies"] == [] and stored["requires"] == "all-completed"
    assert stored["provisionerId"] == "test" and stored["workerType"] == "none" and stored["taskGroupId"] == task_id
    deadline = datetime.datetime.fromisoformat(stored["deadline"].replace("Z", "+00:00"))
    expires = datetime.datetime.fromisoformat(stored["expires"].replace("Z", "+00:00"))
    assert (expires.year, expires.month, expires.day) == (deadline.year + 1, deadline.month, deadline.day)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stored["created"])


@pytest.mark.parametrize(
    "created, deadline, expires",
    [(-16, 60, 90), (16, 60, 90), (0, -1, 90), (-10, -5, 90), (0, 5 * 24 * 60 + 16, 6 * 24 * 60), (0, 60, 30)],
)
def test_q24_dates_out_of_order_are_refused(queue, created, deadline, expires):
    definition = task("dates", queue_id="test/none") | {
        "created": later(minutes=created),
        "deadline": later(minutes=deadline),
        "expires": later(minutes=expires),
    }
    refused(400, queue.createTask, taskcluster.slugId(), definition, code="InputError")


def test_q25_queues_are_named_one_way_or_the_other(queue):
    definition = task("names", queue_id="test/none")
    del definition["taskQueueId"]
    both = definition | {"provisionerId": "test", "workerType": "none"}
    assert queue.createTask(taskcluster.slugId(), both)["status"]["taskQueueId"] == "test/none"
    refused(400, queue.createTask, taskcluster.slugId(), both | {"taskQueueId": "test/other"})
    refused(400, queue.createTask, taskcluster.slugId(), definition)


def test_q26_q27_q28_what_a_creator_must_be_allowed(server, auth, queue):
    refused(400, queue.createTask, taskcluster.slugId(), task("normal", queue_id="test/none", priority="normal"))
    scopes = ["queue:create-task:low:test/none", "queue:create-task:project:none", "queue:scheduler-id:-"]
    made = auth.createClient(unique("low"), {"expires": later(hours=1), "description": "d", "scopes": scopes})
    limited = client(server, "queue", client_id=made["clientId"], token=made["accessToken"])
    create = lambda **fields: limited.createTask(taskcluster.slugId(), task("low", queue_id="test/none", **fields))
    assert create(priority="lowest")["status"]["state"] == "pending"
    refused(403, create, priority="high")
    failure = refused(403, create, scopes=["secret:scope"], code="InsufficientScopes")
    assert failure.body["requestInfo"]["method"] == "createTask"
    refused(403, create, routes=["some.route"])
    refused(400, queue.createTask, taskcluster.slugId(), task("stars", queue_id="test/none", scopes=["a**"]))
    refused(400, queue.createTask, taskcluster.slugId(), task("many", queue_id="test/none", routes=[f"r{n}" for n in range(65)]))
    refused(400, queue.createTask, taskcluster.slugId(), task("long", queue_id="test/none", routes=["r" * 250]))


def test_q23_of_twenty_definitions_one_wins(server, queue):
    task_id = taskcluster.slugId()
    outcomes = []

    def create(number):
        own = taskcluster.Queue(server.options())
        try:
            own.createTask(task_id, task(f"number {number}", queue_id="test/none"))
            outcomes.append(200)
        except TaskclusterRestFailure as failure:
            outcomes.append(failure.status_code)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(outcomes) == [200] + [409] * 19
    assert len(queue.status(task_id)["status"]["runs"]) == 1


def test_several_tasks_are_asked_about_at_once(queue):
    ids = [taskcluster.slugId() for _ in range(3)]
    for task_id in ids:
        queue.createTask(task_id, task("several", queue_id="test/none"))
    wish = {"taskIds": [ids[2], taskcluster.slugId(), ids[0]]}
    assert [each["taskId"] for each in queue.tasks(wish)["tasks"]] == [ids[2], ids[0]]
    assert [each["taskId"] for each in queue.statuses(wish)["statuses"]] == [ids[2], ids[0]]
    assert [each["task"] for each in queue.tasks(wish)["tasks"]] == [queue.task(ids[2]), queue.task(ids[0])]
    assert queue.statuses(wish)["statuses"][1]["status"] == queue.status(ids[0])["status"]

    # A page without any task that exists is followed by the others.
    wish = {"taskIds": [ids[0], taskcluster.slugId(), ids[1]]}
    found, pages = [], []
    queue.statuses(payload=wish, query={"limit": "1"}, paginationHandler=lambda page: pages.append(page))
    for page in pages:
        found += [each["taskId"] for each in page["statuses"]]
    assert found == [ids[0], ids[1]] and len(pages) == 3


# ---------------------------------------------------------------- C. claiming


def test_q13_both_spellings_of_a_queue_are_one(server, queue):
    queue_id = f"test/{unique('spell').lower()}"
    ask = {"workerGroup": "g", "workerId": "w"}
    queue.createTask(taskcluster.slugId(), task("spelled", queue_id=queue_id))
    headers = {"Content-Type": "application/json"}
    with pytest.raises(urllib.error.HTTPError) as anonymous:
        fetch(f"{server.own_url}/api/queue/v1/claim-work/{queue_id}", headers, "POST", json.dumps(ask).encode())
    assert anonymous.value.code == 403, "the literal spelling reaches the same endpoint"
    assert len(queue.claimWork(queue_id, ask)["tasks"]) == 1
    assert fetch(f"{server.own_url}/api/queue/v1/pending/{queue_id}")[0] == 200


def test_q31_an_empty_queue_is_held_and_then_answered(queue):
    start = time.monotonic()
    answer = queue.claimWork(f"test/{unique('empty').lower()}", {"workerGroup": "g", "workerId": "w"})
    assert answer == {"tasks": []} and time.monotonic() - start >= 1.9


def test_q32_a_waiting_worker_gets_a_new_task_without_polling(server, queue):
    queue_id = f"test/{unique('wait').lower()}"
    found = []
    own = taskcluster.Queue(server.options())

    def ask():
        # On a slow machine the patience of this queue, two seconds, may not last for one question.
        while not found or not found[-1]["tasks"]:
            found[:] = [own.claimWork(queue_id, {"workerGroup": "g", "workerId": "w"})]

    worker = threading.Thread(target=ask, daemon=True)
    worker.start()
    time.sleep(0.5)
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("wait", queue_id=queue_id))
    worker.join(90)
    assert [each["status"]["taskId"] for each in found[0]["tasks"]] == [task_id]


def test_q33_q34_as_many_as_there_are_and_no_nonsense(queue):
    queue_id = f"test/{unique('many').lower()}"
    for number in range(3):
        queue.createTask(taskcluster.slugId(), task(f"{number}", queue_id=queue_id))
    ask = {"workerGroup": "g", "workerId": "w"}
    assert len(queue.claimWork(queue_id, ask | {"tasks": 2})["tasks"]) == 2
    assert len(queue.claimWork(queue_id, ask | {"tasks": 32})["tasks"]) == 1
    for bad in ({"tasks": 0}, {"tasks": 33}, {"workerId": "w" * 39}):
        refused(400, queue.claimWork, queue_id, ask | bad)
    refused(400, queue.claimWork, queue_id, {"workerGroup": "g"})


def test_q40_a_quarantined_worker_gets_nothing_and_holds_nobody_up(queue):
    queue_id = f"test/{unique('sick').lower()}"
    place = queue_id.split("/")
    ask = {"workerGroup": "g", "workerId": "sick"}
    refused(404, queue.quarantineWorker, *place, "g", "sick", {"quarantineUntil": later(hours=1)})
    queue.claimWork(queue_id, ask)
    worker = queue.quarantineWorker(*place, "g", "sick", {"quarantineUntil": later(hours=1), "quarantineInfo": "smoke"})
    assert worker["quarantineDetails"][0]["quarantineInfo"] == "smoke"
    assert worker["quarantineDetails"][0]["clientId"] == ROOT
    queue.createTask(taskcluster.slugId(), task("sick", queue_id=queue_id))
    start = time.monotonic()
    assert queue.claimWork(queue_id, ask) == {"tasks": []} and time.monotonic() - start >= 1.9
    listed = queue.listWorkers(*place, query={"quarantined": "true"})["workers"]
    assert [each["workerId"] for each in listed] == ["sick"]
    assert queue.listWorkers(*place, query={"quarantined": "false"})["workers"] == []
    queue.quarantineWorker(*place, "g", "sick", {"quarantineUntil": later(hours=-1)})
    assert len(queue.claimWork(queue_id, ask)["tasks"]) == 1
    assert queue.getWorker(*place, "g", "sick")["quarantineDetails"][1]["quarantineInfo"] == "[unspecified]"


def test_q41_credentials_of_a_claim_act_for_their_run_alone(server, queue):
    claim = claimed(queue, scopes=["secrets:get:mine"])
    own = {"rootUrl": server.own_url, "credentials": claim["credentials"]}
    task_id, run = claim["status"]["taskId"], claim["runId"]
    worker = Checked("queue", own)
    assert worker.reclaimTask(task_id, run)["takenUntil"] >= claim["takenUntil"]
    other = claimed(queue)
    refused(403, worker.reclaimTask, other["status"]["taskId"], 0)
    refused(403, worker.claimWork, "test/none", {"workerGroup": "g", "workerId": "w"})
    assert "secrets:get:mine" in taskcluster.Auth(own).currentScopes()["scopes"]
    assert worker.reportCompleted(task_id, run)["status"]["state"] == "completed"


def test_q43_one_run_is_claimed_by_one_worker(queue):
    queue_id = f"test/{unique('one').lower()}"
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("one", queue_id=queue_id))
    mine, other = {"workerGroup": "g", "workerId": "mine"}, {"workerGroup": "g", "workerId": "other"}
    assert queue.claimTask(task_id, 0, mine)["workerId"] == "mine"
    assert queue.claimTask(task_id, 0, mine)["workerId"] == "mine"
    refused(409, queue.claimTask, task_id, 0, other)
    assert queue.pendingTasks(queue_id)["pendingTasks"] == 0
    assert queue.claimWork(queue_id, other)["tasks"] == []


def test_q45_a_cancelled_task_is_pending_no_more(queue):
    queue_id = f"test/{unique('gone').lower()}"
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("gone", queue_id=queue_id))
    assert queue.pendingTasks(queue_id)["pendingTasks"] == 1
    queue.cancelTask(task_id)
    assert queue.pendingTasks(queue_id)["pendingTasks"] == 0
    assert queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w"})["tasks"] == []


# ---------------------------------------------------------------- D. running


def test_q46_a_reclaim_extends_and_old_credentials_still_work(server, queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    old = Checked("queue", {"rootUrl": server.own_url, "credentials": claim["credentials"]})
    time.sleep(0.01)
    fresh = old.reclaimTask(task_id, 0)
    assert fresh["takenUntil"] > claim["takenUntil"]
    assert fresh["credentials"]["accessToken"] != claim["credentials"]["accessToken"]
    assert old.reclaimTask(task_id, 0)["takenUntil"] >= fresh["takenUntil"]


def test_q56_exceptions_are_retried_by_their_reason(queue):
    for reason, created in (("worker-shutdown", "retry"), ("intermittent-task", "task-retry"), ("malformed-payload", None)):
        claim = claimed(queue)
        runs = queue.reportException(claim["status"]["taskId"], 0, {"reason": reason})["status"]["runs"]
        assert [run["reasonCreated"] for run in runs[1:]] == ([created] if created else [])
    claim = claimed(queue)
    refused(400, queue.reportException, claim["status"]["taskId"], 0, {"reason": "superseded"})


def test_the_oldest_workers_report_failure_as_no_success(server, queue):
    claim = claimed(queue)
    url = f"{server.own_url}/api/queue/v1/task/{claim['status']['taskId']}/runs/0/completed"
    body = json.dumps({"success": False})
    headers = {"Content-Type": "application/json", "Authorization": sign(server, url, "POST", body=body)}
    _, _, answer = fetch(url, headers, "POST", body.encode())
    assert json.loads(answer)["status"]["state"] == "failed"


def test_q58_a_cancelled_run_may_still_leave_artifacts(queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    run = queue.cancelTask(task_id)["status"]["runs"][0]
    assert run["reasonResolved"] == "canceled" and run["workerId"] == "w"
    upload(queue, claim, "public/late.txt", b"late")
    refused(409, queue.reclaimTask, task_id, 0)
    refused(409, queue.reportFailed, task_id, 0)


def test_q60_q61_schedule_and_rerun(queue):
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("self", queue_id="test/none", dependencies=[task_id]))
    assert queue.status(task_id)["status"]["state"] == "unscheduled"
    assert queue.scheduleTask(task_id)["status"]["state"] == "pending"
    queue.cancelTask(task_id)
    assert queue.scheduleTask(task_id)["status"]["state"] == "exception"
    assert queue.rerunTask(task_id)["status"]["runs"][1]["reasonCreated"] == "rerun"


def test_q64_q66_a_deadline_ends_what_is_not_done(deployment, queue):
    bus = Bus(deployment.amqp_url, [(deployment.exchange_prefix + "task-exception", "#")])
    try:
        waiting, blocked, after = (taskcluster.slugId() for _ in range(3))
        soon = {"deadline": later(seconds=2), "queue_id": "test/none"}
        queue.createTask(waiting, task("waiting", **soon))
        queue.createTask(blocked, task("blocked", dependencies=[waiting], **soon))
        queue.createTask(after, task("after", queue_id="test/none", dependencies=[blocked], requires="all-resolved"))
        _, body = bus.wait("task-exception", lambda body: body["status"]["taskId"] == waiting)
        assert "workerId" not in body and body["status"]["runs"][0]["reasonResolved"] == "deadline-exceeded"
        bus.wait("task-exception", lambda body: body["status"]["taskId"] == blocked)
        run = queue.status(blocked)["status"]["runs"][0]
        assert (run["reasonCreated"], run["reasonResolved"]) == ("exception", "deadline-exceeded")
        eventually(lambda: queue.status(after)["status"]["state"] == "pending", 10)
        for call in (queue.rerunTask, queue.scheduleTask, queue.cancelTask):
            refused(409, call, waiting)
    finally:
        bus.close()


# ---------------------------------------------------------------- E. dependencies and groups


def test_q70_q75_dependents_follow(queue):
    first = claimed(queue)
    group = first["status"]["taskGroupId"]
    second = taskcluster.slugId()
    queue.createTask(second, task("second", queue_id="test/none", dependencies=[group], taskGroupId=group))
    assert queue.listDependentTasks(group)["tasks"][0]["status"]["taskId"] == second
    queue.reportCompleted(group, 0)
    eventually(lambda: queue.status(second)["status"]["state"] == "pending", 5)
    twice = task("twice", queue_id="test/none", dependencies=[group, group])
    refused(400, queue.createTask, taskcluster.slugId(), twice)


def test_q81_a_group_is_sealed_and_cancelled(queue):
    claim = claimed(queue)
    group = claim["status"]["taskId"]
    others = [taskcluster.slugId() for _ in range(3)]
    for task_id, extra in zip(others, ({}, {}, {"dependencies": [group]})):
        queue.createTask(task_id, task("member", queue_id="test/none", taskGroupId=group, **extra))
    queue.cancelTask(others[0])
    refused(409, queue.cancelTaskGroup, group)
    assert "sealed" not in queue.getTaskGroup(group)
    sealed = queue.sealTaskGroup(group)["sealed"]
    assert queue.sealTaskGroup(group)["sealed"] == sealed == queue.getTaskGroup(group)["sealed"]
    refused(409, queue.createTask, taskcluster.slugId(), task("late", queue_id="test/none", taskGroupId=group))
    answer = queue.cancelTaskGroup(group)
    assert answer["taskGroupSize"] == 4 and answer["cancelledCount"] == 3
    assert sorted(answer["taskIds"]) == sorted([group] + others[1:])
    assert queue.cancelTaskGroup(group)["cancelledCount"] == 0
    refused(404, queue.getTaskGroup, taskcluster.slugId())


def test_q82_a_group_is_listed_page_by_page(queue):
    group = taskcluster.slugId()
    for number in range(5):
        task_id = group if number == 0 else taskcluster.slugId()
        queue.createTask(task_id, task(f"{number}", queue_id="test/none", taskGroupId=group))
    sizes, ids, options = [], [], {"limit": 2}
    while True:
        page = queue.listTaskGroup(group, query=options)
        sizes.append(len(page["tasks"]))
        ids += [each["status"]["taskId"] for each in page["tasks"]]
        if "continuationToken" not in page:
            break
        options["continuationToken"] = page["continuationToken"]
    assert sizes == [2, 2, 1] and ids == sorted(set(ids)) and len(ids) == 5


def test_q83_priorities_change_one_by_one_and_by_group(queue):
    queue_id = f"test/{unique('prio').lower()}"
    group = taskcluster.slugId()
    ids = [group, taskcluster.slugId(), taskcluster.slugId()]
    for task_id in ids:
        queue.createTask(task_id, task("prio", queue_id=queue_id, taskGroupId=group))
    assert queue.changeTaskPriority(ids[2], {"newPriority": "highest"})["status"]["priority"] == "highest"
    ask = {"workerGroup": "g", "workerId": "w"}
    assert queue.claimWork(queue_id, ask)["tasks"][0]["status"]["taskId"] == ids[2]
    queue.reportCompleted(ids[2], 0)
    refused(409, queue.changeTaskPriority, ids[2], {"newPriority": "low"})
    answer = queue.changeTaskGroupPriority(group, {"newPriority": "high"})
    assert answer["tasksAffected"] == 2 and sorted(answer["taskIds"]) == sorted(ids[:2])
    assert queue.task(ids[0])["priority"] == "high" and queue.status(ids[0])["status"]["priority"] == "high"
