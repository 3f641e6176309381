# SPDX-License-Identifier: MPL-2.0
"""The commands of slipway about tasks, groups, workers, roles and clients, against a live server."""

import json
import os
import subprocess
import time

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


@pytest.mark.parametrize("command", ["task create", "group cancel", "worker quarantine", "role apply", "client create"])
def test_help_shows_examples(slipway, command):
    text = slipway(*command.split(), "--help")
    assert "Examples:" in text and f"slipway {command}" in text and "--json" in text
