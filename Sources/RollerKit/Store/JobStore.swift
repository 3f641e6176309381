// SPDX-License-Identifier: MPL-2.0

import JSON
package import Outbox
package import Postgres
import Pulse
import Schedules

/// The jobs in PostgreSQL, with everything that must change together with them.
///
/// Each change of a job's state commits with its line of history, its message to the bus and what people are told.
package struct JobStore: Sendable {
    package let pool: PostgresPool
    package let outbox: Outbox
    package let exchanges: RollerExchanges
    let rules: NotificationRules
    let creations: Gathering<JobsTogether.Creation, JobsTogether.Created>
    let moves: Gathering<JobsTogether.Move, Bool>
    let ends: Gathering<JobsTogether.Ending, Bool>

    package init(pool: PostgresPool, outbox: Outbox, exchanges: RollerExchanges, notifications: NotificationSettings) {
        self.pool = pool
        self.outbox = outbox
        self.exchanges = exchanges
        rules = NotificationRules(notifications)
        let together = JobsTogether(pool: pool, outbox: outbox, exchanges: exchanges, rules: rules)
        let pace = Duration.milliseconds(2)
        creations = Gathering(pace: pace, alone: { try await together.create([$0], isAlone: true)[0] }) {
            try await together.create($0)
        }
        moves = Gathering(pace: pace, alone: { try await together.move([$0], isAlone: true)[0] }) {
            try await together.move($0)
        }
        ends = Gathering(pace: pace, alone: { try await together.end([$0], isAlone: true)[0] }) {
            try await together.end($0)
        }
    }

    // MARK: - Reading

    /// A job, or nil.
    package func job(_ id: String) async throws -> Job? {
        guard JobID.isValid(id) else { return nil }
        return try await pool.query("select \(Self.columns) from roller.jobs where id = \(id)::uuid")
            .first.map(Job.init(row:))
    }

    /// What was tried for a job, in order.
    package func attempts(of id: String) async throws -> [JobAttempt] {
        try await pool.query("select * from roller.job_attempts where job = \(id)::uuid order by n")
            .map(JobAttempt.init(row:))
    }

    /// The lines of a job's history after the given one, in order.
    package func events(of id: String, after: Int = 0, limit: Int = 1000) async throws -> [JobEvent] {
        try await pool.query(
            """
            select id, at, kind, data from roller.job_events
            where job = \(id)::uuid and id > \(after) order by id limit \(limit)
            """
        ).map { row in
            JobEvent(
                id: try row.int("id"),
                at: try row.timestamp("at"),
                kind: try row.string("kind"),
                data: try row.json("data").object ?? [:]
            )
        }
    }

    /// How many jobs of its pool come before a job that waits; nil once it was taken.
    package func queuePosition(of job: Job) async throws -> Int? {
        guard job.state == .queued || job.state == .waiting else { return nil }
        return try await pool.query(
            """
            with own as (select created from roller.jobs where id = \(job.id)::uuid),
            ahead as (
                (select 1 from roller.jobs
                where pool = \(job.pool) and state in ('queued', 'waiting')
                    and not (is_read_only or machine is null or dry_run)
                    and (priority > \(job.priority)
                        or (priority = \(job.priority) and created < (select created from own)))
                limit 1000)
                union all
                (select 1 from roller.jobs
                where pool = \(job.pool) and state in ('queued', 'waiting')
                    and (is_read_only or machine is null or dry_run)
                    and (priority > \(job.priority)
                        or (priority = \(job.priority) and created < (select created from own)))
                limit 1000))
            select least(count(*), 1000) as ahead from ahead
            """
        ).first?.int("ahead")
    }

    /// What `Job.init(row:)` reads.
    package static let columns: SQL = """
        id, task_name, params, machine, worker_id, worker_group, provisioner_id, worker_type, client_id, http_origin, \
        source, dry_run, is_destructive, is_read_only, state, reason, error_class, priority, pool, created, deadline, \
        started, finished, runner, fence, attempts, cancel_requested is not null as is_cancel_requested, waiting_for, \
        result, bug_url, parent_job
        """

    /// A job that a statement answered with the name of its machine.
    package typealias Found = (job: Job, machine: String?)

    /// Jobs selected by `columns` and `machine_name`.
    package static func jobs(_ rows: [PostgresRow]) throws -> [Found] {
        var found: [Found] = []
        found.reserveCapacity(rows.count)
        for row in rows { found.append((try Job(row: row), try row.optionalString("machine_name"))) }
        return found
    }

    // MARK: - What goes with every change

    /// A machine as far as messages need it.
    static func machine(_ id: String?, on connection: PostgresConnection) async throws -> Machine? {
        guard let id else { return nil }
        return try await connection.query("select * from roller.machines where id = \(id)::uuid")
            .first.map(Machine.init(row:))
    }

    /// Adds a line to a job's history.
    func note(_ job: String, _ kind: String, _ data: JSONObject, on connection: PostgresConnection) async throws {
        connection.later([Self.line(job, kind, data)])
    }

    /// The statement that adds a line to a job's history.
    static func line(_ job: String, _ kind: String, _ data: JSONObject) -> SQL {
        "insert into roller.job_events (job, kind, data) values (\(job)::uuid, \(kind), \(JSONValue.object(data)))"
    }
}

extension Job {
    /// A row of `roller.jobs`, selected by `JobStore.columns`.
    package init(row: PostgresRow) throws {
        id = try row.string("id")
        taskName = try row.string("task_name")
        parameters = try row.json("params").object ?? [:]
        machine = try row.optionalString("machine")
        worker = WorkerName(
            try row.string("worker_id"),
            group: try row.optionalString("worker_group"),
            provisionerID: try row.optionalString("provisioner_id"),
            workerType: try row.optionalString("worker_type")
        )
        clientID = try row.string("client_id")
        origin = try row.optionalString("http_origin")
        source = JobSource(rawValue: try row.string("source")) ?? .api
        isDryRun = try row.bool("dry_run")
        isDestructive = try row.bool("is_destructive")
        isReadOnly = try row.bool("is_read_only")
        state = JobState(rawValue: try row.string("state")) ?? .lost
        reason = try row.optionalString("reason")
        errorClass = try row.optionalString("error_class")
        priority = try row.int("priority")
        pool = try row.string("pool")
        created = try row.timestamp("created")
        deadline = try row.optionalTimestamp("deadline")
        started = try row.optionalTimestamp("started")
        finished = try row.optionalTimestamp("finished")
        runner = try row.optionalString("runner")
        fence = try row.int("fence")
        claims = try row.int("attempts")
        isCancelRequested = try row.bool("is_cancel_requested")
        waitingFor = try row.optionalString("waiting_for")
        result = try row.optionalJSON("result")?.object
        bugURL = try row.optionalString("bug_url")
        parent = try row.optionalString("parent_job")
    }
}

extension JobAttempt {
    init(row: PostgresRow) throws {
        number = try row.int("n")
        method = try row.string("method")
        control = try row.optionalString("control")
        arguments = try row.strings("arguments")
        started = try row.timestamp("started")
        finished = try row.optionalTimestamp("finished")
        exitCode = try row.optionalInt("exit_code")
        outcome = try row.optionalString("outcome").flatMap(AttemptOutcome.init(rawValue:))
        errorClass = try row.optionalString("error_class")
        summary = try row.optionalString("summary")
        output = try row.optionalString("output")
    }
}
