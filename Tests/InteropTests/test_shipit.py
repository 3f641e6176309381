# SPDX-License-Identifier: MPL-2.0
"""Pipelines and sign-offs through the real processes: the command line, people's tokens, and replicas that are killed."""

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import mohawk
import pytest

from support import BINARIES, unique


def signed(running, method, url, data=b"", kind=""):
    """The operator's credentials for a request."""
    credentials = running.options["credentials"]
    key = {"id": credentials["clientId"], "key": credentials["accessToken"], "algorithm": "sha256"}
    return mohawk.Sender(key, url, method, content=data, content_type=kind).request_header


def call(running, method, url, body=None, token=None):
    """One request, signed by the operator or with a person's token; answers status and body."""
    data = b"" if body is None else json.dumps(body).encode()
    kind = "application/json" if body is not None else ""
    if token is None:
        authorization = signed(running, method, url, data, kind)
    else:
        authorization = f"Bearer {token}"
    headers = {"Authorization": authorization} | ({"Content-Type": kind} if kind else {})
    request = urllib.request.Request(url, data=data or None, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def token(running, user):
    request = urllib.request.Request(
        running.values["SHIPIT_OIDC_URL"] + "/token",
        data=json.dumps({"user": user}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["access_token"]


def slipway(running, *arguments, person=None, stdin=None, fails=False):
    environment = dict(os.environ) | running.values
    if person:
        environment["SHIPIT_TOKEN"] = token(running, person)
    done = subprocess.run(
        [str(BINARIES / "slipway"), *arguments], env=environment, input=stdin, capture_output=True, text=True, timeout=180
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


# What nobody signs.
APPROVAL = {"policy": {"method": "local", "definition": [{"releng": 2}]}, "parameters": {}}


def wait(what, condition, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def state(running, uid, service="PIPELINE"):
    status, body = call(running, "GET", f"{running.values[f'SHIPIT_{service}_URL']}/{uid}/status")
    return body.get("state") if status == 200 else status


def release(running, uid):
    """People approve, and something is done then: here a pipeline within the pipeline."""
    return {
        "uid": uid,
        "namespace_steps": True,
        "parameters": {
            "steps": [
                {
                    "uid": "approve",
                    "api_url": running.values["SHIPIT_SIGNOFF_URL"],
                    "parameters": {
                        "policy": {"method": "local", "definition": [{"releng": 1, "relman": 1}]},
                        "parameters": {"what": "publish ${pipeline.uid}"},
                    },
                },
                {
                    "uid": "publish",
                    "api_url": running.values["SHIPIT_PIPELINE_URL"],
                    "requires": ["approve"],
                    "parameters": {"parameters": {"steps": []}, "description": "${steps.approve.output.digest}"},
                },
            ]
        },
    }


def one_step(running, uid, **members):
    """A pipeline whose one step is a pipeline of nothing."""
    step = {"uid": "ship", "api_url": running.values["SHIPIT_PIPELINE_URL"], "parameters": {"parameters": {"steps": []}}}
    return json.dumps({"uid": uid, "namespace_steps": True, "parameters": {"steps": [step | members]}})


def test_operators_break_a_lock_and_override_a_freeze(running):
    name, lock = unique("locks"), unique("lock")
    patient = {"api_url": running.values["SHIPIT_SIGNOFF_URL"], "parameters": APPROVAL}
    slipway(running, "pipeline", "create", "-", stdin=one_step(running, f"{name}-1", locks=[lock], **patient))
    wait("the lock", lambda: f"{lock}  held by" in slipway(running, "pipeline", "lock", "list"))
    slipway(running, "pipeline", "create", "-", stdin=one_step(running, f"{name}-2", locks=[lock]))
    wait("the place in line", lambda: f"{lock}  wanted by" in slipway(running, "pipeline", "lock", "list"))
    slipway(running, "pipeline", "lock", "break", lock, fails=True)
    broken = slipway(running, "pipeline", "lock", "break", lock, "--reason", "its signers are on the beach")
    assert f"ship of {name}-1" in broken
    assert "completed" in slipway(running, "pipeline", "watch", f"{name}-2")
    assert "on the beach" in slipway(running, "pipeline", "events", f"{name}-1")
    assert "on the beach" in slipway(running, "pipeline", "events")
    slipway(running, "pipeline", "cancel", f"{name}-1")

    frozen = json.dumps(
        {
            "reason": "nobody is here",
            "start": "2020-01-01T00:00:00Z",
            "end": "2099-01-01T00:00:00Z",
            "match": {"step_uid_glob": "ship", "labels": {"frozen": name}},
        }
    )
    slipway(running, "pipeline", "freeze", "save", name, "-", stdin=frozen)
    definition = json.loads(one_step(running, f"{name}-3")) | {"labels": {"frozen": name}}
    slipway(running, "pipeline", "create", "-", stdin=json.dumps(definition))
    wait("the freeze", lambda: "nobody is here" in slipway(running, "pipeline", "explain", f"{name}-3"))
    slipway(running, "pipeline", "freeze", "override", f"{name}-3", "ship", "--reason", "a zero-day")
    assert "completed" in slipway(running, "pipeline", "watch", f"{name}-3")
    slipway(running, "pipeline", "freeze", "remove", name)


def test_a_signer_rejects_and_an_administrator_revokes(running):
    name = unique("reject")
    # Tokens of the second of whoever is revoked count no more: no other test signs as relman2.
    policy = {"method": "local", "definition": [{"releng": 1, "relman": 1}], "allow_reject": True}
    url = running.values["SHIPIT_SIGNOFF_URL"]
    assert call(running, "PUT", f"{url}/{name}", {"policy": policy, "parameters": {}})[0] == 200
    assert "1 of releng" in slipway(running, "signoff", "sign", name, "--group", "relman", person="relman2")
    signatures = call(running, "GET", f"{url}/{name}/signatures")[1]["signatures"]
    assert name in slipway(running, "signoff", "revoke", "--sub", signatures[0]["sub"], "--reason", "has left")
    assert "1 of relman" in slipway(running, "signoff", "show", name)
    told = slipway(running, "signoff", "reject", name, "--group", "releng", "--reason", "crashes", person="releng2")
    assert f"{name}  failed" in told


def test_two_people_of_different_groups_release(running):
    # A database that an earlier run has used knows its names.
    name = unique("release")
    approval = f"{name}.approve"
    definition = json.dumps(release(running, name))
    assert "approve" in slipway(running, "pipeline", "create", "-", "--dry-run", stdin=definition)
    assert slipway(running, "pipeline", "create", "-", stdin=definition).strip() == name
    # The same again is the same.
    slipway(running, "pipeline", "create", "-", stdin=definition)
    wait("the sign-off", lambda: state(running, approval, "SIGNOFF") == "running")
    wait("the explanation", lambda: "signoff_missing" in slipway(running, "pipeline", "explain", name))
    missing = "signatures are missing: 1 of releng and 1 of relman"
    assert missing in slipway(running, "pipeline", "explain", name)
    assert missing in slipway(running, "pipeline", "graph", name)
    assert "approve" in slipway(running, "pipeline", "graph", name, "--format", "dot")
    assert approval in slipway(running, "signoff", "list")
    assert approval in slipway(running, "signoff", "list", "--mine", person="relman1")

    refusal = slipway(running, "signoff", "sign", approval, "--group", "releng", person="password-only", fails=True)
    assert "second factor" in refusal
    # The operator may do everything, but is no person.
    status, body = call(
        running, "PUT", running.values["SHIPIT_SIGNOFF_URL"] + f"/{approval}/sign", {"group": "releng"}
    )
    assert (status, body["code"]) == (401, "human_required")

    assert "1 of relman" in slipway(running, "signoff", "sign", approval, "--group", "releng", person="releng1")
    slipway(running, "signoff", "sign", approval, "--group", "releng", person="releng2", fails=True)
    assert state(running, name) == "running"
    slipway(running, "signoff", "sign", approval, "--group", "relman", person="relman1")
    watched = slipway(running, "pipeline", "watch", name)
    assert f"{name}  completed" in watched
    status, digest = call(running, "GET", running.values["SHIPIT_PIPELINE_URL"] + f"/{name}.publish")
    status, approved = call(running, "GET", running.values["SHIPIT_SIGNOFF_URL"] + f"/{approval}/status")
    assert digest["description"] == approved["output"]["digest"]
    for service, uid, told in [("PIPELINE", name, "created"), ("SIGNOFF", approval, "releng1")]:
        assert told in slipway(running, service.lower(), "events", uid)
        assert "nobody has changed" in slipway(running, service.lower(), "events", uid, "--verify")
        url = f"{running.values[f'SHIPIT_{service}_URL']}/{uid}/events?verify=true"
        assert call(running, "GET", url) == (200, {"verified": True, "broken_at": None})


def test_killed_processes_lose_and_repeat_nothing(running):
    names = [unique("kill") for _ in range(12)]
    for number, name in enumerate(names):
        status, body = call(running, "PUT", f"{running.values['SHIPIT_PIPELINE_URL']}/{name}", release(running, name))
        assert status == 200, body
        if number in (3, 7):
            running.suite.stop("shipit-pipeline", signal.SIGKILL)
            running.suite.start_services()
    running.suite.stop("shipit-signoff", signal.SIGKILL)
    running.suite.start_services()
    for name in names:
        wait(f"{name}.approve", lambda: state(running, f"{name}.approve", "SIGNOFF") == "running")
    people = {group: token(running, person) for group, person in (("releng", "releng1"), ("relman", "relman1"))}
    for number, name in enumerate(names):
        for group, person in people.items():
            url = f"{running.values['SHIPIT_SIGNOFF_URL']}/{name}.approve/sign"
            status, body = call(running, "PUT", url, {"group": group}, token=person)
            assert status == 200, body
        if number == 6:
            running.suite.stop("shipit-pipeline", signal.SIGKILL)
            running.suite.start_services()
    for name in names:
        wait(f"{name} completed", lambda: state(running, name) == "completed")
    for name in names:
        for service, uid in [("SIGNOFF", f"{name}.approve"), ("PIPELINE", f"{name}.publish")]:
            url = f"{running.values[f'SHIPIT_{service}_URL']}/{uid}/events"
            kinds = [event["kind"] for event in call(running, "GET", url)[1]["events"]]
            assert kinds.count("created") == 1, f"{uid}: {kinds}"


def feed(running, url, last, at_most):
    """Reads a live feed from where it was left until it ends or as many events have come; answers their numbers and whether it ended."""
    headers = {"Authorization": signed(running, "GET", url), "Accept": "text/event-stream"}
    if last:
        headers["Last-Event-ID"] = str(last)
    numbers = []
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        for line in stream:
            if line == b"event: end\n":
                return numbers, True
            if line.startswith(b"id: "):
                number = int(line[4:])
            elif line.startswith(b"data: "):
                assert json.loads(line[6:])["kind"]
                numbers.append(number)
                # What has been sent beyond that is lost with the connection.
                if len(numbers) == at_most:
                    return numbers, False
    return numbers, False


def test_34_a_feed_that_breaks_off_is_taken_up_without_a_gap_and_without_repetitions(running):
    name, over = unique("feed"), threading.Event()
    url = f"{running.values['SHIPIT_PIPELINE_URL']}/{name}"
    step = {"uid": "a", "api_url": running.values["SHIPIT_SIGNOFF_URL"], "manual": True}
    assert call(running, "PUT", url, {"dry_run": True, "parameters": {"steps": [step]}})[0] == 200

    def happen():
        for number in range(24):
            assert call(running, "POST", f"{url}/{'resume' if number % 2 else 'pause'}")[0] == 200
        assert call(running, "POST", f"{url}/cancel")[0] == 200

    happening = threading.Thread(target=happen)
    happening.start()
    seen, ended, connections = [], False, 0
    while not ended:
        numbers, ended = feed(running, f"{url}/events", seen[-1] if seen else None, 5)
        seen += numbers
        connections += 1
        assert connections < 100, seen
    happening.join()
    status, audit = call(running, "GET", f"{url}/events?limit=500")
    assert len(audit["events"]) > 24
    assert seen == list(range(1, len(audit["events"]) + 1))
    assert connections > 4


def test_a_test_issuer_is_refused_in_production(running):
    """Neither does the issuer start there, nor does a service believe in it."""
    for name in ("shipit-oidc-dev", "shipit-signoff"):
        environment = running.suite.service_environment(name) | {"APP_CHANNEL": "production"}
        done = subprocess.run(
            [str(BINARIES / name), "check-configuration"], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2, done.stdout + done.stderr
        assert "APP_CHANNEL" in done.stdout + done.stderr


@pytest.mark.parametrize("page", ["pipeline", "pipeline template", "pipeline freeze", "pipeline lock", "signoff", "release"])
def test_every_command_has_examples(page):
    def told(*words):
        command = [str(BINARIES / "slipway"), *words, "--help"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    commands = re.findall(r"^  ([a-z-]+) ", told(*page.split()).partition("SUBCOMMANDS:")[2], re.M)
    assert len(commands) >= 2
    for command in commands:
        text = told(*page.split(), command)
        if "SUBCOMMANDS:" not in text:
            assert f"slipway {page} {command}" in text.partition("Examples:")[2], f"{page} {command} shows no example"
