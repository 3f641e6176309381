# SPDX-License-Identifier: MPL-2.0
"""Processes are killed and servers restarted for real, in the middle of the main job: each event has one effect."""

import signal
import threading
import time

import pytest

from bus import publish
from support import eventually, hook, template, unique, wait_resolved

EXCHANGE = "exchange/interop-team/v1/events"
EVENTS = 12


def bound_hook(running, name):
    """A hook that fires once for every message of its own routing key, and is already bound."""
    definition = hook(
        name,
        schema={"type": "object", "required": ["event"], "properties": {"event": {"type": "integer"}}},
        bindings=[{"exchange": EXCHANGE, "routingKeyPattern": f"{name}.#"}],
    )
    definition["task"] = template(f"{name} event ${{payload.event}}", sleep=0)
    running.hooks().createHook("demo", name, definition)
    publish(running.amqp_url, EXCHANGE, "nobody", {})

    from demo import wait_for_binding

    wait_for_binding(running.values, EXCHANGE, f"{name}.ready")
    return name


def tasks_of(running, name):
    """Task names by id, of all tasks the hook has made, from the fire history."""
    hooks, queue = running.hooks(), running.queue()
    fires, options = [], {}
    while True:
        page = hooks.listLastFires("demo", name, query=options)
        fires += page["lastFires"]
        if not page.get("continuationToken"):
            break
        options = {"continuationToken": page["continuationToken"]}
    assert all(fire["result"] == "success" for fire in fires), fires
    return {fire["taskId"]: queue.task(fire["taskId"])["metadata"]["name"] for fire in fires}


def all_fired_once(running, name, events):
    def fired():
        made = tasks_of(running, name)
        return made if len(set(made.values())) >= events else None

    made = eventually(fired, 90, 0.5)
    assert sorted(made.values()) == sorted(f"{name} event {number}" for number in range(events))
    return made


def send(running, name, events, pause=0.02):
    for number in range(events):
        publish(running.amqp_url, EXCHANGE, f"{name}.x", {"event": number}, message_id=f"{name}-{number}")
        time.sleep(pause)


@pytest.mark.parametrize("victim", ["pulse-listener", "hooks-service", "scheduler", "taskcluster-local", "scriptworker"])
def test_killing_any_process_loses_and_repeats_nothing(running, victim):
    name = bound_hook(running, unique(f"kill-{victim}"))
    sender = threading.Thread(target=send, args=(running, name, EVENTS))
    sender.start()
    time.sleep(0.1)
    running.suite.stop(victim, signal.SIGKILL)
    time.sleep(0.5)
    running.suite.start_services()
    sender.join()
    for task_id in all_fired_once(running, name, EVENTS):
        status = wait_resolved(running.queue(), task_id, 120)
        assert status["state"] == "completed"
    running.hooks().removeHook("demo", name)


@pytest.mark.parametrize("server", ["rabbitmq", "postgres"])
def test_services_survive_a_restarted_server(running, server):
    """H78: queues, bindings and messages are there again after a restart of the broker; so is everything in the database."""
    name = bound_hook(running, unique(f"restart-{server}"))
    # RabbitMQ 3.10 loses a quorum queue whose node is killed within a second of its making: half a second to its disk.
    time.sleep(3)
    send(running, name, EVENTS // 2)
    running.suite.run_servers(f"restart-{server}")

    def second_half():
        for number in range(EVENTS // 2, EVENTS):
            publish(running.amqp_url, EXCHANGE, f"{name}.x", {"event": number}, message_id=f"{name}-{number}")
        return True

    eventually(second_half, 30, 0.5)
    for task_id in all_fired_once(running, name, EVENTS):
        assert wait_resolved(running.queue(), task_id, 120)["state"] == "completed"
    eventually(lambda: all(running.suite.is_ready(each) for each in running.services()), 30)
    running.hooks().removeHook("demo", name)


def test_a_schedule_fires_although_the_scheduler_was_dead_at_its_time(running):
    name = unique("dead-scheduler")
    running.suite.stop("scheduler", signal.SIGKILL)
    running.hooks().createHook("demo", name, hook(name, schedule=["*/2 * * * * *"]))
    time.sleep(3)
    running.suite.start_services()
    assert eventually(lambda: tasks_of(running, name), 30)
    running.hooks().removeHook("demo", name)
