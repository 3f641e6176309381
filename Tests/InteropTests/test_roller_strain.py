# SPDX-License-Identifier: MPL-2.0
"""Workers of roller under strain: killed at random, with many machines at once, without their servers for a while.

The numbers are those of the behaviour checks. Jobs are put into the database as roller-api does it.
"""

import collections
import http.server
import json
import os
import random
import threading
import time

import roller_lab
from roller_site import TERMINAL, children, lab, site  # noqa: F401 (fixtures)
from support import eventually

CHAOS_SECONDS = float(os.environ.get("ROLLER_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("ROLLER_CHAOS_SEED") or int.from_bytes(os.urandom(4), "big"))
CROWD = int(os.environ.get("ROLLER_MACHINES", "100"))


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
    print(f"ROLLER_CHAOS_SEED={SEED}")
    workers = [site.worker(**settings) for _ in range(2)]
    asked = collections.Counter()
    jobs = []
    end = time.monotonic() + CHAOS_SECONDS
    chance = random.Random(SEED)
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
    # Long enough for the slowest machine; a job that never ends must not hold up everything.
    limit = time.monotonic() + 300 + CROWD
    while int(site.query(f"select count(*) from roller.jobs where state in {TERMINAL}")) < CROWD:
        assert time.monotonic() < limit, site.logs()[-4000:]
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
