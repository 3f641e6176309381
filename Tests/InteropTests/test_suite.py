# SPDX-License-Identifier: MPL-2.0
"""What an operator sees: configuration errors, memory, start-up, a repaired suite."""

import os
import pathlib
import subprocess

from conftest import BINARIES, load_suite
from support import eventually

DAEMONS = ["taskcluster-local", "hooks-service", "scheduler", "pulse-listener"]


def run(name, *arguments, **environment):
    return subprocess.run(
        [str(BINARIES / name), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_missing_configuration_is_reported_whole_and_briefly():
    for name in DAEMONS:
        done = run(name, "run")
        assert done.returncode == 2, f"{name}: {done.stderr}"
        assert "DATABASE_URL" in done.stderr
        assert len(done.stderr.strip().splitlines()) < 12, done.stderr


def test_help_and_version():
    for name in [*DAEMONS, "scriptworker", "slipway"]:
        assert run(name, "--help").returncode == 0
        assert run(name, "--version").stdout.strip()


def test_idle_services_are_small(running):
    """Resident and anonymous memory, from the kernel's own account."""
    def memory(name):
        fields = {}
        for line in pathlib.Path(f"/proc/{running.suite.pid(name)}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            fields[key] = value.strip()
        return [int(fields[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon")]

    for name in running.services():
        # Other tests have sent it large things; idle is who has just begun and given back what the start took.
        running.suite.restart(name)
        eventually(lambda: memory(name)[0] < 64, every=0.5)
        resident, anonymous = memory(name)
        print(f"{name}: {resident:.1f} MB resident, {anonymous:.1f} MB anonymous")


def test_a_half_started_suite_is_repaired_not_duplicated(running):
    before = {name: running.suite.pid(name) for name in running.services()}
    running.suite.stop("scheduler")
    assert load_suite().Suite(running.suite.local).pid("scheduler") is None
    running.suite.start_services()
    after = {name: running.suite.pid(name) for name in running.services()}
    assert after.pop("scheduler") and before.pop("scheduler")
    assert after == before
