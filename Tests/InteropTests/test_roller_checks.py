# SPDX-License-Identifier: MPL-2.0
"""roller's behaviour checks that need the whole suite and machines in front of it: API, worker, queue, controllers."""

import datetime
import json
import os
import pathlib
import subprocess
import threading
import time

import pytest
import taskcluster
from conftest import BINARIES
from roller import PREFIX, Roller
from roller_site import lab  # noqa: F401 (a fixture)
from support import eventually, stamp, task, unique


@pytest.fixture(scope="module")
def roller(running):
    if "ROLLER_URL" not in running.values:
        pytest.skip("roller-api was not built")
    return Roller(running)


def credential(running, name, **members):
    """A credential where the suite's own worker looks for it."""
    path = pathlib.Path(running.suite.local) / "roller" / "credentials" / f"{name}.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(members))
    return name


def manage(roller, running, name, host, control, aliases=(), group="mdc1", **properties):
    """Stores a machine with one controller of the lab, as an operator would."""
    reference = credential(running, f"{name}-key", username="roller", password="s3cretbmc", community="s3cretcomm")
    members = {"kind": control["kind"], "address": control["address"], "port": control["port"], "credential_ref": reference}
    members |= {"options": control["options"], "min_interval_ms": 0}
    if "type" in control:
        members["type"] = control["type"]
    answer = roller.call("PUT", f"controllers/{name}-control", body=members)
    assert answer.status_code == 201, answer.text
    document = {
        "ip": host.address or "127.0.0.1",
        "aliases": list(aliases),
        "controls": [{"controller": f"{name}-control", "locator": control.get("locator", {})}],
        "workers": [{"worker_id": name, "worker_group": group, "provisioner_id": "releng", "worker_type": "linux"}],
        "properties": properties,
    }
    answer = roller.call("PUT", f"machines/{name}", body=document)
    assert answer.status_code == 201, answer.text
    return name


def slipway(running, *arguments, check=True, **changes):
    environment = {**os.environ, **{name: str(value) for name, value in running.values.items()}} | changes.pop("environment", {})
    done = subprocess.run(
        [str(BINARIES / "slipway"), *arguments], env=environment, capture_output=True, text=True, timeout=240, **changes
    )
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


def test_r31_ipmi_status_through_the_api_tells_the_power_of_a_controller_without_a_type(roller, running, lab):
    host = lab.host("api-status", linked=False)
    bmc, _ = lab.bmc(host)
    name = manage(roller, running, unique("ms").lower(), host, bmc)
    answer = roller.create("ipmi_status", name, scopes=[PREFIX + "ipmi_status"])
    assert answer.status_code == 201, answer.text
    job = roller.wait(answer.json()["task_id"])
    assert job["status"] == "COMPLETE" and job["result"]["power"] == "on", job
    assert roller.call("GET", f"controllers/{name}-control").json()["type"] is None


def test_r54_two_aliases_of_one_machine_wait_for_each_other(roller, running, lab):
    host = lab.host("aliased", linked=False)
    bmc, _ = lab.bmc(host)
    name = unique("ms").lower()
    manage(roller, running, name, host, bmc, aliases=[f"{name}-old", f"{name}-older"])
    first = roller.create("ipmi_cycle", f"{name}-old").json()["task_id"]
    second = roller.create("ipmi_reset", f"{name}-OLDER").json()["task_id"]
    assert first != second
    jobs = [roller.wait(job, 240) for job in (first, second)]
    assert [job["status"] for job in jobs] == ["COMPLETE"] * 2, jobs
    assert {job["machine"]["name"] for job in jobs} == {name}
    spans = sorted((job["started_at"], job["finished_at"]) for job in jobs)
    assert spans[0][1] <= spans[1][0]
    assert host.events().count("off") == 2


def test_r63_names_that_are_commands_start_no_process(roller, running):
    worker = running.suite.pid("roller-worker")
    seen, finished = set(), threading.Event()

    def spy():
        while not finished.wait(0.002):
            for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
                try:
                    text = entry.read_text()
                except OSError:
                    continue
                if int(text.rpartition(")")[2].split()[1]) == worker:
                    seen.add(text.split(" (")[0])

    watcher = threading.Thread(target=spy)
    watcher.start()
    try:
        for odd in ["x%3Bid", "%24%28id%29", "%60id%60", "-f", "--", "%00", "x%0Aid", "%D9%A1", "a%20b", "..", "%2e%2e%2fx"]:
            for path in (f"jobs?task_name=ping&tc_worker_id={odd}", f"workers/{odd}/jobs?task_name=ping"):
                assert 400 <= roller.call("POST", path).status_code < 500, path
        # The worker looks every now and then without being told; whatever was taken would begin by then.
        known = roller.create("status", unique("nobody").lower()).json()["task_id"]
        roller.wait(known)
    finally:
        finished.set()
        watcher.join()
    jobs = roller.call("GET", "jobs?task_name=ping&limit=50").json()["jobs"]
    assert not [job for job in jobs if job["worker_id"] in ("x;id", "$(id)", "`id`", "-f", "--", "..")]
    # The job that looks at an unknown name fails on its name: it starts nothing either.
    assert not seen


def test_r65_arguments_and_cells_that_begin_with_a_dash_are_data(roller, running, tmp_path):
    name = unique("host").lower()
    table = tmp_path / "-x.csv"
    table.write_text(f"name,ip,bug_cc\n{name},127.0.0.1,--help\n")
    done = slipway(running, "machine", "import", "--apply", "--", "-x.csv", cwd=tmp_path)
    assert "1 new" in done.stdout
    assert roller.call("GET", f"machines/{name}").json()["bug_cc"] == "--help"
    for odd in ("-rf", "--version"):
        table.write_text(f"name,ip\n{odd},127.0.0.1\n")
        plan = slipway(running, "machine", "import", "--", "-x.csv", cwd=tmp_path, check=False)
        assert plan.returncode == 6 and "row 2" in plan.stdout, plan
        shown = slipway(running, "machine", "show", "--", odd, check=False)
        assert shown.returncode not in (0, 64) and "USAGE" not in shown.stderr, shown
        refused = slipway(running, "job", "run", "ping", "--", odd, check=False)
        assert refused.returncode not in (0, 64), refused
    reason = slipway(running, "machine", "maintenance", name, "--on", "--reason=--force")
    assert "maintenance" in reason.stdout
    assert roller.call("GET", f"machines/{name}").json()["state_reason"] == "--force"


def test_r68_registration_needs_the_scope_of_the_property(roller, running):
    provisioner = unique("roller")
    root = running.options["credentials"]
    made = taskcluster.createTemporaryCredentials(
        root["clientId"],
        root["accessToken"],
        start=datetime.datetime.utcnow() - datetime.timedelta(minutes=1),
        expiry=datetime.datetime.utcnow() + datetime.timedelta(hours=1),
        scopes=[f"queue:declare-provisioner:{provisioner}#description"],
        name="narrow",
    )
    text = lambda value: value.decode() if isinstance(value, bytes) else value
    environment = {
        "TASKCLUSTER_CLIENT_ID": text(made["clientId"]),
        "TASKCLUSTER_ACCESS_TOKEN": text(made["accessToken"]),
        "TASKCLUSTER_CERTIFICATE": text(made["certificate"]),
    }
    done = slipway(running, "job", "register", roller.url, provisioner, check=False, environment=environment)
    assert done.returncode == 2 and f"queue:declare-provisioner:{provisioner}#actions" in done.stderr, done
    with pytest.raises(taskcluster.exceptions.TaskclusterRestFailure) as missing:
        running.queue().getProvisioner(provisioner)
    assert missing.value.status_code == 404


# ---------------------------------------------------------------- quarantine


class Worker:
    """A Taskcluster worker that claims one task and reports it when it is told to."""

    def __init__(self, running):
        self.queue = running.queue()
        self.running = running
        self.type = unique("linux").lower()
        self.id = unique("ms").lower()
        self.pool = f"releng/{self.type}"
        self.place = ("releng", self.type, "mdc1", self.id)

    def claim(self):
        """Begins a task; the queue knows the worker from then on."""
        self.task = taskcluster.slugId()
        self.queue.createTask(self.task, task("held", self.pool))
        (claim,) = self.queue.claimWork(self.pool, {"workerGroup": "mdc1", "workerId": self.id})["tasks"]
        self.credentials = claim["credentials"]
        return self

    def complete(self):
        options = dict(self.running.anonymous, credentials=self.credentials)
        taskcluster.Queue(options).reportCompleted(self.task, 0)

    @property
    def until(self):
        text = self.queue.getWorker(*self.place).get("quarantineUntil")
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None

    @property
    def is_quarantined(self):
        return self.until is not None and self.until > datetime.datetime.now(datetime.timezone.utc)

    def prolong(self, until):
        self.queue.quarantineWorker(*self.place, {"quarantineUntil": stamp(until), "quarantineInfo": "a person"})


class DrainingSuite:
    """The suite's roller-worker, with another policy while a test runs."""

    def __init__(self, running, policy):
        self.running, self.policy = running, policy

    def __enter__(self):
        suite = self.running.suite
        self.environment = suite.service_environment

        def service_environment(name):
            values = self.environment(name)
            return values | {"QUARANTINE_POLICY": json.dumps(self.policy)} if name == "roller-worker" else values

        suite.service_environment = service_environment
        suite.stop("roller-worker")
        suite.start_services()
        return self

    def __exit__(self, *_):
        self.running.suite.service_environment = self.environment
        self.running.suite.stop("roller-worker")
        self.running.suite.start_services()


def attach(roller, running, worker, host, control):
    """The machine on which a worker runs."""
    manage(roller, running, worker.id, host, control)
    names = {"worker_id": worker.id, "worker_group": "mdc1", "provisioner_id": "releng", "worker_type": worker.type}
    answer = roller.call("PATCH", f"machines/{worker.id}", body={"workers": [names]})
    assert answer.status_code == 200, answer.text
    return worker.id


def test_r69_a_running_task_delays_the_work_and_only_our_own_quarantine_is_lifted(roller, running, lab):
    hosts = [lab.host(f"drained{index}", linked=False) for index in range(3)]
    workers = [Worker(running).claim() for _ in hosts]
    names = [attach(roller, running, worker, host, lab.bmc(host)[0]) for worker, host in zip(workers, hosts)]
    with DrainingSuite(running, {"ipmi_cycle": "drain"}):
        jobs = [roller.create("ipmi_cycle", name).json()["task_id"] for name in names]
        eventually(lambda: all(worker.is_quarantined for worker in workers))
        # Its worker takes no task any more, and what it does is not disturbed.
        time.sleep(5)
        assert [host.events() for host in hosts] == [[], [], []]
        assert all(roller.call("GET", f"jobs/{job}").json()["status"] == "RUNNING" for job in jobs)
        # Somebody has a reason to keep the second one away for longer.
        longer = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=7)
        workers[1].prolong(longer)
        # The third job is no longer wanted: its worker may go on at once.
        assert roller.call("POST", f"jobs/{jobs[2]}/cancel").status_code == 202
        canceled = roller.wait(jobs[2], 240)
        assert canceled["status"] == "CANCELED" and not workers[2].is_quarantined, canceled
        for worker in workers:
            worker.complete()
        ended = [roller.wait(job, 240) for job in jobs[:2]]
    assert [job["status"] for job in ended] == ["COMPLETE"] * 2, ended
    assert [host.events().count("off") for host in hosts] == [1, 1, 0]
    assert not workers[0].is_quarantined
    assert abs((workers[1].until - longer).total_seconds()) < 1


def test_a_loan_quarantines_by_itself_and_its_return_lifts_that(roller, running, lab):
    host = lab.host("lent", boot=1)
    bmc, _ = lab.bmc(host)
    worker = Worker(running).claim()
    worker.complete()
    name = attach(roller, running, worker, host, bmc)
    refused = roller.create("loan", name, "&borrower=ada")
    assert refused.status_code == 400 and "confirm" in refused.json()
    loan = roller.create("loan", name, f"&borrower=ada&bug=123&confirm={name}").json()["task_id"]
    job = roller.wait(loan)
    assert job["status"] == "COMPLETE" and job["result"]["borrower"] == "ada", job
    assert worker.is_quarantined and worker.until.year > 3000
    assert roller.call("GET", f"machines/{name}").json()["state"] == "loaned"
    # Nobody reboots it under its borrower.
    other = roller.create("ipmi_cycle", name, scopes=[PREFIX + "ipmi_cycle"])
    assert other.status_code == 409 and "loaned" in other.json()["detail"], other.text
    back = roller.create("return_loan", name, f"&confirm={name}", scopes=[PREFIX + "return_loan"])
    assert back.status_code == 201, back.text
    job = roller.wait(back.json()["task_id"], 240)
    assert job["status"] == "COMPLETE", job
    assert roller.call("GET", f"machines/{name}").json()["state"] == "active"
    assert not worker.is_quarantined
    assert host.events().count("off") == 1
    verbs = [entry["verb"] for entry in roller.call("GET", f"audit?object=machine:{job['machine']['id']}").json()["entries"]]
    assert {"machine.loan", "machine.return"} <= set(verbs), verbs


def test_a_worker_is_kept_from_tasks_and_let_again_on_request(roller, running, lab):
    host = lab.host("kept", linked=False)
    worker = Worker(running).claim()
    worker.complete()
    name = attach(roller, running, worker, host, lab.bmc(host)[0])
    kept = roller.wait(roller.create("quarantine", name, "&reason=bad+disk").json()["task_id"])
    assert kept["status"] == "COMPLETE" and worker.is_quarantined, kept
    free = roller.wait(roller.create("unquarantine", name).json()["task_id"])
    assert free["status"] == "COMPLETE" and not worker.is_quarantined, free
    # A worker that the queue has never seen cannot be kept from anything.
    unseen = manage(roller, running, unique("ms").lower(), host, {"kind": "ipmi", "address": "127.0.0.1", "port": 9, "options": {}})
    job = roller.wait(roller.create("quarantine", unseen).json()["task_id"])
    assert job["status"] == "FAILED" and job["error_class"] == "unsupported", job
