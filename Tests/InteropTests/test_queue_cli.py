# SPDX-License-Identifier: MPL-2.0
"""The commands of slipway about tasks, groups, workers, roles and clients, against a live server."""

import gzip
import json
import os
import re
import subprocess
import time
import urllib.request

import pytest
import taskcluster

from local_queue import BINARIES, Deployment
from support import task, unique


@pytest.fixture(scope="module")
def server(servers, tmp_path_factory):
    with Deployment(servers, tmp_path_factory.mktemp("cli"), exchanges=False, TCL_CLAIM_WORK_TIMEOUT="1") as deployment:
        yield deployment.start()


@pytest.fixture
def slipway(server):
    def run(*arguments, status=0, stdin=None, client_id=None, token=None):
        options = server.options()["credentials"]
        environment = dict(
            os.environ,
            TASKCLUSTER_ROOT_URL=server.own_url,
            TASKCLUSTER_CLIENT_ID=client_id or options["clientId"],
            TASKCLUSTER_ACCESS_TOKEN=token or options["accessToken"],
        )
        done = subprocess.run(
            [str(BINARIES / "slipway"), *arguments], env=environment, input=stdin, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout) if "--json" in arguments and status == 0 else done.stdout.strip() or done.stderr

    return run


def test_tasks_are_created_and_steered(server, slipway, tmp_path):
    definition = task("from the command line", queue_id="test/cli")
    del definition["created"], definition["deadline"], definition["expires"]
    file = tmp_path / "task.json"
    file.write_text(json.dumps(definition))
    task_id = slipway("task", "create", str(file), "--within", "3h")
    assert server.queue.task(task_id)["metadata"]["name"] == "from the command line"
    other = taskcluster.slugId()
    answer = slipway("task", "create", "-", "--task-id", other, "--json", stdin=json.dumps(definition))
    assert answer["status"]["taskId"] == other
    assert slipway("task", "status", task_id) == f"{task_id}  pending"
    assert [each["state"] for each in slipway("task", "status", task_id, other, "--json")["statuses"]] == ["pending"] * 2
    assert slipway("task", "cancel", task_id) == f"{task_id}  exception  canceled"
    assert slipway("task", "rerun", task_id, "--json")["statuses"][0]["state"] == "pending"
    assert "from the command line" in slipway("task", "show", task_id)
    assert slipway("task", "schedule", task_id) == f"{task_id}  pending"
    assert "1 pending" in slipway("task", "group", task_id)
    assert slipway("task", "artifacts", task_id) == "no artifacts"
    assert "no log yet" in slipway("task", "log", task_id, status=1)
    assert "not a task id" in slipway("task", "status", "nonsense", status=2)
    assert "not found" in slipway("task", "status", taskcluster.slugId(), status=1)


def test_groups_are_listed_sealed_and_cancelled(server, slipway):
    group = taskcluster.slugId()
    for number in range(3):
        task_id = group if number == 0 else taskcluster.slugId()
        server.queue.createTask(task_id, task(f"member {number}", queue_id="test/group", taskGroupId=group))
    text = slipway("group", "list", group)
    assert "member 2" in text and text.endswith("3 pending")
    assert len(slipway("group", "list", group, "--json")["tasks"]) == 3
    assert slipway("group", "priority", group, "high") == "changed  3 tasks"
    assert "409" in slipway("group", "cancel", group, "--no-seal", status=1)
    assert slipway("group", "seal", group).startswith("sealed  20")
    assert slipway("group", "cancel", group) == "cancelled  3 of 3 tasks"
    assert slipway("group", "cancel", group, "--json")["cancelledCount"] == 0


def test_workers_are_listed_and_quarantined(server, slipway):
    queue_id = f"test/{unique('w').lower()}"
    server.queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "one"})
    assert slipway("worker", "list", queue_id).startswith("g/one")
    assert slipway("worker", "list", queue_id, "--quarantined") == "no workers"
    text = slipway("worker", "quarantine", queue_id, "g/one", "--for", "2d", "--reason", "smoke")
    assert text.startswith("quarantined until 20")
    assert len(slipway("worker", "list", queue_id, "--quarantined", "--json")["workers"]) == 1
    assert "smoke" in slipway("worker", "show", queue_id, "g/one")
    assert slipway("worker", "quarantine", queue_id, "g/one", "--lift") == "lifted"
    time.sleep(0.01)
    assert slipway("worker", "list", queue_id, "--quarantined") == "no workers"
    assert queue_id in slipway("worker", "queues")
    assert "not found" in slipway("worker", "quarantine", queue_id, "g/nobody", status=1)


def test_roles_are_made_to_be(slipway):
    name = unique("role/of a test")
    assert slipway("role", "apply", name, "--scope", "a:b", "--description", "d") == f"created  {name}"
    assert slipway("role", "apply", name, "--scope", "a:c", "--json")["result"] == "updated"
    text = slipway("role", "show", name)
    assert "scope        a:c" in text and "a:b" not in text
    assert name in slipway("role", "list", name)
    assert slipway("role", "list", name, "--json")["roles"][0]["scopes"] == ["a:c"]
    assert slipway("role", "remove", name) == f"removed  {name}"
    assert "not found" in slipway("role", "show", name, status=1)


def test_clients_come_and_go(server, slipway):
    name = unique("client/of")
    token = slipway("client", "create", name, "--scope", "queue:status:*", "--for", "2d", "--description", "d")
    assert len(token) == 44
    assert "not allowed" in slipway("client", "create", name + "x", client_id=name, token=token, status=1)
    fresh = slipway("client", "reset-token", name, "--json")["accessToken"]
    assert "refused" in slipway("role", "list", client_id=name, token=token, status=1)
    assert slipway("client", "disable", name) == f"disabled  {name}"
    assert "disabled" in slipway("client", "show", name)
    assert "refused" in slipway("role", "list", client_id=name, token=fresh, status=1)
    assert slipway("client", "enable", name) == f"enabled  {name}"
    assert name in slipway("client", "list", name)
    assert slipway("client", "list", name, "--json")["clients"][0]["scopes"] == ["queue:status:*"]
    assert slipway("client", "remove", name) == f"removed  {name}"


def test_tasks_are_downloaded_repeated_and_made_urgent(server, slipway, tmp_path):
    queue_id = f"test/{unique('more').lower()}"
    task_id, waiting = taskcluster.slugId(), taskcluster.slugId()
    server.queue.createTask(task_id, task("first", queue_id=queue_id, routes=["some.route"]))
    server.queue.createTask(waiting, task("second", queue_id=queue_id, dependencies=[task_id]))
    assert slipway("task", "dependents", task_id).split("  ") == [waiting, "unscheduled", "second"]
    assert slipway("task", "dependents", waiting) == "nothing waits for it"
    assert slipway("task", "dependents", task_id, "--json")["tasks"][0]["status"]["taskId"] == waiting
    assert slipway("task", "priority", "highest", task_id) == f"{task_id}  pending"
    assert slipway("task", "priority", "high", task_id, "--json")["statuses"][0]["priority"] == "high"
    (claim,) = server.queue.claimWork(queue_id, {"workerGroup": "g", "workerId": "w"})["tasks"]
    packed, secret = gzip.compress(b"line of a log\n"), os.urandom(3_000_000)
    for name, body, headers in (
        ("public/log.txt", packed, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}),
        ("private/key", secret, {"Content-Type": "application/octet-stream"}),
    ):
        wish = {"storageType": "s3", "contentType": headers["Content-Type"], "expires": claim["task"]["expires"]}
        url = server.queue.createArtifact(task_id, 0, name, wish)["putUrl"]
        urllib.request.urlopen(urllib.request.Request(url, body, headers, method="PUT")).close()
    assert slipway("task", "download", task_id, "public/log.txt") == "line of a log"
    target = tmp_path / "key"
    answer = slipway("task", "download", task_id, "private/key", "--run", "0", "--output", str(target), "--json")
    assert answer["size"] == len(secret) and target.read_bytes() == secret
    assert "404" in slipway("task", "download", task_id, "public/none", "--output", str(tmp_path / "none"), status=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"], "nothing half done stays"
    assert "--output" in slipway("task", "download", task_id, "private/key", "--json", status=2)
    again = slipway("task", "retrigger", task_id)
    old, new = server.queue.task(task_id), server.queue.task(again)
    assert new["routes"] == [] and new["payload"] == old["payload"] and new["taskGroupId"] == old["taskGroupId"]
    kept = slipway("task", "retrigger", task_id, "--routes", "--json")["status"]["taskId"]
    assert server.queue.task(kept)["routes"] == ["some.route"]
    assert slipway("group", "show", task_id).splitlines()[-1] == "sealed       no, it takes more tasks"
    server.queue.sealTaskGroup(task_id)
    assert slipway("group", "show", task_id, "--json")["sealed"].startswith("20")
    assert slipway("worker", "remove", queue_id, "g/w") == "removed  g/w"
    runs = server.queue.status(task_id)["status"]["runs"]
    assert [run.get("reasonResolved") for run in runs] == ["worker-shutdown", None]
    assert slipway("worker", "remove", queue_id, "g/w", "--json")["result"] == "removed"


def test_clients_are_changed_piece_by_piece(server, slipway):
    name = unique("client/of")
    slipway("client", "create", name, "--scope", "a:b", "--description", "d")
    before = server.auth.client(name)
    changed = slipway("client", "update", name, "--description", "e", "--json")
    assert changed["description"] == "e" and changed["scopes"] == ["a:b"] and changed["expires"] == before["expires"]
    assert "a:c" in slipway("client", "update", name, "--scope", "a:c", "--for", "3d")
    after = server.auth.client(name)
    assert after["scopes"] == ["a:c"] and after["description"] == "e" and after["expires"] < before["expires"]
    slipway("client", "update", name, "--no-scopes")
    assert server.auth.client(name)["scopes"] == []
    assert "contradict" in slipway("client", "update", name, "--no-scopes", "--scope", "x", status=2)
    assert "not found" in slipway("client", "update", name + "x", "--description", "d", status=1)


@pytest.mark.parametrize("page", ["task", "group", "worker", "role", "client"])
def test_every_command_has_examples_and_can_print_json(slipway, page):
    listing = slipway(page, "--help").partition("SUBCOMMANDS:")[2]
    commands = re.findall(r"^  ([a-z-]+) ", listing, re.M)
    assert len(commands) >= 4
    for command in commands:
        text = slipway(page, command, "--help")
        assert f"slipway {page} {command}" in text.partition("Examples:")[2], f"{page} {command} shows no example"
        assert "--json" in text, f"{page} {command} prints no JSON"
