# SPDX-License-Identifier: MPL-2.0
"""The unmodified PyPI taskcluster client, sync and async, against the whole suite."""

import gzip
import json
import urllib.request

import pytest
import taskcluster
import taskcluster.aio
from taskcluster.exceptions import TaskclusterAuthFailure, TaskclusterRestFailure

from support import hook, task, unique, wait_resolved


def test_hooks_life_with_the_sync_client(running):
    hooks = running.hooks()
    name = unique("sync/with-slash")
    definition = hook("sync")

    created = hooks.createHook("interop", name, definition)
    assert created["hookId"] == name and created["bindings"] == []
    assert hooks.createHook("interop", name, definition)["hookId"] == name, "the same PUT again is harmless"
    with pytest.raises(TaskclusterRestFailure) as conflict:
        hooks.createHook("interop", name, hook("other"))
    assert conflict.value.status_code == 409

    assert name in [each["hookId"] for each in hooks.listHooks("interop")["hooks"]]
    assert "interop" in hooks.listHookGroups()["groups"]
    changed = hooks.updateHook("interop", name, hook("sync", schedule=["0 0 3 * * *"]))
    assert changed["schedule"] == ["0 0 3 * * *"]
    assert hooks.getHookStatus("interop", name)["nextScheduledDate"].endswith("03:00:00.000Z")

    token = hooks.getTriggerToken("interop", name)["token"]
    assert len(token) == 22 and hooks.getTriggerToken("interop", name)["token"] == token
    assert hooks.resetTriggerToken("interop", name)["token"] != token
    with pytest.raises(TaskclusterAuthFailure):
        hooks.triggerHookWithToken("interop", name, token, {})

    hooks.removeHook("interop", name)
    hooks.removeHook("interop", name)
    with pytest.raises(TaskclusterRestFailure) as missing:
        hooks.hook("interop", name)
    assert missing.value.status_code == 404


def test_a_triggered_hook_makes_one_task_that_runs(running):
    hooks, queue = running.hooks(), running.queue()
    name = unique("trigger")
    hooks.createHook("demo", name, hook("triggered by ${clientId}"))
    answer = hooks.triggerHook("demo", name, {"anything": 1})
    status = wait_resolved(queue, answer["taskId"])
    assert status["state"] == "completed"
    assert queue.task(answer["taskId"])["metadata"]["name"] == "triggered by static/slipway/root"
    fires = hooks.listLastFires("demo", name)["lastFires"]
    assert [(fire["taskId"], fire["firedBy"], fire["result"]) for fire in fires] == [
        (answer["taskId"], "triggerHook", "success")
    ]
    hooks.removeHook("demo", name)


def test_a_task_is_created_inspected_and_fetched(running):
    queue = running.queue()
    task_id = taskcluster.slugId()
    definition = task("fetch", payload={"action": "compile", "product": "interop", "maxRunTime": 60})
    assert queue.createTask(task_id, definition)["status"]["state"] == "pending"
    assert queue.createTask(task_id, definition)["status"]["taskId"] == task_id
    with pytest.raises(TaskclusterRestFailure) as conflict:
        queue.createTask(task_id, task("another"))
    assert conflict.value.status_code == 409
    assert wait_resolved(queue, task_id)["state"] == "completed"

    names = [each["name"] for each in queue.listLatestArtifacts(task_id)["artifacts"]]
    assert "public/build/target.txt" in names and "public/logs/live_backing.log" in names
    url = queue.buildUrl("getLatestArtifact", task_id, "public/build/target.txt")
    with urllib.request.urlopen(url) as answer:
        body = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
    assert body.startswith(b"line 0 of interop")
    group = queue.listTaskGroup(task_id)
    assert [each["status"]["taskId"] for each in group["tasks"]] == [task_id]


def test_a_pending_task_is_cancelled(running):
    queue = running.queue()
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("cancel", queue_id="slipway/nobody"))
    assert queue.pendingTasks("slipway/nobody")["pendingTasks"] >= 1
    status = queue.cancelTask(task_id)["status"]
    assert status["state"] == "exception" and status["runs"][0]["reasonResolved"] == "canceled"


def test_anonymous_reads_are_allowed_and_writes_are_not(running):
    assert "groups" in taskcluster.Hooks(running.anonymous).listHookGroups()
    with pytest.raises(TaskclusterRestFailure) as refused:
        taskcluster.Hooks(running.anonymous).createHook("interop", unique("anonymous"), hook())
    assert refused.value.status_code == 403
    assert refused.value.body["code"] == "InsufficientScopes"


def test_temporary_and_restricted_credentials(running):
    auth = taskcluster.Auth(running.options)
    assert "*" in auth.currentScopes()["scopes"]
    restricted = taskcluster.Auth(running.options | {"authorizedScopes": ["auth:current-scopes", "x:y"]})
    scopes = restricted.currentScopes()["scopes"]
    assert "x:y" in scopes and "*" not in scopes
    credentials = taskcluster.createTemporaryCredentials(
        running.options["credentials"]["clientId"],
        running.options["credentials"]["accessToken"],
        taskcluster.fromNow("-5 minutes"),
        taskcluster.fromNow("1 hour"),
        ["auth:current-scopes", "a:b"],
        "interop/temporary",
    )
    options = {"rootUrl": running.root_url, "credentials": credentials}
    assert "a:b" in taskcluster.Auth(options).currentScopes()["scopes"]


def test_signed_urls_open_private_things(running):
    auth = taskcluster.Auth(running.options)
    with urllib.request.urlopen(auth.buildSignedUrl("currentScopes")) as answer:
        assert "*" in json.load(answer)["scopes"]


@pytest.mark.asyncio
async def test_the_async_client_does_the_same(running):
    name = unique("async")
    async with taskcluster.aio.createSession() as session:
        hooks = taskcluster.aio.Hooks(running.options, session=session)
        queue = taskcluster.aio.Queue(running.options, session=session)
        await hooks.createHook("demo", name, hook("async"))
        assert (await hooks.hook("demo", name))["metadata"]["name"] == "async"
        await hooks.updateHook("demo", name, hook("async 2"))
        fired = await hooks.triggerHook("demo", name, {})
        assert (await queue.status(fired["taskId"]))["status"]["taskId"] == fired["taskId"]
        await hooks.removeHook("demo", name)
        with pytest.raises(TaskclusterRestFailure) as missing:
            await hooks.hook("demo", name)
        assert missing.value.status_code == 404
        task_id = taskcluster.slugId()
        await queue.createTask(task_id, task("async", queue_id="slipway/nobody"))
        status = (await queue.cancelTask(task_id))["status"]
        assert status["state"] == "exception"


def test_roles_expand_as_published(running):
    """A29: the published vectors of role expansion, through the endpoint that everybody asks."""
    auth, mark = taskcluster.Auth(running.options), unique("vectors").replace("-", "")
    roles = {
        f"{mark}proj:*": ["secrets:get:p/<..>/*", "q:<..>", f"assume:{mark}team:<..>", "x"],
        f"{mark}team:zap": ["zap!"],
        f"{mark}team:*": ["t:<..>:end"],
    }
    for name, scopes in roles.items():
        auth.createRole(name, {"scopes": scopes, "description": "an interop test"})
    vectors = {
        "proj:zap": ["assume:proj:zap", "assume:team:zap", "q:zap", "secrets:get:p/zap/*", "t:zap:end", "x", "zap!"],
        "proj:zap*": ["assume:proj:zap*", "assume:team:zap*", "q:zap*", "secrets:get:p/zap*", "t:zap*", "x", "zap!"],
        "proj*": ["assume:proj*", "assume:team:*", "q:*", "secrets:get:p/*", "t:*", "x", "zap!"],
        "proj": ["assume:proj"],
        "proj:": ["assume:proj:", "assume:team:", "q:", "secrets:get:p//*", "t::end", "x"],
    }
    try:
        for held, expanded in vectors.items():
            wanted = {each.replace("assume:", f"assume:{mark}") for each in expanded}
            assert set(auth.expandScopes({"scopes": [f"assume:{mark}{held}"]})["scopes"]) == wanted, held
    finally:
        for name in roles:
            auth.deleteRole(name)
