// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Postgres
package import RollerKit

extension DispatchStore {
    /// Prolongs the leases of jobs and of their locks; answers the ids of those that are still ours.
    package func renew(_ held: [(id: String, fence: Int)]) async throws -> Set<String> {
        guard !held.isEmpty else { return [] }
        let rows = try await pool.query(
            """
            with alive as (
                update roller.jobs j set lease_until = clock_timestamp() + \(lease.inSeconds) * interval '1 second'
                from unnest(\(held.map(\.id))::uuid[], \(held.map(\.fence))::bigint[]) as held (id, fence)
                where j.id = held.id and j.fence = held.fence and j.state in ('claimed', 'running', 'verifying')
                returning j.id
            ), locks as (
                update roller.resource_locks l
                set expires_at = greatest(l.expires_at, clock_timestamp() + \(lease.inSeconds) * interval '1 second')
                from alive where l.job = alive.id
            )
            select id from alive
            """
        )
        return Set(try rows.map { try $0.string("id") })
    }

    /// Whether a claim is still the last one of its job.
    package func holds(_ id: String, fence: Int) async throws -> (isMine: Bool, isCancelRequested: Bool) {
        let row = try await pool.query(
            """
            select cancel_requested is not null as stop from roller.jobs
            where id = \(id)::uuid and fence = \(fence) and state in ('claimed', 'running', 'verifying')
            """
        ).first
        guard let row else { return (false, false) }
        return (true, try row.bool("stop"))
    }

    /// Gives up the locks of a claim that was taken from us.
    func letGo(_ job: Job) async throws {
        _ = try await pool.execute(
            "delete from roller.resource_locks where job = \(job.id)::uuid and fence = \(job.fence)"
        )
    }

    // MARK: - Runners

    /// Says that this worker lives.
    package func beat(capacity: Int, host: String, process: Int) async throws {
        _ = try await pool.execute(
            """
            insert into roller.runners (name, pid, host, version, pool, capacity)
            values (\(runner), \(process), \(host), \(Release.version), \(poolName), \(capacity))
            on conflict (name) do update set heartbeat = now(), capacity = excluded.capacity
            """
        )
        _ = try await pool.execute("delete from roller.runners where heartbeat < now() - interval '1 day'")
    }

    /// Says that this worker has ended.
    package func leave() async throws {
        _ = try await pool.execute("delete from roller.runners where name = \(runner)")
    }

    // MARK: - What the dead left behind

    /// Jobs whose worker has been silent for longer than its lease, taken over under a new fencing number.
    ///
    /// From here on nothing the old worker does can change them.
    package func takeOverSilent(limit: Int = 20) async throws -> [Job] {
        try await pool.query(
            """
            update roller.jobs set fence = nextval('roller.fences'),
                lease_until = clock_timestamp() + \(lease.inSeconds) * interval '1 second'
            where id = any(array(
                select id from roller.jobs
                where state in ('claimed', 'running', 'verifying') and lease_until < clock_timestamp()
                order by lease_until limit \(limit) for update skip locked))
            returning \(JobStore.columns)
            """
        ).map(Job.init(row:))
    }

    /// Puts a job that may be done again back into the queue.
    package func requeue(_ job: Job) async throws {
        _ = try await pool.execute(
            """
            with back as (
                update roller.jobs set state = 'queued', runner = null, lease_until = null, updated = clock_timestamp(),
                    not_before = clock_timestamp()
                where id = \(job.id)::uuid and fence = \(job.fence) and state in ('claimed', 'running', 'verifying')
                returning id
            ), noted as (
                insert into roller.job_events (job, kind, data)
                select id, 'requeued', \(["lostRunner": JSONValue(job.runner ?? "")] as JSONValue) from back
            )
            delete from roller.resource_locks where job in (select id from back)
            """
        )
    }

    /// Jobs that nobody has begun although their time is over, with the reason.
    package func overdue(lockWait: Duration, limit: Int = 50) async throws -> [(job: Job, reason: String)] {
        let rows = try await pool.query(
            """
            select \(JobStore.columns), deadline is not null and deadline <= clock_timestamp() as is_late
            from roller.jobs
            where state in ('queued', 'waiting') and (deadline <= clock_timestamp()
                or (state = 'waiting' and created < clock_timestamp() - \(lockWait.inSeconds) * interval '1 second'))
            order by created limit \(limit)
            """
        )
        return try Self.overdue(rows)
    }

    private static func overdue(_ rows: [PostgresRow]) throws -> [(job: Job, reason: String)] {
        var overdue: [(job: Job, reason: String)] = []
        for row in rows {
            let job = try Job(row: row)
            let isLate = try row.bool("is_late")
            overdue.append((job, isLate ? "deadline" : "lock-timeout: \(job.waitingFor ?? "unknown")"))
        }
        return overdue
    }

    /// A machine that somebody was about to switch off and on, and that nobody works on any more.
    package struct Orphan: Sendable, Hashable {
        /// The machine's id.
        package var machine: String
        /// The job that meant to.
        package var job: String
        /// The controller it used.
        package var controller: String?
    }

    /// Intents of jobs that have ended, unless somebody restores the power already or has tried just now.
    package func orphans(limit: Int = 20) async throws -> [Orphan] {
        let rows = try await pool.query(
            """
            select i.machine, i.set_by, i.control ->> 'controller' as controller
            from roller.intents i
            where not exists (
                    select 1 from roller.jobs s where s.id = i.set_by and s.state in ('claimed', 'running', 'verifying'))
                and not exists (
                    select 1 from roller.jobs r where r.machine = i.machine and r.task_name = 'recover'
                        and r.state in ('queued', 'waiting', 'claimed', 'running', 'verifying'))
                and coalesce((
                    select max(r.finished) + least(3600, 30 * power(2, least(count(*), 10))) * interval '1 second'
                    from roller.jobs r
                    where r.machine = i.machine and r.task_name = 'recover' and r.created >= i.since),
                    '-infinity') < clock_timestamp()
            order by i.since limit \(limit)
            """
        )
        return try Self.orphans(rows)
    }

    private static func orphans(_ rows: [PostgresRow]) throws -> [Orphan] {
        var orphans: [Orphan] = []
        for row in rows {
            let (machine, job) = (try row.string("machine"), try row.string("set_by"))
            orphans.append(Orphan(machine: machine, job: job, controller: try row.optionalString("controller")))
        }
        return orphans
    }
}
