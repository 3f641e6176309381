# SPDX-License-Identifier: MPL-2.0
"""The unmodified tc-admin, with which deployments keep their hooks and roles in version control."""

import json
import os
import pathlib
import subprocess
import sys

import mohawk
import pytest
from taskcluster.exceptions import TaskclusterRestFailure

from faulty_queue import FaultyQueue
from support import template, unique

# What tc-admin runs; the stage says what is wanted.
CONFIGURATION = '''
import json
import os

from tcadmin.appconfig import AppConfig
from tcadmin.resources import Binding, Hook, Role

appconfig = AppConfig()
GROUP, STAGE = os.environ["GROUP"], os.environ["STAGE"]


@appconfig.generators.register
async def wanted(resources):
    resources.manage(f"Hook={GROUP}/.*")
    resources.manage(f"Role=hook-id:{GROUP}/.*")
    if STAGE == "nothing":
        return
    resources.add(
        Hook(
            hookGroupId=GROUP,
            hookId="nightly/build",
            name="Nightly",
            description="Builds every night.",
            owner="ada@example.com",
            emailOnError=False,
            schedule=["0 0 3 * * *"] if STAGE == "first" else ["0 0 4 * * *", "0 0 5 * * *"],
            bindings=[Binding(exchange="exchange/interop-team/v1/admin", routingKeyPattern="a.#")],
            task=json.loads(os.environ["TEMPLATE"]),
            triggerSchema={"type": "object", "properties": {"n": {"type": "number", "default": 1.0}}},
        )
    )
    resources.add(
        Role(
            roleId=f"hook-id:{GROUP}/nightly/build",
            description="What the nightly build may do.",
            scopes=["queue:create-task:highest:slipway/*", "queue:create-task:project:none", "queue:scheduler-id:-"],
        )
    )
'''


class SigningProxy(FaultyQueue):
    """What workers give to tasks: calls leave it with credentials.

    tc-admin takes no root URL with a port, but the address of such a proxy.
    """

    def __init__(self, running):
        super().__init__(running.root_url)
        credentials = running.options["credentials"]
        self.credentials = {"id": credentials["clientId"], "key": credentials["accessToken"], "algorithm": "sha256"}

    def pass_on(self, handler, body):
        address = f"http://{handler.headers['Host']}{handler.path}"
        kind = handler.headers.get("Content-Type", "")
        sender = mohawk.Sender(self.credentials, address, handler.command, content=body, content_type=kind)
        del handler.headers["Authorization"]
        handler.headers["Authorization"] = sender.request_header
        return super().pass_on(handler, body)


class Admin:
    def __init__(self, proxy, folder):
        (folder / "tc-admin.py").write_text(CONFIGURATION)
        self.group, self.folder = unique("admin"), folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "GROUP": self.group,
            "TEMPLATE": json.dumps(template("nightly")),
            "TASKCLUSTER_PROXY_URL": proxy.url,
        }

    def run(self, verb, stage):
        done = subprocess.run(
            [str(pathlib.Path(sys.executable).parent / "tc-admin"), verb],
            env=self.environment | {"STAGE": stage},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    def apply(self, stage):
        status, text = self.run("apply", stage)
        assert status == 0, text
        return text

    def is_in_step(self, stage):
        """Whether what is there is what is wanted, to the last character."""
        status, text = self.run("diff", stage)
        assert (status == 0) == (text.strip() == "") and "Traceback" not in text, text
        return status == 0


@pytest.fixture
def admin(running, tmp_path):
    with SigningProxy(running) as proxy:
        admin = Admin(proxy, tmp_path)
        yield admin
        admin.apply("nothing")


def test_hooks_and_roles_are_kept_as_files_say(running, admin):
    hooks, hook_id = running.hooks(), f"Hook={admin.group}/nightly/build"
    assert not admin.is_in_step("first")
    text = admin.apply("first")
    assert f"Creating {hook_id}" in text and f"Creating Role=hook-id:{admin.group}/nightly/build" in text
    assert admin.is_in_step("first")
    assert "Creating" not in admin.apply("first") and "Updating" not in admin.apply("first")

    fired = hooks.triggerHook(admin.group, "nightly/build", {})
    assert running.queue().status(fired["taskId"])["status"]["taskGroupId"] == fired["taskId"]

    token = hooks.getTriggerToken(admin.group, "nightly/build")
    assert not admin.is_in_step("second")
    assert f"Updating {hook_id}" in admin.apply("second")
    assert admin.is_in_step("second")
    due = hooks.getHookStatus(admin.group, "nightly/build")["nextScheduledDate"]
    assert due[10:] in ("T04:00:00.000Z", "T05:00:00.000Z")
    assert hooks.getTriggerToken(admin.group, "nightly/build") == token

    assert f"Deleting {hook_id}" in admin.apply("nothing")
    assert admin.is_in_step("nothing")
    with pytest.raises(TaskclusterRestFailure) as gone:
        hooks.hook(admin.group, "nightly/build")
    assert gone.value.status_code == 404
    assert admin.group not in hooks.listHookGroups()["groups"]
