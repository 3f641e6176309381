# SPDX-License-Identifier: MPL-2.0
"""What operators do with the command line besides asking for work: locks, host keys, secrets, probes, the inventory."""

import json
import pathlib
import signal
import subprocess

import pytest

from roller import Roller
from roller_site import lab  # noqa: F401 (a fixture)
from support import eventually, unique
from test_roller_checks import credential, manage, slipway
from test_roller_worker import programs


@pytest.fixture(scope="module")
def roller(running):
    if "ROLLER_URL" not in running.values:
        pytest.skip("roller-api was not built")
    return Roller(running)


def locks(running, name):
    return json.loads(slipway(running, "locks", "list", "--machine", name, "--json").stdout)


def test_a_lock_that_is_broken_between_off_and_on_leaves_the_power_to_the_recovery(roller, running, lab):
    host = lab.host("broken-lock", boot=0)
    (control,), _ = lab.pdu("broken-lock", [host])
    name = manage(roller, running, unique("ms").lower(), host, control)
    assert slipway(running, "locks", "break", "--machine", name, "--reason", "none is held", check=False).returncode == 4
    job = roller.create("snmp_rebootdelay", name, "&delay=600").json()["task_id"]
    eventually(lambda: "off" in host.events())
    held = locks(running, name)
    assert {lock["job"] for lock in held} == {job} and any(lock["resource"].startswith("machine:") for lock in held), held
    answer = json.loads(slipway(running, "locks", "break", "--machine", name, "--reason", "it takes too long", "--json").stdout)
    assert [one["job"] for one in answer] == [job]
    ended = roller.call("GET", f"jobs/{job}").json()
    assert (ended["state"], ended["reason"], ended["status"]) == ("lost", "lock-broken", "FAILED"), ended
    # The recovery gives the power back, long before the old holder's pause would have been over; nobody does it twice.
    eventually(lambda: host.power("status") == "1")
    eventually(lambda: not locks(running, name))
    recoveries = [one for one in roller.call("GET", f"jobs?machine={name}&task_name=recover").json()["jobs"] if one["parent"] == job]
    assert len(recoveries) == 1 and roller.wait(recoveries[0]["task_id"])["status"] == "COMPLETE"
    assert [word for word in host.events() if word != "booted"] == ["off", "on"]
    entries = roller.call("GET", f"audit?object=lock:{held[0]['resource']}").json()["entries"]
    assert entries[0]["verb"] == "lock.break" and entries[0]["before"]["job"] == job
    assert entries[0]["after"]["reason"] == "it takes too long"
    # The machine can be worked on again.
    assert roller.wait(roller.create("snmp_reboot", name).json()["task_id"])["status"] == "COMPLETE"


def test_what_the_old_holder_was_running_is_killed_and_its_effect_does_not_come_late(roller, running, lab):
    host = lab.host("killed-holder", linked=False)
    bmc, simulator = lab.bmc(host)
    name = manage(roller, running, unique("ms").lower(), host, dict(bmc, options={"cipher_suites": [3], "interval": 20}))
    simulator.send_signal(signal.SIGSTOP)
    try:
        job = roller.create("ipmi_cycle", name).json()["task_id"]
        eventually(lambda: programs("ipmitool", str(bmc["port"])))
        slipway(running, "locks", "break", "--machine", name, "--reason", "its controller hangs")
        # Its worker notices, and the program ends long before its own limits.
        eventually(lambda: not programs("ipmitool", str(bmc["port"])))
        eventually(lambda: not locks(running, name))
    finally:
        simulator.send_signal(signal.SIGCONT)
    status = eventually(lambda: roller.wait(roller.create("ipmi_status", name).json()["task_id"]))
    assert status["status"] == "COMPLETE" and host.events() == [], (status, host.events())
    attempts = roller.call("GET", f"jobs/{job}").json()
    assert attempts["state"] == "lost", attempts


def test_a_host_key_is_accepted_by_a_person_and_by_nobody_else(roller, running, lab):
    host = lab.host("keyed")
    ssh = lab.sshd(host)
    own = unique("ms").lower()
    name = manage(roller, running, own, host, dict(ssh, address=None, options={"login": "root"}))
    reference = credential(running, f"{own}-ssh", privateKeyFile=str(lab.folder / "client_key"))
    slipway(running, "machine", "controller", "set", f"{own}-control", f"credential_ref={reference}")
    listed = json.loads(slipway(running, "hostkeys", "list", name, "--json").stdout)
    assert listed["machines"] == [{"machine": name, "keys": []}]
    # Not known, not spoken to.
    refused = roller.wait(roller.create("uptime", name).json()["task_id"])
    assert refused["status"] == "FAILED", refused
    (shown,) = json.loads(slipway(running, "hostkeys", "scan", name, "--json").stdout)
    told = subprocess.run(["ssh-keygen", "-lf", str(lab.folder / "host_key.pub")], capture_output=True, text=True, check=True).stdout
    assert shown["fingerprint"] == told.split()[1] and shown["accepted"] is False
    other = slipway(running, "hostkeys", "accept", name, "SHA256:" + "A" * 43, check=False)
    assert other.returncode == 1 and "nothing was accepted" in other.stderr
    assert slipway(running, "hostkeys", "accept", name, check=False).returncode == 1
    assert shown["fingerprint"] in slipway(running, "hostkeys", "accept", name, shown["fingerprint"]).stdout
    assert "accepted" in slipway(running, "hostkeys", "scan", name).stdout
    assert shown["fingerprint"] in slipway(running, "hostkeys", "list").stdout
    assert roller.wait(roller.create("uptime", name).json()["task_id"])["status"] == "COMPLETE"
    entry = roller.call("GET", f"audit?object=machine:{name}").json()["entries"][0]
    slipway(running, "machine", "remove", name)
    assert entry["verb"] == "machine.patch" and "ssh.host_keys" in entry["after"]["properties"]


def test_a_probe_asks_every_control_and_changes_nothing(roller, running, lab):
    host = lab.host("probed")
    bmc, _ = lab.bmc(host)
    (outlet,), _ = lab.pdu("probed", [host])
    name = manage(roller, running, unique("ms").lower(), host, bmc)
    key = credential(running, f"{name}-ssh", privateKeyFile=str(lab.folder / "client_key"))
    ssh = lab.sshd(host)
    keys = json.dumps(ssh["options"]["host_keys"])
    make = lambda part, *words: slipway(running, "machine", "controller", "set", f"{name}-{part}", *words)
    make("ssh", "kind=ssh", f"port={ssh['port']}", f"credential_ref={key}", "options.login=root", f"options.host_keys={keys}")
    make("pdu", "kind=snmp_pdu", f"address={outlet['address']}", f"port={outlet['port']}", f"credential_ref={name}-key", f"options={json.dumps(outlet['options'])}")
    if "type" in outlet:
        make("pdu", f"type={outlet['type']}")
    make("wol", "kind=wol")
    controls = [{"controller": f"{name}-{part}"} for part in ("control", "ssh", "wol")]
    controls.append({"controller": f"{name}-pdu", "locator": outlet["locator"]})
    slipway(running, "machine", "set", name, f"controls={json.dumps(controls)}", "mac=00:5c:52:31:3a:9c")
    job = json.loads(slipway(running, "machine", "probe", name, "--json").stdout)
    verdicts = {control["kind"]: (control["ok"], control["power"]) for control in job["result"]["controls"]}
    assert verdicts == {"ipmi": (True, "on"), "ssh": (True, None), "snmp_pdu": (True, "on"), "wol": (None, None)}, job
    assert host.events() == [] and not (host.folder / "ssh" / "log").read_text().count("reboot")
    credential(running, f"{name}-key", username="roller", password="wrong", community="s3cretcomm")
    failed = slipway(running, "machine", "probe", name, check=False)
    assert failed.returncode == 7 and "fails" in failed.stdout and "credentials-or-session" in failed.stdout, failed
    words = {line.split(":")[0]: line.split()[1] for line in failed.stdout.splitlines()}
    assert words == {"ipmi": "fails", "ssh": "ok", "snmp_pdu": "ok", "wol": "not"} and "wrong" not in failed.stdout, failed.stdout
    # What no table can say must not be left to the tests of exports.
    slipway(running, "machine", "remove", name)


def test_the_inventory_is_kept_by_commands_whose_status_says_what_went_wrong(roller, running):
    name = unique("host").lower()
    rack = f"{name}-rack"
    status = lambda *words: slipway(running, *words, check=False).returncode
    slipway(running, "machine", "group", "set", rack, "priority=5", "properties.verify=power", "properties.down_timeout=90")
    assert roller.call("GET", f"groups/{rack}").json()["properties"] == {"verify": "power", "down_timeout": 90}
    slipway(running, "machine", "add", name, "ip=127.0.0.1", f"groups={rack}", "boot_seconds_hint=30")
    assert status("machine", "add", name) == 1
    slipway(running, "machine", "set", name, "os=linux", "properties.notes=by the window")
    slipway(running, "machine", "set", name, "boot_seconds_hint=-", "properties.notes=-", "aliases=" + name + "-old")
    slipway(running, "machine", "link", name, name.upper(), "--group", "mdc1", "--provisioner", "releng")
    slipway(running, "machine", "link", name, name.upper(), "--group", "mdc1", "--provisioner", "releng")
    shown = json.loads(slipway(running, "machine", "show", f"{name}-old", "--json").stdout)
    assert (shown["os"], shown["boot_seconds_hint"], shown["properties"]) == ("linux", None, {}), shown
    worker = {"provisioner_id": "releng", "worker_type": None, "worker_group": "mdc1", "worker_id": name}
    assert shown["workers"] == [worker]
    assert status("machine", "unlink", name, name) == 4
    slipway(running, "machine", "unlink", name, name, "--group", "mdc1", "--provisioner", "releng")
    assert roller.call("GET", f"machines/{name}").json()["workers"] == []
    # 1 a mistake, 2 a failure elsewhere, 3 impossible, 4 not there, 5 locked, 6 done in part.
    assert status("machine", "set", name, "ip=nonsense") == 1
    assert status("machine", "set", name, "colour=red") == 1
    assert status("machine", "set", name, "nonsense") == 1
    assert status("machine", "nonsense") == 1
    assert status("machine", "show", f"{name}-none") == 4
    away = {"ROLLER_URL": "http://127.0.0.1:9"}
    assert slipway(running, "machine", "list", check=False, environment=away).returncode == 2
    slipway(running, "machine", "controller", "set", f"{name}-pdu", "kind=snmp_pdu", "address=127.0.0.1")
    slipway(running, "machine", "set", name, f'controls=[{{"controller": "{name}-pdu", "locator": {{"outlet": "zz9"}}}}]')
    assert status("machine", "controller", "remove", f"{name}-pdu") == 5
    lint = slipway(running, "machine", "lint", check=False)
    assert f"{name}: zz9 is no outlet" in lint.stdout, lint
    assert "no outlet" in "".join(json.loads(slipway(running, "machine", "lint", "--json", check=False).stdout)["warnings"])
    slipway(running, "machine", "remove", name)
    slipway(running, "machine", "controller", "rm", f"{name}-pdu")
    slipway(running, "machine", "group", "rm", rack)
    assert status("machine", "group", "show", rack) == 4


def test_secrets_go_in_by_standard_input_and_come_out_nowhere(roller, running):
    name = unique("secret").lower()
    put = lambda which, text: slipway(running, "credential", "set", which, input=text, check=False)
    secret = json.dumps({"username": "admin", "password": "quite-s3cret"})
    done = [put(name, secret), put(f"{name}-2", secret)]
    assert [one.returncode for one in done] == [0, 0], done
    stored = pathlib.Path(running.suite.local) / "roller" / "credentials" / f"{name}.json"
    assert json.loads(stored.read_text())["password"] == "quite-s3cret" and stored.stat().st_mode & 0o777 == 0o600
    assert put(name, "quite-s3cret").returncode == 1 and put("-x", secret).returncode == 1
    slipway(running, "machine", "controller", "set", f"{name}-a", "kind=ipmi", f"credential_ref={name}")
    slipway(running, "machine", "controller", "set", f"{name}-b", "kind=ipmi", f"credential_ref={name}-3")
    listed = slipway(running, "credential", "list")
    checked = slipway(running, "credential", "rotate-check", check=False)
    findings = {tuple(line.split(": ", 1)) for line in checked.stdout.splitlines()}
    assert checked.returncode == 1
    assert (name, f"has a secret of {name}-2") in findings and (f"{name}-2", "is needed by no controller") in findings
    assert (f"{name}-3", f"is not there; needed by {name}-b") in findings
    old = slipway(running, "credential", "rotate-check", "--days", "0", "--json", check=False)
    assert {"name": name, "finding": "is 0 days old"} in json.loads(old.stdout)
    for one in [*done, listed, checked, old]:
        assert "quite-s3cret" not in one.stdout + one.stderr
    for part in ("a", "b"):
        slipway(running, "machine", "controller", "rm", f"{name}-{part}")
    for file in (stored, stored.with_name(f"{name}-2.json")):
        file.unlink()
