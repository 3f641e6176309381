# SPDX-License-Identifier: MPL-2.0
"""schemathesis calls every endpoint of every service with what the served references and schemas allow, and with what they do not.

An OpenAPI document is made of the references as clients read them. Whatever is sent, no answer is a 5xx, and every refusal has
the body that clients parse. The cases are the same in every run; SLIPWAY_SEED chooses others, SLIPWAY_FUZZ=10 makes ten times as
many.
"""

import itertools
import json
import re
import time
import urllib.parse
import urllib.request

import pytest
import requests
import schemathesis
import taskcluster
from schemathesis import GenerationMode

from fuzzing import DEPTH, LONG_POLLS, NASTY, PIECES, SEED, Caller, run
from support import hook, task, unique

SERVICES = ["hooks", "bridges", "auth", "index", "notify", "purge-cache", "queue", "secrets", "worker-manager", "object", "triggers"]
# Examples for each endpoint and each way of making them; hooks are what this suite is about.
EXAMPLES = {"hooks": 15 * DEPTH}
OTHERS = 5 * DEPTH
# When a service has had its seconds, the endpoints that are left get one good example each.
SECONDS = {"hooks": 25 * DEPTH}
OTHER_SECONDS = 4 * DEPTH
SECRET = "what the tests show"


def fetch(running, path):
    with urllib.request.urlopen(running.root_url + path) as answer:
        return json.load(answer)


@pytest.fixture(scope="module", autouse=True)
def announced(running):
    """Triggers, so that there is an API of theirs, and the number of a run that an announced build made."""
    secret = running.suite.state / "fuzz-secret"
    secret.write_text(SECRET)
    hook_of = {"hookGroupId": "fuzz", "hookId": "nowhere"}
    configuration = {
        "triggers": [
            {"type": "static-analysis-phabricator", **hook_of},
            {"type": "static-analysis-mozreview", **hook_of},
        ],
        # Nobody answers there; what is announced is enough.
        "phabricator": {
            "url": "http://127.0.0.1:1",
            "token": {"file": str(secret)},
            "interval": "1h",
            "webhook": {"secrets": [{"file": str(secret)}]},
        },
    }
    path = running.suite.local / "triggers.json"
    path.write_text(json.dumps(configuration))
    running.suite.restart("pulse-listener")
    try:
        query = "diff=1&repo=PHID-REPO-a&revision=1&target=PHID-HMBT-a"
        answer = requests.post(f"{running.root_url}/codereview/new?{query}", auth=("fuzz", SECRET), timeout=120)
        assert (answer.status_code, answer.text) == (200, "Build queued")
        yield running.get("triggers/v1/runs", {"trigger": "static-analysis-phabricator"})["runs"][0]["runId"]
    finally:
        path.unlink()
        running.suite.restart("pulse-listener")


@pytest.fixture(scope="module")
def known(running):
    """Things that exist, so that some calls get past the question whether they do."""
    queue, hooks, task_id = running.queue(), running.hooks(), taskcluster.slugId()
    queue.createTask(task_id, task("fuzz", queue_id="fuzz/fuzz"))
    # What an earlier run has made of it is not what this one begins with.
    hooks.removeHook("fuzz", "fuzz/hook")
    hooks.createHook("fuzz", "fuzz/hook", hook("fuzz"))
    return {
        "taskId": task_id,
        "taskGroupId": task_id,
        "runId": "0",
        "hookGroupId": "fuzz",
        "hookId": "fuzz/hook",
        "taskQueueId": "fuzz/fuzz",
        "provisionerId": "fuzz",
        "workerType": "fuzz",
        "workerPoolId": "fuzz/fuzz",
        "workerGroup": "fuzz",
        "workerId": "fuzz",
        "clientId": "fuzz/client",
        "roleId": "fuzz",
        "name": "public/fuzz",
        "indexPath": "fuzz.path",
        "namespace": "fuzz",
    }


class Document:
    """The OpenAPI form of a service's reference."""

    def __init__(self, running, service, known):
        self.running, self.service, self.known = running, service, known
        self.schemas, self.names = {}, {}
        reference = fetch(running, f"/references/{service}/v1/api.json")
        self.entries = reference["entries"]
        paths = {}
        for entry in self.entries:
            path = f"/api/{service}/v1" + re.sub("<([^>]+)>", r"{\1}", entry["route"])
            paths.setdefault(path, {})[entry["method"]] = self.operation(entry)
        self.openapi = {
            "openapi": "3.1.0",
            "info": {"title": reference["title"], "version": reference["apiVersion"]},
            "paths": paths,
            "components": {"schemas": self.schemas},
        }

    def operation(self, entry):
        operation = {
            "operationId": entry["name"],
            "parameters": [self.parameter(name, "path") for name in entry["args"]]
            + [self.parameter(name, "query") for name in entry["query"]],
            "responses": {"default": {"description": "whatever"}},
        }
        if "input" in entry:
            schema = {"$ref": self.component(f"/schemas/{self.service}/{entry['input'].rstrip('#')}")}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        return operation

    def parameter(self, name, place):
        schema = {"type": "string", "minLength": 1}
        if name in self.known:
            schema = {"anyOf": [{"enum": [self.known[name]]}, schema]}
        elif name == "limit":
            schema = {"anyOf": [{"enum": ["1", "1000"]}, schema]}
        return {"name": name, "in": place, "required": place == "path", "schema": schema}

    def component(self, path):
        """A reference to a served schema, which is put among the components together with those it mentions."""
        if path not in self.names:
            self.names[path] = re.sub("[^a-zA-Z0-9]", "-", path.removeprefix("/schemas/"))
            schema = fetch(self.running, path)
            self.schemas[self.names[path]] = self.resolved(schema, path, f"#/components/schemas/{self.names[path]}")
        return f"#/components/schemas/{self.names[path]}"

    def resolved(self, value, path, here):
        if isinstance(value, list):
            return [self.resolved(each, path, here) for each in value]
        if not isinstance(value, dict):
            return value
        result = {}
        for key, each in value.items():
            if key in ("$id", "$schema"):
                continue
            if key == "$ref" and isinstance(each, str):
                target, _, fragment = each.partition("#")
                base = here if not target else self.component(urllib.parse.urljoin(path, target))
                each = base + fragment
            else:
                each = self.resolved(each, path, here)
            result[key] = each
        return result


@pytest.mark.parametrize("service", SERVICES)
def test_no_request_fails_the_server(running, known, announced, service):
    manifest = fetch(running, "/references/manifest.json")["references"]
    # The front door names what every deployment has; triggers are where somebody configured them.
    if service != "triggers" and not any(f"/references/{service}/" in each for each in manifest):
        pytest.fail(f"{service} is not in the manifest")
    print(f"SLIPWAY_SEED={SEED}")
    start, caller = time.monotonic(), Caller(running)
    if service == "triggers":
        known = {"name": "static-analysis-mozreview", "trigger": "static-analysis-phabricator", "runId": announced}
    document = Document(running, service, known)
    schema = schemathesis.openapi.from_dict(document.openapi)
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == len(document.entries)
    for operation in operations:
        name = operation.definition.raw["operationId"]
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            is_late = time.monotonic() - start > SECONDS.get(service, OTHER_SECONDS)
            if not is_late:
                run(caller, operation, name, mode, EXAMPLES.get(service, OTHERS))
            elif mode is GenerationMode.POSITIVE:
                run(caller, operation, name, mode, 1)
    print(f"{service}: {sum(caller.counts.values())} requests in {time.monotonic() - start:.1f} s: {caller.counts}")
    # However slow the machine, every endpoint was called, save those that hold their callers.
    assert sum(caller.counts.values()) >= len(operations) - len(LONG_POLLS)
    assert any(status < 300 for status in caller.counts)


@pytest.mark.parametrize("kind", NASTY)
def test_nasty_bodies_reach_every_endpoint_without_harm(running, known, kind):
    """Such a body as a whole, and as the free-form part of a definition that is otherwise good."""
    caller, text = Caller(running), NASTY[kind]
    for service in SERVICES:
        for entry in fetch(running, f"/references/{service}/v1/api.json")["entries"]:
            if "input" in entry:
                path = re.sub("<([^>]+)>", lambda name: urllib.parse.quote(known.get(name[1], "fuzz"), safe=""), entry["route"])
                caller.send(
                    entry["method"].upper(), f"/api/{service}/v1{path}", text.encode(), "application/json", name=entry["name"]
                )

    def inside(definition, *path):
        place = definition
        for key in path:
            place = place[key]
        place["extra"] = "EXTRA"
        return json.dumps(definition).replace('"EXTRA"', text.removeprefix("\ufeff")).encode()

    hook_id = unique("nasty")
    target = f"/api/hooks/v1/hooks/fuzz/{hook_id}"
    stored = caller.send("PUT", target, inside(hook("nasty"), "task"), "application/json")
    if stored.status_code == 200:
        caller.send("GET", target)
        caller.send("POST", target + "/trigger", text.encode(), "application/json")
        caller.send("GET", target + "/last-fires")
    caller.send("DELETE", target)
    target = f"/api/queue/v1/task/{taskcluster.slugId()}"
    made = caller.send("PUT", target, inside(task("nasty", queue_id="fuzz/fuzz"), "payload"), "application/json")
    if made.status_code == 200:
        caller.send("GET", target)
        caller.send("POST", target + "/cancel")
    secret = json.dumps({"secret": "EXTRA", "expires": task()["expires"]}).replace('"EXTRA"', text.removeprefix("\ufeff"))
    caller.send("PUT", "/api/secrets/v1/secret/nasty", secret.encode(), "application/json")
    caller.send("GET", "/api/secrets/v1/secret/nasty")


@pytest.mark.parametrize("piece", PIECES)
def test_nasty_paths_and_queries_reach_every_endpoint_without_harm(running, piece):
    caller = Caller(running)
    suffixes = itertools.cycle(["", f"?limit={piece}", f"?{piece}=1", f"?continuationToken={piece}"])
    for service in SERVICES:
        for entry in fetch(running, f"/references/{service}/v1/api.json")["entries"]:
            if entry["name"] in LONG_POLLS:
                continue
            path = re.sub("<([^>]+)>", lambda _: piece, entry["route"])
            body, kind = (b"{}", "application/json") if "input" in entry else (None, None)
            target = f"/api/{service}/v1{path}{next(suffixes)}"
            caller.send(entry["method"].upper(), urllib.parse.quote(target, safe="/%?=&+.:"), body, kind)


class Harbormaster(Caller):
    """Announces builds, of which the answers are plain text."""

    def __init__(self, running):
        super().__init__(running)
        self.headers = {"Authorization": "Bearer " + SECRET}

    def check(self, answer, what, name):
        text = f"{what}\n  {answer.status_code} {answer.text[:2000]}"
        assert answer.status_code in (200, 400, 401, 404, 405, 413), text
        assert SECRET not in answer.text, text
        if answer.status_code in (200, 400, 401):
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8", text


def test_announcements_of_anything_at_all_do_no_harm(running):
    caller = Harbormaster(running)
    good = {"diff": "1", "repo": "PHID-REPO-a", "revision": "1", "target": "PHID-HMBT-a"}
    pieces = [*PIECES, "0", "-1", "1.0", "9" * 15, "9" * 30, "PHID-REPO-", "PHID-HMBT-%00", "PHID-DREV-a", "'", ""]
    for option in good:
        for piece in pieces:
            query = "&".join(f"{name}={piece if name == option else value}" for name, value in good.items())
            caller.send("POST", f"/codereview/new?{query}", signed=False)
        caller.send("POST", "/codereview/new?" + urllib.parse.urlencode({**good, option: "ü\ud7ff"}), signed=False)
        caller.send("POST", "/codereview/new?" + urllib.parse.urlencode({k: v for k, v in good.items() if k != option}), signed=False)
    query = urllib.parse.urlencode(good)
    for text in NASTY.values():
        caller.send("POST", f"/codereview/new?{query}", text.encode(), "application/json", signed=False)
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        caller.send(method, f"/codereview/new?{query}", signed=False)
    for piece in PIECES:
        caller.send("POST", f"/codereview/{urllib.parse.quote(piece, safe='%')}?{query}", signed=False)
    # Whoever shows something else is nobody, however it is spelled.
    for shown in ("", "Basic", "Basic !!!!", "Basic " + "A" * 10_000, "Bearer \u00ff", "Negotiate x", "bearer " + SECRET[:-1]):
        headers = {"Authorization": shown.encode("latin-1")}
        answer = requests.post(f"{running.root_url}/codereview/new?{query}", headers=headers, timeout=120)
        assert answer.status_code == 401, (shown, answer.text)
    assert caller.counts[200] and caller.counts[400]
