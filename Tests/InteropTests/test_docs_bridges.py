# SPDX-License-Identifier: MPL-2.0
"""docs/bridges.md and docs/triggers.md: every example is run, in order; what is only shown is held against what happens."""

import json
import os
import pathlib
import subprocess
import sys

import pika
import pytest

from conftest import BINARIES, TOP
from examples import Runner, blocks
from support import eventually

BRIDGES, TRIGGERS = TOP / "docs" / "bridges.md", TOP / "docs" / "triggers.md"


@pytest.fixture
def runner(running, tmp_path, monkeypatch):
    """Runs blocks in a folder that looks like a checkout in which somebody has said `make up`."""
    environment = os.environ | {name: str(value) for name, value in running.values.items()}
    # The interpreter of the tests has the clients that the examples import.
    environment["PATH"] = f"{BINARIES}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".local").symlink_to(running.suite.local)
    return Runner(tmp_path, running.suite.service_environment("pulse-listener") | environment)


def run(runner, block):
    try:
        runner.run(block)
    except Exception as error:
        raise AssertionError(f"“{block.heading}”, line {block.line}: {error}") from error


def is_there(running, queue):
    connection = pika.BlockingConnection(pika.URLParameters(running.amqp_url))
    try:
        return connection.channel().queue_declare(queue, passive=True)
    finally:
        connection.close()


def checked(running, tmp_path, variable, text, **more):
    """What check-configuration says of a file whose secrets exist."""
    secrets = tmp_path / "secrets"
    secrets.mkdir(exist_ok=True)
    for name in ("github-before", "nagios", "github-token", "phabricator-token"):
        (secrets / name).write_text("0123456789abcdef")
    file = tmp_path / "checked.json"
    file.write_text(text.replace("/run/secrets", str(secrets)))
    environment = running.suite.service_environment("pulse-listener")
    environment |= {variable: str(file), "GITHUB_SECRET": "a", "HARBORMASTER_SECRET": "b"} | more
    done = subprocess.run(
        [str(BINARIES / "pulse-listener"), "check-configuration"], env=environment, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def test_every_example_of_the_page_about_bridges_works(running, runner, tmp_path):
    # The page's name is not ours to choose; an earlier run may have broken off.
    running.hooks().removeHook("demo", "pull-requests")
    found = blocks(BRIDGES)
    ran = [block for block in found if block.name or block.language == "console"]
    assert [block.name for block in ran if block.name] == ["my-webhook-hook.json", "event.json", "all-bridges.json"]
    for block in ran:
        run(runner, block)
    whole = json.loads((tmp_path / "all-bridges.json").read_text())
    assert checked(running, tmp_path, "BRIDGES_CONFIG", json.dumps(whole)) == (0, "")

    # A part of a source, which the page shows by itself.
    [recover] = [text for text in (block.text for block in found) if text.startswith('"recover"')]
    whole["webhooks"]["sources"]["github"] |= json.loads("{" + recover + "}")
    assert checked(running, tmp_path, "BRIDGES_CONFIG", json.dumps(whole)) == (0, "")
    # The page names a variable, and that counts.
    status, text = checked(running, tmp_path, "BRIDGES_CONFIG", json.dumps(whole), GITHUB_SECRET="")
    assert status == 2 and "GITHUB_SECRET" in text
    whole["webhooks"]["sources"]["github"]["colour"] = "red"
    status, text = checked(running, tmp_path, "BRIDGES_CONFIG", json.dumps(whole))
    assert status == 2 and "colour" in text

    # The message that the page shows, and the one that has just gone out.
    [message] = [json.loads(text) for text in (block.text for block in found) if '"installationId"' in text]
    slipway = lambda *arguments: json.loads(
        subprocess.run(
            [str(BINARIES / "slipway"), "bridge", *arguments], env=runner.environment, capture_output=True, check=True, timeout=120
        ).stdout
    )
    delivery = slipway("deliveries", "github", "--limit", "1", "--json")["deliveries"][0]["deliveryId"]
    sent = slipway("show", "github", delivery)
    assert set(message) - set(sent) == {"installationId"} and set(sent) <= set(message)
    assert {name: type(value) for name, value in sent.items()}.items() <= {name: type(value) for name, value in message.items()}.items()
    running.hooks().removeHook("demo", "pull-requests")


def test_every_example_of_the_page_about_triggers_works(running, runner, tmp_path):
    running.hooks().removeHook("demo", "analysis")
    place = running.suite.local / "triggers.json"
    found = [block for block in blocks(TRIGGERS) if block.name or block.language in ("console", "python", "sh")]
    assert [block.name for block in found if block.name] == ["analysis.json", "triggers.json", "all-triggers.json"]
    restarts = 0
    try:
        for block in found:
            if block.language != "sh":
                run(runner, block)
                continue
            # The commands of these lines, by ourselves: the suite is in our hands, and only one may hold it.
            assert block.text == "cp triggers.json .local/triggers.json\ndeploy/local/suite restart pulse-listener\n"
            place.write_text((tmp_path / "triggers.json").read_text())
            running.suite.restart("pulse-listener")
            # A reader types slowly enough for the listener to have made its queue; a script has to wait for it.
            eventually(lambda: is_there(running, "queue/slipway/triggers/static-analysis-mozreview"))
            restarts += 1
    finally:
        place.unlink(missing_ok=True)
        running.suite.restart("pulse-listener")
        running.hooks().removeHook("demo", "analysis")
    assert restarts == 1
    whole = (tmp_path / "all-triggers.json").read_text()
    assert checked(running, tmp_path, "TRIGGERS_CONFIG", whole) == (0, "")
    status, text = checked(running, tmp_path, "TRIGGERS_CONFIG", whole.replace('"risk-assessment"', '"riskassessment"'))
    assert status == 2 and "TRIGGERS_CONFIG" in text
