# SPDX-License-Identifier: MPL-2.0
"""Definitions that several interop tests share."""

import datetime
import functools
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import time

import taskcluster

TOP = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release")).resolve()


@functools.cache
def load_suite():
    """The program that runs a suite, as a module."""
    loader = importlib.machinery.SourceFileLoader("suite", str(TOP / "deploy" / "local" / "suite"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("suite", loader))
    loader.exec_module(module)
    return module


def stamp(moment):
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def task(name="interop", queue_id="slipway/script", payload=None, **fields):
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "taskQueueId": queue_id,
        "created": stamp(now),
        "deadline": stamp(now + datetime.timedelta(hours=1)),
        "expires": stamp(now + datetime.timedelta(days=1)),
        "metadata": {
            "name": name,
            "description": "an interop test",
            "owner": "release@example.com",
            "source": "https://example.com/interop",
        },
        "payload": payload or {"action": "note", "text": name, "maxRunTime": 60},
        **fields,
    }


def template(name="interop", **payload):
    definition = task(name, payload={"action": "note", "text": name, "maxRunTime": 60, **payload})
    return definition | {
        "created": {"$fromNow": ""},
        "deadline": {"$fromNow": "1 hour"},
        "expires": {"$fromNow": "1 day"},
    }


def hook(name="interop", schema=None, **fields):
    return {
        "metadata": {"name": name, "description": "an interop test", "owner": "release@example.com"},
        "task": template(name),
        "triggerSchema": schema or {"type": "object"},
        **fields,
    }


def unique(prefix):
    return f"{prefix}-{re.sub('[^a-zA-Z0-9]', 'x', taskcluster.slugId())[:10]}"


# The least time that anything gets: waiting ends when the condition holds, so this costs nothing but makes slow machines pass.
PATIENCE = 180


def eventually(check, seconds=PATIENCE, every=0.05):
    """The first truthy answer of `check`; its last exception or a plain failure when time runs out."""
    seconds = max(seconds, PATIENCE)
    limit = time.monotonic() + seconds
    while True:
        try:
            answer = check()
            if answer:
                return answer
        except Exception:
            if time.monotonic() > limit:
                raise
        assert time.monotonic() <= limit, f"not within {seconds} s"
        time.sleep(every)


def wait_bound(hooks, group, name):
    """Until every binding of a hook is made, by what its status says."""

    def is_bound():
        bindings = hooks.getHookStatus(group, name)["listener"]["bindings"]
        return all(each["state"] == "bound" for each in bindings)

    eventually(is_bound)


def wait_resolved(queue, task_id, seconds=180):
    """The final status of a task."""
    states = ("completed", "failed", "exception")

    def resolved():
        status = queue.status(task_id)["status"]
        return status if status["state"] in states else None

    return eventually(resolved, seconds)
