# SPDX-License-Identifier: MPL-2.0
"""A38 for a whole suite: what it was told in confidence is in none of its logs, and every line is one object of the known shape."""

import base64
import json
import re
import urllib.parse
import urllib.error
import urllib.request

import pytest
import taskcluster
from taskcluster.exceptions import TaskclusterAuthFailure

from support import eventually, hook, task, unique, wait_resolved

TYPES = re.compile("^[a-zA-Z0-9]+([.-][a-zA-Z0-9]+)+$")
SEVERITIES = ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"]


def spellings(secret):
    """The forms in which a text may show itself."""
    raw = secret.encode()
    return {
        secret,
        urllib.parse.quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }


@pytest.fixture(scope="module")
def secrets(running):
    """Makes the suite handle every kind of secret it knows; answers with all of them."""
    found = {}
    state = json.loads((running.suite.state / "credentials.json").read_text())
    found |= {f"credential {name}": value for name, value in state.items()}
    for name in ("DATABASE_URL", "AMQP_URL"):
        found[f"password of {name}"] = urllib.parse.urlsplit(running.values[name]).password

    hooks, queue, auth = running.hooks(), running.queue(), taskcluster.Auth(running.options)
    name = unique("logs")
    hooks.createHook("demo", name, hook(name))
    found["trigger token"] = hooks.getTriggerToken("demo", name)["token"]
    found["payload"] = "payload-" + taskcluster.slugId()
    hooks.triggerHookWithToken("demo", name, found["trigger token"], {"password": found["payload"]})
    found["next trigger token"] = hooks.resetTriggerToken("demo", name)["token"]
    with pytest.raises(TaskclusterAuthFailure):
        hooks.triggerHookWithToken("demo", name, found["trigger token"], {})
    # The token in places where it does not belong.
    for path in (f"hooks/demo/{name}/trigger/{found['next trigger token']}?x=1", f"hooks/demo/{name}/trigger/{found['next trigger token']}/"):
        request = urllib.request.Request(f"{running.root_url}/api/hooks/v1/{path}", b"{", {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request)

    signed = hooks.buildSignedUrl("getTriggerToken", "demo", name)
    found["bewit"] = signed.split("bewit=")[1]
    urllib.request.urlopen(signed).close()

    client_id = unique("logs/client")
    made = auth.createClient(client_id, {"expires": taskcluster.fromNowJSON("1 hour"), "description": "", "scopes": []})
    found["made access token"] = made["accessToken"]
    found["next access token"] = auth.resetAccessToken(client_id)["accessToken"]
    auth.deleteClient(client_id)

    temporary = taskcluster.createTemporaryCredentials(
        running.options["credentials"]["clientId"],
        running.options["credentials"]["accessToken"],
        taskcluster.fromNow("-5 minutes"),
        taskcluster.fromNow("1 hour"),
        ["auth:current-scopes"],
    )
    found["temporary access token"] = temporary["accessToken"]
    found["certificate signature"] = json.loads(temporary["certificate"])["signature"]
    taskcluster.Auth({"rootUrl": running.root_url, "credentials": temporary}).currentScopes()

    store = taskcluster.Secrets(running.options)
    found["stored secret"] = "secret-" + taskcluster.slugId()
    store.set(name, {"expires": taskcluster.fromNow("1 hour"), "secret": {"key": found["stored secret"]}})
    assert store.get(name)["secret"]["key"] == found["stored secret"]
    with pytest.raises(taskcluster.exceptions.TaskclusterRestFailure):
        store.set(name, {"secret": {"key": found["stored secret"]}, "surprise": found["stored secret"]})
    store.remove(name)

    task_id = taskcluster.slugId()
    queue.createTask(task_id, task(name, payload={"action": "note", "text": name, "maxRunTime": 60}))
    wait_resolved(queue, task_id)
    hooks.removeHook("demo", name)
    # The client makes bytes of some.
    return {what: secret.decode() if isinstance(secret, bytes) else secret for what, secret in found.items() if secret}


def parsed(running, name):
    """Every line of a log. Where a killed service broke off in a line, the next one went on in it."""
    begin = '{"Timestamp"'
    lines = (running.suite.logs / f"{name}.log").read_text(errors="replace").split("\n")[:-1]
    assert lines and all(begin in line for line in lines)
    return [json.loads(line[line.rindex(begin) :]) for line in lines]


def test_no_secret_is_in_a_log(running, secrets):
    assert len(secrets) >= 14
    logs = {path.name: path.read_text(errors="replace") for path in running.suite.logs.iterdir() if path.is_file()}
    assert len(logs) >= len(running.services())
    shown = [
        f"the {what} in {name}"
        for what, secret in secrets.items()
        for name, text in logs.items()
        if any(each in text for each in spellings(secret))
    ]
    assert not shown


def test_the_path_of_a_token_is_redacted_and_the_rest_is_told(running, secrets):
    def fields():
        entries = parsed(running, "hooks-service")
        return [each["Fields"] for each in entries if each["Fields"].get("name") == "triggerHookWithToken"]

    calls = eventually(lambda: {each["statusCode"] for each in fields()} >= {200, 401} and fields())
    assert all(each["resource"].endswith("/trigger/...") for each in calls), calls


@pytest.mark.parametrize("name", ["taskcluster-local", "hooks-service", "scheduler", "pulse-listener"])
def test_every_line_has_the_known_shape(running, secrets, name):
    entries = parsed(running, name)
    for entry in entries:
        assert set(entry) - {"message", "traceId", "requestId"} == {
            "Timestamp", "Type", "Logger", "Hostname", "EnvVersion", "Severity", "severity", "Pid", "Fields", "serviceContext",
        }, entry
        assert entry["Logger"] == f"taskcluster.{name}" or entry["Logger"].startswith(f"taskcluster.{name}."), entry
        assert entry["EnvVersion"] == "2.0" and TYPES.match(entry["Type"]), entry
        assert SEVERITIES[entry["Severity"]] == entry["severity"], entry
        assert isinstance(entry["Fields"]["v"], int) and entry["Timestamp"] > 1.7e18, entry
        assert entry["serviceContext"]["service"] == name, entry
    if name in ("taskcluster-local", "hooks-service"):
        calls = [each["Fields"] for each in entries if each["Type"] == "monitor.apiMethod"]
        wanted = {"name", "apiVersion", "authenticated", "public", "sourceIp", "resource", "method", "statusCode", "duration"}
        assert calls and all(wanted <= set(each) and each["v"] == 2 for each in calls)


@pytest.mark.parametrize("name", ["taskcluster-local", "hooks-service", "scheduler", "pulse-listener"])
def test_metrics_are_in_the_text_format(running, secrets, name):
    port = running.suite.ports()[name]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    sample = re.compile(r'^[a-z_:][a-z0-9_:]*(\{[a-z_]+="([^"\\]|\\.)*"(,[a-z_]+="([^"\\]|\\.)*")*\})? -?[0-9.e+-]+$|^# (TYPE|HELP) .+$')
    assert [line for line in text.splitlines() if not sample.match(line)] == []
    declared = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared)), "each metric is declared once"
    assert "process_resident_memory_bytes" in declared and "postgres_query_seconds" in declared
    assert not [what for what, secret in secrets.items() if secret in text]
    if name in ("taskcluster-local", "hooks-service"):
        labels = {
            re.sub('="[^"]*"', "", each)
            for each in re.findall(r"^http_requests_total\{([^}]*)\}", text, re.MULTILINE)
        }
        assert labels == {"method,name,service,status"}, labels
        for limit in ("0.01", "0.05", "0.1", "0.5", "1", "5", "10", "+Inf"):
            assert f'le="{limit}"' in text
