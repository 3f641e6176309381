# SPDX-License-Identifier: MPL-2.0
"""Steps that are tasks, through the real processes: hooks, the queue, a worker, and a service that is killed."""

import signal

import pytest

from support import eventually, hook, task, unique
from test_shipit import call, state


def step(running, method, path, body=None):
    return call(running, method, running.values["SHIPIT_TASKCLUSTER_URL"] + path, body)


def info(running, uid):
    return step(running, "GET", f"/{uid}/status")[1]["info"]


def finished(running, uid):
    return eventually(lambda: (word := state(running, uid, "TASKCLUSTER")) in ("completed", "failed", "exception", "cancelled") and word, 180)


@pytest.fixture
def build_hook(running):
    """A hook whose task the local worker runs, and that takes any payload."""
    group, name = "demo", unique("build")
    running.hooks().createHook(group, name, hook(name))
    return {"hookGroupId": group, "hookId": name, "payload": {"version": "1"}}


def fires(running, wanted):
    return running.hooks().listLastFires(wanted["hookGroupId"], wanted["hookId"])["lastFires"]


def test_71_a_hook_fires_once_although_the_service_is_killed_again_and_again(running, build_hook):
    names = [unique("hook") for _ in range(6)]
    for number, name in enumerate(names):
        status, body = step(running, "PUT", f"/{name}", {"hook": build_hook})
        assert status == 200, body
        # Killed as soon as somebody may have begun: between the intent, the trigger and the note of the task.
        if number % 2:
            running.suite.stop("shipit-taskcluster", signal.SIGKILL)
            running.suite.start_services()
    for name in names:
        assert finished(running, name) == "completed", step(running, "GET", f"/{name}/status")
        assert step(running, "PUT", f"/{name}", {"hook": build_hook})[0] == 200
    tasks = {info(running, name)["task_id"] for name in names}
    assert len(tasks) == len(names)
    # As many tasks as steps, whoever asks.
    assert {fire["taskId"] for fire in fires(running, build_hook)} == tasks
    for name in names:
        kinds = [event["kind"] for event in step(running, "GET", f"/{name}/events")[1]["events"]]
        assert kinds.count("begun") == 1, kinds


def test_68_a_task_is_created_and_its_group_followed_to_the_end(running):
    name = unique("task")
    status, body = step(running, "PUT", f"/steps/{name}", {"task": task(name)})
    assert status == 200, body
    assert finished(running, name) == "completed"
    found = step(running, "GET", f"/{name}/status")[1]
    assert found["output"]["task_group_id"] == found["output"]["task_id"]
    assert running.queue().status(found["output"]["task_id"])["status"]["state"] == "completed"
    # The address of the original lists names.
    status, names = step(running, "GET", "/steps?state=completed")
    assert status == 200 and name in names


def test_the_bus_wakes_a_step_whose_group_has_ended(running):
    """Polling comes after half a minute at the earliest: the queue's message has to be what is heard."""
    import taskcluster

    group, name = taskcluster.slugId(), unique("track")
    task_id = taskcluster.slugId()
    queue_id = f"nobody/{unique('q').lower()}"
    running.queue().createTask(task_id, task(name, queue_id=queue_id, taskGroupId=group, schedulerId="-"))
    assert step(running, "PUT", f"/{name}", {"taskGroupId": group, "schedulerAPI": False})[0] == 200
    eventually(lambda: state(running, name, "TASKCLUSTER") == "running")
    assert step(running, "PUT", f"/{name}-2", {"taskGroupId": group})[0] == 409
    running.queue().cancelTask(task_id)
    assert finished(running, name) == "cancelled"
    events = step(running, "GET", f"/{name}/events")[1]["events"]
    assert [event["data"].get("state") for event in events if event["kind"] == "state"] == ["starting", "running", "cancelled"]


def test_72_what_a_step_has_made_is_cancelled_with_it(running):
    name, queue_id = unique("cancel"), f"nobody/{unique('q').lower()}"
    assert step(running, "PUT", f"/{name}", {"task": task(name, queue_id=queue_id)})[0] == 200
    eventually(lambda: state(running, name, "TASKCLUSTER") == "running")
    made = info(running, name)["task_id"]
    assert step(running, "POST", f"/{name}/cancel", {"reason": "a test"})[0] == 200
    assert finished(running, name) == "cancelled"
    status = running.queue().status(made)["status"]
    assert (status["state"], status["runs"][-1]["reasonResolved"]) == ("exception", "canceled")
    assert "sealed" in running.queue().getTaskGroup(made)


def test_a_pipeline_builds_waits_for_people_and_publishes_with_tasks(running, build_hook):
    from test_shipit import token

    name = unique("ship")
    tasks, people = running.values["SHIPIT_TASKCLUSTER_URL"], running.values["SHIPIT_SIGNOFF_URL"]
    publish = task(unique("publish"), payload={"action": "note", "text": "published", "maxRunTime": 60})
    definition = {
        "uid": name,
        "namespace_steps": True,
        "parameters": {
            "steps": [
                {"uid": "build", "api_url": tasks + "/steps", "parameters": {"hook": build_hook}},
                {
                    "uid": "approve",
                    "api_url": people,
                    "requires": ["build"],
                    "parameters": {
                        "policy": {"method": "local", "definition": [{"releng": 1, "relman": 1}]},
                        "parameters": {"group": "${steps.build.output.task_group_id}"},
                    },
                },
                {"uid": "publish", "api_url": tasks, "requires": ["approve"], "parameters": {"task": publish}},
            ]
        },
    }
    status, body = call(running, "PUT", f"{running.values['SHIPIT_PIPELINE_URL']}/{name}", definition)
    assert status == 200, body
    approval = f"{name}.approve"
    eventually(lambda: state(running, approval, "SIGNOFF") == "running", 180)
    for group, person in (("releng", "releng1"), ("relman", "relman1")):
        status, body = call(running, "PUT", f"{people}/{approval}/sign", {"group": group}, token=token(running, person))
        assert status == 200, body
    eventually(lambda: state(running, name) == "completed", 180)
    assert state(running, f"{name}.publish", "TASKCLUSTER") == "completed"
