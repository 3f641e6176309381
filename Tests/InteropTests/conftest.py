# SPDX-License-Identifier: MPL-2.0
"""A suite of its own for the interop tests, driven by the released binaries and real clients.

With pytest-xdist every worker process has a suite of its own, with a directory and a range of ports that no other one has.
"""

import json
import os
import pathlib
import sys
import urllib.parse
import urllib.request

import mohawk
import pytest
import taskcluster

from support import load_suite

TOP = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release")).resolve()
sys.path.insert(0, str(TOP / "deploy" / "demo"))
sys.dont_write_bytecode = True


def own_place():
    """The directory of this process's suite; says in the environment which ports are its own."""
    place = pathlib.Path(os.environ.get("SLIPWAY_LOCAL", TOP / ".local" / "interop")).resolve()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return place
    number, count = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    # A worker that follows a dead one has a number beyond the count, and the ports of nobody who lives.
    share = PORTS // (2 * count)
    first = FIRST_PORT + number % (2 * count) * share
    os.environ["SLIPWAY_PORTS"] = f"{first}-{first + share - 1}"
    return place.with_name(f"{place.name}-{worker}")


# Below what the kernel lends to outgoing connections.
FIRST_PORT, PORTS = 20_000, 12_000
PLACE = own_place()
os.environ["SLIPWAY_LOCAL"] = str(PLACE)
# Tests kill servers, but what those have written stays with the kernel.
os.environ.setdefault("SLIPWAY_FSYNC", "off")


# Files that take long, the longest first: beginning with them, processes side by side end at about the same time.
LONG = "worker_faults roller_worker scriptworker worker_claims worker_settings worker_uploads worker queue_faults tc_admin roller_api roller_actions fuzz".split()


def pytest_collection_modifyitems(items):
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


class Running:
    """A running suite and what a client needs to know of it."""

    def __init__(self, suite, values):
        self.suite = suite
        self.values = values
        self.root_url = values["TASKCLUSTER_ROOT_URL"]
        self.amqp_url = values["AMQP_URL"]
        self.anonymous = {"rootUrl": self.root_url}

    @property
    def options(self):
        """What makes a client; new for each, since clients turn the token in theirs into bytes."""
        return {
            "rootUrl": self.root_url,
            "credentials": {
                "clientId": self.values["TASKCLUSTER_CLIENT_ID"],
                "accessToken": self.values["TASKCLUSTER_ACCESS_TOKEN"],
            },
        }

    def services(self):
        return list(load_suite().SERVICES)

    def queue(self):
        return taskcluster.Queue(self.options)

    def hooks(self):
        return taskcluster.Hooks(self.options)

    def get(self, path, query=None):
        """What a method answers that the client does not know."""
        url = f"{self.root_url}/api/{path}?" + urllib.parse.urlencode(query or {})
        credentials = self.options["credentials"]
        sender = mohawk.Sender(
            {"id": credentials["clientId"], "key": credentials["accessToken"], "algorithm": "sha256"},
            url,
            "GET",
            content="",
            content_type="",
        )
        request = urllib.request.Request(url, headers={"Authorization": sender.request_header})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)


class Servers:
    """PostgreSQL and RabbitMQ alone, for tests that start processes of their own."""

    def __init__(self, suite):
        self.run = suite.run_servers
        self.values = suite.server_urls()
        self.amqp_url = self.values["AMQP_URL"]


@pytest.fixture(scope="session")
def servers():
    suite = load_suite().Suite(PLACE)
    suite.run_servers("start")
    try:
        yield Servers(suite)
    finally:
        suite.run_servers("stop")


@pytest.fixture(scope="session")
def running(servers):
    # Claims of killed workers must come back within a test's patience.
    os.environ.setdefault("TCL_CLAIM_TIMEOUT", "15s")
    module = load_suite()
    suite = module.Suite(PLACE)
    values = suite.up()
    try:
        yield Running(suite, values)
    finally:
        suite.down()
