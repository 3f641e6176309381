# SPDX-License-Identifier: MPL-2.0
"""docs/roller.md: every example is run, in order; the machine's controller is an emulator of the OpenStack project."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import bcrypt
import pytest

from conftest import TOP, load_suite
from examples import Runner, blocks
from roller import Roller
from support import eventually

PAGE = TOP / "docs" / "roller.md"
BINARIES = pathlib.Path(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release"))


@pytest.fixture
def controller(tmp_path):
    """A Redfish service with one system, behind TLS with a certificate of its own."""
    folder = tmp_path / "bmc"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    secret = bcrypt.hashpw(b"password", bcrypt.gensalt(rounds=4, prefix=b"2a")).decode()
    (folder / "users").write_text(f"admin:{secret}\n")
    port = load_suite().free_port()
    (folder / "conf.py").write_text(
        f"""
SUSHY_EMULATOR_LISTEN_IP = "127.0.0.1"
SUSHY_EMULATOR_LISTEN_PORT = {port}
SUSHY_EMULATOR_SSL_CERT = "{folder}/cert.pem"
SUSHY_EMULATOR_SSL_KEY = "{folder}/key.pem"
SUSHY_EMULATOR_AUTH_FILE = "{folder}/users"
SUSHY_EMULATOR_FAKE_DRIVER = True
SUSHY_EMULATOR_STATE_DIR = "{folder}"
SUSHY_EMULATOR_FAKE_SYSTEMS = [
    {{"uuid": "11111111-1111-1111-1111-111111111111", "name": "one", "power_state": "On", "nics": []}}
]
"""
    )
    emulator = pathlib.Path(sys.executable).parent / "sushy-emulator"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([str(emulator), "--config", str(folder / "conf.py")], stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 120
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < limit, "the emulator does not listen"
                time.sleep(0.1)
        yield {"BMC_PORT": str(port), "BMC_CA": str(folder / "cert.pem")}
    finally:
        process.terminate()
        process.wait(60)


def test_every_example_of_the_page_works(running, controller, tmp_path, monkeypatch):
    if "ROLLER_URL" not in running.values:
        pytest.skip("roller-api was not built")
    # The page begins with an empty inventory; an earlier run has left its machine.
    for path in ("machines/t-linux64-ms-001", "controllers/bmc-rack1", "groups/rack1"):
        eventually(lambda path=path: Roller(running).call("DELETE", path).status_code in (204, 404))
    environment = {
        **os.environ,
        **{name: str(value) for name, value in running.values.items()},
        **controller,
        "CREDENTIALS_DIR": str(running.suite.local / "roller" / "credentials"),
        "PATH": f"{BINARIES}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    runner = Runner(tmp_path, environment)
    ran = 0
    for block in blocks(PAGE):
        try:
            runner.run(block)
        except Exception as error:
            raise AssertionError(f"{PAGE.name}, “{block.heading}”, line {block.line}: {error}") from error
        ran += bool(block.name) or block.language in ("console", "python")
    assert ran >= 12, f"only {ran} examples were found"


def test_the_page_names_files_that_exist():
    links = [part.split(")")[0] for part in PAGE.read_text().split("](")[1:]]
    for link in [link.split("#")[0] for link in links if not link.startswith(("http:", "https:", "#"))]:
        assert (PAGE.parent / link).exists(), link
