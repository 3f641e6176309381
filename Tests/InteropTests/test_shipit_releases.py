# SPDX-License-Identifier: MPL-2.0
"""Releases by the calls of the release script: signed as it signs, with the bodies it sends, repeated as it repeats."""

import json
import time
import urllib.parse

import mohawk
import pytest
import requests
import taskcluster

from support import unique
from test_shipit import call, slipway, token, wait

# A branch of this run's own.
PROJECT = f"mozilla-{time.time_ns()}"
BRANCH = f"releases/{PROJECT}"
PHASES = ["promote_firefox", "push_firefox", "ship_firefox"]


class Script:
    """The release script's way of calling: only what changes something is signed, and every refusal is tried again."""

    def __init__(self, running):
        credentials = running.options["credentials"]
        self.key = {"id": credentials["clientId"], "key": credentials["accessToken"], "algorithm": "sha256"}
        self.root = running.values["SHIPIT_PIPELINE_URL"]
        self.session = requests.session()

    def request(self, method, path, data=None, attempts=5):
        url = self.root + path
        for attempt in range(attempts):
            headers = {}
            if method not in ("GET", "HEAD"):
                sender = mohawk.Sender(self.key, url, method, content=data, content_type="application/json")
                headers = {"Authorization": sender.request_header, "Content-Type": "application/json"}
            answer = self.session.request(method=method, url=url, data=data, headers=headers, timeout=60)
            if answer.ok:
                return answer
            if attempt + 1 < attempts:
                time.sleep(0.2)
        answer.raise_for_status()

    def releases(self, **filters):
        return self.request("GET", "/releases?" + urllib.parse.urlencode(filters)).json()


def plan(running, project=PROJECT):
    """Makes a revision with a decision task that offers the phases; answers it and the name of the hook for them."""
    revision, name = unique("revision"), unique("promotion")
    hook = {
        "metadata": {"name": name, "description": "carries out phases", "owner": "releng@example.com"},
        "task": {
            "provisionerId": "slipway",
            "workerType": name.lower(),
            "created": {"$fromNow": "0 seconds"},
            "deadline": {"$fromNow": "1 hour"},
            "payload": {"phase": {"$eval": "payload.user.input.release_promotion_flavor"}},
            "metadata": {"name": name, "description": "phase", "owner": "releng@example.com", "source": "https://example.com"},
        },
        "triggerSchema": {"type": "object"},
    }
    running.hooks().createHook("demo", name, hook)
    action = {
        "name": "release-promotion",
        "kind": "hook",
        "hookGroupId": "demo",
        "hookId": name,
        "hookPayload": {"user": {"input": {"$eval": "input"}}},
        "schema": {"type": "object", "properties": {"release_promotion_flavor": {"enum": PHASES}}},
    }
    queue, decision = running.queue(), taskcluster.slugId()
    now = time.time()
    stamp = lambda seconds: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + seconds))
    queue.createTask(
        decision,
        {
            "provisionerId": "releases",
            "workerType": "decision",
            "created": stamp(0),
            "deadline": stamp(3600),
            "expires": stamp(86400),
            "payload": {},
            "metadata": {"name": "decision", "description": "plans", "owner": "a@b.c", "source": "https://example.com"},
        },
    )
    claim = queue.claimWork("releases/decision", {"workerGroup": "w", "workerId": unique("w")[-22:], "tasks": 1})["tasks"][0]
    worker = taskcluster.Queue({"rootUrl": running.root_url, "credentials": claim["credentials"]})
    files = {"public/actions.json": json.dumps({"version": 1, "variables": {}, "actions": [action]}), "public/parameters.yml": "level: '3'\n"}
    for path, text in files.items():
        made = worker.createArtifact(
            decision, 0, path, {"storageType": "s3", "contentType": "application/json", "expires": stamp(86400)}
        )
        requests.put(made["putUrl"], data=text.encode(), headers={"Content-Type": "application/json"}, timeout=60).raise_for_status()
    worker.reportCompleted(decision, 0)
    index = taskcluster.Index(running.options)
    route = f"gecko.v2.{project}.revision.{revision}.taskgraph.decision"
    index.insertTask(route, {"taskId": decision, "rank": 0, "data": {}, "expires": stamp(86400)})
    return revision, name


def number():
    """A version that no earlier run has released."""
    return f"{int(time.time()) % 1_000_000}.0b{int(unique('n')[-3:], 36) % 900 + 1}"


def test_the_release_script_releases(running):
    """80: what the script calls succeeds, in its order and as often as it likes."""
    if "SHIPIT_TASKCLUSTER_URL" not in running.values:
        pytest.skip("shipit-taskcluster is not built")
    # Updates from what was shipped on this branch would ask the real repository for its locales: nothing was.
    project = f"mozilla-{time.time_ns()}"
    branch, (revision, _) = f"releases/{project}", plan(running, project)
    script, version = Script(running), number()
    assert branch not in script.request("GET", "/disabled-products").json().get("firefox", [])
    wanted = {"product": "firefox", "branch": branch, "status": "shipped,aborted,scheduled", "version": version}
    assert script.releases(**wanted) == []
    body = {
        "product": "firefox",
        "branch": branch,
        "version": version,
        "build_number": 1,
        "revision": revision,
        "partial_updates": "auto",
    }
    answer = script.request("POST", "/releases", data=json.dumps(body))
    assert answer.status_code == 201
    name = answer.json()["name"]
    assert name == f"Firefox-{version}-build1"
    assert [release["build_number"] for release in script.releases(**wanted)] == [1]

    # The phase, and once more after an answer that was lost.
    for _ in range(2):
        assert script.request("PUT", f"/releases/{name}/promote_firefox").json()["name"] == "promote_firefox"
    phase = lambda which: script.request("GET", f"/releases/{name}/{which}").json()
    wait("the task of the phase", lambda: phase("promote_firefox")["submitted"], 240)
    assert phase("promote_firefox")["actionTaskId"], phase("promote_firefox")
    task = running.queue().task(phase("promote_firefox")["actionTaskId"])
    assert task["payload"] == {"phase": "promote_firefox"}
    script.request("PUT", f"/releases/{name}/push_firefox")

    # Two people have to sign the last one; then it is called for by itself.
    url = f"{running.values['SHIPIT_PIPELINE_URL']}/signoff/{name}/ship_firefox"
    slots = {slot["permissions"]: slot["uid"] for slot in requests.get(url, timeout=60).json()["signoffs"]}
    assert call(running, "PUT", url, slots["releng"])[0] == 401
    for group, person in (("releng", "releng1"), ("relman", "relman1")):
        status, answer = call(running, "PUT", url, slots[group], token=token(running, person))
        assert status == 200, answer
    wait("the task of the signed phase", lambda: phase("ship_firefox")["submitted"], 240)
    tasks = [phase(which)["actionTaskId"] for which in PHASES]
    assert len(set(tasks)) == 3

    script.request("PATCH", f"/releases/{name}", data=json.dumps({"status": "shipped"}))
    script.request("PATCH", f"/releases/{name}", data=json.dumps({"status": "shipped"}))
    assert script.request("GET", f"/releases/{name}").json()["status"] == "shipped"
    newest = script.releases(product="firefox", branch=branch, status="shipped")
    assert name in [release["name"] for release in newest]
    assert "promote_firefox" in slipway(running, "pipeline", "show", name)

    channel = unique("channel")
    with pytest.raises(requests.HTTPError):
        script.request("PUT", f"/versions/firefox/{channel}", data=json.dumps({"version": "1"}), attempts=1)
    script.request("POST", f"/versions/firefox/{channel}", data=json.dumps({"version": "1"}))
    script.request("PUT", f"/versions/firefox/{channel}", data=json.dumps({"version": "2"}))
    assert script.request("GET", f"/versions/firefox/{channel}").json() == "2"


def test_a_phase_that_is_signed_while_hooks_are_away_is_made_once(running):
    """83: the last signature counts, the phase is being scheduled, and when the hooks are back it has one task."""
    if "SHIPIT_TASKCLUSTER_URL" not in running.values:
        pytest.skip("shipit-taskcluster is not built")
    (revision, hook), version = plan(running), number()
    release = lambda *arguments, **more: slipway(running, "release", *arguments, **more)
    made = release("create", "firefox", version, "--branch", BRANCH, "--revision", revision)
    name = f"Firefox-{version}-build1"
    assert name in made and "missing: releng, relman" in made
    script = Script(running)
    phase = lambda which: script.request("GET", f"/releases/{name}/{which}").json()
    for which in PHASES[:2]:
        release("call", name, which)
        wait(f"the task of {which}", lambda: phase(which)["submitted"], 240)
    running.suite.stop("hooks-service")
    try:
        for group, person in (("releng", "releng1"), ("relman", "relman1")):
            shown = release("sign", name, "ship_firefox", "--group", group, person=person)
        assert "ship_firefox scheduling" in " ".join(shown.split()), shown
        # For a while it is tried in vain.
        for _ in range(3):
            found = phase("ship_firefox")
            assert (found["state"], found["submitted"], found["actionTaskId"]) == ("scheduling", False, ""), found
            time.sleep(1)
    finally:
        running.suite.start_services()
    wait("the task of the signed phase", lambda: phase("ship_firefox")["submitted"], 300)
    task_id = phase("ship_firefox")["actionTaskId"]
    fires = running.hooks().listLastFires("demo", hook)["lastFires"]
    assert len(fires) == 3, fires
    assert task_id in {fire["taskId"] for fire in fires}
    assert running.queue().task(task_id)["payload"] == {"phase": "ship_firefox"}
    release("ship", name)
    assert name in release("list", "--product", "firefox", "--status", "shipped")
    # What scripts may not release is told, and told no more when they may again.
    release("disable", "firefox", "--branch", BRANCH)
    assert BRANCH in release("disabled")
    release("enable", "firefox", "--branch", BRANCH)
    assert BRANCH not in release("disabled")
