# SPDX-License-Identifier: MPL-2.0
"""The demo's shipped release: a hook's tasks build, two people of different groups approve, and only then a task publishes."""

import json
import os
import subprocess
import time
import urllib.request


class Operator:
    """The command line, as the operator of the suite or with somebody's token."""

    def __init__(self, binaries, values):
        self.binaries, self.values = binaries, values

    def __call__(self, *arguments, person=None, stdin=None):
        """The exit status of a command and what it says."""
        environment = dict(os.environ) | self.values
        if person:
            environment["SHIPIT_TOKEN"] = self.token(person)
        done = subprocess.run(
            [str(self.binaries / "slipway"), *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    def token(self, person):
        """A token of the issuer for development, which vouches for anybody."""
        body = json.dumps({"user": person}).encode()
        request = urllib.request.Request(
            self.values["SHIPIT_OIDC_URL"] + "/token", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["access_token"]

    def status(self, kind, uid):
        failed, text = self(kind, "show", uid, "--json")
        return {} if failed else json.loads(text)


def shipit(timeline, check, binaries, values, hooks, run, hook, definition):
    """Ships a release through the real processes; says why not where they were not built.

    `hook` makes the definition of a hook that builds, `definition` that of a task that publishes.
    """
    missing = [name for name in ("PIPELINE", "SIGNOFF", "TASKCLUSTER", "OIDC") if f"SHIPIT_{name}_URL" not in values]
    if missing or not (binaries / "slipway").exists():
        timeline("shipit's scene is skipped: its services were not built")
        return
    slipway = Operator(binaries, values)
    name = f"build-{run}"
    hooks.createHook("demo", name, hook)
    tasks, people = values["SHIPIT_TASKCLUSTER_URL"], values["SHIPIT_SIGNOFF_URL"]
    uid = f"demo-1.0-{run}"
    steps = [
        {
            "uid": "build",
            "api_url": tasks,
            "parameters": {"hook": {"hookGroupId": "demo", "hookId": name, "payload": {"version": "1.0"}}},
        },
        {
            "uid": "approve",
            "api_url": people,
            "requires": ["build"],
            "parameters": {
                "policy": {"method": "local", "definition": [{"releng": 1, "relman": 1}], "require_mfa": True},
                "parameters": {"what": "publish 1.0, built by task ${steps.build.output.task_id}"},
            },
        },
        {"uid": "publish", "api_url": tasks, "requires": ["approve"], "parameters": {"task": definition}},
    ]
    pipeline = {"uid": uid, "namespace_steps": True, "parameters": {"steps": steps}}
    failed, text = slipway("pipeline", "create", "-", stdin=json.dumps(pipeline))
    check(not failed, f"the pipeline was refused: {text}")
    timeline(f"pipeline {uid}: build, approve, publish; the build's hook is triggered")

    approval = f"{uid}.approve"
    limit = time.monotonic() + 180
    while slipway.status("signoff", approval).get("state") != "running":
        check(time.monotonic() < limit, "the build did not end")
        time.sleep(0.1)
    waiting = {step["uid"]: step for step in slipway.status("pipeline", uid)["info"]["steps"]}
    check(waiting["build"]["state"] == "completed", "people are asked before the build has ended")
    check(waiting["publish"]["state"] == "pending", "the release was published before anybody approved")
    timeline("the build's tasks are completed; the pipeline waits for two people")

    failed, text = slipway("signoff", "sign", approval, "--group", "releng", person="password-only")
    check(failed and "second factor" in text, f"somebody signed without a second factor: {text}")
    timeline("refused: a release engineer who has logged in with a password alone")
    failed, text = slipway("signoff", "sign", approval, "--group", "releng", person="releng1")
    check(not failed, f"releng1 could not sign: {text}")
    timeline("signed: releng1 for releng, with a second factor")
    failed, text = slipway("signoff", "sign", approval, "--group", "releng", person="releng2")
    check(bool(failed), "a second release engineer took the place of a release manager")
    timeline("refused: releng2, since only a release manager is missing")
    failed, text = slipway("signoff", "sign", approval, "--group", "relman", person="relman1")
    check(not failed, f"relman1 could not sign: {text}")
    timeline("signed: relman1 for relman; publishing may begin")

    failed, text = slipway("pipeline", "watch", uid)
    check(not failed, f"the release was not published: {text}")
    published = slipway.status("pipeline", uid)
    step = next(step for step in published["info"]["steps"] if step["uid"] == "publish")
    check(published["state"] == step["state"] == "completed", f"the release ended as {published['state']}")
    timeline(f"published: pipeline {published['state']}, publish {step['state']}")
    for line in text.splitlines()[-len(steps) - 1 :]:
        timeline.detail(line)
    signed = slipway.status("signoff", approval)
    check(len(signed["output"]["signees"]) == 2, "not two people have signed")
    timeline.detail(f"approved by {' and '.join(signed['output']['signees'])}, digest {signed['output']['digest'][:16]}…")
