# SPDX-License-Identifier: MPL-2.0
"""The unmodified PyPI taskcluster client, sync and async, calls every method that its generated hooks reference has.

The methods come from the client itself: one that it knows and this file does not fails the test of its name.
"""

import asyncio
import json
import time
import urllib.error
import urllib.request

import pytest
import taskcluster
import taskcluster.aio
from taskcluster.exceptions import TaskclusterAuthFailure, TaskclusterRestFailure

from bus import Bus
from support import hook, unique

METHODS = sorted(taskcluster.Hooks.funcinfo)
# The group whose hooks may create tasks.
GROUP = "demo"


class SyncCaller:
    """Calls the blocking client from a coroutine, so that one scenario serves both kinds of client."""

    def __init__(self, options):
        self.client = taskcluster.Hooks(options)

    async def __call__(self, method, *arguments, **keywords):
        return await asyncio.to_thread(getattr(self.client, method), *arguments, **keywords)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


class AsyncCaller:
    def __init__(self, options):
        self.options = options

    async def __call__(self, method, *arguments, **keywords):
        return await getattr(self.client, method)(*arguments, **keywords)

    async def __aenter__(self):
        self.session = taskcluster.aio.createSession()
        self.client = taskcluster.aio.Hooks(self.options, session=self.session)
        return self

    async def __aexit__(self, *_):
        await self.session.close()


async def refused(call, status, method, *arguments):
    with pytest.raises((TaskclusterRestFailure, TaskclusterAuthFailure)) as failure:
        await call(method, *arguments)
    assert failure.value.status_code == status, failure.value.body
    assert failure.value.body["requestInfo"]["method"] == method
    return failure.value.body


SCENARIOS = {}


def covers(*methods):
    """Marks a scenario as the one that exercises these methods."""

    def register(scenario):
        for method in methods:
            SCENARIOS[method] = scenario
        return scenario

    return register


@covers("ping", "lbheartbeat", "heartbeat", "version")
async def monitoring(call, name):
    alive = await call("ping")
    assert alive["alive"] is True and alive["uptime"] > 0
    assert await call("lbheartbeat") == {}
    assert await call("heartbeat") == {}
    version = await call("version")
    assert {"version", "commit", "source", "build"} <= set(version)


@covers("createHook", "hook", "updateHook", "removeHook")
async def life(call, name):
    definition = hook(name, schedule=["0 0 3 * * *"])
    created = await call("createHook", GROUP, name, definition)
    assert created["hookGroupId"] == GROUP and created["hookId"] == name
    assert created["schedule"] == definition["schedule"] and created["task"] == definition["task"]
    assert await call("hook", GROUP, name) == created
    assert await call("createHook", GROUP, name, definition) == created, "the same again is harmless"
    body = await refused(call, 409, "createHook", GROUP, name, hook(name))
    assert body["code"] == "RequestConflict" and body["requestInfo"]["params"] == {"hookGroupId": GROUP, "hookId": name}
    updated = await call("updateHook", GROUP, name, hook("changed"))
    assert updated["metadata"]["name"] == "changed" and updated["schedule"] == []
    assert await call("removeHook", GROUP, name) == {}
    assert await call("removeHook", GROUP, name) == {}, "removing what is not there is harmless"
    assert (await refused(call, 404, "hook", GROUP, name))["code"] == "ResourceNotFound"
    assert (await refused(call, 404, "updateHook", GROUP, name, definition))["code"] == "ResourceNotFound"
    wrong = await refused(call, 400, "createHook", GROUP, name, definition | {"surprise": 1})
    assert wrong["code"] == "InputValidationError" and "additional properties" in wrong["message"]


@covers("listHookGroups", "listHooks")
async def lists(call, name):
    group = unique("group")
    assert (await refused(call, 404, "listHooks", group))["code"] == "ResourceNotFound"
    for each in ("b/slash", "a"):
        await call("createHook", group, each, hook(each))
    assert group in (await call("listHookGroups"))["groups"]
    listed = (await call("listHooks", group))["hooks"]
    assert [each["hookId"] for each in listed] == ["a", "b/slash"]
    assert listed[1] == await call("hook", group, "b/slash")
    for each in ("b/slash", "a"):
        await call("removeHook", group, each)
    assert group not in (await call("listHookGroups"))["groups"]


@covers("getHookStatus", "listLastFires", "triggerHook")
async def firing(call, name):
    await call("createHook", GROUP, name, hook(name, schedule=["0 0 3 1 1 *"]))
    status = await call("getHookStatus", GROUP, name)
    assert status["lastFire"]["result"] == "no-fire" and status["nextScheduledDate"].endswith("-01-01T03:00:00.000Z")
    task = (await call("triggerHook", GROUP, name, {"some": "payload"}))["taskId"]
    status = await call("getHookStatus", GROUP, name)
    assert status["lastFire"]["result"] == "success" and status["lastFire"]["taskId"] == task
    fires = (await call("listLastFires", GROUP, name))["lastFires"]
    assert [(each["taskId"], each["firedBy"], each["result"]) for each in fires] == [(task, "triggerHook", "success")]
    await refused(call, 404, "triggerHook", GROUP, name + "x", {})
    await refused(call, 404, "getHookStatus", GROUP, name + "x")
    await call("removeHook", GROUP, name)


@covers("getTriggerToken", "resetTriggerToken", "triggerHookWithToken")
async def tokens(call, name):
    await call("createHook", GROUP, name, hook(name))
    token = (await call("getTriggerToken", GROUP, name))["token"]
    assert await call("getTriggerToken", GROUP, name) == {"token": token}
    assert "taskId" in await call("triggerHookWithToken", GROUP, name, token, {})
    fresh = (await call("resetTriggerToken", GROUP, name))["token"]
    assert fresh != token
    body = await refused(call, 401, "triggerHookWithToken", GROUP, name, token, {})
    assert body["code"] == "AuthenticationFailed"
    assert "taskId" in await call("triggerHookWithToken", GROUP, name, fresh, {})
    fires = (await call("listLastFires", GROUP, name))["lastFires"]
    assert [each["firedBy"] for each in fires] == ["triggerHookWithToken"] * 2
    await call("removeHook", GROUP, name)


@pytest.mark.asyncio
@pytest.mark.parametrize("caller", [SyncCaller, AsyncCaller], ids=["sync", "async"])
@pytest.mark.parametrize("method", METHODS)
async def test_every_method_of_the_client(running, method, caller):
    assert method in SCENARIOS, f"the client has a hooks method that nothing here exercises: {method}"
    used = set()
    async with caller(running.options) as client:

        async def call(name, *arguments, **keywords):
            used.add(name)
            return await client(name, *arguments, **keywords)

        await SCENARIOS[method](call, unique(f"{method}/x"))
    assert method in used


def test_the_served_reference_has_every_method_as_the_client_knows_it(running):
    """Whatever is served beyond the client's reference is ours; nothing of the client's may differ."""
    with urllib.request.urlopen(f"{running.root_url}/references/hooks/v1/api.json") as answer:
        served = {entry["name"]: entry for entry in json.load(answer)["entries"]}
    for name, known in taskcluster.Hooks.funcinfo.items():
        entry = served[name]
        assert (entry["method"], entry["route"], entry["args"]) == (known["method"], known["route"], known["args"])
        for key in ("input", "output"):
            assert entry.get(key) == known.get(key), (name, key)
        assert set(known.get("query", [])) <= set(entry["query"]), name


def test_the_served_exchanges_are_those_the_client_can_listen_to(running):
    with urllib.request.urlopen(f"{running.root_url}/references/hooks/v1/exchanges.json") as answer:
        reference = json.load(answer)
    served = {entry["name"]: reference["exchangePrefix"] + entry["exchange"] for entry in reference["entries"]}
    events = taskcluster.HooksEvents(running.options)
    for name in ("hookCreated", "hookUpdated", "hookDeleted"):
        binding = getattr(events, name)({"reserved": "#"})
        assert served[name] == binding["exchange"] and binding["routingKeyPattern"] == "#"


def test_a_definition_that_is_read_can_be_written_back(running):
    """What configuration tools do: read, compare with what is wanted, write; an unchanged hook stays as it is."""
    hooks, name = running.hooks(), unique("round-trip/x")
    wanted = hook(
        name,
        schema={"type": "object", "properties": {"n": {"type": "number", "default": 1.0}}, "additionalProperties": False},
        schedule=["0 0 3 1 1 *", "0 30 4 1 1 *"],
        bindings=[{"exchange": "exchange/interop-team/v1/nothing", "routingKeyPattern": "a.*.#"}],
    )
    wanted["task"]["extra"] = {"big": 12345678901234567890, "list": [1.5, None, {"$eval": "payload"}], "ü": "é\u2028"}
    wanted["metadata"]["emailOnError"] = False
    bus = Bus(running.amqp_url, [(f"exchange/taskcluster-hooks/v1/{each}", "#") for each in ("hook-created", "hook-updated")])
    try:
        hooks.createHook("demo", name, wanted)
        read = hooks.hook("demo", name)
        assert {key: read[key] for key in wanted} == wanted, "a tool that compares sees no difference"
        token, status = hooks.getTriggerToken("demo", name), hooks.getHookStatus("demo", name)

        assert hooks.createHook("demo", name, read) == read
        assert hooks.updateHook("demo", name, read) == read
        assert hooks.hook("demo", name) == read
        assert hooks.listHooks("demo")["hooks"].count(read) == 1
        assert hooks.getTriggerToken("demo", name) == token
        after = hooks.getHookStatus("demo", name)
        assert after["nextScheduledDate"] == status["nextScheduledDate"] and after["lastFire"]["result"] == "no-fire"
        with pytest.raises(TaskclusterRestFailure) as never:
            hooks.listLastFires("demo", name)
        assert never.value.status_code == 404, "writing a hook is no event for it"

        bus.wait("hook-updated", lambda payload: payload["hookId"] == name)
        announced = [kind for _, kind, payload in bus.messages if payload["hookId"] == name]
        # A repeated creation is announced again, as the original does: the first announcement may have been lost.
        assert announced == ["hook-created", "hook-created", "hook-updated"]
    finally:
        bus.close()
        hooks.removeHook("demo", name)


def test_the_history_comes_in_pages(running):
    hooks, name = running.hooks(), unique("pages")
    hooks.createHook("demo", name, hook(name))
    made = []
    for _ in range(5):
        made.append(hooks.triggerHook("demo", name, {})["taskId"])
        # The order is that of moments, which are told in milliseconds.
        time.sleep(0.005)
    for size in (1, 2, 5, 1000):
        seen, pages, query = [], 0, {"limit": str(size)}
        while True:
            page = hooks.listLastFires("demo", name, query=query)
            assert len(page["lastFires"]) <= size
            seen += [each["taskId"] for each in page["lastFires"]]
            pages += 1
            if not page.get("continuationToken"):
                break
            query = {"limit": str(size), "continuationToken": page["continuationToken"]}
        assert seen == list(reversed(made)), f"{size} a page: newest first, each once"
        assert pages == -(-5 // size), "no token with the last page"

    # The client's own way through pages.
    collected = []
    hooks.listLastFires("demo", name, query={"limit": "2"}, paginationHandler=lambda page: collected.append(page))
    assert [each["taskId"] for page in collected for each in page["lastFires"]] == list(reversed(made))

    for query, code in (({"limit": "x"}, "InvalidRequestArguments"), ({"continuationToken": "garbage"}, "InputError")):
        with pytest.raises(TaskclusterRestFailure) as failure:
            hooks.listLastFires("demo", name, query=query)
        assert failure.value.status_code == 400 and failure.value.body["code"] == code
    hooks.removeHook("demo", name)


def test_scopes_of_each_method(running):
    """A caller without scopes of its own may read what everybody may, and change nothing."""
    anonymous, name = taskcluster.Hooks(running.anonymous), unique("scopes")
    running.hooks().createHook("demo", name, hook(name))
    running.hooks().triggerHook("demo", name, {})
    for method in ("hook", "getHookStatus", "listLastFires"):
        getattr(anonymous, method)("demo", name)
    attempts = {
        "createHook": (hook(name),),
        "updateHook": (hook(name),),
        "removeHook": (),
        "triggerHook": ({},),
        "getTriggerToken": (),
        "resetTriggerToken": (),
    }
    for method, arguments in attempts.items():
        with pytest.raises(TaskclusterRestFailure) as failure:
            getattr(anonymous, method)("demo", name, *arguments)
        assert failure.value.status_code == 403, method
        assert failure.value.body["code"] == "InsufficientScopes"
    running.hooks().removeHook("demo", name)


def test_signed_addresses_of_private_methods(running):
    hooks, name = running.hooks(), unique("signed/x")
    hooks.createHook("demo", name, hook(name))
    token = hooks.getTriggerToken("demo", name)
    with urllib.request.urlopen(hooks.buildSignedUrl("getTriggerToken", "demo", name)) as answer:
        assert json.load(answer) == token
    with pytest.raises(urllib.error.HTTPError) as refused_answer:
        urllib.request.urlopen(hooks.buildUrl("getTriggerToken", "demo", name))
    assert refused_answer.value.code == 403
    hooks.removeHook("demo", name)
