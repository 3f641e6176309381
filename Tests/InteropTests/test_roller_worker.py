# SPDX-License-Identifier: MPL-2.0
"""Workers of roller on a database of their own, with machines in front of them; some are killed, some are stopped.

The numbers are those of the behaviour checks. Jobs are put into the database as roller-api does it.
"""

import collections
import http.server
import json
import os
import pathlib
import random
import signal
import threading
import time

import roller_lab
from roller_site import TERMINAL, lab, quoted, site  # noqa: F401 (fixtures)
from support import eventually

CHAOS_SECONDS = float(os.environ.get("ROLLER_CHAOS_SECONDS", "20"))
CROWD = int(os.environ.get("ROLLER_MACHINES", "100"))


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
    worker = site.worker()
    eventually(lambda: "off" in host.events())
    worker.kill()
    site.worker()
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
    worker = site.worker()
    site.reaches(job, ["running"])
    worker.kill()
    site.worker()
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
    sleeper = site.worker()
    eventually(lambda: "off" in host.events())
    os.killpg(sleeper.pid, signal.SIGSTOP)
    site.worker()
    assert site.ended(job)["state"] == "lost"
    recovery = eventually(lambda: site.query(f"select id from roller.jobs where parent_job = '{job}'"))
    assert site.ended(recovery)["state"] == "succeeded"
    before = (host.events(), len(lab.sets("fenced")))
    os.killpg(sleeper.pid, signal.SIGCONT)
    eventually(lambda: "another worker has the job" in site.logs() or site.query("select count(*) from roller.runners") == "2")
    time.sleep(15)
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


def test_random_kills_double_no_reset_and_lose_no_job(site, lab):
    """Two workers, killed at random; every job ends, and no machine is reset more often than it was asked for."""
    hosts = [lab.host(f"chaos{index}", boot=0.2, linked=False) for index in range(6)]
    machines = []
    for index, host in enumerate(hosts):
        if index % 2:
            (control,), _ = lab.pdu(f"chaos{index}", [host])
        else:
            control, _ = lab.bmc(host)
        machines.append(site.machine(host, [control]))
    settings = {"ROLLER_LEASE": "2s"}
    workers = [site.worker(**settings) for _ in range(2)]
    asked = collections.Counter()
    jobs = []
    end = time.monotonic() + CHAOS_SECONDS
    chance = random.Random(int.from_bytes(os.urandom(4), "big"))
    while time.monotonic() < end:
        for index, machine in enumerate(machines):
            if chance.random() < 0.4:
                if index % 2:
                    jobs.append((index, site.job("snmp_rebootdelay", machine, delay=1)))
                else:
                    jobs.append((index, site.job("ipmi_reset", machine)))
                asked[index] += 1
            else:
                jobs.append((None, site.job("ipmi_status" if index % 2 == 0 else "status", machine, destructive=False)))
        time.sleep(chance.uniform(0.5, 2))
        victim = chance.randrange(2)
        workers[victim].kill()
        workers[victim].wait()
        workers[victim] = site.worker(**settings)
    eventually(lambda: site.query(f"select count(*) from roller.jobs where state not in {TERMINAL}") == "0", 300)
    eventually(lambda: site.query("select count(*) from roller.intents") == "0", 120)
    states = collections.Counter()
    for index, job in jobs:
        state = site.state(job)
        states[state["state"]] += 1
        if index is None:
            # What only looks is begun again, three times at most.
            assert state["state"] == "succeeded" or state["error_class"] == "timeout" or (state["state"], state["attempts"]) == ("lost", 3), state
        else:
            # On a busy machine a controller may be too slow; that is a failure which says so.
            slow = ("timeout", "unreachable", "credentials-or-session", "pdu-unreachable", "unverified-outlet")
            assert state["state"] in ("succeeded", "lost") or state["error_class"] in slow, state
    for index, host in enumerate(hosts):
        # Each job switches its machine off once at most; a lost one may not have come so far.
        finished = sum(1 for who, job in jobs if who == index and site.state(job)["state"] == "succeeded")
        assert finished <= host.events().count("off") <= asked[index], (host.name, host.events())
        eventually(lambda: host.power("status") == "1")
    print(f"chaos: {dict(states)}, {len(site.workers)} workers")


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


def children(pid):
    """The processes that a process has started and not collected."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append((entry.parent.name, fields[0]))
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


def test_62_a_broker_and_a_database_that_start_anew_in_the_middle_of_a_job_double_nothing(site, lab, servers):
    host = lab.host("outage", boot=0)
    (control,), _ = lab.pdu("outage", [host])
    machine = site.machine(host, [control])
    site.worker(ROLLER_LEASE="60s")
    job = site.job("snmp_rebootdelay", machine, delay=8)
    eventually(lambda: "off" in host.events())
    servers.run("restart-rabbitmq")
    servers.run("restart-postgres")
    state = eventually(lambda: site.ended(job))
    assert state["state"] == "succeeded", state
    assert [word for word in host.events() if word != "booted"] == ["off", "on"]
    assert site.query("select count(*) from roller.intents") == "0"
    assert site.query("select count(*) from roller.jobs") == "1"
    # The worker listens to the broker again, too: a job that nobody polls for would wait.
    assert site.ended(site.job("snmp_reboot", machine))["state"] == "succeeded"


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


def test_72_two_hundred_pings_on_twenty_places_all_end_and_leave_nothing_open(site, lab):
    host = lab.host("pinged")
    machines = [site.machine(roller_lab.Named(f"pinged-{index}", host.address)) for index in range(200)]
    worker = site.worker(ROLLER_CONCURRENCY="20")
    # A first job opens what stays open: connections, logs.
    assert site.ended(site.job("ping", machines[0], destructive=False, count=1))["state"] == "succeeded"
    open_files = lambda: len(os.listdir(f"/proc/{worker.pid}/fd"))
    before = open_files()
    jobs = site.jobs("ping", machines, destructive=False, count=1, wait=20)
    busiest = 0

    def all_ended():
        nonlocal busiest
        busiest = max(busiest, int(site.query("select count(*) from roller.jobs where state in ('claimed', 'running', 'verifying')")))
        return site.query(f"select count(*) from roller.jobs where state not in {TERMINAL}") == "0"

    eventually(all_ended, 300, every=0.5)
    assert busiest <= 20
    states = collections.Counter(site.query("select string_agg(state, ' ') from roller.jobs").split())
    assert states["succeeded"] == len(jobs) + 1, states
    # The pool of connections may have grown to its size; what two hundred jobs leaked would be more.
    eventually(lambda: open_files() <= before + 20 and not children(worker.pid))


class Boards:
    """iLO boards at addresses of their own; each counts how often its machine was reset."""

    def __init__(self, lab):
        self.resets = collections.Counter()
        self.lock = threading.Lock()
        self.most = self.busy = 0
        outer = self

        class Board(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                where = self.connection.getsockname()[0]
                body = '<?xml version="1.0"?><RIBCL VERSION="2.22"><RESPONSE STATUS="0x0000" MESSAGE=\'x\'/>'
                if "RESET_SERVER" in text:
                    with outer.lock:
                        outer.resets[where] += 1
                        outer.busy += 1
                        outer.most = max(outer.most, outer.busy)
                    # A real board takes its time, in which workers are killed.
                    time.sleep(random.uniform(0.1, 0.6))
                    with outer.lock:
                        outer.busy -= 1
                else:
                    body += '<GET_HOST_POWER HOST_POWER="ON"/>'
                body = (body + "</RIBCL>").encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    # Whoever asked was killed.
                    self.close_connection = True

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256

        self.server = Server(("0.0.0.0", 0), Board)
        self.server.daemon_threads = True
        lab.servers.append(self.server)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def address(self, index):
        return f"127.7.{index // 200}.{index % 200 + 1}"


def test_a_crowd_rebooted_at_once_is_touched_once_each_and_the_dead_hold_no_lock_for_long(site, lab):
    """`ROLLER_MACHINES` machines (100; 1,000 is the long run), 64 in flight, workers killed in the middle of it."""
    boards = Boards(lab)
    addresses = [boards.address(index) for index in range(CROWD)]
    rows = ", ".join(f"('crowd-{index}', 'ilo', '{address}', {boards.server.server_address[1]})" for index, address in enumerate(addresses))
    options = json.dumps({"scheme": "http", "allow_plain_http": True})
    site.query(
        f"""with wanted (name, kind, address, port) as (values {rows}), made as (
            insert into roller.controllers (name, kind, address, port, options, credential_ref)
            select name, kind, address, port, '{options}', 'bmc' from wanted returning id, name),
        machines as (insert into roller.machines (name) select name from made returning id, name)
        insert into roller.machine_controls (machine, controller, locator, locator_key)
        select m.id, c.id, '{{}}', '{{}}' from machines m join made c on c.name = m.name"""
    )
    machines = site.query("select id from roller.machines order by name").split()
    lease = 3
    settings = {"ROLLER_CONCURRENCY": "16", "ROLLER_LEASE": f"{lease}s", "DATABASE_POOL_SIZE": "8"}
    workers = [site.worker(**settings) for _ in range(4)]
    eventually(lambda: site.query("select count(*) from roller.runners") == "4")
    jobs = site.jobs("ilo_reboot", machines)
    under_way = "state in ('claimed', 'running', 'verifying')"
    busiest = killed = 0
    while int(site.query(f"select count(*) from roller.jobs where state in {TERMINAL}")) < CROWD:
        busiest = max(busiest, int(site.query(f"select count(*) from roller.jobs where {under_way}")))
        done = CROWD - int(site.query(f"select count(*) from roller.jobs where state not in {TERMINAL}"))
        if killed < 2 and done >= CROWD * (killed + 1) // 4:
            victim = workers[killed]
            victim.kill()
            victim.wait()
            killed += 1
            # From now on nobody prolongs them: by the clock of the database none lasts longer than a lease.
            held = "from roller.resource_locks l join roller.runners r on r.name = l.runner"
            place = f"where r.pid = {victim.pid} and l.resource not like 'slot:%'"
            left = site.query(f"select coalesce(max(extract(epoch from l.expires_at - clock_timestamp())), 0) {held} {place}")
            assert float(left) <= lease, left
            site.worker(**settings)
        time.sleep(0.2)
    states = collections.Counter(site.query("select string_agg(state, ' ') from roller.jobs where task_name = 'ilo_reboot'").split())
    assert set(states) <= {"succeeded", "lost"} and sum(states.values()) == len(jobs), states
    assert states["lost"] <= 2 * 16
    assert busiest <= 64 + 16 * killed
    assert set(boards.resets.values()) == {1} or max(boards.resets.values()) == 1, boards.resets.most_common(5)
    assert len(boards.resets) >= states["succeeded"]
    eventually(lambda: site.query("select count(*) from roller.resource_locks") == "0")
    print(f"crowd: {CROWD} machines, {dict(states)}, at most {busiest} jobs and {boards.most} resets at a time, {killed} workers killed")
