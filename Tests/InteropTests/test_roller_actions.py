# SPDX-License-Identifier: MPL-2.0
"""The actions of roller that reach machines by ping, SSH, IPMI and outlets, against real counterparts.

The numbers are those of the behaviour checks. The stories run side by side; each has machines of its own.
"""

import json
import re
import signal
import socket
import subprocess
import threading
import time

import roller_lab
from roller_lab import machine
from roller_stories import Stories, methods
from support import eventually

story = Stories()
outcome = story.fixture()


# ---------------------------------------------------------------- ping


@story
def ping(lab):
    up = lab.host("ping-up")
    down = lab.host("ping-down", on=False)
    # It is there and says nothing; another one misses every fourth echo.
    silent, lossy = lab.host("ping-silent"), lab.host("ping-lossy")
    subprocess.run(silent.inside("sh", "-c", "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all"), check=True)
    lab.lose_echoes(lossy, every=4)
    return (
        lab.act("ping", machine(silent)),
        lab.act("ping", machine(lossy)),
        lab.act("ping", machine(up)),
        lab.act("ping", machine(down), params={"wait": 3}),
        lab.act("ping", {"name": "no-such-host.invalid"}),
        lab.act("ping", {"name": "-f", "ip": "-f"}),
        lab.act("ping", {"name": "a" * 60 + "." + "b" * 30 + ".invalid"}),
        lab.act("ping", machine(up) | {"name": "c" * 50 + "." + "d" * 40 + ".example.com"}),
    )


def test_25_ping_tells_how_many_echoes_came_back_and_why_none_did(outcome):
    silent, lossy, up, down, unknown, option, long, addressed = outcome("ping")
    assert silent[0] == 2 and silent[1]["error_class"] == "unreachable" and "0 of" in silent[1]["summary"], silent
    # One lost echo is one too many, although ping itself sends another one for it.
    assert lossy[0] == 2 and lossy[1]["error_class"] == "unreachable", lossy
    assert re.search(r"[1-9] of [45] echoes", lossy[1]["summary"]), lossy
    assert up[0] == 0 and up[1]["result"]["received"] == 4 and up[1]["result"]["transmitted"] == 4
    assert down[0] == 2 and down[1]["error_class"] == "unreachable"
    assert unknown[1]["error_class"] == "dns"
    assert option[0] == 1 and option[1]["error_class"] == "config" and option[1]["attempts"] == []
    # 24: a long name is no obstacle, only unknown where there is no address with it.
    assert long[1]["error_class"] == "dns"
    assert addressed[0] == 0 and addressed[1]["result"]["received"] == 4, addressed


# ---------------------------------------------------------------- SSH


@story
def ssh_reboot(lab):
    host = lab.host("ssh-plain", boot=2)
    control = lab.sshd(host)
    policy = [{"method": "ssh_reboot", "if": "reachable"}]
    done = lab.act("reboot", machine(host, control, **{"reboot_policy": policy, "ssh.boot_id_command": "boot-id"}))
    return done, host.events(), lab.act("uptime", machine(host, control))


def test_26_ssh_reboots_a_machine_and_the_boot_id_proves_it(outcome):
    (status, answer, _), events, uptime = outcome("ssh_reboot")
    assert status == 0, answer
    assert answer["result"]["method"] == "ssh_reboot" and answer["result"]["verification"] == "boot-id"
    assert events == ["off", "on", "booted"]
    assert uptime[0] == 0 and uptime[1]["result"]["seconds"] >= 0


@story
def ssh_breaks(lab):
    host = lab.host("ssh-breaks", boot=2)
    (control,) = lab.pdu("ssh-breaks", [host])[0]
    ssh = lab.sshd(host, breaks=True)
    policy = ["ssh_reboot", {"method": "snmp_rebootdelay", "delay": 1}]
    done = lab.act("reboot", machine(host, ssh, control, **{"reboot_policy": policy, "ssh.boot_id_command": "boot-id"}))
    return done, host.events(), lab.sets("ssh-breaks")


def test_27_a_session_that_ends_without_a_status_is_unverified_and_no_outlet_is_switched(outcome):
    (status, answer, _), events, sets = outcome("ssh_breaks")
    assert status == 0, answer
    assert ("ssh_reboot", "unverified") in methods(answer)
    assert answer["result"]["method"] == "ssh_reboot"
    assert events.count("off") == 1 and sets == []


@story
def ssh_tarpit(lab):
    host = lab.host("ssh-tarpit")
    bmc, _ = lab.bmc(host)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    ssh = lab_control(lab, listener.getsockname()[1])
    begun = time.monotonic()
    done = lab.act("reboot", machine(host, ssh, bmc, reboot_policy=["ssh_reboot", "ipmi_reset"]))
    taken = time.monotonic() - begun
    listener.close()
    done[1]["plan_of_ssh"] = " ".join(lab.act("ssh_reboot", machine(host, ssh), flags=["--dry-run"])[1]["plan"])
    return done, host.events(), taken


def lab_control(lab, port, **options):
    public = (lab.folder / "host_key.pub").read_text().split()
    return {
        "kind": "ssh",
        "name": "ssh",
        "address": "127.0.0.1",
        "port": port,
        "credential": "key",
        "options": {"login": "root", "host_keys": [" ".join(public[:2])]} | options,
    }


def test_28_a_listener_that_never_speaks_does_not_hold_up_the_next_method(outcome):
    (status, answer, _), events, taken = outcome("ssh_tarpit")
    assert status == 0, answer
    # The program is told to give up after five seconds; without that it would wait for ever.
    assert "ConnectTimeout=5" in answer["plan_of_ssh"] and taken < 180
    assert methods(answer)[0] == ("ssh_reboot", "failed")
    assert answer["attempts"][0]["error_class"] in ("unreachable", "timeout")
    assert answer["result"]["method"] == "ipmi_reset" and events.count("off") == 1


@story
def ssh_other_host_key(lab):
    host = lab.host("ssh-key")
    ssh = lab.sshd(host, key="other_host_key")
    bmc, _ = lab.bmc(host)
    return lab.act("reboot", machine(host, ssh, bmc, reboot_policy=["ssh_reboot", "ipmi_reset"])), host.events()


def test_29_a_changed_host_key_is_refused_and_reported_never_accepted(outcome):
    (status, answer, text), events = outcome("ssh_other_host_key")
    assert status == 0, answer
    assert ("ssh_reboot", "refused") in methods(answer)
    assert answer["result"]["method"] == "ipmi_reset" and events.count("off") == 1
    assert "ALERT host-key" in text


@story
def ssh_denied(lab):
    host = lab.host("ssh-denied")
    ssh = lab.sshd(host, accepts=("sudo -n reboot",))
    target = machine(host, ssh, **{"reboot_policy": ["ssh_reboot"], "ssh.boot_id_command": "boot-id"})
    return lab.act("reboot", target), (host.folder / "ssh" / "log").read_text().splitlines()


def test_30_a_command_that_is_denied_is_followed_by_the_next(outcome):
    (status, answer, _), said = outcome("ssh_denied")
    assert status == 0, answer
    assert [outcome for method, outcome in methods(answer) if method == "ssh_reboot"] == ["failed", "ok"]
    assert "reboot" in said and "sudo -n reboot" in said


# ---------------------------------------------------------------- IPMI


@story
def ipmi_status(lab):
    host = lab.host("ipmi-status", linked=False)
    bmc, _ = lab.bmc(host)
    blade = lab.host("ipmi-blade", linked=False)
    bridged, _ = lab.bmc(blade, blade="0x82")
    answers = [lab.act("ipmi_status", machine(host, bmc)), lab.act("ipmi_status", machine(blade, bridged))]
    answers.append(lab.act("ipmi_list", machine(host, bmc)))
    wrong = dict(bmc, credential=lab.credential("wrong", username="roller", password="not-the-secret"))
    begun = time.monotonic()
    answers.append(lab.act("ipmi_status", machine(host, wrong)))
    # 36: the controller knows no suite 17; it is only found out once in a process.
    suites = dict(bmc, options={"cipher_suites": [17, 3], "interval": 10})
    answers.append(lab.act("ipmi_reset", machine(host, suites)))
    weak = dict(bmc, options={"cipher_suites": [0]})
    answers.append(lab.act("ipmi_status", machine(host, weak)))
    allowed = dict(bmc, options={"cipher_suites": [0], "allow_weak": True})
    answers.append(lab.act("ipmi_status", machine(host, allowed), flags=["--dry-run"]))
    return answers, time.monotonic() - begun, host.events()


def test_31_ipmi_status_tells_the_power_of_machines_and_blades(outcome):
    (status, answer, _), (blade_status, blade, _), (list_status, _, _) = outcome("ipmi_status")[0][:3]
    assert status == 0 and answer["result"] == {"power": "on"}, answer
    assert blade_status == 0 and blade["result"] == {"power": "on"}, blade
    words = blade["attempts"][0]["arguments"]
    assert words[words.index("-b") : words.index("-b") + 4] == ["-b", "0", "-t", "0x82"]
    assert list_status == 0


def test_32_a_wrong_password_fails_at_once_and_is_seen_nowhere(outcome):
    status, answer, text = outcome("ipmi_status")[0][3]
    assert status == 2 and answer["error_class"] == "credentials-or-session", answer
    assert len(answer["attempts"]) == 1
    assert "not-the-secret" not in text


def test_36_a_controller_without_the_best_suite_gets_the_next_and_weak_ones_are_refused(outcome):
    (status, answer, _), (weak_status, weak, _), (allowed_status, allowed, _) = outcome("ipmi_status")[0][4:]
    assert status == 0, answer
    suites = [attempt["arguments"][attempt["arguments"].index("-C") + 1] for attempt in answer["attempts"]]
    # The first use asks for 17 and falls back; from then on the suite is known.
    assert suites[:2] == ["17", "3"] and set(suites[2:]) == {"3"}
    assert weak_status == 1 and weak["error_class"] == "config" and weak["attempts"] == []
    assert allowed_status == 0 and " -C 0 " in allowed["plan"][0]


@story
def ipmi_hangs(lab):
    host = lab.host("ipmi-hangs", linked=False)
    bmc, process = lab.bmc(host, options={"cipher_suites": [3]})
    process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    done = lab.act("ipmi_status", machine(host, bmc))
    taken = time.monotonic() - begun
    process.send_signal(signal.SIGCONT)
    return done, taken


def test_33_a_controller_that_hangs_is_a_timeout(outcome):
    (status, answer, _), taken = outcome("ipmi_hangs")
    assert status == 2 and answer["error_class"] == "timeout", answer
    assert taken < 120


@story
def ipmi_reply_lost(lab):
    host = lab.host("ipmi-lost")
    bmc, _ = lab.bmc(host)
    proxy = lab.faults(bmc["port"])
    seen = []

    def lose(number, packet):
        # The machine's power changed, so the answer to the reset is on its way: it and all after it are lost for a while.
        if "off" in host.events() and len(seen) < 4:
            seen.append(number)
            return True
        return False

    proxy.lose_reply = lose
    done = lab.act("reboot", machine(host, dict(bmc, port=proxy.port), reboot_policy=["ipmi_reset"]))
    return done, host.events(), len(seen)


def test_34_a_reset_whose_answer_is_lost_happens_once_and_is_seen_to_have_happened(outcome):
    (status, answer, _), events, lost = outcome("ipmi_reply_lost")
    assert lost > 0
    assert status == 0, answer
    assert ("ipmi_reset", "unverified") in methods(answer)
    assert events.count("off") == 1


@story
def ipmi_slow(lab):
    host = lab.host("ipmi-slow")
    bmc, _ = lab.bmc(host)
    proxy = lab.faults(bmc["port"])
    proxy.delay = 1.3
    slow = machine(host, dict(bmc, port=proxy.port), reboot_policy=["ipmi_reset"])
    alone = lab.act("ipmi_reset", slow)
    first = host.events()
    eventually(lambda: host.events()[-1:] == ["booted"])
    return alone, first, lab.act("reboot", slow), host.events()


def test_35_a_slow_controller_resets_once(outcome):
    (alone, told, _), first, (status, answer, _), events = outcome("ipmi_slow")
    assert alone == 0 and first.count("off") == 1, told
    assert status == 0 and events.count("off") == 2, answer


@story
def ipmi_off(lab):
    host = lab.host("ipmi-off", on=False)
    bmc, _ = lab.bmc(host)
    return lab.act("ipmi_reset", machine(host, bmc)), host.events()


def test_37_a_reset_of_a_machine_without_power_switches_it_on(outcome):
    (status, answer, _), events = outcome("ipmi_off")
    assert status == 0 and answer["result"]["power"] == "on", answer
    assert events[0] == "on" and "off" not in events


# ---------------------------------------------------------------- outlets


@story
def outlet_delay(lab):
    host = lab.host("outlet-delay")
    (control,), _ = lab.pdu("delay", [host])
    done = lab.act("snmp_rebootdelay", machine(host, control), params={"delay": 3})
    return done, host.history()


def test_38_an_outlet_is_off_for_the_whole_pause_and_then_on(outcome):
    (status, answer, _), history = outcome("outlet_delay")
    assert status == 0, answer
    (off, first), (on, second) = history[:2]
    assert (first, second) == ("off", "on") and on - off >= 3
    assert "s3cretcomm" not in json.dumps(answer)


@story
def outlet_reply_lost(lab):
    host = lab.host("outlet-lost")
    (control,), _ = lab.pdu("lost", [host])
    proxy = lab.faults(control["port"])
    lost = []

    def lose(number, packet):
        # The first answer after the outlet went off.
        if host.events() == ["off"] and not lost:
            lost.append(number)
            return True
        return False

    proxy.lose_reply = lose
    done = lab.act("snmp_rebootdelay", machine(host, dict(control, port=proxy.port)), params={"delay": 1})
    dead = lab.act("snmp_reboot", machine(host, dict(control, port=roller_lab.free_port(), options={"timeout": 1})))
    return done, host.events(), len(lost), dead


def test_38_an_outlet_whose_answer_is_lost_is_switched_once_and_a_dead_unit_is_named(outcome):
    (status, answer, _), events, lost, (dead_status, dead, _) = outcome("outlet_reply_lost")
    assert lost == 1 and status == 0, answer
    assert [word for word in events if word != "booted"] == ["off", "on"]
    assert dead_status == 2 and dead["error_class"] == "pdu-unreachable", dead


@story
def outlet_wrong(lab):
    host = lab.host("outlet-wrong", linked=False)
    (control,), _ = lab.pdu("wrong", [host])
    nowhere = dict(control, locator={"outlet": "aa7"})
    done = lab.act("snmp_reboot", machine(host, nowhere))
    three = lab.credential(
        "pdu3",
        snmpV3={"username": "roller3", "authProtocol": "SHA", "authPassphrase": "authpass123", "privProtocol": "AES", "privPassphrase": "privpass123"},
    )
    good = lab.act("snmp_reboot", machine(host, dict(control, credential=three)))
    events = host.events()
    bad = lab.credential(
        "pdu3bad",
        snmpV3={"username": "roller3", "authProtocol": "SHA", "authPassphrase": "wrongpass123", "privProtocol": "AES", "privPassphrase": "privpass123"},
    )
    return done, good, events, lab.act("snmp_reboot", machine(host, dict(control, credential=bad)))


def test_39_an_outlet_that_does_not_exist_is_found_out_by_reading_it(outcome):
    status, answer, _ = outcome("outlet_wrong")[0]
    assert status == 2 and answer["error_class"] == "unverified-outlet", answer


def test_40_outlets_obey_snmp_version_3_and_a_wrong_passphrase_is_named(outcome):
    _, (status, answer, text), events, (bad_status, bad, _) = outcome("outlet_wrong")
    assert status == 0, answer
    assert events.count("off") == 1 and "authpass123" not in text
    assert bad_status == 2 and bad["error_class"] == "credentials", bad


@story
def nasty_secrets(lab):
    host = lab.host("nasty", linked=False)
    canary = lab.folder / "canary"
    community = f'"; touch {canary} # $HOME x'
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    listener.settimeout(60)
    odd = "a'b\\c $(id) `id` \"d"
    credential = lab.credential("nasty", community=community)
    (control,), _ = lab.pdu("nasty", [host], community=community)
    lines = set()
    finished = threading.Event()

    def spy():
        import pathlib

        while not finished.wait(0.01):
            for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = entry.read_bytes()
                except OSError:
                    continue
                if line.startswith((b"snmpset", b"snmpget")) and b"-Oqn" in line:
                    lines.add(line)

    watcher = threading.Thread(target=spy)
    watcher.start()
    done = lab.act("snmp_reboot", machine(host, dict(control, credential=credential)))
    finished.set()
    watcher.join()
    lab.act("snmp_reboot", machine(host, dict(control, port=listener.getsockname()[1], options={"timeout": 1}, credential=lab.credential("odd", community=odd))))
    return done, canary.exists(), lines, community, odd.encode() in listener.recv(4096)


def test_64_a_secret_full_of_special_characters_works_literally_and_is_seen_nowhere(outcome):
    (status, answer, text), canary, lines, community, literal = outcome("nasty_secrets")
    assert status == 0, answer
    assert literal
    assert not canary and community not in text
    assert all(b"touch" not in line for line in lines)
