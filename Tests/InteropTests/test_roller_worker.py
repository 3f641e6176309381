# SPDX-License-Identifier: MPL-2.0
"""Workers of roller on a database of their own, with machines in front of them; some are stopped, some are killed.

The numbers are those of the behaviour checks. Jobs are put into the database as roller-api does it.
"""

import http.server
import json
import os
import pathlib
import signal
import threading

import roller_lab
from roller_site import TERMINAL, lab, site  # noqa: F401 (fixtures)
from support import eventually

# Where a worker dies, its jobs are to be free soon; elsewhere a busy machine must not make a living one look dead.
SHORT = {"ROLLER_LEASE": "3s"}


def test_54_two_jobs_on_one_machine_run_one_after_the_other_and_the_second_names_its_holder(site, lab):
    host = lab.host("serial")
    bmc, _ = lab.bmc(host)
    machine = site.machine(host, [bmc])
    first, second = site.jobs("ipmi_reset", [machine, machine])
    third = site.job("ipmi_status", machine, destructive=False)
    site.worker()
    site.worker()
    states = [site.ended(job) for job in (first, second, third)]
    assert [state["state"] for state in states] == ["succeeded"] * 3, states
    spans = sorted((state["started"], state["finished"]) for state in states[:2])
    assert spans[0][1] <= spans[1][0]
    waited = site.query(f"select data ->> 'for' from roller.job_events where kind = 'waiting' and job in ('{first}', '{second}')")
    assert "held by" in waited
    assert states[2]["result"]["power"] in ("on", "off")
    assert host.events().count("off") == 2
    assert site.query("select count(*) from roller.resource_locks") == "0"


def test_55_ten_reboots_at_one_unit_keep_its_pace_and_all_finish(site, lab):
    hosts = [lab.host(f"pace{index}", linked=False) for index in range(10)]
    controls, _ = lab.pdu("pace", hosts)
    shared, machines = {}, []
    for host, control in zip(hosts, controls):
        machines.append(site.machine(host, [control | {"interval": 400, "concurrency": 1}], shared=shared))
    jobs = site.jobs("snmp_reboot", machines)
    site.worker()
    site.worker()
    states = [site.ended(job) for job in jobs]
    assert {state["state"] for state in states} == {"succeeded"}, states
    assert [host.events().count("off") for host in hosts] == [1] * 10
    moments = [at for at, _, _ in lab.sets("pace")]
    # Every change waited for its turn. Between a turn and the unit lies the start of a program, which a busy machine may
    # delay; over all changes that is little.
    assert len(moments) >= 20
    assert moments[-1] - moments[0] > 0.4 * (len(moments) - 1) - 2, moments


def test_56_a_worker_killed_between_off_and_on_leaves_no_machine_without_power(site, lab):
    host = lab.host("dark", boot=0.5)
    (control,), _ = lab.pdu("dark", [host])
    machine = site.machine(host, [control])
    job = site.job("snmp_rebootdelay", machine, delay=30)
    worker = site.worker(**SHORT)
    eventually(lambda: "off" in host.events())
    worker.kill()
    site.worker(**SHORT)
    state = site.ended(job)
    assert (state["state"], state["reason"]) == ("lost", "lost")
    eventually(lambda: host.power("status") == "1")
    recovery = eventually(lambda: site.query(f"select id from roller.jobs where parent_job = '{job}'"))
    assert site.ended(recovery)["state"] == "succeeded"
    assert host.events().count("off") == 1
    assert site.query("select count(*) from roller.intents") == "0"


def test_57_a_ping_whose_worker_is_killed_is_done_again(site, lab):
    host = lab.host("again")
    machine = site.machine(host)
    job = site.job("ping", machine, destructive=False, count=6, wait=10)
    worker = site.worker(**SHORT)
    site.reaches(job, ["running"])
    worker.kill()
    site.worker(**SHORT)
    state = site.ended(job)
    assert state["state"] == "succeeded" and state["attempts"] == 2, state


def test_58_a_worker_that_is_told_to_stop_ends_its_jobs_and_takes_no_more(site, lab):
    host = lab.host("leaving")
    machine = site.machine(host)
    job = site.job("ping", machine, destructive=False, count=5, wait=10)
    worker = site.worker(SHUTDOWN_TIMEOUT="120s")
    site.reaches(job, ["running"])
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: "no more jobs are taken" in site.logs())
    later = site.job("ping", machine, destructive=False)
    assert roller_lab.wait_for_exit(worker, 120) == 0, site.logs()
    assert site.state(job)["state"] == "succeeded"
    assert site.state(later)["state"] == "queued"


def test_59_a_soft_limit_in_the_middle_of_a_pause_switches_on_first(site, lab):
    host = lab.host("limited", boot=0)
    (control,), _ = lab.pdu("limited", [host])
    machine = site.machine(host, [control])
    job = site.job("snmp_rebootdelay", machine, delay=120)
    site.worker(CELERY_TASK_SOFT_TIME_LIMIT="4s", CELERY_TASK_TIME_LIMIT="100s")
    state = site.ended(job)
    assert (state["state"], state["reason"]) == ("failed", "soft-time-limit"), state
    assert host.power("status") == "1"
    assert site.query("select count(*) from roller.intents") == "0"


def test_60_cancelling_stops_between_methods_and_never_between_off_and_on(site, lab):
    host = lab.host("cancelled", boot=0)
    (control,), _ = lab.pdu("cancelled", [host])
    stays = lab.host("cancelled-stays")
    deaf = lab.host("cancelled-bmc", linked=False)
    bmc, _ = lab.bmc(deaf)
    machine = site.machine(host, [control])
    other = site.machine(stays, [bmc], reboot_policy=["ipmi_reset", "ipmi_cycle"])
    job = site.job("snmp_rebootdelay", machine, delay=120)
    between = site.job("reboot", other)
    site.worker(DOWN_TIMEOUT="60s")
    eventually(lambda: "off" in host.events())
    eventually(lambda: "off" in deaf.events())
    site.query(f"update roller.jobs set cancel_requested = now() where id in ('{job}', '{between}')")
    assert site.ended(job)["state"] == "canceled"
    assert host.power("status") == "1"
    assert site.ended(between)["state"] == "canceled"
    assert deaf.events().count("off") == 1
    methods = [attempt["method"] for attempt in site.state(between)["tried"]]
    assert "ipmi_cycle" not in methods


def test_61_a_worker_that_slept_through_its_lease_touches_nothing_any_more(site, lab):
    host = lab.host("fenced", boot=0)
    (control,), _ = lab.pdu("fenced", [host])
    machine = site.machine(host, [control], reboot_policy=[{"method": "snmp_rebootdelay", "delay": 10}, {"method": "snmp_rebootdelay", "delay": 1}])
    job = site.job("reboot", machine)
    sleeper = site.worker(**SHORT)
    eventually(lambda: "off" in host.events())
    os.killpg(sleeper.pid, signal.SIGSTOP)
    site.worker(**SHORT)
    assert site.ended(job)["state"] == "lost"
    recovery = eventually(lambda: site.query(f"select id from roller.jobs where parent_job = '{job}'"))
    assert site.ended(recovery)["state"] == "succeeded"
    before = (host.events(), len(lab.sets("fenced")))
    os.killpg(sleeper.pid, signal.SIGCONT)
    # It says so when the last of what it did has ended.
    log = site.folder / "worker-0.log"
    eventually(lambda: [line for line in log.read_text().splitlines() if "nothing of it goes on here" in line and job in line])
    assert (host.events(), len(lab.sets("fenced"))) == before
    assert site.state(job)["state"] == "lost"


def test_limits_of_a_group_hold_across_workers_and_dry_runs_touch_nothing(site, lab):
    hosts = [lab.host(f"crowd{index}", linked=False) for index in range(6)]
    machines = []
    for host in hosts:
        bmc, _ = lab.bmc(host)
        machines.append(site.machine(host, [bmc], group="crowd"))
    trials = site.jobs("ipmi_cycle", machines, dry_run=True)
    jobs = site.jobs("ipmi_cycle", machines)
    site.query("update roller.groups set properties = '{\"max_destructive\": 2}' where name = 'crowd'")
    busiest = 0
    site.worker()
    site.worker()

    def all_ended():
        nonlocal busiest
        active = "state in ('claimed', 'running', 'verifying') and not dry_run"
        busiest = max(busiest, int(site.query(f"select count(*) from roller.jobs where {active}")))
        return site.query(f"select count(*) from roller.jobs where state in {TERMINAL}") == "12"

    eventually(all_ended, 240)
    assert 1 <= busiest <= 2
    assert {site.state(job)["state"] for job in jobs + trials} == {"succeeded"}
    assert [host.events().count("off") for host in hosts] == [1] * 6
    assert "ipmitool" in json.dumps(site.state(trials[0])["result"]["plan"])


def test_limits_of_a_site_hold_across_workers_and_groups(site, lab):
    host = lab.host("site")
    bmc, _ = lab.bmc(host)
    others = [site.machine(lab.host(f"site{index}", linked=False), []) for index in range(3)]
    machine = site.machine(host, [bmc])
    # Without a control they fail; what counts is how many are under way.
    jobs = site.jobs("ipmi_reset", [machine]) + site.jobs("reboot", others)
    settings = {"MAX_DESTRUCTIVE_PER_SITE": "1"}
    site.worker(**settings)
    site.worker(**settings)
    states = [site.ended(job) for job in jobs]
    assert states[0]["state"] == "succeeded", states[0]
    spans = sorted((state["started"], state["finished"]) for state in states)
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:])), spans
    assert int(site.query("select count(*) from roller.job_events where data ->> 'for' = 'limit of site default'")) >= 1


def test_a_machine_that_was_lent_meanwhile_is_left_alone(site, lab):
    host = lab.host("lent", linked=False)
    bmc, _ = lab.bmc(host)
    machine = site.machine(host, [bmc])
    job = site.job("ipmi_reset", machine)
    site.query(f"update roller.machines set state = 'loaned', updated = clock_timestamp() where id = '{machine}'")
    site.worker(LOCK_WAIT_MAX="6s")
    state = site.ended(job)
    assert state["state"] == "expired" and "the machine is in loaned" in state["reason"], state
    assert host.events() == []


def test_36_the_suite_that_worked_is_known_to_the_next_worker(site, lab):
    host = lab.host("suite", linked=False)
    bmc, _ = lab.bmc(host, options={"interval": 10})
    machine = site.machine(host, [bmc])

    def suites(job):
        tried = site.ended(job)["tried"]
        return [attempt["arguments"][attempt["arguments"].index("-C") + 1] for attempt in tried]

    first = site.worker()
    assert suites(site.job("ipmi_status", machine, destructive=False)) == ["17", "3"]
    assert site.query("select learned ->> 'cipher_suite' from roller.controllers") == "3"
    first.kill()
    first.wait()
    site.worker()
    assert suites(site.job("ipmi_status", machine, destructive=False)) == ["3"]


def test_a_machine_that_does_not_answer_twice_is_taken_out_of_service_and_others_stay(site, lab):
    quiet, awake = lab.host("health-quiet", on=False), lab.host("health-awake")
    machines = [site.machine(host) for host in (quiet, awake)]
    chat = Chat(lab)
    # At first nobody can be told, and then nothing is done either.
    site.query(
        """
        create sequence roller.untold;
        create function roller.no_alerts() returns trigger language plpgsql as $$ begin
            if new.body like '%did not answer twice%' and nextval('roller.untold') <= 2 then
                raise exception 'nobody can be told';
            end if;
            return new;
        end $$;
        create trigger no_alerts before insert on roller.notifications
            for each row execute function roller.no_alerts();
        """
    )
    for _ in range(2):
        site.worker(HEALTH_CHECK_INTERVAL="1s", NOTIFY_WEBHOOK_URL=chat.url)
    state = "select state from roller.machines where id = '{}'"
    eventually(lambda: site.query(state.format(machines[0])) == "maintenance", 240)
    looks = f"from roller.jobs where source = 'schedule' and finished is not null and machine = '{machines[1]}'"
    eventually(lambda: int(site.query(f"select count(*) {looks}")) >= 3, 240)
    assert site.query(state.format(machines[1])) == "active"
    assert site.query("select count(*) from roller.audit_log where verb = 'machine.health'") == "1"
    told = eventually(lambda: [text for text in chat.texts if "did not answer twice" in text])
    assert len(told) == 1 and "health-quiet" in told[0], told


def test_windows_and_lock_waits_that_last_too_long_are_respected(site, lab):
    host = lab.host("window", linked=False)
    bmc, _ = lab.bmc(host)
    machine = site.machine(host, [bmc])
    job = site.job("ipmi_reset", machine)
    site.query(
        "insert into roller.maintenance_windows (machine, starts, ends, reason, created_by) "
        f"values ('{machine}', clock_timestamp(), now() + interval '1 hour', 'a test', 'test')"
    )
    site.worker(LOCK_WAIT_MAX="6s")
    state = site.ended(job)
    assert state["state"] == "expired" and "maintenance window" in state["reason"], state
    assert host.events() == []


def test_33_a_controller_that_hangs_leaves_no_program_and_no_lock(site, lab):
    host = lab.host("hangs", linked=False)
    bmc, simulator = lab.bmc(host)
    bmc["options"] = {"cipher_suites": [3], "interval": 2}
    machine = site.machine(host, [bmc])
    simulator.send_signal(signal.SIGSTOP)
    site.worker()
    try:
        state = site.ended(site.job("ipmi_status", machine, destructive=False))
    finally:
        simulator.send_signal(signal.SIGCONT)
    assert (state["state"], state["error_class"]) == ("failed", "timeout"), state
    assert site.query("select count(*) from roller.resource_locks") == "0"
    eventually(lambda: not programs("ipmitool", str(bmc["port"])))


def programs(name, word):
    """The processes of a program that were given a word; zombies have no words, and count if they are called so."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if pathlib.Path(words[0].decode()).name == name and word.encode() in words:
                found.append(entry.name)
        except OSError:
            continue
    return found


class Chat:
    """A webhook that keeps what it is told."""

    def __init__(self, lab):
        self.texts = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                outer.texts.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.url = f"http://127.0.0.1:{lab.serve(Handler)}"


class BrokenTracker(http.server.BaseHTTPRequestHandler):
    """A bug tracker that answers nothing but 500."""

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        body = b'{"error": true}'
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


def test_51_when_no_bug_can_be_filed_the_chat_is_told_nevertheless(site, lab):
    host = lab.host("unheard", on=False)
    machine = site.machine(host, [], reboot_policy=["ssh_reboot", "file_bugzilla_bug"])
    chat = Chat(lab)
    tracker = f"http://127.0.0.1:{lab.serve(BrokenTracker)}"
    job = site.job("reboot", machine)
    site.worker(BUGZILLA_URL=tracker, BUGZILLA_API_KEY="k3ykeykey", NOTIFY_WEBHOOK_URL=chat.url)
    state = site.ended(job)
    assert (state["state"], state["error_class"]) == ("failed", "bug-filing-failed"), state
    told = eventually(lambda: [text for text in chat.texts if "no bug could be filed" in text])
    assert len(told) == 1 and "k3ykeykey" not in "".join(chat.texts)


def test_64_secrets_are_in_no_log_no_table_and_no_command_line(site, lab):
    """A password and a community full of what a shell would act on; one controller works, one does not."""
    canary = lab.folder / "canary-64"
    password = "a';>X#$(id)|&*!"
    # snmpd cannot keep an apostrophe in a community.
    community = f'"; touch {canary} # $HOME x'
    host = lab.host("secretive", linked=False)
    other = lab.host("secretive-outlet", linked=False)
    bmc, _ = lab.bmc(host, password=password)
    bmc["credential"] = lab.credential("secretive", username="roller", password=password)
    (control,), _ = lab.pdu("secretive", [other], community=community)
    control["credential"] = lab.credential("secretive-outlet", community=community)
    broken = dict(control, name="secretive-broken", port=roller_lab.free_port(), options={"timeout": 1})
    chat = Chat(lab)
    tracker = f"http://127.0.0.1:{lab.serve(BrokenTracker)}"
    machines = [
        site.machine(host, [bmc]),
        site.machine(other, [control]),
        site.machine(lab.host("secretive-dark", linked=False), [broken], reboot_policy=["snmp_reboot", "file_bugzilla_bug"]),
    ]
    lines, finished = set(), threading.Event()

    def spy():
        while not finished.wait(0.005):
            for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    lines.add(entry.read_bytes())
                except OSError:
                    continue

    # The test's own servers hold the secrets in their configuration, nobody's command line does.
    watcher = threading.Thread(target=spy)
    watcher.start()
    try:
        jobs = [site.job("ipmi_cycle", machines[0]), site.job("snmp_reboot", machines[1]), site.job("reboot", machines[2])]
        site.worker(
            BUGZILLA_URL=tracker, BUGZILLA_API_KEY="k3ykeykey", NOTIFY_WEBHOOK_URL=chat.url, NOTIFY_EMAIL="ops@example.com",
            LOG_LEVEL="trace",
        )
        states = [site.ended(job) for job in jobs]
    finally:
        finished.set()
        watcher.join()
    assert [state["state"] for state in states] == ["succeeded", "succeeded", "failed"], states
    eventually(lambda: chat.texts)
    assert not canary.exists() and not pathlib.Path("X").exists()
    secrets = (password, community, "k3ykeykey")
    tables = site.query("select string_agg(table_name, ' ') from information_schema.tables where table_schema = 'roller'")
    stored = "".join(site.query(f"select coalesce(string_agg(t::text, chr(10)), '') from roller.{table} t") for table in tables.split())
    everything = {"log": site.logs(), "chat": "".join(chat.texts), "tables": stored + json.dumps(states)}
    assert "ipmitool" in everything["tables"]
    for secret in secrets:
        for place, text in everything.items():
            for spelling in (secret, json.dumps(secret)[1:-1], secret.replace('"', '""')):
                assert spelling not in text, f"{secret} is in {place}"
        assert not any(secret.encode() in line for line in lines), secret
