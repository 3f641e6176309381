# SPDX-License-Identifier: MPL-2.0
"""Triggers of a whole suite: diffs, announced builds, task groups and commits each have their hook fire once."""

import email
import json
import random
import secrets
import signal
import subprocess
import time
import urllib.parse

import pika
import pytest
import requests
import taskcluster

from conduit import TOKEN, Phabricator
from conftest import BINARIES
from support import eventually, hook, task, template, unique

SECRET = "what Harbormaster shows"


class Triggers:
    """The triggers of the running suite, configured for these tests."""

    def __init__(self, running, phabricator, names):
        self.running, self.phabricator, self.names = running, phabricator, names
        self.direct = running.values["BRIDGES_URL"]

    def fires(self, name):
        """The payloads that a hook was triggered with, one for each of its tasks."""
        fires = self.running.hooks().listLastFires("demo", self.names[name])["lastFires"]
        assert all(fire["result"] == "success" for fire in fires), fires
        queue = self.running.queue()
        return [json.loads(queue.task(fire["taskId"])["payload"]["text"]) for fire in fires]

    def announce(self, diff, authorization=("phabricator", SECRET), **options):
        query = {"diff": diff, "repo": "PHID-REPO-a", "revision": 1, "target": "PHID-HMBT-a"} | options
        return requests.post(
            f"{self.running.root_url}/codereview/new", params=query, auth=authorization, timeout=120
        )

    def slipway(self, *arguments, status=0):
        environment = {key: value for key, value in self.running.values.items() if key.startswith("TASKCLUSTER_")}
        done = subprocess.run(
            [str(BINARIES / "slipway"), "trigger", *arguments], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout

    def runs(self, trigger):
        """What a trigger observed, by subject."""
        runs = self.running.get("triggers/v1/runs", {"trigger": trigger, "limit": 500})["runs"]
        return {run["subject"]: run for run in runs}

    def settled(self, trigger, *subjects):
        """The runs of some subjects once they are settled."""
        wanted = [str(subject) for subject in subjects]

        def done():
            runs = self.runs(trigger)
            found = [runs[each] for each in wanted if each in runs]
            return found if len(found) == len(wanted) and all("settled" in run for run in found) else None

        return eventually(done, every=0.2)

    def states(self, trigger, *subjects):
        return [run["state"] for run in self.settled(trigger, *subjects)]

    def publish(self, exchange, key, body):
        """Publishes once there is a queue that the message goes to: the listener binds its own some time after it starts."""
        connection = pika.BlockingConnection(pika.URLParameters(self.running.amqp_url))
        channel = connection.channel()
        channel.confirm_delivery()

        def publish():
            channel.basic_publish(exchange, key, body, mandatory=True)
            return True

        eventually(publish)
        connection.close()


@pytest.fixture(scope="module")
def triggers(running):
    phabricator = Phabricator()
    phabricator.add(3)
    names = {each: unique(each) for each in ("analysis", "commits", "coverage", "risk")}
    folder = running.suite.state / "trigger-secrets"
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "shown").write_text(SECRET + "\n")
    file = lambda name: {"file": str(folder / name)}
    review = f"https://review.example/{unique('gecko')}"
    own = lambda name: {"hookGroupId": "demo", "hookId": names[name]}
    configuration = {
        "triggers": [
            {"type": "static-analysis-phabricator", **own("analysis")},
            {"type": "static-analysis-mozreview", "repositoryUrl": review, **own("commits")},
            {"type": "code-coverage", "repositories": ["https://hg.example/central"], **own("coverage")},
            {"type": "risk-assessment", "reviewers": ["ana"], **own("risk")},
        ],
        "phabricator": {
            "url": phabricator.url,
            "token": file("token"),
            "interval": "200ms",
            "pause": "200ms",
            "webhook": {"secrets": [file("shown")]},
        },
        "report": {"to": [f"{names['risk']}@example.com"], "interval": "1s"},
    }
    for name in names.values():
        definition = hook(name)
        # Nobody works there: what becomes of the tasks is up to us.
        definition["task"] = template(name) | {"taskQueueId": "slipway/nobody"}
        definition["task"]["payload"]["text"] = {"$json": {"$eval": "payload"}}
        running.hooks().createHook("demo", name, definition)
    connection = pika.BlockingConnection(pika.URLParameters(running.amqp_url))
    connection.channel().exchange_declare("exchange/mozreview/", "topic", durable=True)
    connection.close()
    path = running.suite.local / "triggers.json"
    path.write_text(json.dumps(configuration))
    running.suite.restart("pulse-listener")
    result = Triggers(running, phabricator, names)
    result.review = review
    # The first look begins at the newest diff: wait for it, so that what follows is new.
    eventually(lambda: any(call == "differential.diff.search" and "after" in asked for call, asked in phabricator.calls))
    # What the bus says before the queues are bound would be lost.
    elsewhere = {"payload": {"repository_url": "https://review.example/elsewhere"}}
    result.publish("exchange/mozreview/", "mozreview.commits.published", json.dumps(elsewhere).encode())
    nobody = taskcluster.slugId()
    group = {"version": 1, "taskGroupId": nobody, "schedulerId": "gecko-level-3"}
    exchange = "exchange/taskcluster-queue/v1/task-group-resolved"
    result.publish(exchange, f"primary.{nobody}.gecko-level-3._", json.dumps(group).encode())
    try:
        yield result
    finally:
        path.unlink()
        phabricator.close()
        running.suite.restart("pulse-listener")
        for name in names.values():
            running.hooks().removeHook("demo", name)


def test_diffs_fire_once_each_also_over_pages_and_when_announced(triggers):
    phabricator = triggers.phabricator
    numbers = phabricator.add(45)
    for number in numbers[:10]:
        answer = triggers.announce(number)
        assert (answer.status_code, answer.text) == (200, "Build queued")
    assert triggers.announce(numbers[-1]).status_code == 200
    assert set(triggers.states("static-analysis-phabricator", *numbers)) == {"fired"}
    wanted = {f"PHID-DIFF-{number}" for number in numbers}
    fires = [fire for fire in triggers.fires("analysis") if fire["ANALYSIS_ID"] in wanted]
    assert sorted(fire["ANALYSIS_ID"] for fire in fires) == sorted(wanted)
    assert all(fire["ANALYSIS_SOURCE"] == "phabricator" for fire in fires)
    # Pages of twenty, each after the last id of the one before.
    asked = [parameters for method, parameters in phabricator.calls if method == "differential.diff.search"]
    assert all(each["limit"] == 20 and each["order"] == "oldest" for each in asked if "after" in each)


def test_a_build_is_announced_by_somebody_who_shows_the_secret(triggers):
    number = triggers.phabricator.add()[0]
    for authorization in (None, ("phabricator", "guess")):
        answer = triggers.announce(number, authorization)
        assert answer.status_code == 401
        assert SECRET not in answer.text
    assert triggers.announce(number, target="PHID-DIFF-a").status_code == 400
    assert triggers.announce("x").status_code == 400
    url = f"{triggers.direct}/codereview/new?diff={number}&repo=PHID-REPO-a&revision=1&target=PHID-HMBT-a"
    answer = requests.post(url, headers={"Authorization": f"Bearer {SECRET}"}, timeout=120)
    assert (answer.status_code, answer.text) == (200, "Build queued")
    assert triggers.states("static-analysis-phabricator", number) == ["fired"]


def test_a_secure_revision_is_skipped_and_recorded_while_others_go_on(triggers):
    hidden = triggers.phabricator.add(visible=False)[0]
    shown = triggers.phabricator.add()[0]
    assert triggers.states("static-analysis-phabricator", shown) == ["fired"]
    [run] = triggers.settled("static-analysis-phabricator", hidden)
    assert (run["state"], run["reason"]) == ("skipped", "the revision is not visible after 5 looks")
    # Somebody opens it, and an operator looks again.
    triggers.phabricator.visible.add(f"PHID-DREV-{hidden}")
    triggers.slipway("retry", run["runId"])
    assert triggers.states("static-analysis-phabricator", hidden) == ["fired"]


def test_risk_is_assessed_where_somebody_of_the_list_reviews(triggers):
    triggers.phabricator.users |= {"PHID-USER-1": "ana", "PHID-USER-2": "ben"}
    with_ana = triggers.phabricator.add(reviewers=["PHID-USER-2", "PHID-USER-1"])[0]
    without = triggers.phabricator.add(reviewers=["PHID-USER-2", "PHID-PROJ-1"])[0]
    assert triggers.states("risk-assessment", with_ana, without) == ["fired", "skipped"]
    assert triggers.fires("risk") == [{"DIFF_ID": with_ana}]


def test_a_kill_between_finding_a_diff_and_triggering_loses_and_doubles_nothing(triggers, running):
    phabricator = triggers.phabricator
    numbers = []
    for _ in range(3):
        # Killed while an answer of Phabricator is on its way: what it said is written down by nobody.
        phabricator.waiting.clear()
        phabricator.gate.clear()
        numbers += phabricator.add(3)
        assert phabricator.waiting.wait(180)
        running.suite.stop("pulse-listener", signal.SIGKILL)
        phabricator.gate.set()
        phabricator.broken = 1
        running.suite.start_services()
        # And at any moment after that.
        numbers += phabricator.add(3)
        eventually(lambda: triggers.announce(numbers[-1]).status_code == 200)
        time.sleep(random.uniform(0, 0.7))
        running.suite.stop("pulse-listener", signal.SIGKILL)
        running.suite.start_services()
    assert set(triggers.states("static-analysis-phabricator", *numbers)) == {"fired"}
    ids = [fire["ANALYSIS_ID"] for fire in triggers.fires("analysis")]
    for number in numbers:
        assert ids.count(f"PHID-DIFF-{number}") == 1, number


def test_85_garbage_becomes_dead_letters_and_the_next_message_is_handled(triggers, running):
    exchange, key = "exchange/mozreview/", "mozreview.commits.published"
    commits = [{"rev": secrets.token_hex(20), "review_request_id": number, "diffset_revision": 1} for number in (1, 2)]
    good = {"payload": {"repository_url": triggers.review, "commits": commits}, "_meta": {"routing_key": key}}
    mark = unique("garbage")
    garbage = [
        mark.encode() + b"\x00\xff",
        json.dumps({"mark": mark}).encode(),
        json.dumps({"mark": mark, "payload": {"repository_url": triggers.review, "commits": [{"rev": 7}]}}).encode(),
    ]
    elsewhere = {"payload": {"repository_url": "https://review.example/other", "commits": commits}}
    for body in [*garbage, json.dumps(elsewhere).encode(), json.dumps(good).encode(), json.dumps(good).encode()]:
        triggers.publish(exchange, key, body)
    subjects = [f"{commit['rev']}/{commit['review_request_id']}/1" for commit in commits]
    assert triggers.states("static-analysis-mozreview", *subjects) == ["fired", "fired"]

    def letters():
        listed = json.loads(triggers.slipway("dead-letters", "static-analysis-mozreview", "--json"))["deadLetters"]
        return [letter for letter in listed if mark in letter["body"]]

    eventually(lambda: len(letters()) == len(garbage))
    fires = sorted(triggers.fires("commits"), key=lambda fire: fire["ANALYSIS_ID"])
    assert fires == [
        {
            "ANALYSIS_SOURCE": "mozreview",
            "ANALYSIS_ID": commit["rev"],
            "MOZREVIEW_REVISION": str(commit["review_request_id"]),
            "MOZREVIEW_DIFFSET": "1",
        }
        for commit in sorted(commits, key=lambda commit: commit["rev"])
    ]
    # Read again, they are as unreadable as before, and say so.
    reference = requests.get(f"{running.root_url}/references/triggers/v1/api.json", timeout=120).json()
    client = taskcluster.client.createApiClient("Triggers", {"reference": reference})(running.options)
    with pytest.raises(taskcluster.exceptions.TaskclusterRestFailure) as failure:
        client.replayDeadLetter(letters()[0]["letterId"])
    assert failure.value.status_code == 400
    anonymous = taskcluster.client.createApiClient("Triggers", {"reference": reference})(running.anonymous)
    with pytest.raises(taskcluster.exceptions.TaskclusterRestFailure) as failure:
        anonymous.listDeadLetters()
    assert failure.value.status_code == 403


def test_the_queue_of_a_trigger_stays_while_it_is_used_and_goes_with_a_word_when_it_is_not(triggers, running):
    beat = requests.get(f"{triggers.direct}/__heartbeat__", timeout=120)
    assert beat.status_code == 200, beat.text
    listed = json.loads(triggers.slipway("list", "--json"))
    assert {each["name"] for each in listed["triggers"]} >= {"code-coverage", "risk-assessment"}
    for used in ("code-coverage", "risk-assessment"):
        assert "has the trigger" in triggers.slipway("remove", used, status=1)
    user = urllib.parse.urlsplit(running.amqp_url).username
    name = unique("left").lower()
    queue = f"queue/{user}/triggers/{name}"
    # As an earlier version left it, which did not write down what it had.
    with pika.BlockingConnection(pika.URLParameters(running.amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        channel.confirm_delivery()
        for _ in range(2):
            channel.basic_publish("", queue, b"{}", mandatory=True)
    assert triggers.slipway("remove", name).strip() == f"{queue}  deleted with 2 messages"
    assert "Nothing is left" in triggers.slipway("remove", name, status=1)


def test_the_coverage_build_of_a_resolved_group_fires_once(triggers, running):
    queue = running.queue()

    def group(*tasks):
        """Makes a group, resolves it, and answers its id."""
        group_id, ids = taskcluster.slugId(), []
        for name, environment in tasks:
            definition = task(name, queue_id="slipway/nobody", taskGroupId=group_id, schedulerId="gecko-level-3")
            if environment is not None:
                definition["payload"]["env"] = environment
            ids.append(taskcluster.slugId())
            queue.createTask(ids[-1], definition)
        for each in ids:
            queue.cancelTask(each)
        return group_id

    central = {"GECKO_HEAD_REPOSITORY": "https://hg.example/central"}
    first = group(
        ("decision", None),
        ("build-linux64-ccov/opt", central | {"GECKO_HEAD_REV": "abc"}),
        ("build-win64-ccov/opt", central | {"GECKO_HEAD_REV": "def"}),
    )
    nowhere = group(("build-linux64-ccov/opt", {"GECKO_HEAD_REV": "abc"}))
    other = group(("build-win64-ccov/opt", {"GECKO_HEAD_REPOSITORY": "https://hg.example/try", "GECKO_HEAD_REV": "abc"}))
    runs = triggers.settled("code-coverage", first, nowhere, other)
    assert [run["state"] for run in runs] == ["fired", "skipped", "skipped"]
    assert runs[1]["reason"] == "the build has no GECKO_HEAD_REPOSITORY"
    assert runs[2]["reason"] == "the build is of https://hg.example/try"
    # The news come again.
    body = json.dumps({"version": 1, "taskGroupId": first, "schedulerId": "gecko-level-3"}).encode()
    key = f"primary.{first}.gecko-level-3._"
    triggers.publish("exchange/taskcluster-queue/v1/task-group-resolved", key, body)
    later = group(("build-win64-ccov/opt", central | {"GECKO_HEAD_REV": "fed"}))
    assert triggers.states("code-coverage", later) == ["fired"]
    fires = triggers.fires("coverage")
    # Which of the two builds is the first is up to the queue.
    assert sorted(fire["REVISION"] for fire in fires) in (["abc", "fed"], ["def", "fed"])
    assert all(fire["REPOSITORY"] == "https://hg.example/central" for fire in fires)


def test_tasks_that_do_not_complete_are_told_by_mail_once(triggers, running):
    number = triggers.phabricator.add()[0]
    [run] = triggers.settled("static-analysis-phabricator", number)
    task_id = run["taskId"]
    running.queue().cancelTask(task_id)
    eventually(lambda: triggers.runs("static-analysis-phabricator")[str(number)].get("taskState") == "exception")

    def mails():
        found = [email.message_from_bytes(path.read_bytes()) for path in (running.suite.local / "blobs" / "mail").glob("*.eml")]
        texts = [
            "".join(part.get_payload(decode=True).decode() for part in mail.walk() if part.get_content_type() == "text/plain")
            for mail in found
            if mail["To"] == f"{triggers.names['risk']}@example.com" and mail["Subject"] == "Pulse listener tasks"
        ]
        return [text for text in texts if task_id in text]

    [text] = eventually(mails)
    assert f"demo/{triggers.names['analysis']}" in text and "exception: " in text
    # A further period, in which something else goes wrong, does not tell it again.
    other = triggers.phabricator.add()[0]
    [run] = triggers.settled("static-analysis-phabricator", other)
    running.queue().cancelTask(run["taskId"])
    eventually(lambda: triggers.runs("static-analysis-phabricator")[str(other)].get("taskState") == "exception")
    time.sleep(1)
    assert len(mails()) == 1


def test_secrets_are_in_no_log(triggers, running):
    number = triggers.phabricator.add()[0]
    assert triggers.announce(number).status_code == 200
    triggers.settled("static-analysis-phabricator", number)
    read = lambda: (running.suite.logs / "pulse-listener.log").read_text(errors="replace")
    eventually(lambda: str(number) in read())
    log = read()
    for secret in (TOKEN, SECRET, SECRET.replace(" ", "+"), SECRET.replace(" ", "%20")):
        assert secret not in log


@pytest.mark.parametrize(
    "triggers_list, told",
    [
        ([], "do without TRIGGERS_CONFIG"),
        ([{"type": "code-covrage", "hookGroupId": "g", "hookId": "h"}], "the types are static-analysis-mozreview"),
        ([{"type": "code-coverage"}], "give it hookGroupId and hookId"),
    ],
)
def test_a_configuration_of_which_nothing_would_come_refuses_to_start(running, tmp_path, triggers_list, told):
    file = tmp_path / "triggers.json"
    file.write_text(json.dumps({"triggers": triggers_list}))
    environment = running.suite.service_environment("pulse-listener") | {"TRIGGERS_CONFIG": str(file)}
    done = subprocess.run(
        [str(BINARIES / "pulse-listener")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "TRIGGERS_CONFIG" in done.stderr + done.stdout and told in done.stderr + done.stdout
