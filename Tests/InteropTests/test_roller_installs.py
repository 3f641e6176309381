# SPDX-License-Identifier: MPL-2.0
"""New installations, trials, and what looks like an option and is none.

The numbers are those of the behaviour checks. The stories run side by side; each has machines of its own.
"""

from roller_lab import machine
from roller_stories import Stories

story = Stories()
outcome = story.fixture()


# ---------------------------------------------------------------- what looks like an option


@story
def dashes(lab):
    host = lab.host("dashes")
    canary = lab.folder / "canary-65"
    ssh = lab.sshd(host)
    bmc, _ = lab.bmc(host)
    login = dict(ssh, options=dict(ssh["options"], login=f"-oProxyCommand=touch {canary}"))
    user = dict(bmc, credential=lab.credential("dash-user", username="-h", password="s3cretbmc"))
    bridge = dict(bmc, locator={"bridge": ["-H", "other"]})
    outlet = {"kind": "snmp_pdu", "name": "pdu", "address": "-h", "credential": "pdu", "locator": {"outlet": "-1"}}
    answers = [
        lab.act("ssh_reboot", machine(host, login)),
        lab.act("ipmi_status", machine(host, dict(bmc, address="-h"))),
        lab.act("ipmi_status", machine(host, bridge)),
        lab.act("snmp_reboot", machine(host, outlet)),
    ]
    return answers, lab.act("ipmi_status", machine(host, user)), canary.exists(), host.events()


def test_65_what_begins_with_a_dash_is_data_or_refused_and_never_an_option(outcome):
    answers, (status, answer, text), canary, events = outcome("dashes")
    assert [status for status, _, _ in answers] == [1] * 4, answers
    assert [answer["error_class"] for _, answer, _ in answers] == ["config"] * 4, answers
    assert all(not answer["attempts"] for _, answer, _ in answers)
    # A user of that name is a user whom the controller does not know; the program's help would have been another exit.
    assert status == 2 and answer["error_class"] == "credentials-or-session", answer
    assert not canary and events == []


# ---------------------------------------------------------------- new installations


@story
def reimage(lab):
    host = lab.host("reimage", boot=2)
    ssh = lab.sshd(host)
    bmc, _ = lab.bmc(host)
    target = machine(host, ssh, bmc, **{"ssh.boot_id_command": "boot-id"})
    refused = lab.act("reimage", target, params={"confirm": "another"})
    trial = lab.act("reimage", target, params={"confirm": host.name}, flags=["--dry-run"])
    untouched = host.events()
    done = lab.act("reimage", target, params={"confirm": host.name})
    netboot = lab.host("reimage-netboot", boot=2)
    word = "netboot"
    access = lab.sshd(netboot, accepts=(word,))
    asked = lab.act(
        "reimage",
        machine(netboot, access, **{"ssh.boot_id_command": "boot-id", "reimage_command": word}),
        params={"confirm": netboot.name},
    )
    denied = lab.act(
        "reimage",
        machine(netboot, access, **{"ssh.boot_id_command": "boot-id", "reimage_command": "format"}),
        params={"confirm": netboot.name},
    )
    without = lab.act("reimage", machine(netboot), params={"confirm": netboot.name})
    never = lab.host("reimage-never", boot=600)
    silent, _ = lab.bmc(never)
    lost = lab.act("reimage", machine(never, silent), params={"confirm": never.name}, settings={"REIMAGE_TIMEOUT": "5s"})
    return refused, trial, untouched, done, host.events(), asked, denied, netboot.events(), without, lost


def test_a_machine_is_installed_anew_after_its_name_was_repeated_and_seen_to_be_another(outcome):
    refused, trial, untouched, done, events, asked, denied, netboot, without, lost = outcome("reimage")
    assert refused[0] == 1 and refused[1]["error_class"] == "config" and untouched == []
    assert any("chassis bootdev pxe" in line for line in trial[1]["plan"])
    assert done[0] == 0 and done[1]["result"]["verification"] == "boot-id", done[1]
    # It booted; whether it was installed nobody told, and the answer says so.
    assert done[1]["verified"] is False and "whether it was installed nobody told" in done[1]["summary"]
    order = [attempt["method"] for attempt in done[1]["attempts"] if attempt["method"] in ("ipmi_bootdev_pxe", "ipmi_cycle")]
    assert order == ["ipmi_bootdev_pxe", "ipmi_cycle"] and events.count("off") == 1
    assert asked[0] == 0 and netboot.count("off") == 1, asked[1]
    assert denied[0] == 2 and "did not accept" in denied[1]["summary"]
    assert without[1]["error_class"] == "config"
    assert lost[0] == 2 and "did not come back" in lost[1]["summary"], lost[1]


# ---------------------------------------------------------------- trials


@story
def trial(lab):
    host = lab.host("trial")
    ssh = lab.sshd(host)
    bmc, _ = lab.bmc(host)
    target = machine(host, ssh, bmc, reboot_policy=["ssh_reboot", "ipmi_reset"])
    return lab.act("reboot", target, flags=["--dry-run"]), host.events()


def test_66_a_trial_shows_the_plan_and_touches_nothing(outcome):
    (status, answer, text), events = outcome("trial")
    assert status == 0 and answer["dry_run"] is True
    plan = "\n".join(answer["plan"])
    assert "ssh_reboot: ssh -F /dev/null" in plan and "ipmi_reset: ipmitool -I lanplus" in plan
    assert "s3cretbmc" not in text and events == []
