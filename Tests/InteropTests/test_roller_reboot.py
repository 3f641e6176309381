# SPDX-License-Identifier: MPL-2.0
"""Reboots that escalate from SSH to the outlet and to a bug, and the evidence they go by.

The numbers are those of the behaviour checks. The stories run side by side; each has machines of its own.
"""

import http.server
import json
import time

from roller_lab import machine
from roller_stories import Stories, methods

story = Stories()
outcome = story.fixture()


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
    # Each method is watched to its end before the next one fires.
    order = [method for method, outcome in methods(answer) if outcome != "skipped" and method in ("ssh_reboot", "ipmi_reset", "verify", "snmp_rebootdelay")]
    steps = [method for index, method in enumerate(order) if order[index - 1 : index] != [method]]
    assert steps == ["ssh_reboot", "verify", "ipmi_reset", "verify", "snmp_rebootdelay", "verify"], order
    assert all(attempt["summary"] for attempt in answer["attempts"]), answer
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
    answers = []
    for _ in range(3):
        answers.append(lab.act("reboot", target, settings=settings))
        # Somebody closes the tracking bug in between.
        for bug in tracker.bugs.values():
            bug["is_open"] = bug.get("alias") is None
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
    reopened = [body for method, path, body, _ in tracker.requests if method == "PUT" and body.get("status")]
    assert [body["status"] for body in reopened] == ["REOPENED"] * 2
    assert answers[0][1]["bug_url"] == f"{tracker.url}/show_bug.cgi?id={reports[0]['id']}"
    assert len(tracker.comments[reports[0]["id"]]) <= 1
    assert all(key == "k3ykeykey" and "k3y" not in json.dumps([path, body]) for _, path, body, key in tracker.requests)
    assert all("k3ykeykey" not in text for _, _, text in answers)


def test_51_a_tracker_that_fails_is_named(outcome):
    _, _, (status, answer, _) = outcome("bugs")
    assert status == 2 and answer["error_class"] == "bug-filing-failed", answer
