# SPDX-License-Identifier: MPL-2.0
"""Workers of roller on a database of their own, with machines in front of them; some are killed, some are stopped.

The numbers are those of the behaviour checks. Jobs are put into the database as roller-api does it.
"""

import collections
import json
import os
import random
import signal
import subprocess
import threading
import time
import urllib.parse
import uuid

import pytest
import roller_lab
from conftest import BINARIES, load_suite
from local_queue import sql
from support import eventually

CHAOS_SECONDS = float(os.environ.get("ROLLER_CHAOS_SECONDS", "20"))
TERMINAL = ("succeeded", "failed", "canceled", "expired", "lost")


def quoted(value):
    return "null" if value is None else "'" + str(value).replace("'", "''") + "'"


class Site:
    """A database, machines and workers."""

    def __init__(self, servers, lab, folder):
        self.lab, self.folder = lab, folder
        self.name = "roller_" + uuid.uuid4().hex[:12]
        self.admin_url = servers.values["DATABASE_URL"]
        sql(self.admin_url, f'create database "{self.name}"')
        url = urllib.parse.urlsplit(self.admin_url)
        self.database_url = urllib.parse.urlunsplit(url._replace(path="/" + self.name))
        self.amqp_url = servers.amqp_url
        self.workers = []
        self.settings = {"DOWN_TIMEOUT": "8s", "UP_TIMEOUT": "20s", "ROLLER_LEASE": "3s", "ROLLER_POLL": "200ms"}
        subprocess.run([str(BINARIES / "roller-worker"), "migrate"], env=self.environment(), check=True, capture_output=True)

    def environment(self, **settings):
        return {
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "DATABASE_URL": self.database_url,
            "AMQP_URL": self.amqp_url,
            "ROLLER_EXCHANGE_NAMESPACE": self.name,
            "TASKCLUSTER_ROOT_URL": "http://127.0.0.1:9",
            "TASKCLUSTER_CLIENT_ID": "roller",
            "TASKCLUSTER_ACCESS_TOKEN": "not-used-here",
            "CREDENTIALS_DIR": str(self.lab.folder / "credentials"),
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": str(load_suite().free_port()),
        } | self.settings | settings

    def query(self, statement):
        return sql(self.database_url, statement)

    def worker(self, **settings):
        log = open(self.folder / f"worker-{len(self.workers)}.log", "ab")
        process = subprocess.Popen(
            [str(BINARIES / "roller-worker"), "run"],
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.workers.append(process)
        return process

    def logs(self):
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("worker-*.log")))

    def close(self):
        for process in self.workers:
            if process.poll() is None:
                process.kill()
                process.wait()
        sql(self.admin_url, f'drop database if exists "{self.name}" with (force)')

    # ------------------------------------------------------------ inventory and jobs

    def machine(self, host, controls=(), group=None, shared=None, **properties):
        """Stores a machine with its controllers; `shared` keeps the ids of controllers by name."""
        shared = {} if shared is None else shared
        values = f"{quoted(host.name)}, {quoted(host.address)}, {quoted(json.dumps(properties))}"
        machine = self.query(f"insert into roller.machines (name, ip, properties) values ({values}) returning id")
        for control in controls:
            if control["name"] not in shared:
                interval = control.get("interval", 0)
                values = ", ".join(
                    [quoted(control["name"]), quoted(control["kind"]), quoted(control.get("address")), str(control.get("port") or "null")]
                    + [quoted(control.get("type")), quoted(json.dumps(control.get("options", {}))), quoted(control.get("credential")), str(interval)]
                    + [str(control.get("concurrency", 4))]
                )
                columns = "name, kind, address, port, type, options, credential_ref, min_interval_ms, max_concurrency"
                shared[control["name"]] = self.query(f"insert into roller.controllers ({columns}) values ({values}) returning id")
            locator = json.dumps(control.get("locator", {}) or {"host": host.name}, sort_keys=True)
            self.query(
                "insert into roller.machine_controls (machine, controller, locator, locator_key) values "
                f"('{machine}', '{shared[control['name']]}', {quoted(locator)}, {quoted(locator.lower())})"
            )
        if group:
            self.query(f"insert into roller.groups (name) values ({quoted(group)}) on conflict do nothing")
            self.query(f"insert into roller.machine_groups values ('{machine}', {quoted(group)})")
        return machine

    def jobs(self, task, machines, destructive=True, worker_id="worker", dry_run=False, **params):
        """Stores one job for each machine; answers their ids."""
        ids = [str(uuid.uuid4()) for _ in machines]
        rows = ", ".join(
            f"('{job}', '{task}', {quoted(json.dumps(params))}, {quoted(machine)}, '{worker_id}', 'test', 'cli', "
            f"{str(dry_run).lower()}, {str(destructive).lower()}, {str(not destructive).lower()})"
            for job, machine in zip(ids, machines)
        )
        columns = "id, task_name, params, machine, worker_id, client_id, source, dry_run, is_destructive, is_read_only"
        self.query(f"insert into roller.jobs ({columns}) values {rows}")
        return ids

    def job(self, task, machine, **options):
        return self.jobs(task, [machine], **options)[0]

    def state(self, job):
        row = json.loads(self.query(f"select row_to_json(j) from roller.jobs j where id = '{job}'"))
        row["tried"] = json.loads(self.query(f"select coalesce(json_agg(a order by n), '[]') from roller.job_attempts a where job = '{job}'"))
        return row

    def ended(self, job, seconds=180):
        def check():
            state = self.state(job)
            return state if state["state"] in TERMINAL else None

        return eventually(check, seconds)

    def reaches(self, job, states):
        return eventually(lambda: self.state(job)["state"] in states)


@pytest.fixture(scope="module")
def lab():
    reason = roller_lab.missing()
    if reason:
        pytest.skip(f"no lab: {reason}")
    lab = roller_lab.Lab()
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def site(servers, lab, tmp_path):
    site = Site(servers, lab, tmp_path)
    try:
        yield site
    finally:
        site.close()


def test_54_two_jobs_on_one_machine_run_one_after_the_other_and_the_second_names_its_holder(site, lab):
    host = lab.host("serial")
    bmc, _ = lab.bmc(host)
    machine = site.machine(host, [bmc])
    first, second = site.jobs("ipmi_reset", [machine, machine])
    third = site.job("ipmi_status", machine, destructive=False)
    site.worker()
    site.worker()
    states = [site.ended(job) for job in (first, second, third)]
    assert [state["state"] for state in states] == ["succeeded"] * 3, states
    spans = sorted((state["started"], state["finished"]) for state in states[:2])
    assert spans[0][1] <= spans[1][0]
    waited = site.query(f"select data ->> 'for' from roller.job_events where kind = 'waiting' and job in ('{first}', '{second}')")
    assert "held by" in waited
    assert states[2]["result"]["power"] in ("on", "off")
    assert host.events().count("off") == 2
    assert site.query("select count(*) from roller.resource_locks") == "0"


def test_55_ten_reboots_at_one_unit_keep_its_pace_and_all_finish(site, lab):
    hosts = [lab.host(f"pace{index}", linked=False) for index in range(10)]
    controls, _ = lab.pdu("pace", hosts)
    shared, machines = {}, []
    for host, control in zip(hosts, controls):
        machines.append(site.machine(host, [control | {"interval": 400, "concurrency": 1}], shared=shared))
    jobs = site.jobs("snmp_reboot", machines)
    site.worker()
    site.worker()
    states = [site.ended(job) for job in jobs]
    assert {state["state"] for state in states} == {"succeeded"}, states
    assert [host.events().count("off") for host in hosts] == [1] * 10
    moments = [at for at, _, _ in lab.sets("pace")]
    # Every change waited for its turn. Between a turn and the unit lies the start of a program, which a busy machine may
    # delay; over all changes that is little.
    assert len(moments) >= 20
    assert moments[-1] - moments[0] > 0.4 * (len(moments) - 1) - 2, moments


def test_56_a_worker_killed_between_off_and_on_leaves_no_machine_without_power(site, lab):
    host = lab.host("dark", boot=0.5)
    (control,), _ = lab.pdu("dark", [host])
    machine = site.machine(host, [control])
    job = site.job("snmp_rebootdelay", machine, delay=30)
    worker = site.worker()
    eventually(lambda: "off" in host.events())
    worker.kill()
    site.worker()
    state = site.ended(job)
    assert (state["state"], state["reason"]) == ("lost", "lost")
    eventually(lambda: host.power("status") == "1")
    recovery = eventually(lambda: site.query(f"select id from roller.jobs where parent_job = '{job}'"))
    assert site.ended(recovery)["state"] == "succeeded"
    assert host.events().count("off") == 1
    assert site.query("select count(*) from roller.intents") == "0"


def test_57_a_ping_whose_worker_is_killed_is_done_again(site, lab):
    host = lab.host("again")
    machine = site.machine(host)
    job = site.job("ping", machine, destructive=False, count=6, wait=10)
    worker = site.worker()
    site.reaches(job, ["running"])
    worker.kill()
    site.worker()
    state = site.ended(job)
    assert state["state"] == "succeeded" and state["attempts"] == 2, state


def test_58_a_worker_that_is_told_to_stop_ends_its_jobs_and_takes_no_more(site, lab):
    host = lab.host("leaving")
    machine = site.machine(host)
    job = site.job("ping", machine, destructive=False, count=5, wait=10)
    worker = site.worker(SHUTDOWN_TIMEOUT="120s")
    site.reaches(job, ["running"])
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    later = site.job("ping", machine, destructive=False)
    assert roller_lab.wait_for_exit(worker, 120) == 0, site.logs()
    assert site.state(job)["state"] == "succeeded"
    assert site.state(later)["state"] == "queued"


def test_59_a_soft_limit_in_the_middle_of_a_pause_switches_on_first(site, lab):
    host = lab.host("limited", boot=0)
    (control,), _ = lab.pdu("limited", [host])
    machine = site.machine(host, [control])
    job = site.job("snmp_rebootdelay", machine, delay=120)
    site.worker(CELERY_TASK_SOFT_TIME_LIMIT="4s", CELERY_TASK_TIME_LIMIT="100s")
    state = site.ended(job)
    assert (state["state"], state["reason"]) == ("failed", "soft-time-limit"), state
    assert host.power("status") == "1"
    assert site.query("select count(*) from roller.intents") == "0"


def test_60_cancelling_stops_between_methods_and_never_between_off_and_on(site, lab):
    host = lab.host("cancelled", boot=0)
    (control,), _ = lab.pdu("cancelled", [host])
    stays = lab.host("cancelled-stays")
    deaf = lab.host("cancelled-bmc", linked=False)
    bmc, _ = lab.bmc(deaf)
    machine = site.machine(host, [control])
    other = site.machine(stays, [bmc], reboot_policy=["ipmi_reset", "ipmi_cycle"])
    job = site.job("snmp_rebootdelay", machine, delay=120)
    between = site.job("reboot", other)
    site.worker(DOWN_TIMEOUT="60s")
    eventually(lambda: "off" in host.events())
    eventually(lambda: "off" in deaf.events())
    site.query(f"update roller.jobs set cancel_requested = now() where id in ('{job}', '{between}')")
    assert site.ended(job)["state"] == "canceled"
    assert host.power("status") == "1"
    assert site.ended(between)["state"] == "canceled"
    assert deaf.events().count("off") == 1
    methods = [attempt["method"] for attempt in site.state(between)["tried"]]
    assert "ipmi_cycle" not in methods


def test_61_a_worker_that_slept_through_its_lease_touches_nothing_any_more(site, lab):
    host = lab.host("fenced", boot=0)
    (control,), _ = lab.pdu("fenced", [host])
    machine = site.machine(host, [control], reboot_policy=[{"method": "snmp_rebootdelay", "delay": 10}, {"method": "snmp_rebootdelay", "delay": 1}])
    job = site.job("reboot", machine)
    sleeper = site.worker()
    eventually(lambda: "off" in host.events())
    os.killpg(sleeper.pid, signal.SIGSTOP)
    site.worker()
    assert site.ended(job)["state"] == "lost"
    recovery = eventually(lambda: site.query(f"select id from roller.jobs where parent_job = '{job}'"))
    assert site.ended(recovery)["state"] == "succeeded"
    before = (host.events(), len(lab.sets("fenced")))
    os.killpg(sleeper.pid, signal.SIGCONT)
    eventually(lambda: "another worker has the job" in site.logs() or site.query("select count(*) from roller.runners") == "2")
    time.sleep(15)
    assert (host.events(), len(lab.sets("fenced"))) == before
    assert site.state(job)["state"] == "lost"


def test_limits_of_a_group_hold_across_workers_and_dry_runs_touch_nothing(site, lab):
    hosts = [lab.host(f"crowd{index}", linked=False) for index in range(6)]
    machines = []
    for host in hosts:
        bmc, _ = lab.bmc(host)
        machines.append(site.machine(host, [bmc], group="crowd"))
    trials = site.jobs("ipmi_cycle", machines, dry_run=True)
    jobs = site.jobs("ipmi_cycle", machines)
    site.query("update roller.groups set properties = '{\"max_destructive\": 2}' where name = 'crowd'")
    busiest = 0
    site.worker()
    site.worker()

    def all_ended():
        nonlocal busiest
        active = "state in ('claimed', 'running', 'verifying') and not dry_run"
        busiest = max(busiest, int(site.query(f"select count(*) from roller.jobs where {active}")))
        return site.query(f"select count(*) from roller.jobs where state in {TERMINAL}") == "12"

    eventually(all_ended, 240)
    assert 1 <= busiest <= 2
    assert {site.state(job)["state"] for job in jobs + trials} == {"succeeded"}
    assert [host.events().count("off") for host in hosts] == [1] * 6
    assert "ipmitool" in json.dumps(site.state(trials[0])["result"]["plan"])


def test_windows_and_lock_waits_that_last_too_long_are_respected(site, lab):
    host = lab.host("window", linked=False)
    bmc, _ = lab.bmc(host)
    machine = site.machine(host, [bmc])
    job = site.job("ipmi_reset", machine)
    site.query(
        "insert into roller.maintenance_windows (machine, starts, ends, reason, created_by) "
        f"values ('{machine}', clock_timestamp(), now() + interval '1 hour', 'a test', 'test')"
    )
    site.worker(LOCK_WAIT_MAX="6s")
    state = site.ended(job)
    assert state["state"] == "expired" and "maintenance window" in state["reason"], state
    assert host.events() == []


def test_random_kills_double_no_reset_and_lose_no_job(site, lab):
    """Two workers, killed at random; every job ends, and no machine is reset more often than it was asked for."""
    hosts = [lab.host(f"chaos{index}", boot=0.2, linked=False) for index in range(6)]
    machines = []
    for index, host in enumerate(hosts):
        if index % 2:
            (control,), _ = lab.pdu(f"chaos{index}", [host])
        else:
            control, _ = lab.bmc(host)
        machines.append(site.machine(host, [control]))
    settings = {"ROLLER_LEASE": "2s"}
    workers = [site.worker(**settings) for _ in range(2)]
    asked = collections.Counter()
    jobs = []
    end = time.monotonic() + CHAOS_SECONDS
    chance = random.Random(int.from_bytes(os.urandom(4), "big"))
    while time.monotonic() < end:
        for index, machine in enumerate(machines):
            if chance.random() < 0.4:
                if index % 2:
                    jobs.append((index, site.job("snmp_rebootdelay", machine, delay=1)))
                else:
                    jobs.append((index, site.job("ipmi_reset", machine)))
                asked[index] += 1
            else:
                jobs.append((None, site.job("ipmi_status" if index % 2 == 0 else "status", machine, destructive=False)))
        time.sleep(chance.uniform(0.5, 2))
        victim = chance.randrange(2)
        workers[victim].kill()
        workers[victim].wait()
        workers[victim] = site.worker(**settings)
    eventually(lambda: site.query(f"select count(*) from roller.jobs where state not in {TERMINAL}") == "0", 300)
    eventually(lambda: site.query("select count(*) from roller.intents") == "0", 120)
    states = collections.Counter()
    for index, job in jobs:
        state = site.state(job)
        states[state["state"]] += 1
        if index is None:
            # What only looks is begun again, three times at most.
            assert state["state"] == "succeeded" or state["error_class"] == "timeout" or (state["state"], state["attempts"]) == ("lost", 3), state
        else:
            # On a busy machine a controller may be too slow; that is a failure which says so.
            slow = ("timeout", "unreachable", "credentials-or-session", "pdu-unreachable", "unverified-outlet")
            assert state["state"] in ("succeeded", "lost") or state["error_class"] in slow, state
    for index, host in enumerate(hosts):
        # Each job switches its machine off once at most; a lost one may not have come so far.
        finished = sum(1 for who, job in jobs if who == index and site.state(job)["state"] == "succeeded")
        assert finished <= host.events().count("off") <= asked[index], (host.name, host.events())
        eventually(lambda: host.power("status") == "1")
    print(f"chaos: {dict(states)}, {len(site.workers)} workers")
