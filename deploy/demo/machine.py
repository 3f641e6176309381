# SPDX-License-Identifier: MPL-2.0
"""The demo's machine that ignores SSH and its management controller, so that roller has to take its outlet."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
ENDS = ("succeeded", "failed", "lost", "canceled", "expired")
# The laboratory of the tests: network namespaces, and real servers in front of them.
sys.path.append(str(TOP / "Tests" / "InteropTests"))


def roller(timeline, check, suite, binaries, values):
    """Reboots a machine of the laboratory and shows every attempt; says why not where there can be no laboratory."""
    try:
        import roller_lab
    except ImportError as problem:
        timeline(f"roller's scene is skipped: {problem}")
        return
    reason = roller_lab.missing() or (None if "ROLLER_URL" in values else "roller-api was not built")
    if reason:
        timeline(f"roller's scene is skipped: {reason}")
        return
    lab = roller_lab.Lab()
    try:
        scene(timeline, check, suite, binaries, values, lab)
    finally:
        lab.close()


def scene(timeline, check, suite, binaries, values, lab):
    host = lab.host("demo-stubborn", boot=2)
    other = lab.host("demo-other", linked=False)
    ssh = lab.sshd(host, heeds=False)
    # Its management controller resets another machine: whoever wired it made a mistake.
    bmc, _ = lab.bmc(other)
    (outlet,), _ = lab.pdu("demo", [host])
    timeline("a machine in a network namespace, with sshd inside and ipmi_sim and an SNMP outlet in front")

    credentials = pathlib.Path(suite.local) / "roller" / "credentials"
    controllers, controls = [], []
    for priority, control in zip((50, 30, 10), (ssh, bmc, outlet)):
        name = f"{control['name']}-{host.namespace}"
        shutil.copy(lab.folder / "credentials" / f"{control['credential']}.json", credentials / f"{name}.json")
        members = {key: control[key] for key in ("kind", "address", "port", "type", "options") if key in control}
        controllers.append({"name": name, "credential_ref": name, "min_interval_ms": 0} | members)
        controls.append({"controller": name, "locator": control.get("locator", {}), "priority": priority})
    machine = f"demo-{host.namespace}"
    # The boot id would prove a reboot at once; this machine takes every command and says nothing.
    inventory = {
        "controllers": controllers,
        "machines": [
            {
                "name": machine,
                "ip": host.address,
                "controls": controls,
                "workers": [{"worker_id": machine, "worker_group": "demo"}],
                "properties": {
                    "reboot_policy": ["ssh_reboot", "ipmi_reset", {"method": "snmp_rebootdelay", "delay": 2}],
                    "down_timeout": 8,
                    "up_timeout": 60,
                },
            }
        ],
    }
    file = lab.folder / "inventory.json"
    file.write_text(json.dumps(inventory))
    environment = {**os.environ, **{name: str(value) for name, value in values.items()}}

    def slipway(*words):
        done = subprocess.run([str(binaries / "slipway"), *words], env=environment, capture_output=True, text=True)
        check(done.returncode == 0, f"slipway {words[0]} {words[1]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    slipway("machine", "import", str(file), "--apply")
    timeline(f"slipway machine import: {machine}, to be rebooted by SSH, else IPMI, else its outlet")
    job = slipway("job", "run", "reboot", machine)
    timeline(f"slipway job run reboot {machine}: job {job}")
    follow(timeline, check, lambda: slipway("job", "log", job))

    answer = json.loads(slipway("job", "list", "--machine", machine, "--task", "reboot", "--json"))
    done = next(each for each in answer if each["task_id"] == job)
    check(done["status"] == "COMPLETE", f"the reboot ended as {done['status']}: {done['reason']}")
    check(done["result"]["method"] == "snmp_rebootdelay", f"the machine was rebooted by {done['result']['method']}")
    check(other.events().count("off") == 1, f"the controller's machine saw {other.events()}")
    check(host.events() == ["off", "on", "booted"], f"the machine saw {host.events()}")
    timeline(f"the machine itself saw {', '.join(host.events())}: one power cut, and it is back")


def follow(timeline, check, read):
    """Shows the job's log while it grows, to its end."""
    shown = 0
    limit = time.monotonic() + 300
    while True:
        lines = read().splitlines()
        for line in lines[shown:]:
            kind, _, facts = line.partition(" ")[2].partition(" ")
            if kind in ("attempt-ended", "running", *ENDS):
                timeline(f"  {kind} {facts}".rstrip())
            if kind in ENDS:
                return
        shown = len(lines)
        check(time.monotonic() < limit, "the reboot did not end within five minutes")
        time.sleep(0.5)
