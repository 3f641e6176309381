# SPDX-License-Identifier: MPL-2.0
"""The entries of bench about pipelines and sign-offs.

The original's figures were recorded, since its services are gone. What is a rate stands beside a peer of this run as well: a
step service in Flask that checks nobody, writes no audit and tells nobody.
"""

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import threading
import time

RECORDED = "recorded, other machine"
READS, PUTS = 170, 27
PEERS = ["flask==3.0.3", "gunicorn==22.0.0", "psycopg2-binary==2.9.9"]
PAIRS = 3


class Hanging:
    """A service that accepts every connection and answers none."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.accepted = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                self.accepted.append(self.listener.accept()[0])

    def close(self):
        self.listener.close()
        for connection in self.accepted:
            connection.close()


class ShipItEntries:
    """What bench needs of this file."""

    def __init__(self, table, bench):
        self.table, self.bench = table, bench

    def entries(self):
        return {
            "shipit": (self.rates, "Pipelines and sign-offs"),
            "shipit-next": (self.next, None),
            "shipit-hang": (self.hang, None),
            "shipit-idle": (self.idle, None),
            "shipit-many": (self.many, None),
        }

    # ------------------------------------------------------------ what is needed

    def with_suite(self, body, **settings):
        """A suite of its own, with the services of ShipIt and what the front door leads to, removed afterwards."""
        bench = self.bench
        running = bench.Running(bench.LOCAL.with_name(bench.LOCAL.name + "-shipit"))
        running.remove()
        try:
            environment = running.servers()
            needed = ("taskcluster-local", "hooks-service", "pulse-listener", "shipit-oidc-dev", "shipit-signoff", "shipit-pipeline")
            for name in list(running.module.SERVICES):
                if name not in needed:
                    running.module.SERVICES.pop(name)
            running.module.MIGRATED[:] = [name for name in running.module.MIGRATED if name in needed]
            missing = [name for name in needed if name not in running.module.SERVICES]
            if missing:
                raise bench.Skipped(f"{', '.join(missing)} not built")
            usual = running.suite.service_environment
            running.suite.service_environment = lambda name: self.changed(usual(name), settings)
            try:
                running.environment = environment | running.suite.up()
            except running.module.Failure as failure:
                raise bench.Wrong(failure) from None
            body(running)
        finally:
            running.remove()

    @staticmethod
    def changed(environment, settings):
        """The environment of a service with more addresses where steps may be."""
        services = settings.get("services")
        if services and "SHIPIT_STEP_SERVICES" in environment:
            environment = environment | {"SHIPIT_STEP_SERVICES": f"{environment['SHIPIT_STEP_SERVICES']},{services}"}
        return environment

    @contextlib.contextmanager
    def peer(self, environment):
        """The step service in Flask, with a process for each core; its port."""
        bench = self.bench
        python = bench.TOP / ".local" / "bench-shipit-venv" / "bin" / "python"
        if not python.exists():
            bench.venv.create(python.parents[1], with_pip=True)
        bench.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS])
        bench.run([python, bench.FOLDER / "steps_peer.py"], environment)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = ["-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "--chdir", bench.FOLDER, "steps_peer:app"]
        process = subprocess.Popen(
            [str(word) for word in [python, *words]],
            env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            bench.wait_for_answer(process, port, "/read/status")
            yield port
        finally:
            bench.stop(process)

    def bar(self, name, rate, original, least=0):
        ratio = rate / original
        bound = f">= 20x, {least:,}/s" if least else ">= 20x"
        met = ratio >= 20 and rate >= least
        self.table.row(name, f"{rate:,.0f}/s", f"original {original}/s ({RECORDED})", f"{ratio:.0f}x", bound, met)

    def beside(self, pairs):
        """What a peer did in the same minutes, in turn with ours."""
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        self.table.row(
            "  beside Flask that checks nobody",
            f"{statistics.median(ours for ours, _ in pairs):,.0f}/s",
            f"Flask, gunicorn {statistics.median(theirs for _, theirs in pairs):,.0f}/s",
            f"{statistics.median(ratios):.1f}x ({ratios[0]:.1f}-{ratios[-1]:.1f})",
        )

    # ------------------------------------------------------------ entries

    def rates(self):
        bench = self.bench

        def peers(port, *words):
            return bench.figure([bench.BENCH, "http", words[0], port, *words[1:], 8, 3])

        def reads(environment, port):
            bench.measure([bench.BENCH, "shipit-read", 4, 1, 0], environment)
            # The original asked nobody who reads for a name; here people have tokens, and clients sign each request.
            for person, who in ((1, "people"), (0, "clients")):
                runs, pairs = [], []
                for _ in range(PAIRS):
                    runs.append(bench.measure([bench.BENCH, "shipit-read", 8, 3, person], environment))
                    pairs.append((runs[-1]["rate"], peers(port, "GET", "/read/status")))
                facts = sorted(runs, key=lambda facts: facts["rate"])[PAIRS // 2]
                self.bar(f"status of a pipeline read by {who}, 8 connections", facts["rate"], READS)
                self.table.row("  99 % of them within", f"{facts['p99']:.1f} ms", "original 31 ms at 1 connection")
                self.beside(pairs)
                bench.cost(facts["cpu"], 3, 3 * facts["rate"])
                facts = bench.measure([bench.BENCH, "shipit-read", 32, 4, person], environment)
                rate, late = facts["rate"], facts["p99"]
                self.table.row("  32 connections", f"{rate:,.0f}/s", "", "", ">= 3,000/s", rate >= 3000)
                self.table.row("  99 % of them within", f"{late:.1f} ms", "", "", "< 15 ms", late < 15)

        def writes(environment, port):
            count = max(400, int(3000 * bench.SCALE))
            runs, pairs = [], []
            for _ in range(PAIRS):
                runs.append(bench.measure([bench.BENCH, "shipit-sign", 8, count], environment))
                pairs.append((runs[-1]["created"]["rate"], peers(port, "PUT", "/new-{}")))
            kinds = (("created", "sign-off PUT, 8 connections", 0), ("signed", "sign-off signed, 8 connections", 500))
            for word, name, least in kinds:
                facts = sorted((run[word] for run in runs), key=lambda facts: facts["rate"])[PAIRS // 2]
                self.bar(name, facts["rate"], PUTS, least)
                if word == "created":
                    self.beside(pairs)
                bench.cost(facts["cpu"], count / facts["rate"], count)
            count = max(200, int(2000 * bench.SCALE))
            facts = bench.measure([bench.BENCH, "shipit-put", 8, count, 10], environment)
            rate = facts["rate"]
            self.table.row(
                "pipeline of 10 steps PUT, 8 connections", f"{rate:,.0f}/s", "original 290/s, in memory", "", ">= 300/s", rate >= 300
            )
            bench.cost(facts["cpu"], facts["count"] / rate, facts["count"])

        def body(running):
            environment = running.processes()
            with self.peer(environment) as port:
                reads(environment, port)
                writes(environment, port)

        self.with_suite(body)

    def next(self):
        bench = self.bench

        def body(running):
            facts = bench.measure([bench.BENCH, "shipit-next", max(20, int(200 * bench.SCALE))], running.environment)
            self.table.row(
                "step finished to dependent step made, half", f"{facts['p50']:.1f} ms", "original: never", "", "<= 100 ms", facts["p50"] <= 100
            )
            self.table.row("  99 % of them within", f"{facts['p99']:.1f} ms", "", "", "< 500 ms", facts["p99"] < 500)

        self.with_suite(body)

    def hang(self):
        bench = self.bench
        hanging = Hanging()
        count = max(20, int(100 * bench.SCALE))

        def next_step(running):
            return bench.measure([bench.BENCH, "shipit-next", max(20, int(60 * bench.SCALE))], running.environment)

        def body(running):
            usual = next_step(running)
            bench.measure([bench.BENCH, "shipit-hang", hanging.url, count, 3], running.environment)
            # Until the calls to it have begun.
            time.sleep(5)
            delayed = next_step(running)
            for word, name in (("p50", f"{count} pipelines at a service that hangs, others later"), ("p99", "  99 % of them")):
                later = delayed[word] - usual[word]
                text = f"{delayed[word]:.1f} ms, {usual[word]:.1f} without"
                self.table.row(name, f"{later:+.1f} ms", text, "", "< 100 ms", later < 100)

        try:
            self.with_suite(body, services=hanging.url)
        finally:
            hanging.close()

    def idle(self):
        """1,000 pipelines: what they cost while nothing happens, while much does, and while the service was away."""
        bench = self.bench
        count = max(100, int(1000 * bench.SCALE))
        costs = {}

        def body(running):
            # Read anew: the service that is restarted has another number.
            events = lambda: bench.measure([bench.BENCH, "shipit-events", 20, 10], running.processes())
            begun = 0
            for number in (count // 100, count // 10, count):
                if number == count:
                    facts = self.fill(running, number - begun)
                else:
                    bench.measure([bench.BENCH, "shipit-fill", number - begun, 10], running.environment)
                    time.sleep(20)
                    costs[number] = events()
                begun = number
            self.table.row(f"{count:,} pipelines of 10 steps begun", f"{facts['seconds']:.0f} s")
            share = facts["share"]
            self.table.row("  of one core while each is asked about every second", f"{share:.0%}", "", "", "< 100 %", share < 1)
            # Steps are asked about every second at first; what counts is how it is when nothing has happened for a while.
            time.sleep(60)
            pid = running.suite.pid("shipit-pipeline")
            share = self.share(pid, 30)
            resident, anonymous = bench.memory(pid)
            self.table.row("  of one core while they wait", f"{share:.1%}", "", "", "<= 5 %", share <= 0.05)
            self.table.row(
                "  resident", f"{resident:.0f} MB", f"{anonymous:.0f} MB of it anonymous", "", "<= 80 MB", resident <= 80
            )
            costs[count] = events()
            few = costs[count // 100]["cpu"]["all"]
            for number, facts in costs.items():
                whole, ours = facts["cpu"]["all"], facts["cpu"]["shipit-pipeline"]
                ratio = whole / few
                many = number == count
                self.table.row(
                    f"  a step ends and the next begins, {number:,} waiting",
                    f"{whole:.2f} ms",
                    f"processor time; shipit-pipeline {ours:.2f}",
                    f"{ratio:.2f}x of {count // 100}",
                    "<= 1.5x" if many else "",
                    ratio <= 1.5 if many else None,
                )
            milliseconds = sorted(self.restart(running) for _ in range(PAIRS))
            middle = milliseconds[PAIRS // 2]
            self.table.row("  killed, started, to the next step begun", f"{middle:,.0f} ms", "", "", "< 2,000 ms", middle < 2000)

        self.with_suite(body)

    def fill(self, running, count):
        bench = self.bench
        facts = bench.measure([bench.BENCH, "shipit-fill", count, 10], running.environment)
        return facts | {"share": self.share(running.suite.pid("shipit-pipeline"), 10)}

    def share(self, pid, seconds):
        before = self.bench.processor_ticks(pid)
        time.sleep(seconds)
        return (self.bench.processor_ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / seconds

    def restart(self, running):
        """A step ends while the pipelines' service is dead: milliseconds from its start to the next step."""
        bench = self.bench
        told = subprocess.Popen(
            [str(bench.BENCH), "shipit-restart"],
            env=running.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self.hear(told, "running")
            running.suite.stop("shipit-pipeline", signal.SIGKILL)
            print("stopped", file=told.stdin, flush=True)
            self.hear(told, "signed")
            print("started", file=told.stdin, flush=True)
            running.suite.start("shipit-pipeline")
            line = told.stdout.readline()
            if told.wait(60) != 0:
                raise bench.Wrong(told.stderr.read().strip())
            return bench.json.loads(line)["milliseconds"]
        finally:
            if told.poll() is None:
                told.kill()
                told.wait()

    def hear(self, process, word):
        if process.stdout.readline().strip() != word:
            raise self.bench.Wrong(process.stderr.read().strip() or f"the benchmark did not say {word}")

    def many(self):
        bench = self.bench
        count = max(500, int(10_000 * bench.SCALE))

        def body(running):
            pid = running.suite.pid("shipit-pipeline")
            before = bench.memory(pid)[0]
            facts = bench.measure([bench.BENCH, "shipit-put", 8, count, 5], running.processes())
            time.sleep(5)
            self.table.row("shipit-pipeline, resident when idle", f"{before:.1f} MB", "original 55 MB a process", "", "< 60 MB", before < 60)
            signoff = bench.memory(running.suite.pid("shipit-signoff"))[0]
            self.table.row("shipit-signoff, resident when idle", f"{signoff:.1f} MB", "original 61 MB a process", "", "< 60 MB", signoff < 60)
            resident, anonymous = bench.memory(pid)
            share = self.share(pid, 15)
            self.table.row(
                f"  with {facts['count']:,} pipelines that wait", f"{resident:.0f} MB", f"{anonymous:.0f} MB of it anonymous", "", "< 120 MB", resident < 120
            )
            self.table.row("  of one core then", f"{share:.1%}")

        self.with_suite(body)
