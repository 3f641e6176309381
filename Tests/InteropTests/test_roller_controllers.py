# SPDX-License-Identifier: MPL-2.0
"""The actions of roller that speak to Redfish, Xen, Proxmox, iLO and programs of the operator's own, and the wake-up packet.

The numbers are those of the behaviour checks. The stories run side by side; each has machines of its own.
"""

import http.server
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
import xmlrpc.server

import proxmoxer
import proxmoxer.tools
import roller_lab
from roller_lab import machine
from roller_stories import Stories

story = Stories()
outcome = story.fixture()


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


@story
def redfish_chassis(lab):
    host = lab.host("chassis", linked=False)
    numbers = {"Blade1": "8A3F7B52-0D5E-4E1B-9C0D-5F3B9F1E2A01", "Blade2": "8A3F7B52-0D5E-4E1B-9C0D-5F3B9F1E2A02"}
    root = "/redfish/v1/Systems"
    answers = {"/redfish/v1/": {"Systems": {"@odata.id": root}}}
    answers[root] = {"Members": [{"@odata.id": f"{root}/{name}"} for name in numbers]}
    for name, uuid in numbers.items():
        answers[f"{root}/{name}"] = {"UUID": uuid, "Model": name, "PowerState": "On"}

    class Chassis(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(answers.get(self.path, {})).encode()
            self.send_response(200 if self.path in answers else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    control = {"kind": "redfish", "name": "chassis", "address": "127.0.0.1", "port": lab.serve(Chassis), "credential": "bmc"}
    plain = {"scheme": "http", "allow_plain_http": True}
    systems = ["Blade1", numbers["Blade2"].lower(), f"{root}/Blade1", numbers["Blade2"][:-1] + "9", None]
    return [
        lab.act("redfish_status", machine(host, dict(control, options=plain | ({"system": system} if system else {}))))
        for system in systems
    ]


def test_41_a_system_of_a_chassis_is_found_by_its_path_its_name_or_its_uuid(outcome):
    *found, unknown, unnamed = outcome("redfish_chassis")
    assert [answer["result"]["model"] for _, answer, *_ in found] == ["Blade1", "Blade2", "Blade1"], found
    assert unknown[1]["error_class"] == "config" and "does not know the system" in unknown[1]["summary"], unknown[1]
    assert unnamed[1]["error_class"] == "config" and "2 systems" in unnamed[1]["summary"], unnamed[1]


def test_41_redfish_redfish_takes_the_way_that_the_service_knows_and_trusts_no_stranger(outcome):
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


class Proxmox:
    """A node of Proxmox with one machine: changes are tasks, which a token may ask for."""

    def __init__(self, lab, power="running", refuses=(), stuck=False):
        self.power, self.refuses, self.stuck, self.asked, self.tasks = power, refuses, stuck, [], {}
        self.folder = lab.folder / f"proxmox-{id(self)}"
        self.folder.mkdir()
        self.certificate = self.folder / "cert.pem"
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pve", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*words, "-keyout", str(self.folder / "key.pem"), "-out", str(self.certificate)], check=True, capture_output=True)
        outer = self

        class Node(http.server.BaseHTTPRequestHandler):
            def answer(self):
                form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                status, answer = outer.answer(self.command, self.path, self.headers.get("Authorization"), form)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.folder / "key.pem")
        self.port = lab.serve(Node, context)

    def answer(self, method, path, authorization, form):
        if authorization != "PVEAPIToken=roller@pve!lab=s3crettoken":
            return 401, {"data": None, "message": "invalid token value!"}
        place = path.removeprefix("/api2/json/nodes/pve1/")
        if place.startswith("tasks/"):
            return 200, {"data": {"status": "stopped", "exitstatus": self.tasks[urllib.parse.unquote(place.split("/")[1])]}}
        if place == "qemu/101/status/current":
            return 200, {"data": {"status": self.power, "vmid": 101, "qmpstatus": self.power}}
        command = place.removeprefix("qemu/101/status/")
        assert method == "POST" and "/" not in command, place
        self.asked.append((command, form))
        task = f"UPID:pve1:0000{len(self.tasks):04X}:00000000:65000000:qm{command}:101:roller@pve!lab:"
        self.tasks[task] = "VM quit/powerdown failed - got timeout" if command in self.refuses else "OK"
        if self.tasks[task] == "OK":
            self.power = "stopped" if self.stuck and command != "start" else "running"
        return 200, {"data": task}

    def control(self, **options):
        return {
            "kind": "proxmox",
            "name": "pve",
            "address": "127.0.0.1",
            "port": self.port,
            "credential": "token",
            "options": {"ca_file": str(self.certificate)} | options,
            "locator": {"node": "pve1", "vmid": 101},
        }


@story
def proxmox(lab):
    lab.credential("token", token="roller@pve!lab=s3crettoken")
    lab.credential("token-of-another", token="roller@pve!lab=wr0ngtoken")
    host = lab.host("proxmox", linked=False)
    nodes = [Proxmox(lab), Proxmox(lab, refuses=["reboot"]), Proxmox(lab, power="stopped"), Proxmox(lab, stuck=True)]
    # The client that operators use takes our nodes for real ones.
    client = proxmoxer.ProxmoxAPI(
        "127.0.0.1", port=nodes[0].port, user="roller@pve", token_name="lab", token_value="s3crettoken", verify_ssl=str(nodes[0].certificate)
    )
    task = client.nodes("pve1").qemu(101).status.reboot.post(timeout=60)
    real = proxmoxer.tools.Tasks.blocking_status(client, task), nodes[0].asked.pop()
    answers = [lab.act("proxmox_reboot", machine(host, node.control())) for node in nodes]
    asked = [list(node.asked) for node in nodes]
    refused = [
        lab.act("proxmox_reboot", machine(host, nodes[0].control() | {"credential": "token-of-another"})),
        lab.act("proxmox_reboot", machine(host, nodes[0].control(ca_file=str(nodes[1].certificate)))),
        lab.act("proxmox_reboot", machine(host, nodes[0].control() | {"locator": {"node": "../x", "vmid": 101}})),
    ]
    untouched = list(nodes[0].asked) == asked[0]
    return real, answers, asked, refused, untouched


def test_proxmox_machines_restart_cleanly_or_by_a_reset_and_are_never_left_off(outcome):
    (ending, asked_by_client), answers, asked, refused, untouched = outcome("proxmox")
    assert ending["exitstatus"] == "OK" and asked_by_client == ("reboot", "timeout=60")
    assert [status for status, _, _ in answers] == [0] * 4, answers
    clean, hard, was_off, stuck = asked
    assert clean == [("reboot", "timeout=60")]
    assert hard == [("reboot", "timeout=60"), ("reset", "")] and answers[1][1]["result"]["shutdown"] == "hard"
    assert was_off == [("start", "")]
    # The restart ended well and left the machine off: that is put right.
    assert stuck == [("reboot", "timeout=60"), ("start", "")]
    assert [answer["error_class"] for _, answer, _ in refused] == ["credentials", "tls", "config"], refused
    assert untouched and not any("t0ken" in text or "s3cret" in text for _, _, text in [*answers, *refused])


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
