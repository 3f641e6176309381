# SPDX-License-Identifier: MPL-2.0
"""`shipit-step-check`: it accepts services that keep the contract, whoever wrote them, and notices each that does not."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from conftest import load_suite
from support import BINARIES, TOP, eventually, task, unique
from wrong_steps import FAULTS

EXAMPLE = TOP / "services/shipit-step-check/examples/step_service.py"
WAITS = [
    *("--definition", '{"seconds": 3600}', "--other", '{"seconds": 7200}'),
    *("--succeeding", '{"seconds": 0}', "--invalid", '{"seconds": "soon"}'),
]


@contextlib.contextmanager
def service(tmp_path, script, *arguments):
    """A service in a process of its own, on a port of its own; its base address."""
    port = load_suite().free_port()
    command = [sys.executable, str(script), str(port), str(tmp_path / "steps.sqlite"), *arguments]
    process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parent)
    url = f"http://127.0.0.1:{port}"

    def answers():
        assert process.poll() is None, "the service has ended"
        with urllib.request.urlopen(url + "/", timeout=10) as answer:
            return answer.status == 200

    try:
        eventually(answers)
        yield url
    finally:
        process.kill()
        process.wait()


def check(url, *arguments, environment=None):
    """What the checker says: its exit status, and the verdicts by rule."""
    done = subprocess.run(
        [str(BINARIES / "shipit-step-check"), url, *arguments, "--json"],
        env={key: value for key, value in os.environ.items() if not key.startswith("TASKCLUSTER_")} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stdout, done.stderr
    rules = json.loads(done.stdout)["rules"]
    return done.returncode, {rule["rule"]: rule["verdict"] for rule in rules}, {rule["rule"]: rule["detail"] for rule in rules}


def test_the_example_keeps_the_contract(tmp_path):
    with service(tmp_path, EXAMPLE) as url:
        status, verdicts, details = check(url, *WAITS)
        assert status == 0, details
        assert {rule for rule, verdict in verdicts.items() if verdict != "kept"} == {"admit"}, details


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """What the checker says of each fault; several at a time, since most of it is waiting."""
    script = pathlib.Path(__file__).with_name("wrong_steps.py")

    def one(fault):
        with service(tmp_path_factory.mktemp(fault.__name__), script, fault.__name__) as url:
            return check(url, *WAITS, "--patience", "4")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        return {fault: pool.submit(one, fault) for fault in FAULTS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_noticed(faulty, fault):
    status, verdicts, details = faulty[fault].result()
    broken = {rule for rule, verdict in verdicts.items() if verdict == "broken"}
    assert status == 1
    assert broken == FAULTS[fault], {rule: details[rule] for rule in broken}


def test_nobody_there(tmp_path):
    url = f"http://127.0.0.1:{load_suite().free_port()}"
    done = subprocess.run(
        [str(BINARIES / "shipit-step-check"), url, *WAITS], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stdout
    assert "shipit-step-check:" in done.stderr


def test_our_own_services_keep_the_contract(running):
    credentials = running.options["credentials"]
    environment = {
        "TASKCLUSTER_CLIENT_ID": credentials["clientId"],
        "TASKCLUSTER_ACCESS_TOKEN": credentials["accessToken"],
    }
    policy = lambda count: {"policy": {"method": "local", "definition": [{"releng": count}]}, "parameters": {}}
    created = task(unique("check"), queue_id="nobody/claims")
    signoff = running.values["SHIPIT_SIGNOFF_URL"]
    waiting = lambda name: {
        "namespace_steps": True,
        "parameters": {"steps": [{"uid": name, "api_url": signoff, "parameters": policy(1)}]},
    }
    subjects = {
        signoff: (policy(1), policy(2), policy(0), None),
        running.values["SHIPIT_TASKCLUSTER_URL"]: (
            {"task": created},
            {"task": created, "fail_fast": True},
            {"task": 1},
            None,
        ),
        running.values["SHIPIT_PIPELINE_URL"]: (
            waiting("one"),
            waiting("another"),
            {"parameters": {"steps": [{"uid": "a", "api_url": signoff, "requires": ["ghost"]}]}},
            {"parameters": {"steps": []}},
        ),
    }
    for url, (definition, other, invalid, succeeding) in subjects.items():
        arguments = ["--definition", json.dumps(definition), "--other", json.dumps(other), "--invalid", json.dumps(invalid)]
        if succeeding:
            arguments += ["--succeeding", json.dumps(succeeding)]
        status, verdicts, details = check(url, *arguments, environment=environment)
        assert status == 0, (url, {rule: details[rule] for rule, verdict in verdicts.items() if verdict == "broken"})
