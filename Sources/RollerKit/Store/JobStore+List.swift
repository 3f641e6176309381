// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules

extension JobStore {
    /// A job with the name of its machine.
    struct Row: Sendable {
        let job: Job
        let machine: (id: String, name: String, fqdn: String?)?
        /// The moment of creation to the microsecond, for pages.
        let createdText: String

        init(row: PostgresRow) throws {
            job = try Job(row: row)
            if let id = job.machine, let name = try row.optionalString("machine_name") {
                machine = (id, name, try row.optionalString("machine_fqdn"))
            } else {
                machine = nil
            }
            createdText = try row.string("created_text")
        }
    }

    /// Which jobs somebody wants to see.
    struct Filter: Sendable {
        var workerID: String?
        var workerGroup: String?
        var machine: String?
        var taskName: String?
        var status: JobStatus?
        var clientID: String?
        var since: Timestamp?
        var until: Timestamp?
        var isActive = false

        /// Jobs on a machine that are not over.
        static func active(machine: String) -> Filter {
            var filter = Filter()
            filter.machine = machine
            filter.isActive = true
            return filter
        }
    }

    /// A job with the name of its machine; nil if there is none.
    func row(_ id: String) async throws -> Row? {
        guard JobID.isValid(id) else { return nil }
        return try await pool.query(
            """
            select \(Self.columns), created::text as created_text,
                (select name from roller.machines m where m.id = machine) as machine_name,
                (select fqdn from roller.machines m where m.id = machine) as machine_fqdn
            from roller.jobs where id = \(id)::uuid
            """
        ).first.map(Row.init(row:))
    }

    /// Jobs, newest first, after the one that a page ended with.
    func list(_ filter: Filter, after: (created: String, id: String)?, limit: Int) async throws -> [Row] {
        // Only what is asked for becomes part of the statement, so that each combination finds its index.
        var conditions: SQL = "true"
        if let worker = filter.workerID { conditions = conditions + " and worker_id = \(worker)" }
        if let group = filter.workerGroup { conditions = conditions + " and worker_group = \(group)" }
        if let machine = filter.machine { conditions = conditions + " and machine = \(machine)::uuid" }
        if let task = filter.taskName { conditions = conditions + " and task_name = \(task)" }
        if filter.isActive {
            let active = JobState.allCases.filter { !$0.isTerminal }.map(\.rawValue)
            conditions = conditions + " and state = any(\(active))"
        }
        if let client = filter.clientID { conditions = conditions + " and client_id = \(client)" }
        if let since = filter.since { conditions = conditions + " and created >= \(since)" }
        if let until = filter.until { conditions = conditions + " and created < \(until)" }
        if let after {
            conditions = conditions + " and (created, id) < (\(after.created)::timestamptz, \(after.id)::uuid)"
        }
        return try await pool.query(Self.statement(filter.status, conditions, limit)).map(Row.init(row:))
    }

    /// The statement of a list.
    ///
    /// Of several states each is looked through by itself, so that the index gives the newest of it and few are sorted.
    static func statement(_ status: JobStatus?, _ conditions: SQL, _ limit: Int) -> SQL {
        let source: SQL
        if let status {
            source = """
                unnest(\(status.states.map(\.rawValue))::text[]) wanted cross join lateral (
                    select * from roller.jobs where state = wanted and \(conditions)
                    order by created desc, id desc limit \(limit)) jobs
                """
        } else {
            source =
                "(select * from roller.jobs where \(conditions) order by created desc, id desc limit \(limit)) jobs"
        }
        return """
            select \(Self.columns), created::text as created_text,
                (select name from roller.machines m where m.id = machine) as machine_name,
                (select fqdn from roller.machines m where m.id = machine) as machine_fqdn
            from \(source) order by created desc, id desc limit \(limit)
            """
    }

    /// Waits until a job has left a state, at most as long as the limit; answers what it is like then.
    func waitForChange(_ id: String, from state: JobState, limit: Duration) async throws -> Row? {
        let end = ContinuousClock.now + limit
        while true {
            let now = try await pool.query(
                "select state from roller.jobs where id = \(id)::uuid"
            ).first?.string("state")
            if now != state.rawValue || ContinuousClock.now >= end { return try await row(id) }
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    /// Forgets the output of old attempts, and jobs that are older still, some at a time.
    package func sweep(outputs: Duration = .seconds(90 * 86400), jobs: Duration = .seconds(400 * 86400)) async throws {
        let outputs = Int(outputs.components.seconds)
        let jobs = Int(jobs.components.seconds)
        _ = try await pool.execute(
            """
            update roller.job_attempts set output = null where output is not null
                and (job, n) in (select job, n from roller.job_attempts
                    where output is not null and started < now() - \(outputs)::bigint * interval '1 second' limit 1000)
            """
        )
        _ = try await pool.execute(
            """
            delete from roller.jobs where id in (select id from roller.jobs
                where created < now() - \(jobs)::bigint * interval '1 second'
                    and state in ('succeeded', 'failed', 'canceled', 'expired', 'lost')
                order by created limit 1000)
            """
        )
        _ = try await pool.execute("delete from roller.rate_windows where started < now() - interval '1 day'")
        try await sweepLocks()
        try await NotificationStore(pool: pool).sweep()
    }
}
