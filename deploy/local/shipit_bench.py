# SPDX-License-Identifier: MPL-2.0
"""The entries of bench about pipelines and sign-offs; the original's figures were recorded, since its services are gone."""

import os
import time

RECORDED = "recorded, other machine"
READS, PUTS = 170, 27


class ShipItEntries:
    """What bench needs of this file."""

    def __init__(self, table, bench):
        self.table, self.bench = table, bench
        self.suite = None

    def entries(self):
        return {
            "shipit": (self.rates, "Pipelines and sign-offs"),
            "shipit-next": (self.next, None),
            "shipit-idle": (self.idle, None),
        }

    # ------------------------------------------------------------ what is needed

    def with_suite(self, body):
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
            try:
                running.environment = environment | running.suite.up()
            except running.module.Failure as failure:
                raise bench.Wrong(failure) from None
            body(running)
        finally:
            running.remove()

    def bar(self, name, rate, original, unit="/s"):
        ratio = rate / original
        self.table.row(name, f"{rate:,.0f}{unit}", f"original {original}/s ({RECORDED})", f"{ratio:.0f}x", ">= 20x", ratio >= 20)

    # ------------------------------------------------------------ entries

    def rates(self):
        bench = self.bench

        def body(running):
            environment = running.processes()
            bench.measure([bench.BENCH, "shipit-read", 4, 1, 0], environment)
            # The original asked nobody who reads for a name; here people have tokens, and clients sign each request.
            for person, who in ((1, "people"), (0, "clients")):
                facts = bench.measure([bench.BENCH, "shipit-read", 8, 5, person], environment)
                self.bar(f"status of a pipeline read by {who}, 8 connections", facts["rate"], READS)
                self.table.row("  99 % of them within", f"{facts['p99']:.1f} ms", "original 31 ms at 1 connection")
                bench.cost(facts["cpu"], 5, 5 * facts["rate"])
            count = max(400, int(6000 * bench.SCALE))
            facts = bench.measure([bench.BENCH, "shipit-sign", 8, count], environment)
            for word, name in (("created", "sign-off PUT, 8 connections"), ("signed", "sign-off signed, 8 connections")):
                self.bar(name, facts[word]["rate"], PUTS)
                bench.cost(facts[word]["cpu"], count / facts[word]["rate"], count)

        self.with_suite(body)

    def next(self):
        bench = self.bench

        def body(running):
            facts = bench.measure([bench.BENCH, "shipit-next", max(20, int(200 * bench.SCALE))], running.environment)
            name = "step finished to dependent step made, half"
            self.table.row(
                name, f"{facts['p50']:.1f} ms", "original: never", "", "<= 100 ms", facts["p50"] <= 100
            )
            self.table.row("  99 % of them within", f"{facts['p99']:.1f} ms", "", "", "<= 500 ms", facts["p99"] <= 500)

        self.with_suite(body)

    def idle(self):
        bench = self.bench
        count = max(100, int(1000 * bench.SCALE))

        def body(running):
            facts = bench.measure([bench.BENCH, "shipit-fill", count, 10], running.environment)
            self.table.row(f"{facts['count']:,} pipelines of 10 steps begun", f"{facts['seconds']:.0f} s")
            # Steps are asked about every second at first; what counts is how it is when nothing has happened for a while.
            time.sleep(60)
            pid = running.suite.pid("shipit-pipeline")
            before = bench.processor_ticks(pid)
            time.sleep(30)
            share = (bench.processor_ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / 30
            resident, anonymous = bench.memory(pid)
            self.table.row("  share of one core while they wait", f"{share:.1%}", "", "", "<= 5 %", share <= 0.05)
            self.table.row(
                "  resident", f"{resident:.0f} MB", f"{anonymous:.0f} MB of it anonymous", "", "<= 80 MB", resident <= 80
            )

        self.with_suite(body)
