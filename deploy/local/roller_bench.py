# SPDX-License-Identifier: MPL-2.0
"""The entry of bench about roller: our API and worker, and Celery with gunicorn beside them, on the same servers in the same run."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import secrets
import socket
import statistics
import subprocess
import threading
import time
import urllib.parse
import uuid

PEERS = ["celery==5.7.0", "gunicorn==27.0.1", "SQLAlchemy==2.1.9", "psycopg2-binary==2.9.13", "requests"]
CONNECTIONS = 16

# Celery's default is a process for each core, which is also its best here: with as many as roller's worker has slots it
# does fewer jobs a second. Who doubts it may say how many.
CELERY_PROCESSES = int(os.environ.get("SLIPWAY_BENCH_CELERY", os.cpu_count() or 2))
SLOTS = 20


def signed(client, token, method, url, count):
    """So many requests ready to be sent, so that signing them costs nothing while it is measured."""
    parts = urllib.parse.urlsplit(url)
    resource = parts.path + (f"?{parts.query}" if parts.query else "")
    requests = []
    for _ in range(count):
        stamp, nonce = int(time.time()), secrets.token_hex(6)
        text = "\n".join(["hawk.1.header", str(stamp), nonce, method, resource, parts.hostname, str(parts.port), "", "", ""])
        mac = base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha256).digest()).decode()
        header = f'Hawk id="{client}", ts="{stamp}", nonce="{nonce}", mac="{mac}"'
        head = f"{method} {resource} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {header}\r\nContent-Length: 0\r\n\r\n"
        requests.append(head.encode())
    return requests


class Caller:
    """One connection; gunicorn's plain workers close theirs after each answer."""

    def __init__(self, port):
        self.port = port
        self.socket = None

    def send(self, request):
        """Status and body of one answer."""
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), 60)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            if not piece:
                raise OSError("the connection was closed in the middle of an answer")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        fields = head.decode("latin-1").lower().split("\r\n")
        length = int(next(line.split(":")[1] for line in fields if line.startswith("content-length:")))
        while len(body) < length:
            body += self.socket.recv(65536)
        if "connection: close" in fields:
            self.socket.close()
            self.socket = None
        return int(fields[0].split()[1]), body


def resident(pids):
    """Megabytes of processes and all that they started; pages they share are counted once."""
    family = set(pids)
    while True:
        more = set()
        for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(entry.read_text().rpartition(")")[2].split()[1]) in family:
                    more.add(int(entry.parent.name))
            except OSError:
                continue
        if more <= family:
            break
        family |= more
    total = 0
    for pid in family:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


class Side:
    """One of the two, with what is to be known of it."""

    def __init__(self, url, port, pids, moments):
        self.url, self.port, self.pids, self.moments = url, port, pids, moments
        self.asked = 0

    def latency(self, credentials, count):
        """Milliseconds from the answer of a POST to the beginning of the action, one request at a time."""
        caller = Caller(self.port)
        accepted = {}
        for request in signed(*credentials, "POST", self.url, count):
            status, body = caller.send(request)
            accepted[json.loads(body)["task_id"]] = time.time()
            if status != 201:
                raise OSError(f"{status}: {body.decode()}")
            self.asked += 1
            time.sleep(0.02)
        moments = self.moments(set(accepted), self.asked)
        # What began before the answer arrived took no time.
        return statistics.median(max(0.0, 1000 * (moments[job][0] - at)) for job, at in accepted.items())

    def rate(self, credentials, count):
        """Jobs a second, from the first request to the end of the last job."""
        waiting = signed(*credentials, "POST", self.url, count)
        lock = threading.Lock()
        jobs, problems = set(), []

        def call():
            caller = Caller(self.port)
            while True:
                with lock:
                    if not waiting or problems:
                        return
                    request = waiting.pop()
                try:
                    status, body = caller.send(request)
                    assert status == 201, f"{status}: {body.decode()}"
                    with lock:
                        jobs.add(json.loads(body)["task_id"])
                except Exception as problem:
                    with lock:
                        problems.append(problem)

        started = time.time()
        threads = [threading.Thread(target=call) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise OSError(problems[0])
        self.asked += len(jobs)
        return count / (max(end for _, end in self.moments(jobs, self.asked).values()) - started)


class RollerEntries:
    """What bench needs of this file."""

    def __init__(self, table, running, wrong, skipped, binaries, local, scale, run, top):
        self.table, self.running, self.wrong, self.skipped = table, running, wrong, skipped
        self.binaries, self.local, self.scale, self.run, self.top = binaries, local, scale, run, top

    def entries(self):
        return {"roller": (self.roller, "roller")}

    # ------------------------------------------------------------ the two sides

    def sql(self, url, statement):
        """What a statement answers, one line a row; the password stays out of the arguments."""
        parts = urllib.parse.urlsplit(url)
        environment = dict(os.environ, PGPASSWORD=urllib.parse.unquote(parts.password or ""))
        words = ["psql", "-h", parts.hostname, "-p", str(parts.port), "-U", parts.username, "-d", parts.path.lstrip("/")]
        done = subprocess.run([*words, "-Atqc", statement], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise self.wrong(done.stderr.strip().splitlines()[-1])
        return done.stdout.split("\n")[:-1]

    def moments(self, url, counting, statement, jobs, total, limit=120):
        """When the jobs began and when they ended, once all of them have.

        Looking costs the side that is looked at: what has ended is only counted until it is as much as was asked for.
        """
        end = time.monotonic() + limit
        missing = len(jobs)
        while True:
            if int(self.sql(url, counting)[0]) >= total:
                rows = {job: moments for job, *moments in (line.split("|") for line in self.sql(url, statement))}
                missing = len(jobs - rows.keys())
                if missing == 0:
                    return {job: [float(moment) for moment in rows[job]] for job in jobs}
            if time.monotonic() > end:
                raise self.wrong(f"of {len(jobs)} jobs {missing} or less did not end within {limit} s")
            time.sleep(0.2)

    def database(self, url, name):
        """An empty database beside the suite's."""
        self.sql(url, f'drop database if exists "{name}" with (force)')
        self.sql(url, f'create database "{name}"')
        parts = urllib.parse.urlsplit(url)
        return urllib.parse.urlunsplit(parts._replace(path="/" + name))

    def ours(self, environment, started):
        url = self.database(environment["DATABASE_URL"], "bench_roller")
        ports = [self.running.module.free_port() for _ in range(2)]
        common = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": url,
            "AMQP_URL": environment["AMQP_URL"],
            "ROLLER_EXCHANGE_NAMESPACE": "bench-roller",
            "TASKCLUSTER_ROOT_URL": environment["TASKCLUSTER_ROOT_URL"],
            "TASKCLUSTER_CLIENT_ID": environment["TASKCLUSTER_CLIENT_ID"],
            "TASKCLUSTER_ACCESS_TOKEN": environment["TASKCLUSTER_ACCESS_TOKEN"],
            "SCHEMAS_DIRECTORY": str(self.top / "schemas"),
            "HTTP_HOST": "127.0.0.1",
            "LOG_LEVEL": "warning",
            "DUPLICATE_POLICY": "allow",
            "CREATES_PER_MINUTE": "1000000",
            "ROLLER_CONCURRENCY": str(SLOTS),
        }
        self.run([self.binaries / "roller-api", "migrate"], common)
        self.sql(url, "insert into roller.machines (name, ip) values ('bench', '127.0.0.1')")
        for name, port in zip(("roller-api", "roller-worker"), ports):
            started.append(
                subprocess.Popen([self.binaries / name, "run"], env=common | {"HTTP_PORT": str(port)}, stdout=subprocess.DEVNULL)
            )
            self.wait(started[-1], port)
        ended = "from roller.jobs where state = 'succeeded'"
        return Side(
            f"http://127.0.0.1:{ports[0]}/api/v1/workers/bench/jobs?task_name=ping&dry_run=1",
            ports[0],
            [process.pid for process in started[-2:]],
            lambda jobs, total: self.moments(
                url,
                f"select count(*) {ended}",
                f"select id, extract(epoch from started), extract(epoch from finished) {ended}",
                jobs,
                total,
            ),
        )

    def theirs(self, environment, started):
        python = self.top / ".local" / "bench-celery" / "bin" / "python"
        if not python.exists():
            import venv

            venv.create(python.parents[1], with_pip=True)
        self.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS])
        url = self.database(environment["DATABASE_URL"], "bench_celery")
        port = self.running.module.free_port()
        variables = {
            "PATH": os.environ["PATH"],
            "AMQP_URL": environment["AMQP_URL"],
            "PEER_BACKEND": "db+postgresql+psycopg2://" + url.partition("://")[2],
            "PEER_QUEUE": f"bench-celery-{uuid.uuid4()}",
            "TASKCLUSTER_ROOT_URL": environment["TASKCLUSTER_ROOT_URL"],
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        folder = self.top / "Tests" / "Benchmarks"
        tools = python.parent
        commands = [
            [tools / "celery", "-A", "celery_peer", "worker", "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
            + ["--concurrency", str(CELERY_PROCESSES)],
            [tools / "gunicorn", "--workers", "4", "--bind", f"127.0.0.1:{port}", "--log-level", "warning", "celery_peer:application"],
        ]
        for command in commands:
            started.append(subprocess.Popen(command, env=variables, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        # The result of a task is the moment at which it began.
        ended = "from celery_taskmeta where status = 'SUCCESS'"
        return Side(
            f"http://127.0.0.1:{port}/api/v1/workers/bench/jobs?task_name=ping",
            port,
            [process.pid for process in started[-2:]],
            lambda jobs, total: self.moments(
                url,
                f"select count(*) {ended}",
                f"select task_id, convert_from(result, 'UTF8'), extract(epoch from date_done) {ended}",
                jobs,
                total,
            ),
        )

    def wait(self, process, port, path="/__lbheartbeat__", limit=90):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if process.poll() is not None:
                raise self.wrong(f"a process ended with status {process.returncode}")
            try:
                caller = Caller(port)
                status, _ = caller.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                if status == 200:
                    return
            except (OSError, StopIteration):
                pass
            time.sleep(0.05)
        raise self.wrong(f"{path} did not answer within {limit} s")

    # ------------------------------------------------------------ the entry

    def roller(self):
        """A POST with a signature, checked by the auth service; a job that is written down and does nothing."""
        for name in ("roller-api", "roller-worker"):
            if not (self.binaries / name).exists():
                raise self.skipped(f"{name} was not built")
        environment = self.running.everything()
        credentials = environment["TASKCLUSTER_CLIENT_ID"], environment["TASKCLUSTER_ACCESS_TOKEN"]
        started = []
        try:
            sides = [self.ours(environment, started), self.theirs(environment, started)]
            warm = 90 + time.monotonic()
            for side in sides:
                # The first requests find out whether it is there, and open what stays open.
                while True:
                    try:
                        side.rate(credentials, 50)
                        break
                    except OSError:
                        if time.monotonic() > warm or any(process.poll() is not None for process in started):
                            raise
                        time.sleep(0.5)
            one = max(50, int(200 * self.scale))
            many = max(200, int(2000 * self.scale))
            latencies, rates = [], []
            for _ in range(3):
                latencies.append([side.latency(credentials, one) for side in sides])
                rates.append([side.rate(credentials, many) for side in sides])
            memories = [resident(side.pids) for side in sides]
        finally:
            for process in started:
                process.terminate()
            for process in started:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.table.row(
            "jobs at the same time",
            f"{SLOTS} in one process",
            f"gunicorn 4, Celery {CELERY_PROCESSES} processes",
            f"{CONNECTIONS} connections",
        )
        self.row("POST accepted to action begun, half within", latencies, "ms", "<= 1x", lambda ratio: ratio <= 1, ".1f")
        self.row(f"{many:,} POSTs to the last job done", rates, "/s", ">= 4x", lambda ratio: ratio >= 4, ",.0f")
        self.row("resident, both processes, shared once", [memories], "MB", "<= 0.33x", lambda ratio: ratio <= 1 / 3, ".0f")

    def row(self, name, pairs, unit, bar, holds, style):
        ratios = sorted(ours / max(theirs, 0.05) for ours, theirs in pairs)
        ratio = statistics.median(ratios)
        self.table.row(
            name,
            f"{statistics.median(ours for ours, _ in pairs):{style}} {unit}",
            f"gunicorn, Celery {statistics.median(theirs for _, theirs in pairs):{style}} {unit}",
            f"{ratio:.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})",
            bar,
            holds(ratio),
        )
