# SPDX-License-Identifier: MPL-2.0
"""The APIs that no served reference describes, called with anything at all: roller, and the step services of ShipIt.

As in test_fuzz: schemathesis makes the cases, here from the lists below; whatever is sent, no answer is a 5xx, and every refusal
has the body that the clients of that API parse. Names that are made begin with `fuzz`, and what would hold up others is taken
away in the end.
"""

import itertools
import json
import re
import time
import urllib.parse

import pytest
import schemathesis
from schemathesis import GenerationMode

from fuzzing import DEPTH, NASTY, PIECES, Caller, run

EXAMPLES = 4 * DEPTH
# When an API has had its seconds, the endpoints that are left get one good example each.
SECONDS = 3 * DEPTH
# How many of the nasty bodies each endpoint gets; they take turns.
BODIES = 3 * DEPTH

ANY = {}
TEXT = {"type": "string"}
WORDS = {"type": "array", "items": TEXT}
PAGING = ["limit", "continuationToken"]


def thing(*required, **properties):
    """A body: an object with some members of these kinds."""
    return {"type": "object", "properties": properties, "required": list(required)}


STEP = thing(
    "uid", "api_url",
    uid={"enum": ["a", "b", "fuzz"]}, api_url={"enum": ["http://127.0.0.1:1/", "nowhere"]}, requires={"type": "array", "items": {"enum": ["a", "b"]}},
    parameters={"type": "object"}, when={"enum": ["success", "failure", "always", "never"]}, manual={"type": "boolean"},
    timeout_s={"type": "integer"}, retries=thing(limit={"type": "integer"}), locks=WORDS,
)  # fmt: skip
PIPELINE = thing(
    "parameters",
    parameters=thing("steps", steps={"type": "array", "items": STEP}), labels={"type": "object"}, description=TEXT,
    concurrency_key=TEXT, dry_run={"type": "boolean"}, notify={"type": "array", "items": thing(on=WORDS, type={"enum": ["email", "irc"]}, target=TEXT)},
)  # fmt: skip
POLICY = thing("method", method={"enum": ["local", "balrog", "LOCAL"]}, definition=ANY, forbid_requester={"type": "boolean"})
SIGNOFF = thing("policy", policy=POLICY, parameters={"type": "object"})
TASKS = thing(
    taskGroupId={"enum": ["fN1SbArXTPSVFUUvaOlinQ", "fuzz"]}, hook=thing("hookGroupId", "hookId", hookGroupId=TEXT, hookId=TEXT, payload=ANY),
    action=thing("taskGroupId", "name", taskGroupId=TEXT, name=TEXT, input=ANY), task={"type": "object"}, fail_fast={"type": "boolean"},
    ignore_tasks=WORDS, success_states=WORDS, appear_timeout_s={"type": "integer"},
)  # fmt: skip
REASON = thing(reason=TEXT, status={"enum": ["success", "failure", "skipped"]}, taskId=TEXT)


def steps(definition, alias=None):
    """The endpoints that every step service has; the paths of those with an alias are there twice."""
    options = ["status", "state", "uid_prefix", "created_after", "created_before", "pipeline", "created_by", "label", *PAGING]
    list_of = [("GET", "/", options, None)]
    for base in [""] + ([alias] if alias else []):
        list_of += [
            ("PUT", f"{base}/{{uid}}", ["dry_run"], definition),
            ("GET", f"{base}/{{uid}}", [], None),
            ("GET", f"{base}/{{uid}}/definition", [], None),
            ("GET", f"{base}/{{uid}}/status", [], None),
            ("GET", f"{base}/{{uid}}/events", ["verify", "deleted", *PAGING], None),
            ("POST", f"{base}/{{uid}}/cancel", [], None),
            ("DELETE", f"{base}/{{uid}}", ["force"], None),
        ]
    return list_of


RELEASE = thing(
    product={"enum": ["firefox", "devedition", "fuzz"]}, branch=TEXT, revision=TEXT, version={"enum": ["130.0b3", "1"]},
    build_number={"type": "integer"}, partial_updates={"type": "object"}, release_eta=TEXT, status=TEXT,
)  # fmt: skip
FREEZE = thing(reason=TEXT, start=TEXT, end=TEXT, cron_start=TEXT, cron_end=TEXT, tz=TEXT, match={"type": "object"})

PIPELINES = [
    *steps(PIPELINE),
    ("POST", "/", [], thing(uid=TEXT, pipeline=PIPELINE)),
    ("GET", "/{uid}/explain", [], None),
    ("GET", "/{uid}/graph", ["format"], None),
    ("POST", "/{uid}/pause", [], None),
    ("POST", "/{uid}/resume", [], None),
    ("POST", "/{uid}/retry", [], thing(steps=WORDS)),
    *[("POST", f"/{{uid}}/steps/{{step}}/{verb}", [], REASON) for verb in ("retry", "start", "skip", "resolve", "cancel", "override-freeze")],
    ("PUT", "/{uid}/steps/{step}/parameters", [], ANY),
    ("GET", "/freezes", [], None),
    ("PUT", "/freezes/{name}", [], FREEZE),
    ("DELETE", "/freezes/{name}", [], None),
    ("GET", "/locks", [], None),
    ("DELETE", "/locks/{name}", [], None),
    ("GET", "/templates", [], None),
    ("PUT", "/templates/{name}", [], thing(version=TEXT, schema=ANY, definition=PIPELINE)),
    ("GET", "/templates/{name}", [], None),
    ("POST", "/templates/{name}/instantiate", ["dry_run"], thing(uid=TEXT, parameters={"type": "object"})),
    ("DELETE", "/templates/{name}", [], None),
    ("GET", "/releases", ["product", "branch", "version", "build_number", "status"], None),
    ("POST", "/releases", [], RELEASE),
    ("GET", "/releases/{name}", [], None),
    ("PATCH", "/releases/{name}", [], thing(status=TEXT)),
    ("DELETE", "/releases/{name}", [], None),
    ("GET", "/releases/{name}/{phase}", [], None),
    ("PUT", "/releases/{name}/{phase}", [], ANY),
    ("GET", "/signoff/{name}/{phase}", [], None),
    ("PUT", "/signoff/{name}/{phase}", [], TEXT),
    ("GET", "/merge-automation", ["product"], None),
    ("POST", "/merge-automation", [], thing(product=TEXT, behavior=TEXT, revision=TEXT, version=TEXT)),
    ("GET", "/merge-automation/products", [], None),
    ("GET", "/merge-automation/behaviors/{product}", [], None),
    ("POST", "/merge-automation/{id}/start", [], None),
    ("GET", "/merge-automation/{id}/task-status", [], None),
    ("PATCH", "/merge-automation/{id}", [], thing(status=TEXT)),
    ("DELETE", "/merge-automation/{id}", [], None),
    ("GET", "/disabled-products", [], None),
    ("POST", "/disabled-products", [], thing(product=TEXT, branch=TEXT)),
    ("DELETE", "/disabled-products", ["product", "branch"], None),
    ("GET", "/versions/{product}/{channel}", [], None),
    ("POST", "/versions/{product}/{channel}", [], ANY),
    ("PUT", "/versions/{product}/{channel}", [], ANY),
    ("GET", "/nightly-release", ["product", "channel", "before_buildid", "after_buildid", "order", "limit"], None),
    ("POST", "/nightly-release", [], thing(product=TEXT, channel=TEXT, buildid=TEXT, version=TEXT)),
    ("GET", "/decision-task/status", ["product", "branch", "revision"], None),
    ("GET", "/__permissions__", [], None),
    ("GET", "/v1/releases", ["ready", "complete"], None),
    ("GET", "/v1/releases/{name}", [], None),
    ("POST", "/v1/releases/{name}", [], ANY),
    ("GET", "/v1/releases/{name}/l10n", [], None),
]

SIGNOFFS = [
    *steps(SIGNOFF, "/step"),
    ("PUT", "/{uid}/sign", [], thing(group=TEXT, digest=TEXT, fields=ANY)),
    ("DELETE", "/{uid}/sign", [], thing(group=TEXT)),
    ("POST", "/{uid}/reject", [], thing(group=TEXT, reason=TEXT)),
    ("GET", "/{uid}/signatures", ["deleted"], None),
    ("POST", "/{uid}/signatures/{id}/revoke", [], thing(reason=TEXT)),
    ("GET", "/pending", ["for"], None),
    ("POST", "/validate_policy", [], ANY),
    ("GET", "/login", ["callback_url"], None),
    ("POST", "/admin/revocations", [], thing(sub=TEXT, email=TEXT, reason=TEXT)),
]

TASK_STEPS = [*steps(TASKS, "/steps"), ("POST", "/{uid}/resolve", [], REASON)]

WORKER = thing("worker_id", worker_id={"enum": ["fuzz", "fuzz-2"]}, worker_group=TEXT, provisioner_id=TEXT, worker_type=TEXT)
MACHINE = thing(ip={"enum": ["127.0.0.1", "::1", "1.2.3"]}, mac=TEXT, workers={"type": "array", "items": WORKER}, properties={"type": "object"}, groups=WORDS)
JOBS = ["tc_worker_id", "worker_id", "worker_group", "provisioner_id", "worker_type", "task_name", "status", "confirm", *PAGING]
ROLLER = [
    *[(method, path, JOBS, None) for path in ("/jobs", "/workers/{worker}/jobs", "/workers/{worker}/group/{group}/jobs") for method in ("GET", "POST")],
    ("GET", "/jobs/{job}", [], None),
    ("GET", "/jobs/{job}/log", ["format"], None),
    ("POST", "/jobs/{job}/cancel", [], None),
    ("POST", "/jobs/{job}/callback", ["token"], {"type": "object"}),
    ("GET", "/actions", [], None),
    ("GET", "/ping", [], None),
    ("GET", "/machines", ["search", "group", "state", *PAGING], None),
    ("POST", "/machines/import", ["mode", "format"], ANY),
    ("GET", "/machines/export", ["format"], None),
    *[(method, "/machines/{name}", [], MACHINE) for method in ("PUT", "PATCH", "GET", "DELETE")],
    ("GET", "/groups", [], None),
    *[(method, "/groups/{name}", [], thing(properties={"type": "object"})) for method in ("PUT", "PATCH", "GET", "DELETE")],
    ("GET", "/controllers", [], None),
    *[
        (method, "/controllers/{name}", [], thing(type=TEXT, address=TEXT, port={"type": "integer"}, credential=TEXT))
        for method in ("PUT", "PATCH", "GET", "DELETE")
    ],
    ("GET", "/workers", PAGING, None),
    ("GET", "/workers/{number}", [], None),
    ("DELETE", "/workers/{number}", [], None),
    *[(method, "/workers/{number}", [], thing(worker_id=TEXT, worker_group=TEXT, machines=WORDS)) for method in ("PUT", "PATCH")],
    ("GET", "/windows", ["machine", "group"], None),
    ("POST", "/windows", [], thing(what=TEXT, machine=TEXT, group=TEXT, starts=TEXT, ends=TEXT, reason=TEXT)),
    ("GET", "/windows/{number}", [], None),
    ("DELETE", "/windows/{number}", [], None),
    ("GET", "/audit", ["object", *PAGING], None),
    ("GET", "/locks", [], None),
    ("GET", "/summary", [], None),
]  # fmt: skip

# What names in paths are, mostly: some exist after a while, some never.
KNOWN = {
    "uid": ["fuzz", "fuzz-1"],
    "name": ["fuzz", "fuzz-1"],
    "step": ["a", "b"],
    "number": ["0", "999999999", "99999999999999999999"],
    "id": ["1", "999999999", "99999999999999999999"],
    "job": ["6f3ed0c4-8a9c-4a30-9a36-0f5ad7a45b3e"],
    "worker": ["fuzz"],
    "limit": ["1", "0", "1001", "99999999999999999999"],
}

APIS = {
    "pipeline": ("SHIPIT_PIPELINE_URL", "", PIPELINES),
    "signoff": ("SHIPIT_SIGNOFF_URL", "", SIGNOFFS),
    "taskcluster": ("SHIPIT_TASKCLUSTER_URL", "", TASK_STEPS),
    "roller": ("ROLLER_URL", "/api/v1", ROLLER),
}


class Other(Caller):
    """Checks refusals as the clients of these APIs read them."""

    def __init__(self, running, service):
        variable, self.prefix, self.entries = APIS[service]
        if variable not in running.values:
            pytest.skip(f"{service} was not built")
        super().__init__(running, running.values[variable])
        self.is_roller = service == "roller"

    def check(self, answer, what, name):
        text = f"{what}\n  {answer.status_code} {answer.text[:2000]}"
        assert answer.status_code < 500, text
        if answer.status_code < 400 or not answer.content:
            return
        kind = answer.headers["Content-Type"]
        body = answer.json()
        if self.is_roller:
            # What Django says: a `detail`, or the complaints about each field.
            assert kind == "application/json" and isinstance(body, dict) and body, text
        elif kind == "application/problem+json":
            assert body["status"] == answer.status_code and body["code"] and body["detail"], text
        else:
            # A path that nobody has, as with every other service.
            assert answer.status_code == 404 and body == {"error": "Not found"}, text


def path_names(path):
    return re.findall("{(.*?)}", path)


def document(prefix, entries):
    def parameter(name, place):
        schema = {"type": "string", "minLength": 1}
        if name in KNOWN:
            schema = {"anyOf": [{"enum": KNOWN[name]}, schema]}
        return {"name": name, "in": place, "required": place == "path", "schema": schema}

    paths = {}
    for method, path, query, body in entries:
        operation = {
            "operationId": f"{method} {path}",
            "parameters": [parameter(each, "path") for each in path_names(path)] + [parameter(each, "query") for each in query],
            "responses": {"default": {"description": "whatever"}},
        }
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        paths.setdefault(prefix + path, {})[method.lower()] = operation
    return {"openapi": "3.1.0", "info": {"title": "others", "version": "1"}, "paths": paths}


@pytest.fixture(params=APIS)
def caller(running, request):
    caller = Other(running, request.param)
    yield caller
    # Nothing that somebody else would have to wait for stays.
    for path, key, member in {"pipeline": [("/freezes", "freezes", "uid")], "roller": [("/windows", "windows", "id")]}.get(request.param, []):
        for each in caller.send("GET", caller.prefix + path).json()[key]:
            caller.send("DELETE", f"{caller.prefix}{path}/{urllib.parse.quote(str(each[member]), safe='')}")


def test_no_request_fails_the_server(caller):
    start = time.monotonic()
    schema = schemathesis.openapi.from_dict(document(caller.prefix, caller.entries))
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == len(caller.entries)
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            is_late = time.monotonic() - start > SECONDS
            if not is_late or mode is GenerationMode.POSITIVE:
                run(caller, operation, None, mode, 1 if is_late else EXAMPLES)
    print(f"{sum(caller.counts.values())} requests in {time.monotonic() - start:.1f} s: {caller.counts}")
    assert sum(caller.counts.values()) >= len(operations)
    assert any(status < 300 for status in caller.counts)


def test_nasty_bodies_paths_and_queries_do_no_harm(caller):
    pieces, bodies = itertools.cycle(PIECES), itertools.cycle(NASTY.values())
    for method, path, query, body in caller.entries:
        known = caller.prefix + re.sub("{(.*?)}", lambda name: KNOWN.get(name[1], ["fuzz"])[0], path)
        for text in itertools.islice(bodies, BODIES if body is not None else 0):
            caller.send(method, known, text.encode(), "application/json")
        for option in ["", *query]:
            piece = next(pieces)
            target = re.sub("{.*?}", lambda _, piece=piece: piece, path) + (f"?{option}={piece}" if option else "")
            data = json.dumps({}).encode() if body is not None else None
            caller.send(method, caller.prefix + urllib.parse.quote(target, safe="/%?=&+.:"), data, "application/json" if data else None)
        # A zero in a name is what databases take least.
        if path_names(path):
            caller.send(method, caller.prefix + re.sub("{.*?}", "%00", path))
        for option in query:
            caller.send(method, f"{known}?{option}=%00")
