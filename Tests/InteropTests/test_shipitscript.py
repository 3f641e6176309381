# SPDX-License-Identifier: MPL-2.0
"""The unmodified PyPI shipitscript against our releases, of the first version and of ours.

Its library asks again five times whatever is refused, which takes about forty seconds: refusals are waited for side by side.
"""

import datetime
import json
import pathlib
import random
import subprocess
import sys

import pytest
import requests
import taskcluster

from conftest import PLACE
from support import task, unique, wait_resolved
from test_shipit import call
from test_shipit_releases import BRANCH, PHASES, PROJECT, Script, number, plan
from workers import Bench, clean_environment

PREFIX = "project:releng:ship-it:"
SERVER = PREFIX + "server:dev"
PROGRAM = pathlib.Path(sys.executable).parent / "shipitscript"
# What the script is allowed to do, and nothing else.
MAY = "project:releng:services/shipit_api/"
OURS = [MAY + "update_release_status", MAY + "rebuild_product_details"]
FIRST = [MAY + "update_release_status", MAY + "add_release/firefox"]


def client(running, scopes):
    """A client of the script's own: its name and access token."""
    body = {"expires": taskcluster.fromNow("1 day"), "description": "marks releases", "scopes": scopes}
    made = taskcluster.Auth(running.options).createClient(unique("script"), body)
    return made["clientId"], made["accessToken"]


def ours(running, account):
    return {
        "api_root_v2": running.values["SHIPIT_PIPELINE_URL"],
        "taskcluster_client_id": account[0],
        "taskcluster_access_token": account[1],
    }


def first(running, account):
    """The first version's server, whose users and passwords are clients and their tokens."""
    return {"api_root": running.values["SHIPIT_PIPELINE_URL"] + "/v1", "username": account[0], "password": account[1]}


def definition(action, payload):
    return {
        "dependencies": [taskcluster.slugId()],
        "scopes": [SERVER, f"{PREFIX}action:{action}"],
        "payload": payload,
    }


def shipping(name):
    return definition("mark-as-shipped", {"release_name": name})


def starting(name):
    """A release of the first version, as its name says."""
    _, version, build = name.split("-")
    payload = {
        "release_name": name,
        "product": "firefox",
        "version": version,
        "build_number": int(build.removeprefix("build")),
        "branch": BRANCH,
        "revision": "abcdef123456",
        "l10n_changesets": "de default\nfr default",
        "partials": "59.0build1,59.0.1build2",
    }
    return definition("mark-as-started", payload)


def configure(folder, instance, server=SERVER):
    """Writes what the script is run with: only what has no usual value."""
    values = {
        "work_dir": str(folder / "work"),
        "verbose": True,
        "taskcluster_scope_prefix": PREFIX,
        "ship_it_instances": {server: instance},
    }
    path = folder / "shipitscript.json"
    path.write_text(json.dumps(values))
    return path


class Run:
    """One run of the script, as a worker runs it: with a file of its configuration, and the task in its work directory."""

    def __init__(self, place, instance, task, library=None, **configuration):
        self.folder = place / unique("run")
        (self.folder / "work").mkdir(parents=True)
        (self.folder / "work" / "task.json").write_text(json.dumps(task))
        path = configure(self.folder, instance, **configuration)
        environment = clean_environment() | ({"PYTHONPATH": str(library)} if library else {})
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen([PROGRAM, path], stdout=output, stderr=output, cwd=self.folder, env=environment)

    def end(self):
        """How it ended, and what it said."""
        try:
            status = self.process.wait(400)
        finally:
            self.process.kill()
        return status, (self.folder / "output").read_text()

    def succeeds(self):
        status, text = self.end()
        assert status == 0 and "Success!" in text, text
        return text

    def fails(self, *words):
        status, text = self.end()
        assert status not in (0, None) and "Success!" not in text, text
        for word in words:
            assert word in text, text
        return text


@pytest.fixture(scope="module")
def newest():
    """The library that the script is installed with today: it knows ours only. The required one knows both versions."""
    return library("shipitapi", "3.1.0")


def library(name, version):
    """A library beside those that are installed for everybody; answers where it is."""
    place = PLACE / f"{name}-{version}"
    if not (place / name.replace("-", "_")).is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--target", place, f"{name}=={version}"], check=True, timeout=300)
    return place


def add(running, revision, build):
    """A release with its phases; answers its name."""
    body = {"product": "firefox", "branch": BRANCH, "version": number(), "build_number": build, "revision": revision}
    made = Script(running).request("POST", "/releases", data=json.dumps(body | {"partial_updates": {}})).json()
    assert [phase["name"] for phase in made["phases"]] == PHASES
    return made["name"]


def seen(running, name):
    """What everybody sees of a release."""
    answer = requests.get(f"{running.values['SHIPIT_PIPELINE_URL']}/releases/{name}", timeout=60)
    answer.raise_for_status()
    return answer.json()


def listed(running, status):
    wanted = {"product": "firefox", "branch": BRANCH, "status": status}
    return [release["name"] for release in Script(running).releases(**wanted)]


def changes(running, name):
    """What the audit says of how a release stands."""
    status, body = call(running, "GET", f"{running.values['SHIPIT_PIPELINE_URL']}/{name}/events?limit=100")
    assert status == 200, body
    return [entry for entry in body["events"] if entry["kind"] == "release_status"]


def moment(text):
    found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)


class Refused:
    """What the script is asked in vain, all at once; what must not change by it."""

    def __init__(self, running, place):
        self.kept, self.unknown = add(running, plan(running)[0], 6), f"Firefox-{number()}-build7"
        self.before = seen(running, self.kept)
        able, weak = client(running, OURS), client(running, [MAY + "add_release/devedition"])
        liar = (able[0], "x" * 44)
        self.password, missing = able[1], f"elease {self.unknown}"
        self.runs = [
            (Run(place, ours(running, liar), shipping(self.kept)), ["Caught HTTPError: 401"]),
            (Run(place, ours(running, weak), shipping(self.kept)), ["Caught HTTPError: 401", OURS[0]]),
            (Run(place, ours(running, able), shipping(self.unknown)), ["Caught HTTPError: 404", f"R{missing} not found"]),
            (Run(place, first(running, able), shipping(self.unknown)), ["Caught HTTPError: 404", f"no r{missing}"]),
            (Run(place, first(running, weak), starting(self.unknown)), ["Caught HTTPError: 401", FIRST[1]]),
            # These ask once or not at all.
            (Run(place, first(running, liar), starting(self.unknown)), ["401 Client Error"]),
            (Run(place, ours(running, able), shipping(self.kept), server=PREFIX + "server:x"), ["not configured to handle"]),
            (Run(place, ours(running, able), shipping(self.kept) | {"scopes": [SERVER, "a:b"]}), ["No valid scope found"]),
            (Run(place, ours(running, able), definition("mark-as-shipped", {})), ["Cannot validate task against schema"]),
        ]


@pytest.fixture(scope="module", autouse=True)
def refused(running, tmp_path_factory):
    """Begins first and is looked at last: the other tests run in the meantime."""
    refused = Refused(running, tmp_path_factory.mktemp("refused"))
    yield refused
    for run, _ in refused.runs:
        run.process.kill()
        run.process.wait()


def test_the_real_release_script_marks_releases_as_shipped(running, newest, tmp_path):
    """80: with the unmodified script, started by our worker and alone, by both of its libraries."""
    revision, _ = plan(running)
    shipped, other = add(running, revision, 4), add(running, revision, 5)
    before, began = seen(running, shipped), datetime.datetime.now(datetime.timezone.utc)
    assert (before["status"], before["completed"]) == ("scheduled", "")
    good = ours(running, client(running, OURS))

    # A task that waits for the one that planned the release, as the last of a real release does.
    queue, index = running.queue(), taskcluster.Index(running.options)
    decision = index.findTask(f"gecko.v2.{PROJECT}.revision.{revision}.taskgraph.decision")["taskId"]
    script = configure(tmp_path, good)
    bench = Bench(running, tmp_path, task_script=[str(PROGRAM), str(script)])
    with bench:
        task_id = taskcluster.slugId()
        wanted = shipping(shipped)
        queue.createTask(
            task_id,
            task("mark", bench.queue_id, wanted["payload"], scopes=wanted["scopes"], dependencies=[decision]),
        )
        assert wait_resolved(queue, task_id)["state"] == "completed", bench.log(task_id)
        assert "All release fields have been correctly updated in Ship-it!" in bench.log(task_id).decode()
    release = seen(running, shipped)
    assert release["status"] == "shipped"
    assert began <= moment(release["completed"]) <= datetime.datetime.now(datetime.timezone.utc)
    assert shipped in listed(running, "shipped") and shipped not in listed(running, "scheduled")

    # Once more changes nothing, by either library.
    Run(tmp_path, good, shipping(shipped)).succeeds()
    Run(tmp_path, good, shipping(shipped), newest).succeeds()
    assert seen(running, shipped) == release
    assert len(changes(running, shipped)) == 1

    Run(tmp_path, good, shipping(other), newest).succeeds()
    assert seen(running, other)["status"] == "shipped"


def test_the_real_release_script_starts_and_ships_on_the_first_version(running, tmp_path):
    """What it knows as the first version: the form of a product, what came of it, and when it was shipped."""
    account = client(running, FIRST)
    instance, name = first(running, account), f"Firefox-{number()}-build1"
    wanted = starting(name)
    submission = wanted["payload"]
    url = f"{running.values['SHIPIT_PIPELINE_URL']}/v1/releases/{name}"
    row = lambda: requests.get(url, auth=account, timeout=60)

    assert row().status_code == 404
    Run(tmp_path, instance, wanted).succeeds()
    started = row().json()
    assert (started["ready"], started["complete"], started["status"]) == (True, True, "Started")
    assert started["submitter"] == started["starter"] == account[0]
    assert started["shippedAt"] is None
    expected = {"version": submission["version"], "buildNumber": 1, "branch": BRANCH, "mozillaRevision": submission["revision"]}
    assert {key: started[key] for key in expected} == expected
    assert started["l10nChangesets"] == submission["l10n_changesets"] and started["partials"] == submission["partials"]
    assert requests.get(f"{url}/l10n", auth=account, timeout=60).text == submission["l10n_changesets"]

    # A task that died after it had submitted is run again: the same form is the same release.
    Run(tmp_path, instance, wanted).succeeds()
    assert row().json() == started

    began = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    Run(tmp_path, instance, shipping(name)).succeeds()
    shipped = row().json()
    assert shipped["status"] == "shipped" and shipped["submittedAt"] == started["submittedAt"]
    assert began <= moment(shipped["shippedAt"]) <= datetime.datetime.now(datetime.timezone.utc)
    # Nobody has to start it any more.
    waiting = requests.get(f"{url.rsplit('/', 1)[0]}?ready=1&complete=0", auth=account, timeout=60).json()
    assert name not in waiting["releases"]


def test_what_the_real_release_script_may_not_do_is_refused_and_changes_nothing(running, refused):
    for run, words in refused.runs:
        assert refused.password not in run.fails(*words)
    kept, unknown, root = refused.kept, refused.unknown, running.values["SHIPIT_PIPELINE_URL"]
    assert seen(running, kept) == refused.before and refused.before["status"] == "scheduled"
    assert kept in listed(running, "scheduled") and changes(running, kept) == []
    assert requests.get(f"{root}/releases/{unknown}", timeout=60).status_code == 404
    credentials = running.options["credentials"]
    account = (credentials["clientId"], credentials["accessToken"])
    assert requests.get(f"{root}/v1/releases/{unknown}", auth=account, timeout=60).status_code == 404


SORT = """
import json, sys
from mozilla_version.gecko import FirefoxVersion
print(json.dumps(sorted(json.load(sys.stdin), key=FirefoxVersion.parse)))
"""


def test_81_releases_are_listed_in_the_order_of_the_library_that_knows_versions(running):
    """The script takes the last of the list for the newest."""
    revision, _ = plan(running)
    wanted = ["60.0b9", "60.0b10", "60.0", "60.0.1", "60.0esr", "60.0.1esr", "60.10.0esr", "60.2.1esr"]
    wanted += ["59.0.3", "60.0b1", "100.0", "99.0.2", "126.0b2", "115.9.1esr", "115.10.0esr"]
    # A build that no earlier run has made.
    build = random.SystemRandom().randrange(1000, 100_000)
    script = Script(running)
    for version in wanted:
        body = {"product": "firefox", "branch": BRANCH, "version": version, "build_number": build, "revision": revision}
        script.request("POST", "/releases", data=json.dumps(body | {"partial_updates": {}}))
    found = script.releases(product="firefox", branch=BRANCH, status="scheduled")
    listed = [release["version"] for release in found if release["build_number"] == build]
    sort = subprocess.run(
        [sys.executable, "-c", SORT],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment() | {"PYTHONPATH": str(library("mozilla-version", "5.1.0"))},
    )
    assert sort.returncode == 0, sort.stderr
    assert listed == json.loads(sort.stdout)
