# SPDX-License-Identifier: MPL-2.0
"""Every method of the unmodified PyPI client against taskcluster-local; numbers are those of the behaviour checks."""

import base64
import datetime
import gzip
import hashlib
import json
import pathlib
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import jsonschema
import pytest
import referencing
import referencing.jsonschema
import taskcluster
import taskcluster.aio
from taskcluster.exceptions import TaskclusterAuthFailure, TaskclusterRestFailure

from bus import Bus
from local_queue import ROOT, TOP, Deployment
from support import eventually, stamp, task, unique

CLASSES = {
    "auth": taskcluster.Auth,
    "index": taskcluster.Index,
    "notify": taskcluster.Notify,
    "object": taskcluster.Object,
    "purge-cache": taskcluster.PurgeCache,
    "queue": taskcluster.Queue,
    "secrets": taskcluster.Secrets,
    "worker-manager": taskcluster.WorkerManager,
}

POOLS = "taskcluster-local starts no machines, so there are no pools, providers or launch configurations to manage"
OUT_OF_SCOPE = {
    ("auth", "awsS3Credentials"): "there is no AWS account behind a local deployment",
    ("auth", "gcpCredentials"): "there is no Google project behind a local deployment",
    ("auth", "githubRepoToken"): "there is no GitHub application; scriptworker falls back to its own token",
    ("auth", "sentryDSN"): "there is no Sentry",
    ("auth", "websocktunnelToken"): "there is no websocktunnel",
    **{
        ("worker-manager", name): POOLS
        for name in (
            "createWorker createWorkerPool deleteWorkerPool getWorker listProviders listWorkerPoolErrors "
            "listWorkerPoolLaunchConfigs listWorkerPoolsStats listWorkers listWorkersForWorkerGroup "
            "listWorkersForWorkerPool registerWorker reportWorkerError reregisterWorker updateWorker updateWorkerPool "
            "worker workerPool workerPoolErrorStats workerPoolStats"
        ).split()
    },
}


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    settings = {
        "TCL_CLAIM_TIMEOUT": "30",
        "TCL_CLAIM_WORK_TIMEOUT": "2",
        "TCL_DEADLINE_DELAY": "1",
        "TCL_EXPIRY_INTERVAL": "1",
    }
    with Deployment(servers, tmp_path_factory.mktemp("queue"), **settings) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def server(deployment):
    return deployment.start()


class Schemas:
    """The schemas that are served, to hold answers against."""

    def __init__(self):
        resources = []
        for path in sorted((TOP / "schemas").glob("*/v1/*.json")):
            document = json.loads(path.read_text())
            uri = "/" + str(path.relative_to(TOP))
            document.pop("$schema", None)
            document["$id"] = uri
            resource = referencing.Resource(document, referencing.jsonschema.DRAFT6)
            resources.append((uri, resource))
        self.registry = referencing.Registry().with_resources(resources)

    def check(self, uri, value):
        validator = jsonschema.Draft6Validator({"$ref": uri}, registry=self.registry)
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not problems, f"{uri}: {problems}"


SCHEMAS = Schemas()


class Checked:
    """A client whose every answer is held against the schema its reference names."""

    def __init__(self, service, options):
        self._service = service
        self._client = CLASSES[service](options)
        url = f"{options['rootUrl']}/references/{service}/v1/api.json"
        with urllib.request.urlopen(url) as answer:
            entries = json.load(answer)["entries"]
        self._outputs = {entry["name"]: entry.get("output") for entry in entries}

    def __getattr__(self, name):
        method = getattr(self._client, name)
        if name.startswith("build"):
            return method

        def call(*args, **kwargs):
            answer = method(*args, **kwargs)
            output = self._outputs.get(name)
            if output and answer is not None:
                SCHEMAS.check(f"/schemas/{self._service}/{output.split('#')[0]}", answer)
            return answer

        return call


def client(server, service, **credentials):
    return Checked(service, server.options(**credentials))


@pytest.fixture(scope="module")
def queue(server):
    return client(server, "queue")


@pytest.fixture(scope="module")
def auth(server):
    return client(server, "auth")


def later(**delta):
    return stamp(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta))


def claimed(queue, queue_id=None, **fields):
    """A task that worker g/w has just taken."""
    queue_id = queue_id or f"test/{unique('q').lower()}"
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("claimed", queue_id=queue_id, payload={"n": 1}, **fields))
    (claim,) = queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w"})["tasks"]
    assert claim["status"]["taskId"] == task_id
    return claim


def refused(status, call, *args, code=None, **kwargs):
    kind = TaskclusterAuthFailure if status == 401 else TaskclusterRestFailure
    with pytest.raises(kind) as failure:
        call(*args, **kwargs)
    assert failure.value.status_code == status, failure.value
    if code:
        assert failure.value.body["code"] == code
    return failure.value


def fetch(url, headers=None, method="GET", data=None):
    request = urllib.request.Request(url, headers=headers or {}, method=method, data=data)
    with urllib.request.urlopen(request) as answer:
        return answer.status, dict(answer.headers), answer.read()


def put(url, body, content_type, **headers):
    return fetch(url, {"Content-Type": content_type, **headers}, "PUT", body)


def upload(queue, claim, name, body, content_type="text/plain", **headers):
    run = claim["runId"]
    wish = {"storageType": "s3", "expires": claim["task"]["expires"], "contentType": content_type}
    answer = queue.createArtifact(claim["status"]["taskId"], run, name, wish)
    status, _, _ = put(answer["putUrl"], body, content_type, **headers)
    assert status == 200
    return answer


# ---------------------------------------------------------------- is everything there


def sample(name):
    slug = taskcluster.slugId()
    return {
        "taskId": slug, "taskGroupId": slug, "runId": "0", "taskQueueId": "test/none", "workerPoolId": "test/none",
        "provisionerId": "test", "workerType": "none", "workerGroup": "g", "workerId": "w", "clientId": "nobody",
        "roleId": "nobody", "indexPath": "a.b", "namespace": "a.b", "name": "public/x", "entityType": "client",
        "entityId": "nobody",
    }.get(name, "x")


@pytest.mark.parametrize("service", sorted(CLASSES))
def test_every_method_of_the_client_is_served_or_out_of_scope_for_a_reason(server, service):
    missing, stale = [], []
    for name, entry in sorted(CLASSES[service].funcinfo.items()):
        route = re.sub("<([a-zA-Z]+)>", lambda hit: urllib.parse.quote(sample(hit[1]), safe=""), entry["route"])
        request = urllib.request.Request(
            f"{server.own_url}/api/{service}/v1{route.rstrip('/')}",
            method=entry["method"].upper(),
            data=b"{}" if "input" in entry else None,
            headers={"Content-Type": "application/json"} if "input" in entry else {},
        )
        try:
            urllib.request.urlopen(request)
            is_known = True
        except urllib.error.HTTPError as answer:
            is_known = answer.code != 404 or json.loads(answer.read()) != {"error": "Not found"}
            assert answer.code < 500 or answer.code == 303, f"{service}.{name} answered {answer.code}"
        reason = OUT_OF_SCOPE.get((service, name))
        if not is_known and not reason:
            missing.append(name)
        if is_known and reason:
            stale.append(name)
    assert not missing, f"{service} does not serve {missing}"
    assert not stale, f"{service} serves {stale}, which are listed as out of scope"


@pytest.mark.parametrize("service", sorted(CLASSES))
def test_references_name_schemas_that_exist(server, service):
    with urllib.request.urlopen(f"{server.own_url}/references/{service}/v1/api.json") as answer:
        reference = json.load(answer)
    for entry in reference["entries"]:
        for key in ("input", "output"):
            if entry.get(key):
                assert (TOP / "schemas" / service / entry[key].split("#")[0]).exists(), (entry["name"], entry[key])
    if service not in ("auth", "notify", "queue"):
        return
    with urllib.request.urlopen(f"{server.own_url}/references/{service}/v1/exchanges.json") as answer:
        exchanges = json.load(answer)["entries"]
    assert exchanges
    for entry in exchanges:
        assert (TOP / "schemas" / service / entry["schema"].split("#")[0]).exists(), entry["name"]


# ---------------------------------------------------------------- A. HTTP and auth


def test_q1_both_clients_see_the_expanded_scopes(server, auth):
    name = unique("role")
    auth.createRole(name, {"scopes": ["scope:one"], "description": "d"})
    created = auth.createClient(unique("c"), {"expires": later(hours=1), "description": "d", "scopes": [f"assume:{name}"]})
    options = server.options(created["clientId"], created["accessToken"])
    scopes = taskcluster.Auth(options).currentScopes()["scopes"]
    assert "scope:one" in scopes and "queue:status:*" in scopes

    async def ask():
        async with taskcluster.aio.createSession() as session:
            return (await taskcluster.aio.Auth(options, session=session).currentScopes())["scopes"]

    import asyncio

    assert asyncio.run(ask()) == scopes


def sign(server, url, method="GET", ext=None, body="", **more):
    import mohawk

    credentials = {"id": ROOT, "key": server.deployment.token, "algorithm": "sha256"}
    content = {"content": body, "content_type": "application/json"} if body else {"content": "", "content_type": ""}
    return mohawk.Sender(credentials, url, method, ext=ext, **content, **more).request_header


@pytest.mark.parametrize("ext", [None, "e30=", "e30"])
def test_q2_plain_credentials_with_and_without_an_extension(server, ext):
    url = f"{server.own_url}/api/auth/v1/scopes/current"
    assert fetch(url, {"Authorization": sign(server, url, ext=ext)})[0] == 200


def test_q5_a_changed_body_is_noticed_if_it_was_hashed(server):
    import mohawk

    url = f"{server.own_url}/api/auth/v1/scopes/expand"
    headers = {"Content-Type": "application/json"}
    body, other = b'{"scopes": ["a"]}', b'{"scopes": ["b"]}'
    signed = sign(server, url, "POST", body=body.decode())
    assert fetch(url, headers | {"Authorization": signed}, "POST", body)[0] == 200
    with pytest.raises(urllib.error.HTTPError) as changed:
        fetch(url, headers | {"Authorization": sign(server, url, "POST", body=body.decode())}, "POST", other)
    assert changed.value.code == 401
    credentials = {"id": ROOT, "key": server.deployment.token, "algorithm": "sha256"}
    unhashed = mohawk.Sender(credentials, url, "POST", always_hash_content=False).request_header
    assert "hash=" not in unhashed
    assert fetch(url, headers | {"Authorization": unhashed}, "POST", other)[0] == 200


def test_q9_behind_a_proxy_that_ends_tls_the_port_is_443(server):
    path = "/api/auth/v1/scopes/current"
    header = sign(server, f"https://queue.example.com{path}")
    forwarded = {"Host": "queue.example.com", "X-Forwarded-Proto": "https", "Authorization": header}
    assert fetch(server.own_url + path, forwarded)[0] == 200
    with pytest.raises(urllib.error.HTTPError) as plain:
        fetch(server.own_url + path, {"Host": "queue.example.com", "Authorization": header})
    assert plain.value.code == 401


def test_q10_roles_expand_with_their_parameter(auth):
    name = unique("hook-id:g")
    auth.createRole(f"{name}/*", {"scopes": ["x:<..>"], "description": "d"})
    expand = lambda scope: auth.expandScopes({"scopes": [scope]})["scopes"]
    assert "x:h" in expand(f"assume:{name}/h")
    assert "x:*" in expand(f"assume:{name}/*")
    assert "x:*" in expand("assume:*")
    refused(400, auth.createRole, unique("two") + "*", {"scopes": ["<..>:<..>"], "description": "d"})


def test_q11_a_circle_of_roles_is_refused_and_nothing_stored(auth):
    one, two = unique("one"), unique("two")
    auth.createRole(one, {"scopes": [f"assume:{two}"], "description": "d"})
    failure = refused(400, auth.createRole, two, {"scopes": [f"assume:{one}"], "description": "d"}, code="InputError")
    assert one in str(failure) and two in str(failure)
    refused(404, auth.role, two)


def test_q16_bodies_are_judged_and_errors_name_the_api_method(server, queue):
    refused(400, queue.claimWork, "test/none", {"workerGroup": "g", "workerId": "w", "more": 1}, code="InputValidationError")
    request = urllib.request.Request(
        f"{server.own_url}/api/queue/v1/claim-work/test%2Fnone", b"{", {"Content-Type": "application/json"}, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as broken:
        urllib.request.urlopen(request)
    body = json.loads(broken.value.read())
    assert body["code"] == "MalformedPayload" and body["requestInfo"]["method"] == "claimWork" and body["message"]


def test_the_null_character_is_refused_and_not_a_failure(server, auth, queue):
    null = "a\0b"
    refused(400, queue.createTask, taskcluster.slugId(), task("null", queue_id="test/none", payload={"x": [{null: 1}]}))
    refused(400, queue.createTask, taskcluster.slugId(), task(null, queue_id="test/none", routes=["index.a.b"]))
    fine = task("escaped", queue_id="test/none", payload={"text": "a\\u0000b"})
    assert queue.createTask(taskcluster.slugId(), fine)["status"]["state"] == "pending"
    refused(400, auth.createClient, unique("null"), {"expires": later(hours=1), "description": null})
    refused(400, auth.createRole, unique("null"), {"scopes": [], "description": null})
    refused(400, auth.listClients, query={"prefix": null})
    refused(400, client(server, "purge-cache").purgeCache, "test/none", {"cacheName": null})
    refused(400, client(server, "secrets").get, null)
    place = ("test", unique("null").lower(), "g", "w")
    queue.declareWorker(*place, {})
    refused(400, queue.quarantineWorker, *place, {"quarantineUntil": later(hours=1), "quarantineInfo": null})


def test_q17_a_reset_token_works_at_once_and_the_old_one_never_again(server, auth):
    created = auth.createClient(unique("reset"), {"expires": later(hours=1), "description": "d", "scopes": ["a:b"]})
    old = taskcluster.Auth(server.options(created["clientId"], created["accessToken"]))
    assert "a:b" in old.currentScopes()["scopes"]
    fresh = auth.resetAccessToken(created["clientId"])
    assert len(fresh["accessToken"]) == 44 and fresh["accessToken"] != created["accessToken"]
    refused(401, old.currentScopes)
    new = taskcluster.Auth(server.options(created["clientId"], fresh["accessToken"]))
    assert "a:b" in new.currentScopes()["scopes"]
    for call in (auth.resetAccessToken, auth.disableClient, auth.enableClient, auth.deleteClient):
        refused(400, call, ROOT)


def test_static_clients_cannot_be_made(auth):
    refused(400, auth.createClient, "static/new", {"expires": later(hours=1), "description": "d"}, code="InputError")


def test_the_life_of_a_client(server, auth):
    name = unique("life/of:a|client")
    wish = {"expires": later(hours=1), "description": "d", "scopes": ["a:b", "a:*"]}
    created = auth.createClient(name, wish)
    assert created["scopes"] == ["a:*"] and not created["disabled"]
    refused(409, auth.createClient, name, wish, code="RequestConflict")
    refused(400, auth.createClient, unique("stars"), wish | {"scopes": ["a**"]})
    refused(400, auth.createClient, "static/other", wish)
    assert auth.client(name)["clientId"] == name
    assert [each["clientId"] for each in auth.listClients(query={"prefix": name})["clients"]] == [name]

    options = server.options(name, created["accessToken"])
    limited = Checked("auth", options)
    refused(403, limited.createClient, unique("more"), wish, code="InsufficientScopes")
    auth.updateClient(name, wish | {"scopes": [f"auth:create-client:{name}/*", f"auth:update-client:{name}/*", "a:*"]})
    child = limited.createClient(f"{name}/child", wish)
    refused(403, limited.createClient, f"{name}/greedy", wish | {"scopes": ["b:c"]}, code="InsufficientScopes")
    refused(403, limited.updateClient, child["clientId"], wish | {"scopes": ["a:*", "b:c"]}, code="InsufficientScopes")
    assert limited.updateClient(child["clientId"], wish | {"description": "e"})["description"] == "e"

    assert auth.disableClient(name)["disabled"] and auth.disableClient(name)["disabled"]
    refused(401, limited.currentScopes)
    assert not auth.enableClient(name)["disabled"]
    limited.currentScopes()
    auth.deleteClient(name)
    auth.deleteClient(name)
    refused(404, auth.client, name)
    refused(404, auth.resetAccessToken, name)
    refused(401, limited.currentScopes)

    actions = [each["actionType"] for each in auth.getEntityHistory("client", name)["auditHistory"]]
    assert actions[0] == "deleted" and actions[-1] == "created" and "updated" in actions
    assert any(each["entityId"] == name for each in auth.listAuditHistory(ROOT)["auditHistory"])


def test_the_life_of_a_role(server, auth):
    name = unique("life of a role")
    wish = {"scopes": ["x:y"], "description": "d"}
    assert auth.createRole(name, wish)["scopes"] == ["x:y"]
    assert auth.createRole(name, wish)["roleId"] == name, "the same again is harmless"
    refused(409, auth.createRole, name, wish | {"scopes": ["x:z"]})
    assert auth.role(name)["expandedScopes"]
    assert any(each["roleId"] == name for each in auth.listRoles())
    assert name in auth.listRoleIds()["roleIds"]
    assert auth.updateRole(name, wish | {"scopes": ["x:z"]})["scopes"] == ["x:z"]
    assert "x:z" in auth.expandScopes({"scopes": [f"assume:{name}"]})["scopes"]

    helper = auth.createClient(
        unique("helper"), {"expires": later(hours=1), "description": "d", "scopes": [f"auth:update-role:{name}"]}
    )
    limited = Checked("auth", server.options(helper["clientId"], helper["accessToken"]))
    refused(403, limited.updateRole, name, wish | {"scopes": ["x:z", "x:more"]}, code="InsufficientScopes")
    assert limited.updateRole(name, wish | {"scopes": []})["scopes"] == [], "taking away needs no scopes"
    auth.deleteRole(name)
    auth.deleteRole(name)
    refused(404, auth.updateRole, name, wish)

    pages, token = [], None
    while True:
        page = auth.listRoles2(query={"limit": 2} | ({"continuationToken": token} if token else {}))
        pages += page["roles"]
        token = page.get("continuationToken")
        if not token:
            break
    ids = [each["roleId"] for each in pages]
    assert ids == sorted(ids) and len(ids) == len(set(ids)) and "anonymous" in ids


def test_client_libraries_can_test_themselves(server):
    tester = {"clientId": "tester", "accessToken": "no-secret"}
    options = {"rootUrl": server.own_url, "credentials": tester}
    auth = Checked("auth", options)
    answer = auth.testAuthenticate({"clientScopes": ["test:a"], "requiredScopes": ["test:a"]})
    assert answer == {"clientId": "tester", "scopes": ["assume:anonymous", "test:a"]}
    refused(403, auth.testAuthenticate, {"clientScopes": ["test:a"], "requiredScopes": ["test:b"]})
    assert auth.testAuthenticateGet()["clientId"] == "tester"
    named = taskcluster.createTemporaryCredentials(
        "tester", "no-secret", taskcluster.fromNow("-5 minutes"), taskcluster.fromNow("1 hour"), ["test:a"], "test:named"
    )
    temporary = Checked("auth", options | {"credentials": named})
    wish = {"clientScopes": ["test:*", "auth:create-client:test:*"], "requiredScopes": ["test:a"]}
    assert temporary.testAuthenticate(wish)["clientId"] == "test:named"
    refused(401, temporary.testAuthenticate, wish | {"clientScopes": ["test:*"]})
    wrong = Checked("auth", options | {"credentials": tester | {"accessToken": "wrong"}})
    refused(401, wrong.testAuthenticateGet)


def test_changes_of_clients_and_roles_are_announced(deployment, server, auth):
    prefix = deployment.exchange_prefix.replace("-queue/", "-auth/")
    names = [f"{kind}-{event}" for kind in ("client", "role") for event in ("created", "updated", "deleted")]
    bus = Bus(deployment.amqp_url, [(prefix + name, "#") for name in names])
    try:
        name = unique("announced")
        wish = {"expires": later(hours=1), "description": "d"}
        auth.createClient(name, wish)
        auth.updateClient(name, wish | {"description": "e"})
        auth.deleteClient(name)
        auth.createRole(name, {"scopes": [], "description": "d"})
        auth.updateRole(name, {"scopes": ["a"], "description": "d"})
        auth.deleteRole(name)
        for each in names:
            _, body = bus.wait(each, lambda body: name in body.values())
            SCHEMAS.check(f"/schemas/auth/v1/{each.split('-')[0]}-message.json", body)
    finally:
        bus.close()


def test_tokens_are_not_readable_in_the_database_and_static_clients_follow_the_seed(servers, tmp_path):
    seed = {"clients": [{"clientId": "static/test/gone", "accessToken": "a" * 30, "scopes": [], "description": ""}]}
    with Deployment(servers, tmp_path, seed=seed, exchanges=False) as deployment:
        first = deployment.start()
        token = first.auth.createClient("kept", {"expires": later(hours=1), "description": "d"})["accessToken"]
        dump = deployment.query("select * from tcl.clients")
        assert token not in dump and deployment.token not in dump and "a" * 30 not in dump
        assert first.auth.client("static/test/gone")
        first.stop()
        deployment.seed = {}
        key = base64.b64encode(b"k" * 32).decode()
        second = deployment.start(TCL_CRYPTO_KEYS=json.dumps([{"id": "second", "algo": "aes-256", "key": key}]))
        refused(404, second.auth.client, "static/test/gone")
        options = second.options("kept", token)
        assert taskcluster.Auth(options).currentScopes()["scopes"]
        secrets = taskcluster.Secrets(second.options())
        secrets.set("s", {"secret": {"word": "plainly"}, "expires": later(hours=1)})
        eventually(lambda: deployment.query("select string_agg(distinct token_key, ',') from tcl.clients") == "second", 10)
        assert deployment.query("select key_id from tcl.secrets") == "second"
        assert deployment.query("select position('plainly'::bytea in sealed) from tcl.secrets") == "0"
        assert secrets.get("s")["secret"] == {"word": "plainly"}
        second.stop()


def test_clients_that_want_to_be_deleted_are(deployment, server, auth):
    name = unique("short")
    auth.createClient(name, {"expires": later(seconds=1), "description": "d", "deleteOnExpiration": True})
    eventually(lambda: name not in [each["clientId"] for each in auth.listClients()["clients"]], 15)


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


# ---------------------------------------------------------------- F. artifacts and objects


def test_q14_names_with_blanks_are_one_artifact_in_both_spellings(server, queue):
    claim = claimed(queue)
    upload(queue, claim, "public/build/c d+e.xml", b"<x/>", "application/xml")
    url = f"{server.own_url}/api/queue/v1/task/{claim['status']['taskId']}/artifacts/public/build/c%20d+e.xml"
    assert fetch(url)[2] == b"<x/>"


def test_q84_bytes_come_back_as_they_were_sent(server, queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    packed = gzip.compress(b"text " * 1000)
    upload(queue, claim, "public/packed.txt", packed, "text/plain", **{"Content-Encoding": "gzip"})
    binary = bytes(range(256)) * 1000
    upload(queue, claim, "public/a.bin", binary, "application/octet-stream")
    url = queue.buildUrl("getLatestArtifact", task_id, "public/packed.txt")
    _, headers, body = fetch(url)
    assert headers["Content-Encoding"] == "gzip" and body == packed and headers["Content-Length"] == str(len(packed))
    url = queue.buildUrl("getArtifact", task_id, 0, "public/a.bin")
    location = queue.getArtifact(task_id, 0, "public/a.bin")["url"]
    assert fetch(url)[2] == binary
    status, headers, body = fetch(location, {"Range": "bytes=256-511"})
    assert (status, body, headers["Content-Range"]) == (206, binary[256:512], f"bytes 256-511/{len(binary)}")
    status, headers, body = fetch(location, method="HEAD")
    assert headers["Content-Length"] == str(len(binary)) and headers["Accept-Ranges"] == "bytes" and body == b""
    with pytest.raises(urllib.error.HTTPError) as beyond:
        fetch(location, {"Range": "bytes=999999999-"})
    assert beyond.value.code == 416
    names = [each["name"] for each in queue.listArtifacts(task_id, 0)["artifacts"]]
    assert names == ["public/a.bin", "public/packed.txt"]
    assert queue.listLatestArtifacts(task_id)["artifacts"] == queue.listArtifacts(task_id, 0)["artifacts"]
    assert queue.artifactInfo(task_id, 0, "public/a.bin")["storageType"] == "s3"
    assert queue.latestArtifactInfo(task_id, "public/a.bin")["name"] == "public/a.bin"
    assert fetch(queue.latestArtifact(task_id, "public/a.bin")["url"])[2] == binary
    assert fetch(queue.artifact(task_id, 0, "public/a.bin")["url"])[2] == binary


def test_q85_private_artifacts_need_a_signature(queue):
    claim = claimed(queue)
    upload(queue, claim, "private/key", b"secret", "application/octet-stream")
    task_id = claim["status"]["taskId"]
    with pytest.raises(urllib.error.HTTPError) as anonymous:
        fetch(queue.buildUrl("getLatestArtifact", task_id, "private/key"))
    assert anonymous.value.code == 403
    assert fetch(queue.buildSignedUrl("getLatestArtifact", task_id, "private/key"))[2] == b"secret"


def test_q86_q87_what_may_be_created_again_and_when(queue):
    claim = claimed(queue)
    task_id, expires = claim["status"]["taskId"], claim["task"]["expires"]
    create = lambda **fields: queue.createArtifact(
        task_id, 0, "public/x", {"storageType": "s3", "contentType": "a/b", "expires": expires} | fields
    )
    soon = later(hours=2)
    first, again = create(expires=soon), create(expires=soon)
    assert put(again["putUrl"], b"x", "a/b")[0] == put(first["putUrl"], b"x", "a/b")[0] == 200
    refused(409, create, contentType="c/d")
    refused(409, create, expires=later(hours=1))
    create()
    late = datetime.datetime.fromisoformat(expires.replace("Z", "+00:00")) + datetime.timedelta(milliseconds=1)
    refused(400, create, expires=stamp(late))
    refused(400, queue.createArtifact, taskcluster.slugId(), 0, "x", {"storageType": "s3", "contentType": "a/b", "expires": soon})
    unclaimed = taskcluster.slugId()
    queue.createTask(unclaimed, task("unclaimed", queue_id="test/none"))
    refused(400, queue.createArtifact, unclaimed, 0, "x", {"storageType": "s3", "contentType": "a/b", "expires": soon})
    queue.reportCompleted(task_id, 0)
    refused(409, create)


def test_q88_references_and_links(queue):
    claim = claimed(queue)
    task_id, expires = claim["status"]["taskId"], claim["task"]["expires"]
    create = lambda name, **fields: queue.createArtifact(task_id, 0, name, {"expires": expires} | fields)
    reference = {"storageType": "reference", "contentType": "text/plain"}
    create("public/live.log", url="https://example.com/a", **reference)
    create("public/live.log", url="https://example.com/b", **reference)
    assert queue.getLatestArtifact(task_id, "public/live.log")["url"] == "https://example.com/b"
    create("public/live.log", storageType="link", artifact="public/backing.log")
    refused(409, create, "public/live.log", url="https://example.com/c", **reference)
    refused(404, queue.getLatestArtifact, task_id, "public/live.log")
    upload(queue, claim, "public/backing.log", b"log")
    assert fetch(queue.buildUrl("getLatestArtifact", task_id, "public/live.log"))[2] == b"log"
    create("public/a", storageType="link", artifact="public/b")
    create("public/b", storageType="link", artifact="public/a")
    refused(400, queue.getLatestArtifact, task_id, "public/a")
    create("public/leak", storageType="link", artifact="private/x")
    with pytest.raises(urllib.error.HTTPError) as leak:
        fetch(queue.buildUrl("getLatestArtifact", task_id, "public/leak"))
    assert leak.value.code in (403, 404)
    upload(queue, claim, "private/x", b"x")
    with pytest.raises(urllib.error.HTTPError) as leak:
        fetch(queue.buildUrl("getLatestArtifact", task_id, "public/leak"))
    assert leak.value.code == 403


def test_q89_error_artifacts_say_why(queue):
    claim = claimed(queue)
    task_id, expires = claim["status"]["taskId"], claim["task"]["expires"]
    wish = {"storageType": "error", "expires": expires, "reason": "file-missing-on-worker", "message": "nothing there"}
    queue.createArtifact(task_id, 0, "public/gone", wish)
    failure = refused(424, queue.getLatestArtifact, task_id, "public/gone")
    assert failure.body == {"reason": "file-missing-on-worker", "message": "nothing there"}
    assert queue.latestArtifact(task_id, "public/gone")["storageType"] == "error"


def test_q90_q92_uploads_are_complete_or_nothing(server, queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    answer = upload(queue, claim, "public/file", b"first", "a/b")
    url = answer["putUrl"]
    parts = urllib.parse.urlsplit(url)
    assert re.fullmatch(r"[A-Za-z0-9_.~/-]+", parts.path) and re.fullmatch(r"access_token=[A-Za-z0-9_.~-]+", parts.query)
    location = queue.getLatestArtifact(task_id, "public/file")["url"]
    assert re.fullmatch(r"[A-Za-z0-9_.~/?=&:-]+", location)
    for bad_url, content_type in ((url, "c/d"), (url[:-2], "a/b"), (url.replace("access_token=1", "access_token=2"), "a/b")):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            put(bad_url, b"other", content_type)
        assert refusal.value.code == 403
    import socket

    with socket.create_connection((parts.hostname, parts.port)) as half:
        half.sendall(
            f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: a/b\r\n"
            "Content-Length: 1000\r\n\r\nhalf".encode()
        )
        time.sleep(0.2)
    time.sleep(0.3)
    assert fetch(location)[2] == b"first"
    assert put(url, b"second", "a/b")[0] == 200
    assert fetch(location)[2] == b"second"


def test_q91_after_a_rerun_the_latest_run_has_nothing(queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    upload(queue, claim, "public/x", b"x")
    queue.reportCompleted(task_id, 0)
    queue.rerunTask(task_id)
    refused(404, queue.getLatestArtifact, task_id, "public/x")
    assert queue.getArtifact(task_id, 0, "public/x")["storageType"] == "s3"


@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_q93_objects_go_up_and_down_with_the_real_helpers(server, queue, size):
    from taskcluster.download import downloadArtifactToBuf
    from taskcluster.upload import uploadFromBuf

    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    data = hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1)
    data = data[:size]
    wish = {"storageType": "object", "expires": claim["task"]["expires"], "contentType": "application/x-thing"}
    answer = queue.createArtifact(task_id, 0, "private/object", wish)
    assert queue.createArtifact(task_id, 0, "private/object", wish)["uploadId"] == answer["uploadId"]
    refused(404, queue.latestArtifact, task_id, "private/object")
    refused(400, queue.finishArtifact, task_id, 0, "private/object", {"uploadId": answer["uploadId"]})
    store = taskcluster.Object({"rootUrl": server.own_url, "credentials": answer["credentials"]})
    uploadFromBuf(
        data=data,
        projectId=answer["projectId"],
        name=answer["name"],
        contentType="application/x-thing",
        contentLength=len(data),
        expires=answer["expires"],
        uploadId=answer["uploadId"],
        objectService=store,
    )
    refused(400, queue.finishArtifact, task_id, 0, "private/object", {"uploadId": taskcluster.slugId()})
    queue.finishArtifact(task_id, 0, "private/object", {"uploadId": answer["uploadId"]})
    queue.finishArtifact(task_id, 0, "private/object", {"uploadId": answer["uploadId"]})
    body, content_type = downloadArtifactToBuf(
        taskId=task_id, runId=0, name="private/object", queueService=taskcluster.Queue(server.options())
    )
    assert bytes(body) == data and content_type == "application/x-thing"
    assert queue.getLatestArtifact(task_id, "private/object")["storageType"] == "object"
    facts = client(server, "object").object(answer["name"])
    assert facts["hashes"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_objects_have_terms(server):
    store = client(server, "object")
    name, upload_id = unique("free") + "/a b", taskcluster.slugId()
    wish = {
        "projectId": "p",
        "uploadId": upload_id,
        "expires": later(hours=1),
        "proposedUploadMethods": {"putUrl": {"contentType": "a/b", "contentLength": 4}},
    }
    method = store.createUpload(name, wish)["uploadMethod"]["putUrl"]
    refused(409, store.createUpload, name, wish | {"uploadId": taskcluster.slugId()})
    refused(400, store.finishUpload, name, {"projectId": "p", "uploadId": upload_id})
    refused(404, store.startDownload, name, {"acceptDownloadMethods": {"simple": True}})
    assert put(method["url"], b"data", method["headers"]["Content-Type"], **{"Content-Encoding": "identity"})[0] == 200
    refused(400, store.finishUpload, name, {"projectId": "q", "uploadId": upload_id})
    refused(409, store.finishUpload, name, {"projectId": "p", "uploadId": taskcluster.slugId()})
    wrong = {"sha256": "0" * 64}
    refused(400, store.finishUpload, name, {"projectId": "p", "uploadId": upload_id, "hashes": wrong})
    assert store.finishUpload(name, {"projectId": "p", "uploadId": upload_id}) == {}
    assert store.finishUpload(name, {"projectId": "p", "uploadId": upload_id}) == {}
    refused(409, store.finishUpload, name, {"projectId": "p", "uploadId": upload_id, "hashes": wrong})
    hashes = store.object(name)["hashes"]
    assert hashes["sha512"] == hashlib.sha512(b"data").hexdigest()
    assert store.startDownload(name, {"acceptDownloadMethods": {"getUrl": True, "simple": True}})["method"] == "getUrl"
    simple = store.startDownload(name, {"acceptDownloadMethods": {"simple": True}})
    assert fetch(simple["url"])[2] == b"data"
    assert fetch(store.buildSignedUrl("download", name))[2] == b"data"
    refused(406, store.startDownload, name, {"acceptDownloadMethods": {}})
    with pytest.raises(urllib.error.HTTPError) as finished:
        put(method["url"], b"more", "a/b")
    assert finished.value.code == 403


def test_q94_all_pages_of_artifacts_come_once(deployment, queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    deployment.query(
        "insert into tcl.artifacts (task_id, run_id, name, storage_type, content_type, details, expires, present) "
        f"select '{task_id}', 0, 'public/' || n, 'reference', 'a/b', '{{\"url\": \"https://example.com\"}}', "
        f"'{claim['task']['expires']}', true from generate_series(1, 2500) n"
    )
    names = []
    queue.listLatestArtifacts(task_id, paginationHandler=lambda page: names.extend(a["name"] for a in page["artifacts"]))
    assert len(names) == len(set(names)) == 2500 and names == sorted(names)


def test_expired_tasks_are_forgotten_with_all_that_belongs_to_them(deployment, queue):
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("brief", queue_id="test/none", deadline=later(seconds=1), expires=later(seconds=2)))
    eventually(lambda: deployment.query(f"select count(*) from tcl.tasks where task_id = '{task_id}'") == "0", 20)
    refused(404, queue.status, task_id)
    refused(404, queue.getTaskGroup, task_id)
    for table in ("task_status", "deadlines", "pending", "groups"):
        column = "task_group_id" if table == "groups" else "task_id"
        assert deployment.query(f"select count(*) from tcl.{table} where {column} = '{task_id}'") == "0"


# ---------------------------------------------------------------- G. the rest


def test_q96_q97_counts(server, queue):
    queue_id = f"test/{unique('count').lower()}"
    place = queue_id.split("/")
    anonymous = taskcluster.Queue({"rootUrl": server.own_url})
    empty = {"provisionerId": place[0], "workerType": place[1], "taskQueueId": queue_id, "pendingTasks": 0}
    assert anonymous.pendingTasks(queue_id) == empty
    for number in range(3):
        queue.createTask(taskcluster.slugId(), task(f"{number}", queue_id=queue_id))
    (claim,) = queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w"})["tasks"]
    queue.reclaimTask(claim["status"]["taskId"], 0)
    assert anonymous.taskQueueCounts(queue_id) == empty | {"pendingTasks": 2, "claimedTasks": 1}
    batch = queue.taskQueueCountsBatch({"taskQueueIds": [queue_id, "test/never-seen"]})["taskQueueCounts"]
    assert [(each["pendingTasks"], each["claimedTasks"]) for each in batch] == [(2, 1), (0, 0)]
    assert [each["taskId"] for each in queue.listClaimedTasks(queue_id)["tasks"]] == [claim["status"]["taskId"]]
    assert len(queue.listPendingTasks(queue_id)["tasks"]) == 2
    first = queue.listPendingTasks(queue_id, query={"limit": 1})
    second = queue.listPendingTasks(queue_id, query={"limit": 1, "continuationToken": first["continuationToken"]})
    assert first["tasks"] != second["tasks"] and "continuationToken" not in second


def test_q98_workers_leave_traces(queue):
    queue_id = f"test/{unique('trace').lower()}"
    place = queue_id.split("/")
    ask = {"workerGroup": "g", "workerId": "w"}
    queue.claimWork(queue_id, ask)
    worker = queue.getWorker(*place, "g", "w")
    assert worker["recentTasks"] == [] and worker["lastDateActive"]
    for number in range(22):
        queue.createTask(taskcluster.slugId(), task(f"{number}", queue_id=queue_id))
    taken = [each["status"]["taskId"] for each in queue.claimWork(queue_id, ask | {"tasks": 22})["tasks"]]
    recent = [each["taskId"] for each in queue.getWorker(*place, "g", "w")["recentTasks"]]
    assert recent == taken[2:]
    (listed,) = queue.listWorkers(*place)["workers"]
    assert listed["latestTask"] == {"taskId": taken[-1], "runId": 0}
    assert queue.getTaskQueue(queue_id)["stability"] == "experimental"
    assert queue_id in [each["taskQueueId"] for each in queue.listTaskQueues()["taskQueues"]]
    assert "test" in [each["provisionerId"] for each in queue.listProvisioners()["provisioners"]]
    assert queue.getProvisioner("test")["provisionerId"] == "test"
    assert place[1] in [each["workerType"] for each in queue.listWorkerTypes("test")["workerTypes"]]
    assert queue.getWorkerType(*place)["taskQueueId"] == queue_id
    refused(404, queue.getWorker, *place, "g", "nobody")


def test_q99_workers_are_declared_property_by_property(server, auth, queue):
    place = ("test", unique("decl").lower())
    scope = f"queue:declare-worker:{place[0]}/{place[1]}/g/w#"
    make = lambda scopes: auth.createClient(
        unique("declarer"), {"expires": later(hours=1), "description": "d", "scopes": scopes}
    )
    without = make([scope + "other"])
    limited = client(server, "queue", client_id=without["clientId"], token=without["accessToken"])
    refused(403, limited.declareWorker, *place, "g", "w", {"expires": later(days=2)})
    allowed = make([scope + "expires"])
    limited = client(server, "queue", client_id=allowed["clientId"], token=allowed["accessToken"])
    assert limited.declareWorker(*place, "g", "w", {"expires": later(days=2)})["workerId"] == "w"
    refused(400, queue.declareWorker, "0", "0", "0", "0", {}, code="InputError")
    refused(404, queue.getWorker, "0", "0", "0", "0")
    refused(404, queue.quarantineWorker, "0", "0", "0", "0", {"quarantineUntil": later(days=1)})
    assert queue.listWorkers("0", "0")["workers"] == []


def test_registration_tools_of_old_declare_actions(server, queue):
    name = unique("hardware")
    action = {
        "name": "reboot", "title": "Reboot", "context": "worker", "url": "https://example.com/reboot", "method": "POST",
        "description": "Turns it off and on again.",
    }
    body = json.dumps({"description": "racks", "actions": [action]}).encode()
    url = f"{server.own_url}/api/queue/v1/provisioners/{name}"
    import mohawk

    credentials = {"id": ROOT, "key": server.deployment.token, "algorithm": "sha256"}
    sender = mohawk.Sender(credentials, url, "PUT", content=body, content_type="application/json")
    _, _, answer = fetch(url, {"Content-Type": "application/json", "Authorization": sender.request_header}, "PUT", body)
    SCHEMAS.check("/schemas/queue/v1/provisioner-response.json", json.loads(answer))
    queue.claimWork(f"{name}/type", {"workerGroup": "g", "workerId": "w"})
    assert queue.getWorker(name, "type", "g", "w")["actions"] == [action]
    assert queue.getProvisioner(name)["actions"] == [action] and queue.getWorkerType(name, "type")["actions"] == []

    body = json.dumps({"description": "the first rack", "stability": "stable"}).encode()
    url += "/worker-types/other"
    sender = mohawk.Sender(credentials, url, "PUT", content=body, content_type="application/json")
    _, _, answer = fetch(url, {"Content-Type": "application/json", "Authorization": sender.request_header}, "PUT", body)
    SCHEMAS.check("/schemas/queue/v1/workertype-response.json", json.loads(answer))
    assert queue.getWorkerType(name, "other")["description"] == "the first rack"
    assert queue.getTaskQueue(f"{name}/other")["stability"] == "stable"


def test_q100_the_index(server, queue):
    index = client(server, "index")
    path = unique("a") + ".b"
    claim = claimed(queue, routes=[f"index.{path}"], extra={"index": {"rank": 5, "data": {"x": 1}}})
    task_id = claim["status"]["taskId"]
    upload(queue, claim, "public/x", b"indexed")
    upload(queue, claim, "private/x", b"quiet")
    queue.reportCompleted(task_id, 0)
    found = eventually(lambda: index.findTask(path), 10)
    assert (found["taskId"], found["rank"], found["data"]) == (task_id, 5, {"x": 1})
    entry = {"taskId": taskcluster.slugId(), "rank": 4, "data": {}, "expires": later(hours=1)}
    assert index.insertTask(path, entry)["taskId"] == task_id
    assert index.insertTask(path, entry | {"rank": 5})["taskId"] == entry["taskId"]
    index.insertTask(path, entry | {"rank": 6, "taskId": task_id})
    assert fetch(index.buildUrl("findArtifactFromTask", path, "public/x"))[2] == b"indexed"
    assert fetch(index.buildSignedUrl("findArtifactFromTask", path, "private/x"))[2] == b"quiet"
    namespace = path.split(".")[0]
    assert [each["namespace"] for each in index.listTasks(namespace)["tasks"]] == [path]
    assert namespace in [each["name"] for each in index.listNamespaces("")["namespaces"]]
    single = unique("single")
    index.insertTask(single, entry)
    assert single in [each["namespace"] for each in index.listTasks("")["tasks"]]
    several = index.findTasksAtIndex({"indexes": [path, "not.there", single]})["tasks"]
    assert sorted(each["namespace"] for each in several) == sorted([path, single])
    assert index.deleteTask(path) == {}
    refused(404, index.findTask, path)


def test_q101_q102_messages_on_the_bus(deployment, queue):
    import pika

    route = unique("route")
    received = []
    connection = pika.BlockingConnection(pika.URLParameters(deployment.amqp_url))
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    exchange = deployment.exchange_prefix
    for last in ("task-defined", "task-pending", "task-running", "task-completed", "artifact-created", "task-group-resolved"):
        channel.exchange_declare(exchange + last, "topic", durable=True)
        channel.queue_bind(name, exchange + last, "primary.#")
        channel.queue_bind(name, exchange + last, f"route.{route}")
    channel.basic_consume(name, lambda _, how, what, body: received.append((how, what, json.loads(body))), auto_ack=True)
    queue_id = f"test/{unique('bus').lower()}"
    claim = claimed(queue, queue_id, routes=[route], tags={"kind": "build"})
    task_id = claim["status"]["taskId"]
    wish = {"storageType": "link", "artifact": "public/y", "expires": claim["task"]["expires"]}
    queue.createArtifact(task_id, 0, "public/x", wish)
    queue.reportCompleted(task_id, 0)

    def mine():
        connection.process_data_events(0.1)
        found = [each for each in received if task_id in each[0].routing_key]
        names = [how.exchange.rpartition("/")[2] for how, _, _ in found]
        return found if "task-group-resolved" in names and "task-completed" in names else None

    found = eventually(mine, 20)
    by_name = {}
    for how, what, body in found:
        last = how.exchange.rpartition("/")[2]
        assert last not in by_name, f"two copies of {last}"
        by_name[last] = (how, what, body)
        schema = "task-group-changed" if last == "task-group-resolved" else last
        SCHEMAS.check(f"/schemas/queue/v1/{schema}-message.json", body)
    connection.close()
    how, what, _ = by_name["task-running"]
    worker_type = queue_id.split("/")[1]
    assert how.routing_key == f"primary.{task_id}.0.g.w.test.{worker_type}.-.{task_id}._"
    assert what.headers["CC"] == [f"route.{route}"] and what.content_type == "application/json" and what.delivery_mode == 2
    defined = by_name["task-defined"][2]
    assert defined["status"]["state"] == "unscheduled" and defined["status"]["runs"] == []
    assert defined["task"]["tags"] == {"kind": "build"}
    order = [how.exchange.rpartition("/")[2] for how, _, _ in found]
    assert order.index("task-defined") < order.index("task-pending") < order.index("task-running")


def test_q103_secrets(server, auth):
    secrets = client(server, "secrets")
    name = unique("a/b") + "/c"
    assert secrets.set(name, {"secret": {"k": "v"}, "expires": later(hours=1)}) == {}
    assert secrets.get(name)["secret"] == {"k": "v"}
    assert name in secrets.list()["secrets"]
    made = auth.createClient(unique("nosy"), {"expires": later(hours=1), "description": "d", "scopes": []})
    nosy = client(server, "secrets", client_id=made["clientId"], token=made["accessToken"])
    refused(403, nosy.get, name)
    refused(403, nosy.get, unique("missing"))
    assert secrets.remove(name) == {} and secrets.remove(name) == {}
    refused(404, secrets.get, name)
    secrets.set(name, {"secret": {}, "expires": later(seconds=-1)})
    refused(404, secrets.get, name)


def test_q104_notify(deployment, server):
    notify = client(server, "notify")
    address = f"{unique('someone')}@example.com"
    mail = {"address": address, "subject": "Grüße & more", "content": "It *works*.", "link": {"text": "here", "href": "https://example.com/x"}}
    assert notify.email(mail) is not None
    assert notify.email(mail) is None, "the same again is dropped with 204"

    def spooled():
        import email

        mails = [email.message_from_bytes(path.read_bytes()) for path in (deployment.folder / "blobs" / "mail").glob("*.eml")]
        return [each for each in mails if each["To"] == address]

    (only,) = eventually(spooled, 15)
    import email.header

    assert str(email.header.make_header(email.header.decode_header(only["Subject"]))) == mail["subject"]
    text = only.get_payload(decode=True).decode()
    assert "It *works*." in text and "https://example.com/x" in text
    notify.addDenylistAddress({"notificationType": "email", "notificationAddress": address})
    assert {"notificationType": "email", "notificationAddress": address} in notify.listDenylist()["addresses"]
    refused(400, notify.email, mail | {"subject": "another"}, code="DenylistedAddress")
    notify.deleteDenylistAddress({"notificationType": "email", "notificationAddress": address})
    assert notify.email(mail | {"subject": "a third"}) is not None
    room = {"roomId": f"!{unique('room')}:example.com", "body": "hello"}
    assert notify.matrix(room) is not None
    assert notify.slack({"channelId": unique("C"), "text": "hello"}) is not None

    exchange = deployment.exchange_prefix.replace("-queue/", "-notify/") + "notification"
    bus = Bus(deployment.amqp_url, [(exchange, "primary.some.key")])
    try:
        notify.pulse({"routingKey": "some.key", "message": {"hello": 1}})
        _, body = bus.wait("notification", lambda body: body["message"] == {"hello": 1})
        SCHEMAS.check("/schemas/notify/v1/notification-message.json", body)
    finally:
        bus.close()


def spooled(deployment, address):
    """The subjects of the mails to an address."""
    spool = deployment.folder / "blobs" / "mail"
    mails = [path.read_text() for path in spool.glob("*.eml")]
    return sorted(re.search("^Subject: (.*)$", text, re.M)[1] for text in mails if f"To: {address}" in text)


def test_tasks_send_mail_by_their_routes(deployment, queue):
    failed, every, quiet = (f"{unique(name)}@example.com" for name in ("failed", "every", "quiet"))
    routes = [
        f"notify.email.{failed}.on-failed",
        f"notify.email.{failed}.on-completed",
        f"notify.email.{every}.on-transition",
        f"notify.email.{quiet}.on-resolved",
    ]
    claim = claimed(queue, routes=routes, retries=1)
    task_id = claim["status"]["taskId"]
    queue.reportException(task_id, 0, {"reason": "intermittent-task"})
    queue.claimWork(claim["status"]["taskQueueId"], {"workerGroup": "g", "workerId": "w"})
    queue.reportFailed(task_id, 1)
    eventually(lambda: len(spooled(deployment, every)) >= 6 and spooled(deployment, failed), 30)
    said = [subject.split()[1].rstrip(":") for subject in spooled(deployment, every)]
    assert sorted(said) == ["defined", "failed", "pending", "pending", "running", "running"]
    assert spooled(deployment, failed) == spooled(deployment, quiet) == [f"Task failed: claimed - {task_id}"]
    gone = claimed(queue, routes=[f"notify.email.{quiet}.on-exception", f"notify.email.{failed}.on-running"])
    queue.cancelTask(gone["status"]["taskId"])
    eventually(lambda: len(spooled(deployment, failed)) == 2, 30)
    assert len(spooled(deployment, quiet)) == 1, "a cancelled task is what somebody wanted"
    assert deployment.query("select count(*) from tcl.notices") == "0"


def test_tasks_wait_for_others_and_tell_when_they_may_start(deployment, queue):
    address = f"{unique('pending')}@example.com"
    first = claimed(queue)["status"]["taskId"]
    second = taskcluster.slugId()
    routes = [f"notify.email.{address}.on-pending", f"notify.email.{address}.on-defined"]
    queue.createTask(second, task("second", queue_id="test/none", dependencies=[first], routes=routes))
    eventually(lambda: spooled(deployment, address) == [f"Task defined: second - {second}"], 30)
    queue.reportCompleted(first, 0)
    eventually(lambda: f"Task pending: second - {second}" in spooled(deployment, address), 30)


def test_tasks_tell_rooms_channels_and_the_bus_in_their_own_words(deployment, queue):
    key, room, channel = unique("told") + ".by.task", unique("!room") + ":example.com", unique("C")
    exchange = deployment.exchange_prefix.replace("-queue/", "-notify/") + "notification"
    bus = Bus(deployment.amqp_url, [(exchange, f"primary.{key}")])
    try:
        extra = {"notify": {"matrixBody": "${task.metadata.name} in ${taskId}", "slackText": "state ${status.state}"}}
        routes = [
            f"notify.pulse.{key}.on-running",
            f"notify.matrix-room.{room}.on-completed",
            f"notify.slack-channel.{channel}.on-any",
        ]
        task_id = claimed(queue, routes=routes, extra=extra)["status"]["taskId"]
        _, body = bus.wait("notification", lambda body: body["message"]["taskId"] == task_id)
        SCHEMAS.check("/schemas/notify/v1/notification-message.json", body)
        assert body["message"]["state"] == "running" and body["message"]["runs"][0]["workerId"] == "w"
        queue.reportCompleted(task_id, 0)
        recorded = lambda address: deployment.query(f"select body from tcl.notifications where address = '{address}'")
        eventually(lambda: recorded(room) and recorded(channel), 30)
        assert json.loads(recorded(room)) == {"msgtype": "m.notice", "body": f"claimed in {task_id}"}
        assert json.loads(recorded(channel)) == {"text": "state completed"}
    finally:
        bus.close()


def test_notifications_are_delivered_to_real_servers_and_tried_again(servers, tmp_path):
    import http.server
    import socketserver

    calls, mails = [], []

    class Chat(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            first = not any(path == self.path for path, _, _ in calls)
            calls.append((self.path, self.headers["Authorization"], body))
            # The first attempt of each fails, the second one succeeds.
            self.send_response(500 if first else 200)
            self.end_headers()
            self.wfile.write(b'{"ok": true}')

        do_POST = do_PUT = answer

        def log_message(self, *_):
            pass

    class Mail(socketserver.StreamRequestHandler):
        def handle(self):
            say = lambda text: self.wfile.write(text.encode() + b"\r\n")
            say("220 test")
            envelope = []
            for line in self.rfile:
                line = line.decode().strip()
                envelope.append(line)
                if line == "DATA":
                    say("354 go on")
                    data = []
                    for line in self.rfile:
                        if line == b".\r\n":
                            break
                        data.append(line.decode())
                    mails.append((envelope, "".join(data)))
                    say("250 taken")
                elif line == "QUIT":
                    say("221 bye")
                    return
                elif line.startswith("EHLO"):
                    self.wfile.write(b"250-test\r\n250 AUTH PLAIN\r\n")
                else:
                    say("235 in" if line.startswith("AUTH") else "250 fine")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat) as chat, socketserver.ThreadingTCPServer(
        ("127.0.0.1", 0), Mail
    ) as smtp, Deployment(servers, tmp_path, exchanges=False) as deployment:
        for each in (chat, smtp):
            threading.Thread(target=each.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{chat.server_address[1]}"
        server = deployment.start(
            TCL_SMTP_HOST="127.0.0.1",
            TCL_SMTP_PORT=smtp.server_address[1],
            TCL_SMTP_USER="user",
            TCL_SMTP_PASSWORD="password",
            TCL_MAIL_FROM="queue@example.com",
            TCL_MATRIX_URL=base,
            TCL_MATRIX_TOKEN="matrix-token",
            TCL_SLACK_URL=base,
            TCL_SLACK_TOKEN="slack-token",
        )
        notify = client(server, "notify")
        notify.email({"address": "a@example.com", "subject": "s", "content": "c"})
        notify.matrix({"roomId": "!a:b", "body": "hello"})
        notify.slack({"channelId": "C1", "text": "hello"})
        (envelope, text) = eventually(lambda: mails[0] if mails else None, 15)
        assert "MAIL FROM:<queue@example.com>" in envelope and "RCPT TO:<a@example.com>" in envelope
        assert base64.b64encode(b"\0user\0password").decode() in envelope[1] and "Subject: s" in text
        eventually(lambda: len(calls) >= 4, 30)
        paths = [path for path, _, _ in calls]
        assert paths.count("/chat.postMessage") == 2
        (matrix,) = {path for path in paths if "matrix" in path}
        assert matrix.startswith("/_matrix/client/v3/rooms/%21a%3Ab/send/m.room.message/")
        assert {token for path, token, _ in calls if path == matrix} == {"Bearer matrix-token"}
        assert next(body for path, _, body in calls if path == "/chat.postMessage") == {"channel": "C1", "text": "hello"}
        chat.shutdown()
        smtp.shutdown()


def test_q105_caches_are_purged(server):
    purge = client(server, "purge-cache")
    pool = f"test/{unique('pool').lower()}"
    assert purge.purgeCache(pool, {"cacheName": "one"}) is None
    (request,) = purge.purgeRequests(pool)["requests"]
    assert request["cacheName"] == "one" and request["provisionerId"] == "test"
    assert purge.purgeRequests(pool, query={"since": later(minutes=1)})["requests"] == []
    assert len(purge.purgeRequests(pool, query={"since": request["before"]})["requests"]) == 1
    assert request in purge.allPurgeRequests()["requests"]


def test_worker_manager_has_little_to_say(server, queue):
    manager = client(server, "worker-manager")
    assert manager.shouldWorkerTerminate("test/none", "g", "w") == {"terminate": False, "reason": "local"}
    assert manager.listWorkerPools() == {"workerPools": []}
    queue_id = f"test/{unique('dead').lower()}"
    claim = claimed(queue, queue_id)
    manager.removeWorker(queue_id, "g", "w")
    runs = queue.status(claim["status"]["taskId"])["status"]["runs"]
    assert [run.get("reasonResolved") for run in runs] == ["worker-shutdown", None]


def test_q12_a_private_deployment_names_the_missing_scope(servers, tmp_path):
    with Deployment(servers, tmp_path, exchanges=False, TCL_ANONYMOUS_PROFILE="private") as deployment:
        server = deployment.start()
        task_id = taskcluster.slugId()
        failure = refused(403, taskcluster.Queue({"rootUrl": server.own_url}).task, task_id)
        assert f"queue:get-task:{task_id}" in str(failure)


def test_a_file_says_what_anonymous_callers_may_do(servers, tmp_path):
    profile = tmp_path / "anonymous.json"
    profile.write_text(json.dumps(["queue:get-task:*"]))
    with Deployment(servers, tmp_path, exchanges=False, TCL_ANONYMOUS_PROFILE=str(profile)) as deployment:
        server = deployment.start()
        anonymous = taskcluster.Queue({"rootUrl": server.own_url})
        refused(404, anonymous.task, taskcluster.slugId())
        refused(403, anonymous.status, taskcluster.slugId())
