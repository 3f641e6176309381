# SPDX-License-Identifier: MPL-2.0
"""docs/hooks.md and docs/schedules.md: every example is run, in order, against the running suite."""

import os
import pathlib
import shutil
import sys

import pika
import pytest

from conftest import TOP
from examples import Runner, blocks, commands, matches

# Each page with the least number of examples that it has.
PAGES = {TOP / "docs" / "hooks.md": 20, TOP / "docs" / "schedules.md": 7}
BINARIES = pathlib.Path(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release"))


def test_expected_output_is_compared_and_only_dots_are_free():
    assert matches(["a …", "…", "z"], ["a 1", "b", "c", "z"])
    assert matches(["…"], []) and matches([], [])
    assert not matches(["a"], ["b"])
    assert not matches(["a"], ["a", "b"])
    assert not matches(["a …x"], ["a y"])
    assert commands("$ one\nout\n$ two \\\n> more\n") == [["one", ["out"]], ["two \\\nmore", []]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_the_page_works(running, page, tmp_path, monkeypatch):
    environment = {
        **os.environ,
        **{name: str(value) for name, value in running.values.items()},
        # The interpreter of the tests has the clients that the examples import.
        "PATH": f"{BINARIES}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # The page tells of an exchange that does not exist yet; an earlier run may have made it.
    connection = pika.BlockingConnection(pika.URLParameters(running.amqp_url))
    connection.channel().exchange_delete("exchange/my-team/v1/pushes")
    connection.close()
    runner = Runner(tmp_path, environment)
    ran = 0
    for block in blocks(page):
        try:
            runner.run(block)
        except Exception as error:
            raise AssertionError(f"{page.name}, “{block.heading}”, line {block.line}: {error}") from error
        ran += bool(block.name) or block.language in ("console", "python")
    assert ran >= PAGES[page], f"only {ran} examples were found"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_names_files_that_exist(page):
    text = page.read_text()
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    local = [link.split("#")[0] for link in links if not link.startswith(("http:", "https:", "#"))]
    assert local
    for link in local:
        assert (page.parent / link).exists(), link


@pytest.fixture(autouse=True)
def needs_tools():
    for tool in ("bash", "curl"):
        assert shutil.which(tool), f"{tool} is needed by the examples"
