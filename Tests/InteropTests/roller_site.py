# SPDX-License-Identifier: MPL-2.0
"""A database with workers of roller and machines in front of them, for tests that put jobs there as roller-api does."""

import json
import os
import pathlib
import subprocess
import urllib.parse
import urllib.request
import uuid

import pytest
import roller_lab
from conftest import BINARIES, TOP, load_suite
from local_queue import sql
from support import eventually

TERMINAL = ("succeeded", "failed", "canceled", "expired", "lost")


def quoted(value):
    return "null" if value is None else "'" + str(value).replace("'", "''") + "'"


def children(pid):
    """The processes that a process has started and not collected."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append((entry.parent.name, fields[0]))
    return found


class Site:
    """A database, machines and workers."""

    def __init__(self, servers, lab, folder, **settings):
        self.lab, self.folder = lab, folder
        self.name = "roller_" + uuid.uuid4().hex[:12]
        self.admin_url = servers.values["DATABASE_URL"]
        sql(self.admin_url, f'create database "{self.name}"')
        url = urllib.parse.urlsplit(self.admin_url)
        self.database_url = urllib.parse.urlunsplit(url._replace(path="/" + self.name))
        self.amqp_url = servers.amqp_url
        self.workers = []
        self.settings = {"DOWN_TIMEOUT": "8s", "UP_TIMEOUT": "20s", "ROLLER_LEASE": "20s", "ROLLER_POLL": "200ms"} | settings
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

    def api(self, **settings):
        """A roller-api in front of the same database; answers its address."""
        environment = self.environment(**settings)
        with open(self.folder / "worker-api.log", "ab") as log:
            process = subprocess.Popen(
                [str(BINARIES / "roller-api"), "run"],
                env=environment | {"SCHEMAS_DIRECTORY": str(TOP / "schemas")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(process)
        url = f"http://127.0.0.1:{environment['HTTP_PORT']}"
        eventually(lambda: urllib.request.urlopen(f"{url}/__lbheartbeat__", timeout=5).status == 200)
        return url

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
        rows = [
            f"('{job}', '{task}', {quoted(json.dumps(params))}, {quoted(machine)}, '{worker_id}', 'test', 'cli', "
            f"{str(dry_run).lower()}, {str(destructive).lower()}, {str(not destructive).lower()})"
            for job, machine in zip(ids, machines)
        ]
        columns = "id, task_name, params, machine, worker_id, client_id, source, dry_run, is_destructive, is_read_only"
        # An argument of a program has its limits.
        for start in range(0, len(rows), 200):
            self.query(f"insert into roller.jobs ({columns}) values {', '.join(rows[start : start + 200])}")
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
