# SPDX-License-Identifier: MPL-2.0
"""The actions of roller against real counterparts: sshd, ipmi_sim, snmpd, a Redfish emulator, machines in network namespaces.

The numbers are those of the behaviour checks. The stories run side by side; each has machines of its own.
"""

import http.server
import json
import re
import signal
import socket
import sys
import threading
import time
import xmlrpc.server

import pytest
import roller_lab
from roller_lab import machine
from support import eventually

STORIES = {}


def story(function):
    """Registers what is to happen; the test with the same name judges it."""
    STORIES[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def outcome():
    reason = roller_lab.missing()
    if reason:
        pytest.skip(f"no lab: {reason}")
    lab = roller_lab.Lab()
    stories = roller_lab.Scenarios(STORIES, lab)
    try:
        yield stories.outcome
    finally:
        stories.close()
        lab.close()


def methods(answer):
    return [(attempt["method"], attempt.get("outcome")) for attempt in answer["attempts"]]


# ---------------------------------------------------------------- ping


@story
def ping(lab):
    up = lab.host("ping-up")
    down = lab.host("ping-down", on=False)
    return (
        lab.act("ping", machine(up)),
        lab.act("ping", machine(down), params={"wait": 3}),
        lab.act("ping", {"name": "no-such-host.invalid"}),
        lab.act("ping", {"name": "-f", "ip": "-f"}),
        lab.act("ping", {"name": "a" * 60 + "." + "b" * 30 + ".invalid"}),
        lab.act("ping", machine(up) | {"name": "c" * 50 + "." + "d" * 40 + ".example.com"}),
    )


def test_25_ping_tells_how_many_echoes_came_back_and_why_none_did(outcome):
    up, down, unknown, option, long, addressed = outcome("ping")
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


# ---------------------------------------------------------------- Redfish, Xen, iLO, wake-up


@story
def redfish(lab):
    host = lab.host("redfish", linked=False)
    control = lab.redfish(host)
    answers = [lab.act("redfish_status", machine(host, control)), lab.act("redfish_cycle", machine(host, control))]
    events = host.events()
    untrusted = dict(control, options={})
    answers.append(lab.act("redfish_reset", machine(host, untrusted)))
    wrong = dict(control, credential=lab.credential("redfish-wrong", username="roller", password="wrong-password"))
    answers.append(lab.act("redfish_status", machine(host, wrong)))
    return answers, events


def test_41_redfish_takes_the_way_that_the_service_knows_and_trusts_no_stranger(outcome):
    (known, cycled, untrusted, wrong), events = outcome("redfish")
    assert known[0] == 0 and known[1]["result"]["power"] == "on", known[1]
    assert cycled[0] == 0 and cycled[1]["result"]["power"] == "on", cycled[1]
    # The service offers no power cycle: it is made of off and on.
    done = [attempt["arguments"][-1] for attempt in cycled[1]["attempts"] if attempt["outcome"] == "ok"]
    assert done == ["ResetType=ForceOff", "ResetType=On"], cycled[1]
    assert [word for word in events if word != "booted"] == ["off", "on"]
    assert untrusted[0] == 2 and untrusted[1]["error_class"] == "tls", untrusted[1]
    assert wrong[1]["error_class"] == "credentials"


class Xen:
    """A Xen server that answers what it is told to."""

    def __init__(self, failures=None, address="127.0.0.1", port=0):
        self.calls = []
        self.failures = failures or {}
        self.server = xmlrpc.server.SimpleXMLRPCServer((address, port), logRequests=False)
        self.server.register_instance(self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _dispatch(self, method, arguments):
        self.calls.append((method, arguments))
        if method in self.failures:
            failure = self.failures[method]
            return {"Status": "Failure", "ErrorDescription": failure}
        return {"Status": "Success", "Value": f"OpaqueRef:{method}"}

    def control(self, lab):
        return {
            "kind": "xenapi",
            "name": "xen",
            "address": "127.0.0.1",
            "port": self.port,
            "credential": "bmc",
            "options": {"scheme": "http", "allow_plain_http": True, "delay": 0},
            "locator": {"vm_uuid": "11111111-2222-3333-4444-555555555555"},
        }


@story
def xen(lab):
    host = lab.host("xen", linked=False)
    good, hard, closed = Xen(), Xen({"VM.clean_shutdown": ["VM_LACKS_FEATURE"]}), Xen({"session.login_with_password": ["SESSION_AUTHENTICATION_FAILED"]})
    circle = Xen({"session.login_with_password": ["HOST_IS_SLAVE", "127.0.0.1"]})
    slave = Xen({"session.login_with_password": ["HOST_IS_SLAVE", "127.0.0.2"]})
    # The master of its pool is at another address, with the same port.
    master = Xen(address="127.0.0.2", port=slave.port)
    # It can neither shut down nor start: that is told, and the session ends nevertheless.
    stuck = Xen({"VM.clean_shutdown": ["OTHER_OPERATION_IN_PROGRESS"], "VM.hard_shutdown": ["OTHER_OPERATION_IN_PROGRESS"]})
    asked = (good, hard, closed, circle, slave, stuck)
    answers = [lab.act("xenapi_reboot", machine(host, server.control(lab))) for server in asked]
    calls = [[method for method, _ in server.calls] for server in (*asked, master)]
    for server in (*asked, master):
        server.server.shutdown()
    return answers, calls


def test_42_xen_machines_are_shut_down_hard_where_they_do_not_listen_and_sessions_end(outcome):
    answers, (good, hard, closed, circle, slave, stuck, master) = outcome("xen")
    assert [status for status, _, _ in answers] == [0, 0, 2, 2, 0, 2], answers
    assert good == ["session.login_with_password", "VM.get_by_uuid", "VM.clean_shutdown", "VM.start", "session.logout"]
    assert hard == [*good[:3], "VM.hard_shutdown", "VM.start", "session.logout"]
    assert closed == ["session.login_with_password"] and answers[2][1]["error_class"] == "credentials"
    # A server that names itself as the master it is not is given up.
    assert set(circle) == {"session.login_with_password"} and len(circle) == 3
    # One that names another is followed: all that matters happens there, in a session that ends there.
    assert slave == ["session.login_with_password"] and master == good
    assert stuck[-1] == "session.logout" and stuck.count("session.logout") == 1


@story
def ilo(lab):
    host = lab.host("ilo", linked=False)
    received = []
    state = {"reset": "0x0000", "login": "0x0000"}

    class Board(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            received.append(text)
            status = state["login"]
            if "RESET_SERVER" in text and status == "0x0000":
                status = state["reset"]
            body = f'<?xml version="1.0"?>\r\n<RIBCL VERSION="2.22"><RESPONSE STATUS="{status}" MESSAGE=\'x\' /></RIBCL>\r\n'
            if "GET_HOST_POWER_STATUS" in text:
                body += '<?xml version="1.0"?>\r\n<RIBCL VERSION="2.22"><RESPONSE STATUS="0x0000" MESSAGE=\'No error\'/><GET_HOST_POWER HOST_POWER="ON"/></RIBCL>'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    control = {
        "kind": "ilo",
        "name": "ilo",
        "address": "127.0.0.1",
        "port": lab.serve(Board),
        "credential": "bmc",
        "options": {"scheme": "http", "allow_plain_http": True, "delay": 0},
    }
    answers = [lab.act("ilo_reboot", machine(host, control))]
    state["reset"] = "0x00ff"
    answers.append(lab.act("ilo_reboot", machine(host, control)))
    words = [re.search(r"<(GET_HOST_POWER_STATUS|RESET_SERVER|SET_HOST_POWER[^/]*)/>", text).group(1) for text in received]
    state["login"] = "0x005f"
    answers.append(lab.act("ilo_reboot", machine(host, control)))
    return answers, words


def test_43_an_ilo_board_that_cannot_reset_switches_off_and_on(outcome):
    answers, words = outcome("ilo")
    assert [status for status, _, _ in answers] == [0, 0, 2], answers
    assert words == ["GET_HOST_POWER_STATUS", "RESET_SERVER"] * 2 + ['SET_HOST_POWER HOST_POWER="No"', 'SET_HOST_POWER HOST_POWER="Yes"']
    assert answers[2][1]["error_class"] == "credentials"


@story
def wake(lab):
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    listener.settimeout(60)
    control = {"kind": "wol", "name": "lan", "address": "127.0.0.1", "port": listener.getsockname()[1]}
    done = lab.act("wol", {"name": "sleeper", "mac": "00:5c:52:31:3a:9c", "controls": [control]})
    return done, [listener.recv(2048) for _ in range(3)]


def test_44_the_wake_up_packet_is_sent_three_times(outcome):
    (status, _, _), packets = outcome("wake")
    assert status == 0
    assert packets == [b"\xff" * 6 + bytes.fromhex("005c52313a9c") * 16] * 3


@story
def plug_in(lab):
    host = lab.host("plug-in", boot=6)
    folder = lab.folder / "plugins"
    folder.mkdir()
    program = folder / "switch"
    program.write_text(
        "#!/bin/bash\n"
        f'printf "%s\\n" "$@" "$SWITCH_PASSWORD" >{folder}/seen\n'
        f"[ -e {folder}/again ] || {{ touch {folder}/again; exit 75; }}\n"
        f"{sys.executable} {roller_lab.FAKEHOST} {host.folder} reset\n"
        "echo working; echo '{\"port\": 7}'\n"
    )
    program.chmod(0o755)
    control = {
        "kind": "exec",
        "name": "switch",
        "credential": "bmc",
        "options": {"argv": ["switch", "--machine", "{host} $(id)", "{outlet}"], "environment": {"SWITCH_PASSWORD": "password"}},
        "locator": {"outlet": "7; id"},
    }
    settings = {"PLUGINS_DIR": str(folder)}
    target = machine(host, control, reboot_policy=["exec_reboot"])
    done = lab.act("reboot", target, settings=settings)
    seen = (folder / "seen").read_text().splitlines()
    again = lab.act("exec_reboot", target, settings=settings)
    outside = dict(control, options={"argv": ["../../bin/sh", "-c", "id"]})
    refused = [
        lab.act("exec_reboot", machine(host, outside), settings=settings),
        lab.act("exec_reboot", machine(host, control)),
        lab.act("exec_reboot", machine(host, dict(control, locator={"outlet": "-x"})), settings=settings),
    ]
    return done, seen, again, refused, host.address


def test_a_program_of_the_operators_own_reboots_without_a_shell_and_only_from_its_folder(outcome):
    (status, answer, text), seen, (again_status, again, _), refused, address = outcome("plug_in")
    assert status == 0 and answer["result"]["method"] == "exec_reboot", answer
    assert seen == ["--machine", f"{address} $(id)", "7; id", "s3cretbmc"]
    assert "s3cretbmc" not in text
    assert again_status == 0 and again["result"]["port"] == 7, again
    assert [(status, answer["error_class"]) for status, answer, _ in refused] == [(1, "config")] * 3, refused


# ---------------------------------------------------------------- escalation


@story
def escalation(lab):
    host = lab.host("stubborn")
    ssh = lab.sshd(host, heeds=False)
    deaf = lab.host("stubborn-bmc", linked=False)
    bmc, _ = lab.bmc(deaf)
    (outlet,), _ = lab.pdu("stubborn", [host])
    policy = ["ssh_reboot", "ipmi_reset", "redfish_reset", {"method": "snmp_rebootdelay", "delay": 1}, "file_bugzilla_bug"]
    target = machine(host, ssh, bmc, outlet, reboot_policy=policy)
    return lab.act("reboot", target, settings={"DOWN_TIMEOUT": "6s"}), host.history(), deaf.events()


def test_45_ssh_then_ipmi_then_the_outlet_for_a_machine_that_ignores_the_first_two(outcome):
    (status, answer, _), history, deaf = outcome("escalation")
    assert status == 0, answer
    assert answer["result"]["method"] == "snmp_rebootdelay"
    assert deaf.count("off") == 1
    order = [method for method, outcome in methods(answer) if outcome == "ok" and method in ("ssh_reboot", "ipmi_reset", "snmp_rebootdelay")]
    assert order[0] == "ssh_reboot" and order[1] == "ipmi_reset" and order[-1] == "snmp_rebootdelay"
    verifications = [attempt for attempt in answer["attempts"] if attempt["method"] == "verify"]
    assert [attempt["outcome"] for attempt in verifications] == ["failed", "failed", "ok"]
    assert "did not go down" in verifications[0]["summary"]
    assert [word for _, word in history] == ["off", "on", "booted"]


def test_53_a_method_without_its_control_is_skipped_and_visible(outcome):
    (_, answer, _), _, _ = outcome("escalation")
    skipped = [attempt for attempt in answer["attempts"] if attempt["method"] == "redfish_reset"]
    assert [attempt["outcome"] for attempt in skipped] == ["skipped"]
    assert "no redfish control" in skipped[0]["summary"]


@story
def quick(lab):
    host = lab.host("quick", boot=0)
    ssh = lab.sshd(host)
    bmc, _ = lab.bmc(host)
    target = machine(host, ssh, bmc, **{"reboot_policy": ["ssh_reboot", "ipmi_reset"], "ssh.boot_id_command": "boot-id"})
    return lab.act("reboot", target), host.events()


def test_47_a_machine_that_is_back_before_an_echo_is_lost_is_told_by_its_boot_id(outcome):
    (status, answer, _), events = outcome("quick")
    assert status == 0, answer
    assert answer["result"]["method"] == "ssh_reboot" and answer["result"]["verification"] == "boot-id"
    assert events.count("off") == 1


@story
def lost_echo(lab):
    # Down for long enough that several echoes are missed in a row, on a slow machine too.
    host = lab.host("lost-echo", boot=6)
    deaf = lab.host("lost-echo-bmc", linked=False)
    bmc, _ = lab.bmc(deaf)
    (outlet,), _ = lab.pdu("lost-echo", [host])
    lab.lose_echoes(host, every=4)
    policy = ["ipmi_reset", {"method": "snmp_rebootdelay", "delay": 1}]
    done = lab.act("reboot", machine(host, bmc, outlet, reboot_policy=policy))
    return done, host.events(), (host.folder / "lost").read_text().splitlines()


def test_46_a_single_lost_echo_does_not_pass_for_a_reboot(outcome):
    (status, answer, _), events, lost = outcome("lost_echo")
    assert status == 0, answer
    # While the first method was watched, echoes were lost, one at a time; the machine was never down.
    verifications = [attempt for attempt in answer["attempts"] if attempt["method"] == "verify"]
    assert len(lost) >= 2
    assert [attempt["outcome"] for attempt in verifications] == ["failed", "ok"], answer
    assert "did not go down" in verifications[0]["summary"]
    assert answer["result"]["method"] == "snmp_rebootdelay" and events.count("off") == 1


@story
def late(lab):
    in_time = lab.host("late-in-time")
    bmc, _ = lab.bmc(in_time)
    settings = {"UP_TIMEOUT": "40s"}
    good = lab.act("reboot", machine(in_time, bmc, reboot_policy=["ipmi_reset", "ipmi_cycle"]), settings=settings)
    too_late = lab.host("late-too", boot=600)
    other, _ = lab.bmc(too_late)
    settings = {"UP_TIMEOUT": "6s"}
    bad = lab.act("reboot", machine(too_late, other, reboot_policy=["ipmi_reset", "ipmi_cycle"]), settings=settings)
    return good, in_time.events(), bad, too_late.history()


def test_48_a_machine_gets_its_time_to_come_back_before_the_next_method(outcome):
    good, events, bad, history = outcome("late")
    assert good[0] == 0 and events.count("off") == 1, good[1]
    assert bad[0] == 2, bad[1]
    offs = [at for at, word in history if word == "off"]
    assert len(offs) == 2 and offs[1] - offs[0] >= 6
    assert "did not come back" in bad[1]["summary"]


@story
def down_already(lab):
    host = lab.host("down-already", on=False)
    bmc, _ = lab.bmc(host)
    return lab.act("reboot", machine(host, bmc, reboot_policy=["ssh_reboot", "ipmi_reset"])), host.events()


def test_49_a_machine_that_was_down_comes_up_by_the_first_method(outcome):
    (status, answer, _), events = outcome("down_already")
    assert status == 0, answer
    assert answer["result"]["already_down"] is True
    assert "off" not in events


class Bugzilla:
    """What we use of the REST interface of Bugzilla."""

    def __init__(self, lab, broken=False):
        self.bugs, self.comments, self.requests, self.broken = {}, {}, [], broken
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, method):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                outer.requests.append((method, self.path, body, self.headers.get("X-BUGZILLA-API-KEY")))
                status, reply = (500, {"error": True}) if outer.broken else outer.handle(method, self.path, body)
                text = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = lambda self: self.answer("GET")
            do_POST = lambda self: self.answer("POST")
            do_PUT = lambda self: self.answer("PUT")

            def log_message(self, *_):
                pass

        self.url = f"http://127.0.0.1:{lab.serve(Handler)}"

    def handle(self, method, path, body):
        import urllib.parse

        path, _, query = path.partition("?")
        words = path.split("/")[2:]
        if method == "POST":
            number = 100 + len(self.bugs)
            self.bugs[number] = body | {"id": number, "is_open": True}
            self.comments[number] = []
            return 200, {"id": number}
        if method == "GET" and len(words) == 1:
            wanted = dict(urllib.parse.parse_qsl(query))
            return 200, {"bugs": [bug for bug in self.bugs.values() if bug["summary"] == wanted["summary"]]}
        if method == "GET" and words[-1] == "comment":
            return 200, {"bugs": {words[1]: {"comments": self.comments[int(words[1])]}}}
        if method == "GET":
            found = [bug for bug in self.bugs.values() if words[1] in (str(bug["id"]), bug.get("alias"))]
            return (200, {"bugs": found}) if found else (404, {"error": True, "code": 101})
        bug = self.bugs[int(words[1])]
        if body.get("status"):
            bug["is_open"] = True
        if "comment" in body:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.comments[bug["id"]].append({"text": body["comment"]["body"], "creation_time": stamp})
        bug.setdefault("linked", []).append(body.get("blocks"))
        return 200, {"bugs": [{"id": bug["id"]}]}


@story
def bugs(lab):
    tracker = Bugzilla(lab)
    host = lab.host("hopeless")
    target = machine(host, reboot_policy=["ssh_reboot", "file_bugzilla_bug"]) | {"name": 'hope"less', "fqdn": "hopeless.test.releng.mdc1.mozilla.com"}
    settings = {"BUGZILLA_URL": tracker.url, "BUGZILLA_API_KEY": "k3ykeykey"}
    answers = [lab.act("reboot", target, settings=settings) for _ in range(3)]
    broken = Bugzilla(lab, broken=True)
    failed = lab.act("reboot", target, settings={"BUGZILLA_URL": broken.url, "BUGZILLA_API_KEY": "k3ykeykey"})
    return answers, tracker, failed


def test_50_when_nothing_helps_one_bug_is_filed_and_commented_once_a_day(outcome):
    answers, tracker, _ = outcome("bugs")
    assert [status for status, _, _ in answers] == [2, 2, 2], answers
    assert len(tracker.bugs) == 2
    trackers = [bug for bug in tracker.bugs.values() if bug.get("alias") == "hopeless"]
    reports = [bug for bug in tracker.bugs.values() if bug.get("alias") is None]
    assert len(trackers) == len(reports) == 1
    assert {"add": [trackers[0]["id"]]} in reports[0]["linked"]
    assert answers[0][1]["bug_url"] == f"{tracker.url}/show_bug.cgi?id={reports[0]['id']}"
    assert len(tracker.comments[reports[0]["id"]]) <= 1
    assert all(key == "k3ykeykey" and "k3y" not in json.dumps([path, body]) for _, path, body, key in tracker.requests)
    assert all("k3ykeykey" not in text for _, _, text in answers)


def test_51_a_tracker_that_fails_is_named(outcome):
    _, _, (status, answer, _) = outcome("bugs")
    assert status == 2 and answer["error_class"] == "bug-filing-failed", answer


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
