# SPDX-License-Identifier: MPL-2.0
"""taskcluster-local by itself, on a database of its own: one process or several, with the settings a test needs."""

import json
import os
import pathlib
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import taskcluster

from conftest import load_suite

TOP = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release")).resolve()
ROOT = "static/test/root"
free_port = load_suite().free_port


def sql(database_url, statement):
    """Runs a statement through psql; the password stays out of the arguments."""
    url = urllib.parse.urlsplit(database_url)
    environment = dict(os.environ, PGPASSWORD=urllib.parse.unquote(url.password or ""))
    done = subprocess.run(
        ["psql", "-h", url.hostname, "-p", str(url.port), "-U", url.username, "-d", url.path.lstrip("/"), "-Atqc", statement],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Deployment:
    """A database, a token and a seed that any number of processes share."""

    def __init__(self, servers, folder, seed=None, exchanges=True, **settings):
        self.name = "queue_" + secrets.token_hex(6)
        self.folder = pathlib.Path(folder)
        self.admin_url = servers.values["DATABASE_URL"]
        sql(self.admin_url, f'create database "{self.name}"')
        url = urllib.parse.urlsplit(self.admin_url)
        self.database_url = urllib.parse.urlunsplit(url._replace(path="/" + self.name))
        self.amqp_url = servers.amqp_url
        self.exchange_prefix = f"exchange/{self.name}-queue/v1/"
        self.token = secrets.token_urlsafe(33)
        self.seed = seed or {}
        self.settings = settings
        self.with_broker = exchanges
        self.processes = []

    def seed_text(self):
        root = {"clientId": ROOT, "accessToken": self.token, "scopes": ["*"], "description": "test"}
        return json.dumps({"clients": [root] + self.seed.get("clients", []), "roles": self.seed.get("roles", [])})

    def start(self, root_url=None, wait=True, **settings):
        process = Process(self, root_url, {**self.settings, **settings})
        self.processes.append(process)
        if wait:
            process.wait_ready()
        return process

    def query(self, statement):
        return sql(self.database_url, statement)

    def close(self):
        for process in self.processes:
            process.kill()
        sql(self.admin_url, f'drop database if exists "{self.name}" with (force)')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Process:
    """One taskcluster-local."""

    def __init__(self, deployment, root_url, settings):
        self.deployment = deployment
        self.port = free_port()
        self.own_url = f"http://127.0.0.1:{self.port}"
        self.root_url = root_url or self.own_url
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "TASKCLUSTER_ROOT_URL": self.root_url,
            "DATABASE_URL": deployment.database_url,
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": str(self.port),
            "SCHEMAS_DIRECTORY": str(TOP / "schemas"),
            "TCL_BLOB_DIR": str(deployment.folder / "blobs"),
            "TCL_SEED": deployment.seed_text(),
            "TCL_EXCHANGE_PREFIX": deployment.exchange_prefix,
            "LOG_LEVEL": "info",
        }
        if deployment.with_broker:
            environment["AMQP_URL"] = deployment.amqp_url
        environment.update({key.upper(): str(value) for key, value in settings.items()})
        self.log = deployment.folder / f"taskcluster-local-{self.port}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(BINARIES / "taskcluster-local"), "run"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=deployment.folder,
            )

    def wait_ready(self, seconds=120):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-2000:]
            try:
                with urllib.request.urlopen(f"{self.own_url}/__heartbeat__", timeout=3) as answer:
                    if answer.status == 200 and "*" in taskcluster.Auth(self.options()).currentScopes()["scopes"]:
                        return self
            except (urllib.error.URLError, OSError, taskcluster.exceptions.TaskclusterFailure):
                pass
            time.sleep(0.05)
        raise AssertionError("not ready: " + self.log.read_text(errors="replace")[-2000:])

    def options(self, client_id=ROOT, token=None, **more):
        credentials = {"clientId": client_id, "accessToken": token or self.deployment.token}
        return {"rootUrl": self.own_url, "credentials": credentials, **more}

    @property
    def queue(self):
        return taskcluster.Queue(self.options())

    @property
    def auth(self):
        return taskcluster.Auth(self.options())

    def metric(self, name):
        """The value of a metric without labels; None before it has one."""
        with urllib.request.urlopen(f"{self.own_url}/metrics", timeout=60) as answer:
            found = [line.split()[1] for line in answer.read().decode().splitlines() if line.startswith(name + " ")]
        return float(found[0]) if found else None

    def stop(self, how=signal.SIGTERM):
        """Seconds until it was gone, and its exit status."""
        start = time.monotonic()
        self.process.send_signal(how)
        status = self.process.wait(120)
        return time.monotonic() - start, status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
