# SPDX-License-Identifier: MPL-2.0
"""docs/queue.md: every example is run, in order, by somebody who has an empty database."""

import os
import pathlib
import secrets
import signal
import sys
import urllib.parse

import pytest

from examples import Runner, blocks
from local_queue import BINARIES, TOP, free_port, sql

PAGE = TOP / "docs" / "queue.md"


@pytest.fixture
def database(servers):
    """An empty database, and the place of the one that the page restores."""
    admin = servers.values["DATABASE_URL"]
    names = ["queue_docs_" + secrets.token_hex(6) for _ in range(2)]
    sql(admin, f'create database "{names[0]}"')
    url = urllib.parse.urlsplit(admin)
    yield urllib.parse.urlunsplit(url._replace(path="/" + names[0])), names[1]
    for name in names:
        sql(admin, f'drop database if exists "{name}" with (force)')


def test_every_example_of_the_page_works(servers, database, tmp_path, monkeypatch):
    url, restored = database
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TASKCLUSTER_", "TCL_"))},
        "DATABASE_URL": url,
        "AMQP_URL": servers.amqp_url,
        # The page speaks of the usual exchanges; other tests may be listening to those of this broker.
        "TCL_EXCHANGE_PREFIX": f"exchange/{restored}-queue/v1/",
        "SCHEMAS_DIRECTORY": str(TOP / "schemas"),
        # The interpreter of the tests has the client that the example imports.
        "PATH": f"{BINARIES}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    monkeypatch.chdir(tmp_path)
    places = {port: str(free_port()) for port in ("8080", "8081", "8082")} | {"restored_queue": restored}
    runner = Runner(tmp_path, environment)
    ran = 0
    try:
        for block in blocks(PAGE):
            for usual, own in places.items():
                block.text = block.text.replace(usual, own)
            try:
                runner.run(block)
            except Exception as error:
                log = tmp_path / "queue.log"
                raise AssertionError(
                    f"{PAGE.name}, “{block.heading}”, line {block.line}: {error}\n"
                    + (log.read_text(errors="replace")[-2000:] if log.exists() else "")
                ) from error
            ran += bool(block.name) or block.language in ("console", "python")
    finally:
        for file in tmp_path.glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGTERM)
            except ProcessLookupError:
                pass
    assert ran >= 12, f"only {ran} examples were found"


def test_the_page_names_files_that_exist():
    links = [part.split(")")[0] for part in PAGE.read_text().split("](")[1:]]
    assert links and all((PAGE.parent / link.split("#")[0]).exists() for link in links)


def test_the_reference_names_every_variable():
    reference = (TOP / "services" / "taskcluster-local" / "README.md").read_text()
    source = (TOP / "services" / "taskcluster-local" / "TaskclusterLocal+Build.swift").read_text()
    keys = {part.split('"')[0] for part in source.split('("')[1:] if part.startswith(("tcl.", "taskcluster."))}
    missing = [key for key in keys if f"`{key.upper().replace('.', '_')}`" not in reference]
    assert len(keys) > 20 and not missing, missing
