// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
package import Postgres
import Pulse
package import RollerKit

/// Taking jobs: under a lease, with a fencing number, and with every lock that the job needs or none.
///
/// Leases are measured by the clock of the database. A message of the broker only says that looking is worth while.
package struct DispatchStore: Sendable {
    package let pool: PostgresPool
    let outbox: Outbox
    let exchanges: RollerExchanges
    /// The name of this worker process.
    package let runner: String
    /// The pool of workers it belongs to.
    package let poolName: String
    /// How long a worker may be silent before its jobs are taken from it.
    package let lease: Duration
    /// How many machines of one group may be in destructive jobs at once, or a tenth of them if that is more.
    package let groupLimit: Int
    /// How many machines of the pool, which is a site, may be in destructive jobs at once.
    package let siteLimit: Int

    package init(
        jobs: JobStore,
        runner: String,
        poolName: String = "default",
        lease: Duration = .seconds(30),
        groupLimit: Int = 10,
        siteLimit: Int = 100
    ) {
        pool = jobs.pool
        outbox = jobs.outbox
        exchanges = jobs.exchanges
        self.runner = runner
        self.poolName = poolName
        self.lease = lease
        self.groupLimit = groupLimit
        self.siteLimit = siteLimit
    }

    /// Takes up to `limit` jobs; `isMoreWaiting` says that others wait for a lock or limit.
    ///
    /// Jobs that only look are begun at once: doing them twice harms nobody, should this worker end in between.
    package func claim(limit: Int) async throws -> (jobs: [Job], isMoreWaiting: Bool) {
        let first = try await claimUnlocked(limit: limit)
        var (jobs, isMoreWaiting) = (first.jobs, first.isWaiting)
        if first.isActing, jobs.count < limit {
            let rest = try await claimLocked(limit: limit - jobs.count)
            jobs += rest.jobs
            isMoreWaiting = rest.isMoreWaiting
        }
        return (jobs, isMoreWaiting)
    }

    // MARK: - Jobs that only look

    /// Takes jobs that need no lock; they wait only while somebody has taken the machine's power away for a moment.
    ///
    /// Answers besides whether there are jobs that need locks, and whether any job waits.
    private func claimUnlocked(limit: Int) async throws -> (jobs: [Job], isActing: Bool, isWaiting: Bool) {
        let answer = try await pool.transaction { connection in
            let answers = try await connection.pipeline([claimOfUnlocked(limit: limit), rest])
            let found = try JobStore.jobs(answers[0])
            let begun = found.filter { $0.job.state == .running }
            try await outbox.add(begun.map { exchanges.eventMessage($0.job, machine: $0.machine) }, on: connection)
            let (isActing, isWaiting) = (try answers[1].first?.bool("acting"), try answers[1].first?.bool("waiting"))
            return (jobs: found.map(\.job), isActing: isActing == true, isWaiting: isWaiting == true)
        }
        if !answer.jobs.isEmpty { outbox.wake() }
        return answer
    }

    private func claimOfUnlocked(limit: Int) -> SQL {
        """
        with taken as (
            update roller.jobs set \(claimed),
                state = case when is_read_only or dry_run then 'running' else 'claimed' end,
                started = case when is_read_only or dry_run then coalesce(started, clock_timestamp()) else started end,
                duplicate_key = case when is_read_only then null else duplicate_key end
            where id = any(array(
                select j.id from roller.jobs j
                where j.state in ('queued', 'waiting') and j.pool = \(poolName) and j.not_before <= clock_timestamp()
                    and (j.deadline is null or j.deadline > clock_timestamp())
                    and (j.is_read_only or j.machine is null or j.dry_run)
                    and not exists (
                        select 1 from roller.intents i join roller.jobs s on s.id = i.set_by
                        where i.machine = j.machine and s.state in ('claimed', 'running', 'verifying'))
                order by j.priority desc, j.created limit \(limit) for update of j skip locked))
            returning \(JobStore.columns)
        ), lines as (
            insert into roller.job_events (job, kind) select id, 'running' from taken where state = 'running'
        )
        select *, (select m.name from roller.machines m where m.id = taken.machine) as machine_name from taken
        """
    }

    /// Whether there are jobs that need locks, and whether any job waits.
    private var rest: SQL {
        """
        select exists (
            select 1 from roller.jobs j
            where j.state in ('queued', 'waiting') and j.pool = \(poolName) and j.not_before <= clock_timestamp()
                and (j.deadline is null or j.deadline > clock_timestamp())
                and not (j.is_read_only or j.machine is null or j.dry_run)) as acting,
            exists (select 1 from roller.jobs where state = 'waiting' and pool = \(poolName)) as waiting
        """
    }

    /// What every claim changes, besides the state.
    private var claimed: SQL {
        """
        fence = nextval('roller.fences'), runner = \(runner), attempts = attempts + 1,
        claimed = clock_timestamp(), updated = clock_timestamp(), waiting_for = null,
        lease_until = clock_timestamp() + \(lease.inSeconds) * interval '1 second'
        """
    }

    // MARK: - Jobs that act

    private struct Candidate {
        var id: String
        var machine: String
        var resources: [String]
    }

    /// Takes jobs that act on a machine.
    ///
    /// One worker at a time does this, so that limits are counted right; it is a matter of milliseconds.
    private func claimLocked(limit: Int) async throws -> (jobs: [Job], isMoreWaiting: Bool) {
        try await pool.transaction { connection in
            let candidates = try await candidates(limit: limit * 4 + 16, on: connection)
            guard !candidates.isEmpty else { return ([], try await isAnyWaiting(on: connection)) }
            _ = try await connection.execute("select pg_advisory_xact_lock(hashtext('roller.claim'))")
            var jobs: [Job] = []
            var isMoreWaiting = false
            for candidate in candidates where jobs.count < limit {
                if let obstacle = try await obstacle(candidate, on: connection) {
                    isMoreWaiting = true
                    try await postpone(candidate, obstacle, on: connection)
                    continue
                }
                if let job = try await take(candidate, on: connection) { jobs.append(job) }
            }
            return (jobs, isMoreWaiting || jobs.count == limit)
        }
    }

    private func candidates(limit: Int, on connection: PostgresConnection) async throws -> [Candidate] {
        let rows = try await connection.query(
            """
            select j.id, j.machine, array(
                    select 'ctl:' || c.controller || ':' || c.locator_key from roller.machine_controls c
                    where c.machine = j.machine) as controls
            from roller.jobs j
            where j.state in ('queued', 'waiting') and j.pool = \(poolName) and j.not_before <= clock_timestamp()
                and (j.deadline is null or j.deadline > clock_timestamp())
                and not (j.is_read_only or j.machine is null or j.dry_run)
            order by j.priority desc, j.created limit \(limit)
            """
        )
        return try Self.candidates(rows)
    }

    private static func candidates(_ rows: [PostgresRow]) throws -> [Candidate] {
        var candidates: [Candidate] = []
        for row in rows {
            let machine = try row.string("machine")
            let resources = (["machine:\(machine)"] + (try row.strings("controls"))).sorted()
            candidates.append(Candidate(id: try row.string("id"), machine: machine, resources: resources))
        }
        return candidates
    }

    private func isAnyWaiting(on connection: PostgresConnection) async throws -> Bool {
        try await !connection.query(
            "select 1 as one from roller.jobs where state = 'waiting' and pool = \(poolName) limit 1"
        ).isEmpty
    }

    /// What keeps a job from beginning: somebody's lock, the limit of a group or site, or maintenance or a loan that began
    /// after it was asked for.
    private func obstacle(_ candidate: Candidate, on connection: PostgresConnection) async throws -> String? {
        let row = try await connection.query(
            """
            select (select l.resource || ' held by ' || l.job from roller.resource_locks l
                    where l.resource = any(\(candidate.resources)) and l.expires_at > clock_timestamp()
                        and l.job <> j.id
                    order by l.resource limit 1) as holder,
                (select g.name from roller.machine_groups mg join roller.groups g on g.name = mg.group_name
                    where mg.machine = j.machine and j.is_destructive
                        and (select count(*) from roller.jobs o join roller.machine_groups og on og.machine = o.machine
                            where og.group_name = g.name and o.is_destructive and not o.dry_run
                                and o.state in ('claimed', 'running', 'verifying'))
                            >= coalesce((g.properties ->> 'max_destructive')::int, greatest(\(groupLimit)::bigint,
                                (select count(*) / 10 from roller.machine_groups ag where ag.group_name = g.name)))
                    limit 1) as crowded,
                j.is_destructive and (select count(*) from roller.jobs o
                    where o.pool = j.pool and o.is_destructive and not o.dry_run
                        and o.state in ('claimed', 'running', 'verifying')) >= \(siteLimit) as site_is_full,
                (select w.reason from roller.maintenance_windows w
                    where j.is_destructive and w.starts <= clock_timestamp() and w.ends > clock_timestamp()
                        and w.starts > j.created
                        and (w.machine = j.machine or (w.machine is null and w.group_name is null) or w.group_name in
                            (select group_name from roller.machine_groups where machine = j.machine))
                    limit 1) as closed,
                (select m.state from roller.machines m
                    where m.id = j.machine and j.is_destructive
                        and (m.state in ('maintenance', 'retired') or m.state = 'loaned' and j.task_name <> 'return_loan')
                        and (m.state_until is null or m.state_until > clock_timestamp())
                        and m.updated > j.created) as resting,
                (select 'the restoration of power' from roller.intents i
                    where i.machine = j.machine and i.set_by <> j.id and j.task_name <> 'recover'
                        and i.since > now() - interval '2 minutes') as dark
            from roller.jobs j where j.id = \(candidate.id)::uuid and j.state in ('queued', 'waiting')
            """
        ).first
        guard let row else { return nil }
        if let holder = try row.optionalString("holder") { return holder }
        if let group = try row.optionalString("crowded") { return "limit of group \(group)" }
        if try row.bool("site_is_full") { return "limit of site \(poolName)" }
        if let reason = try row.optionalString("closed") { return "maintenance window: \(reason)" }
        if let restoration = try row.optionalString("dark") { return restoration }
        return try row.optionalString("resting").map { "the machine is in \($0)" }
    }

    private func postpone(_ candidate: Candidate, _ obstacle: String, on connection: PostgresConnection) async throws {
        let rows = try await connection.query(
            """
            with old as (select waiting_for from roller.jobs where id = \(candidate.id)::uuid)
            update roller.jobs set state = 'waiting', waiting_for = \(obstacle), updated = clock_timestamp(),
                not_before = clock_timestamp() + interval '1 second'
            where id = \(candidate.id)::uuid and state in ('queued', 'waiting')
            returning (select waiting_for from old) is distinct from \(obstacle) as is_news
            """
        )
        guard try rows.first?.bool("is_news") == true else { return }
        _ = try await connection.execute(
            """
            insert into roller.job_events (job, kind, data)
            values (\(candidate.id)::uuid, 'waiting', \(["for": JSONValue(obstacle)] as JSONValue))
            """
        )
    }

    private func take(_ candidate: Candidate, on connection: PostgresConnection) async throws -> Job? {
        let job = try await connection.query(
            """
            update roller.jobs set state = 'claimed', \(claimed) where id = \(candidate.id)::uuid and state in ('queued', 'waiting')
            returning \(JobStore.columns)
            """
        ).first.map(Job.init(row:))
        guard let job else { return nil }
        _ = try await connection.execute(
            """
            insert into roller.resource_locks (resource, job, runner, fence, expires_at)
            select resource, \(job.id)::uuid, \(runner), \(job.fence),
                clock_timestamp() + \(lease.inSeconds) * interval '1 second'
            from unnest(\(candidate.resources)::text[]) as resource
            on conflict (resource) do update set job = excluded.job, runner = excluded.runner, fence = excluded.fence,
                expires_at = excluded.expires_at
            """
        )
        return job
    }
}

extension Duration {
    /// The length as PostgreSQL is told it.
    var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}
