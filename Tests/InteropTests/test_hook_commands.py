# SPDX-License-Identifier: MPL-2.0
"""`slipway hook …` as people and scripts use it, and what the hooks of a whole suite may and may not do."""

import json
import os
import pathlib
import subprocess

import pytest
import taskcluster
from taskcluster.exceptions import TaskclusterAuthFailure, TaskclusterRestFailure

from conftest import TOP
from support import eventually, hook, unique

BINARY = pathlib.Path(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release")) / "slipway"
COMMANDS = ["list", "show", "apply", "remove", "render", "trigger", "status", "history", "token"]
COMMANDS += ["pause", "resume", "backfill", "ledger", "dead-letters", "replay", "unfired"]


class Line:
    """The command line with the credentials of the suite."""

    def __init__(self, running, folder):
        self.environment = {"PATH": os.environ["PATH"]} | {
            name: str(value) for name, value in running.values.items() if name.startswith("TASKCLUSTER_")
        }
        self.folder = folder

    def run(self, *arguments, input=None, **environment):
        return subprocess.run(
            [str(BINARY), "hook", *arguments],
            env=self.environment | environment,
            cwd=self.folder,
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def text(self, *arguments, **options):
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def json(self, *arguments, **options):
        return json.loads(self.text(*arguments, "--json", **options))

    def failure(self, *arguments, status=1, **options):
        done = self.run(*arguments, **options)
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stderr


@pytest.fixture
def line(running, tmp_path):
    return Line(running, tmp_path)


@pytest.fixture
def name(running):
    name = unique("line")
    yield name
    running.hooks().removeHook("demo", name)


def write(line, name, **fields):
    definition = hook(name) | {"hookGroupId": "demo", "hookId": name} | fields
    path = line.folder / "hook.json"
    path.write_text(json.dumps(definition))
    return "hook.json"


def test_every_command_has_examples(line):
    for command in COMMANDS:
        text = line.text(command, "--help")
        assert f"slipway hook {command}" in text and "Example" in text, command


def test_a_hook_is_applied_shown_listed_and_removed(line, name):
    file = write(line, name, schedule=["0 0 3 * * *"])
    assert line.text("apply", "--dry-run", file) == f"created  demo/{name}"
    assert "not found" in line.failure("show", f"demo/{name}")
    assert line.text("apply", file) == f"created  demo/{name}"
    assert line.text("apply", file) == f"unchanged  demo/{name}"
    file = write(line, name, schedule=["0 0 4 * * *"])
    assert line.json("apply", file) == [{"hookGroupId": "demo", "hookId": name, "result": "updated"}]
    shown = line.json("show", f"demo/{name}")
    assert shown["schedule"] == ["0 0 4 * * *"]
    assert line.text("apply", "-", input=json.dumps(shown)) == f"unchanged  demo/{name}"
    assert "T04:00:00.000Z" in line.text("show", f"demo/{name}")
    assert f"demo/{name}  [0 0 4 * * *]" in line.text("list", "demo").splitlines()
    assert name in [each["hookId"] for each in line.json("list")["hooks"]]
    assert line.json("status", f"demo/{name}")["lastFire"] == {"result": "no-fire"}
    assert line.json("remove", f"demo/{name}")[0]["result"] == "removed"
    assert line.text("remove", f"demo/{name}") == f"removed  demo/{name}"


def test_a_schedule_of_the_older_form_is_applied_once(line, name):
    file = write(line, name, schedule={"format": {"type": "daily", "timeOfDay": [6, 18]}})
    assert line.text("apply", file) == f"created  demo/{name}"
    assert line.text("apply", file) == f"unchanged  demo/{name}"
    assert line.json("show", f"demo/{name}")["schedule"] == ["0 0 6,18 * * *"]


def test_a_hook_is_rendered_triggered_and_looked_back_at(line, name):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "taskId": {"type": "string"}}}
    line.text("apply", write(line, name, triggerSchema=schema))
    rendered = line.json("render", f"demo/{name}", "--payload", '{"n": 1}')
    assert rendered["result"] == "task" and rendered["task"]["taskGroupId"] == rendered["taskId"]
    (line.folder / "payload.json").write_text('{"n": "one"}')
    assert "payload/n must be integer" in line.failure("render", f"demo/{name}", "--payload-file", "payload.json")
    assert "must be integer" in line.failure("trigger", f"demo/{name}", "--payload-file", "payload.json")
    assert "not found" in line.failure("history", f"demo/{name}")
    fired = [line.text("trigger", f"demo/{name}") for _ in range(2)]
    chosen = taskcluster.slugId()
    for _ in range(2):
        assert line.json("trigger", f"demo/{name}", "--task-id", chosen)["taskId"] == chosen
    fires = line.json("history", f"demo/{name}")["lastFires"]
    assert [each["taskId"] for each in fires] == [chosen, *reversed(fired)]
    assert [each["taskId"] for each in line.json("history", f"demo/{name}", "--limit", "2")["lastFires"]] == [
        chosen,
        fired[1],
    ]
    assert chosen in line.text("status", f"demo/{name}")


def test_a_token_is_printed_and_replaced(line, name, running):
    line.text("apply", write(line, name))
    first = line.text("token", f"demo/{name}")
    second = line.json("token", f"demo/{name}", "--reset")["token"]
    assert line.text("token", f"demo/{name}") == second != first
    anonymous = taskcluster.Hooks(running.anonymous)
    with pytest.raises(TaskclusterAuthFailure):
        anonymous.triggerHookWithToken("demo", name, first, {})
    assert anonymous.triggerHookWithToken("demo", name, second, {})["taskId"]


def test_mistakes_are_told_in_one_line(line):
    assert "no-slash" in line.failure("show", "no-slash", status=2)
    assert "not JSON" in line.failure("trigger", "g/h", "--payload", "{", status=2)
    assert "not both" in line.failure("trigger", "g/h", "--payload", "{}", "--payload-file", "x", status=2)
    assert "not a task id" in line.failure("trigger", "g/h", "--task-id", "x", status=2)
    assert "pulseMessage" in line.failure("render", "g/h", "--exchange", "e", status=2)
    assert "cannot read" in line.failure("apply", "missing.json", status=2)
    assert "TASKCLUSTER_ROOT_URL" in line.failure("list", status=2, TASKCLUSTER_ROOT_URL="")
    wrong = line.failure("list", TASKCLUSTER_ACCESS_TOKEN="d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmc")
    assert "credentials" in wrong and len(wrong.strip().splitlines()) == 1
    assert "does not answer" in line.failure("list", TASKCLUSTER_ROOT_URL="http://127.0.0.1:9")


def test_a_task_gets_the_scopes_of_its_hooks_role_and_no_others(running):
    """H38, H42, H43: neither the caller's scopes nor the service's own reach the task, only the role's."""
    hooks, name = running.hooks(), unique("scopes")
    caller = running.options | {"authorizedScopes": [f"hooks:trigger-hook:demo/{name}"]}
    hooks.createHook("demo", name, hook(name))
    assert taskcluster.Hooks(caller).triggerHook("demo", name, {})["taskId"]
    definition = hook(name)
    # The service holds notify:email:*, the caller of updateHook everything; the role does not.
    definition["task"]["scopes"] = ["notify:email:somebody@example.com"]
    hooks.updateHook("demo", name, definition)
    for user in (taskcluster.Hooks(caller), hooks):
        with pytest.raises(TaskclusterRestFailure) as refused:
            user.triggerHook("demo", name, {})
        assert refused.value.status_code == 403 and refused.value.body["code"] == "InsufficientScopes"
        assert f"hook-id:demo/{name}" in str(refused.value) and "notify:email:somebody" in str(refused.value)
    error = hooks.getHookStatus("demo", name)["lastFire"]["error"]
    assert error["statusCode"] == 403 and error["code"] == "InsufficientScopes"
    hooks.removeHook("demo", name)


def test_an_editor_must_hold_the_role(running):
    """H9: whoever may modify a hook but not assume its role cannot make it do anything."""
    name = unique("editor")
    for scopes in ([f"hooks:modify-hook:demo/{name}"], [f"assume:hook-id:demo/{name}"]):
        editor = taskcluster.Hooks(running.options | {"authorizedScopes": scopes})
        for method in (editor.createHook, editor.updateHook):
            with pytest.raises(TaskclusterRestFailure) as refused:
                method("demo", name, hook(name))
            assert refused.value.status_code == 403
    both = [f"hooks:modify-hook:demo/{name}", f"assume:hook-id:demo/{name}"]
    editor = taskcluster.Hooks(running.options | {"authorizedScopes": both})
    assert editor.createHook("demo", name, hook(name))["hookId"] == name
    editor.removeHook("demo", name)


def test_tokens_reach_no_log(running):
    """H26: the logs of all services name the hook and the method, and no token."""
    hooks, name = running.hooks(), unique("secret")
    hooks.createHook("demo", name, hook(name))
    token = hooks.getTriggerToken("demo", name)["token"]
    anonymous = taskcluster.Hooks(running.anonymous)
    anonymous.triggerHookWithToken("demo", name, token, {})
    other = hooks.resetTriggerToken("demo", name)["token"]
    with pytest.raises(TaskclusterAuthFailure):
        anonymous.triggerHookWithToken("demo", name, token, {})
    with pytest.raises(TaskclusterRestFailure):
        anonymous.triggerHookWithToken("demo", name, other, "not an object")
    hooks.removeHook("demo", name)

    def logs():
        return {path.name: path.read_text(errors="replace") for path in running.suite.logs.glob("*.log")}

    eventually(lambda: f"hooks/demo/{name}" in logs()["hooks-service.log"])
    for file, text in logs().items():
        assert token not in text and other not in text, file
