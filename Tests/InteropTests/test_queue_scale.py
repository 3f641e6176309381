# SPDX-License-Identifier: MPL-2.0
"""What must not grow with the number of tasks, and what a process finds when it starts late.

Work is counted in rows that PostgreSQL read, not in seconds. QUEUE_SCALE is how many tasks there are (30,000).
"""

import datetime
import os
import time

import pytest
import taskcluster

from local_queue import Deployment
from support import eventually, stamp, task

ASK = {"workerGroup": "g", "workerId": "w"}
COUNT = int(os.environ.get("QUEUE_SCALE", "30000"))

# Tasks as createTask makes them, so many at once; state and claim as the caller says.
FILL = """
with ids as materialized (
    select n, substr(md5('{seed}' || n), 1, 8) || 'QaC' || substr(md5(n || '{seed}'), 1, 10) || 'A' as id
    from generate_series(1, {count}) n
), tasks as (
    insert into tcl.tasks (task_id, task_queue_id, scheduler_id, project_id, task_group_id, priority, retries, deadline,
        expires, routes, tags, definition)
    select id, '{queue}', '-', 'none', {group}, 1, 5, '{deadline}', '{expires}', '{{}}', '{{}}',
        replace('{definition}', '{task_id}', id)::json from ids
), groups as (
    insert into tcl.groups (task_group_id, scheduler_id, created) select distinct {group}, '-', now() from ids
), deadlines as (
    insert into tcl.deadlines (task_id, due) select id, '{deadline}' from ids
), status as (
    insert into tcl.task_status (task_id, task_group_id, state, retries_left, runs, ever_resolved)
    select id, {group}, '{state}', 5, '{runs}', '{state}' in ('completed') from ids
)
"""
PENDING = """
insert into tcl.pending (task_id, run_id, task_queue_id, priority, deadline, inserted)
select id, 0, '{queue}', 1, '{deadline}', now() from ids order by n
"""
CLAIMED = """
insert into tcl.claims (task_id, run_id, task_queue_id, worker_group, worker_id, claim_id, taken_until, claimed,
    priority, seq)
select id, 0, '{queue}', 'g', 'w', id, '{taken_until}', now(), 1, n from ids
"""


def moment(**delta):
    return stamp(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta))


def fill(deployment, queue, queue_id, count, state, group="id", deadline=None, expires=None, taken_until=None):
    """Puts many tasks beside one that the queue has made itself, all alike."""
    task_id = taskcluster.slugId()
    definition = deployment.definitions.get(queue_id)
    if definition is None:
        queue.createTask(task_id, task("many", queue_id=queue_id, payload={}))
        definition = deployment.query(f"select definition from tcl.tasks where task_id = '{task_id}'")
        deployment.definitions[queue_id] = definition
        queue.cancelTask(task_id)
    run = {
        "pending": '{"runId":0,"state":"pending","reasonCreated":"scheduled","scheduled":"2026-01-01T00:00:00.000Z"}',
        "running": '{"runId":0,"state":"running","reasonCreated":"scheduled","scheduled":"2026-01-01T00:00:00.000Z",'
        f'"workerGroup":"g","workerId":"w","started":"2026-01-01T00:00:00.000Z","takenUntil":"{taken_until}"}}',
        "completed": '{"runId":0,"state":"completed","reasonCreated":"scheduled","reasonResolved":"completed",'
        '"scheduled":"2026-01-01T00:00:00.000Z","workerGroup":"g","workerId":"w","started":"2026-01-01T00:00:00.000Z",'
        '"takenUntil":"2026-01-01T00:20:00.000Z","resolved":"2026-01-01T00:01:00.000Z"}',
    }[state]
    text = FILL + {"pending": PENDING, "running": CLAIMED, "completed": "select count(*) from ids"}[state]
    deployment.query(
        text.format(
            queue=queue_id,
            seed=taskcluster.slugId(),
            count=count,
            group=group,
            deadline=deadline or moment(hours=4),
            expires=expires or moment(days=2),
            definition=definition,
            task_id=task_id,
            state=state,
            runs=f"[{run}]",
            taken_until=taken_until,
        )
    )


@pytest.fixture
def deployment(servers, tmp_path):
    settings = {"TCL_CLAIM_WORK_TIMEOUT": "1", "TCL_EXPIRY_INTERVAL": "86400"}
    with Deployment(servers, tmp_path, exchanges=False, **settings) as deployment:
        deployment.definitions = {}
        yield deployment


def rows_read(deployment):
    """How many rows were read so far from each table, whole tables and by keys."""
    text = deployment.query(
        "select relname || ' ' || seq_tup_read || ' ' || coalesce(idx_tup_fetch, 0) from pg_stat_user_tables "
        "where schemaname = 'tcl'"
    )
    return {name: (int(whole), int(by_key)) for name, whole, by_key in map(str.split, text.splitlines())}


def settled(deployment):
    """The same once every session has told what it read, which takes a second."""
    before = rows_read(deployment)
    for _ in range(60):
        time.sleep(1.5)
        after = rows_read(deployment)
        # The sweepers look every second; they find nothing, so few rows change hands.
        if all(sum(after[name]) - sum(before[name]) < 100 for name in after):
            return after
        before = after
    raise AssertionError(f"something keeps reading: {after}")


def live(queue, queue_id):
    """Everything that happens to a task in its life, and what people ask meanwhile."""
    group, after, failing = (taskcluster.slugId() for _ in range(3))
    queue.createTask(group, task("life", queue_id=queue_id, priority="highest", payload={}))
    queue.createTask(
        after, task("after", queue_id=queue_id, priority="highest", payload={}, taskGroupId=group, dependencies=[group])
    )
    (claim,) = queue.claimWork(queue_id, ASK)["tasks"]
    assert claim["status"]["taskId"] == group
    queue.reclaimTask(group, 0)
    wish = {"storageType": "link", "artifact": "public/y", "expires": claim["task"]["expires"]}
    queue.createArtifact(group, 0, "public/x", wish)
    queue.listArtifacts(group, 0)
    queue.listTaskGroup(group)
    queue.listDependentTasks(group)
    queue.reportCompleted(group, 0)
    eventually(lambda: queue.status(after)["status"]["state"] == "pending", 60)
    queue.changeTaskPriority(after, {"newPriority": "very-high"})
    queue.cancelTask(after)
    queue.rerunTask(after)
    queue.createTask(failing, task("failing", queue_id=queue_id, priority="highest", payload={}))
    (claim,) = queue.claimWork(queue_id, ASK)["tasks"]
    queue.reportException(claim["status"]["taskId"], claim["runId"], {"reason": "worker-shutdown"})
    queue.listPendingTasks(queue_id, query={"limit": 3})
    queue.listClaimedTasks(queue_id, query={"limit": 3})
    (old,) = queue.claimWork(queue_id, ASK)["tasks"]
    queue.reportCompleted(old["status"]["taskId"], old["runId"])
    (older,) = queue.claimWork(queue_id, ASK)["tasks"]
    queue.reportCompleted(older["status"]["taskId"], older["runId"])


def cost(deployment, queue, queue_id, lives=6):
    before = settled(deployment)
    for _ in range(lives):
        live(queue, queue_id)
    after = settled(deployment)
    return {name: tuple(b - a for a, b in zip(before[name], after[name])) for name in after}


def test_no_request_reads_more_because_more_tasks_wait_or_are_done(deployment):
    queue = deployment.start().queue
    queue_id = "scale/work"
    fill(deployment, queue, queue_id, 10, "pending")
    live(queue, queue_id)
    small = cost(deployment, queue, queue_id)
    # What finished long ago, in one group as large as any; then a backlog, before the statistics know of it.
    fill(deployment, queue, "scale/done", COUNT, "completed", group="'" + taskcluster.slugId() + "'")
    fill(deployment, queue, queue_id, COUNT, "pending")
    large = cost(deployment, queue, queue_id)
    deployment.query("analyze")
    known = cost(deployment, queue, queue_id)
    print({name: (small[name], large[name], known[name]) for name in small if sum(large[name]) > 100})
    for costs in (large, known):
        for name, (whole, by_key) in costs.items():
            assert whole < COUNT / 2, f"{name} was read from end to end: {whole} rows"
            assert by_key <= 5 * small[name][1] + 2000, f"{name}: {by_key} rows by key, {small[name][1]} before"


def test_a_process_that_starts_late_catches_up_while_it_serves(deployment):
    first = deployment.start()
    queue = first.queue
    count = min(COUNT, 2000)
    # Made before the process stops, because their definitions come from it.
    for queue_id in ("late/claims", "late/deadlines", "late/expired", "late/work"):
        fill(deployment, queue, queue_id, 1, "pending")
    first.stop()
    past = moment(minutes=-10)
    fill(deployment, None, "late/claims", count, "running", taken_until=past)
    fill(deployment, None, "late/deadlines", count, "pending", deadline=past)
    fill(deployment, None, "late/expired", count, "completed", deadline=past, expires=moment(minutes=-5))
    fill(deployment, None, "late/work", 5, "pending")
    deployment.query(
        "insert into tcl.purges (worker_pool_id, cache_name, before) "
        f"select 'late/pool', 'cache-' || n, now() - interval '2 days' from generate_series(1, {count}) n"
    )
    again = deployment.start()
    queue = again.queue
    # It serves at once, whatever else there is to do.
    claims = queue.claimWork("late/work", ASK | {"tasks": 4})["tasks"]
    assert len(claims) == 4
    assert all(each["status"]["state"] == "running" for each in claims)
    number = lambda statement: int(deployment.query(statement))
    eventually(lambda: number("select count(*) from tcl.claims where task_queue_id = 'late/claims'") == 0, 240)
    assert queue.pendingTasks("late/claims")["pendingTasks"] >= count
    unfinished = (
        "select count(*) from tcl.tasks t join tcl.task_status s using (task_id) "
        "where task_queue_id = 'late/deadlines' and deadline < now() and state <> 'exception'"
    )
    eventually(lambda: number(unfinished) == 0, 240)
    eventually(lambda: number("select count(*) from tcl.tasks where expires < now()") == 0, 240)
    eventually(lambda: number("select count(*) from tcl.purges") == 0, 240)
    eventually(lambda: number("select count(*) from tcl.resolutions") == 0, 240)
