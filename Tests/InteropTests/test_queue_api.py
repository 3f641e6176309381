# SPDX-License-Identifier: MPL-2.0
"""Every method of the unmodified PyPI client against taskcluster-local; numbers are those of the behaviour checks."""

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request

import pytest
import taskcluster
import taskcluster.aio

from bus import Bus
from local_queue import ROOT, TOP, Deployment
from queue_checked import (  # noqa: F401 (fixtures)
    auth,
    Checked,
    CLASSES,
    client,
    deployment,
    fetch,
    later,
    OUT_OF_SCOPE,
    queue,
    refused,
    SCHEMAS,
    server,
    sign,
)
from support import eventually, task, unique


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
