// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Postgres
public import Schedules

/// What is known about provisioners, task queues and workers.
public struct WorkerStore: Sendable {
    private let pool: PostgresPool

    /// Uses the tables of the schema `tcl`.
    public init(pool: PostgresPool) {
        self.pool = pool
    }

    // MARK: - Queues

    /// The task queues after the given one, by name; of one provisioner if one is named.
    public func queues(
        of provisionerID: String? = nil,
        after taskQueueID: String?,
        limit: Int,
        now: Timestamp
    ) async throws -> [QueueRecord] {
        try await pool.query(
            """
            select \(unsafe: Self.queueColumns) from tcl.queues
            where task_queue_id > \(taskQueueID ?? "") and expires > \(now)
                and starts_with(task_queue_id, \(provisionerID.map { $0 + "/" } ?? ""))
            order by task_queue_id limit \(limit)
            """
        ).map { try QueueRecord(row: $0) }
    }

    /// A task queue by name.
    public func queue(_ taskQueueID: String, now: Timestamp) async throws -> QueueRecord {
        let rows = try await pool.query(
            """
            select \(unsafe: Self.queueColumns) from tcl.queues
            where task_queue_id = \(taskQueueID) and expires > \(now)
            """
        )
        guard let row = rows.first else {
            throw QueueProblem(.notFound, "There is no task queue \(taskQueueID).")
        }
        return try QueueRecord(row: row)
    }

    /// Stores what registration tools say about a task queue; what they leave out stays.
    public func declare(queue taskQueueID: String, _ facts: JSONValue, now: Timestamp) async throws {
        let expires = facts["expires"]?.string.flatMap { Timestamp($0) } ?? now + .seconds(5 * 86_400)
        try await pool.execute(
            """
            insert into tcl.queues (task_queue_id, description, stability, expires, last_date_active)
            values (\(taskQueueID), coalesce(\(facts["description"]?.string)::text, ''),
                coalesce(\(facts["stability"]?.string)::text, 'experimental'), \(expires), \(now))
            on conflict (task_queue_id) do update
            set description = coalesce(\(facts["description"]?.string)::text, queues.description),
                stability = coalesce(\(facts["stability"]?.string)::text, queues.stability),
                expires = greatest(queues.expires, excluded.expires)
            """
        )
    }

    // MARK: - Provisioners

    /// The provisioners after the given one, by name.
    public func provisioners(after provisionerID: String?, limit: Int, now: Timestamp) async throws
        -> [ProvisionerRecord]
    {
        try await provisioners("where id > \(provisionerID ?? "") order by id limit \(limit)", now: now)
    }

    /// A provisioner by name.
    public func provisioner(_ provisionerID: String, now: Timestamp) async throws -> ProvisionerRecord {
        guard let found = try await provisioners("where id = \(provisionerID)", now: now).first else {
            throw QueueProblem(.notFound, "There is no provisioner \(provisionerID).")
        }
        return found
    }

    /// Stores what registration tools say about a provisioner; what they leave out stays.
    public func declare(provisioner provisionerID: String, _ facts: JSONValue, now: Timestamp) async throws {
        let expires = facts["expires"]?.string.flatMap { Timestamp($0) } ?? now + .seconds(5 * 86_400)
        try await pool.execute(
            """
            insert into tcl.provisioners (provisioner_id, description, stability, actions, expires, last_date_active)
            values (\(provisionerID), coalesce(\(facts["description"]?.string)::text, ''),
                coalesce(\(facts["stability"]?.string)::text, 'experimental'),
                coalesce(\(facts["actions"])::json, '[]'), \(expires), \(now))
            on conflict (provisioner_id) do update
            set description = coalesce(\(facts["description"]?.string)::text, provisioners.description),
                stability = coalesce(\(facts["stability"]?.string)::text, provisioners.stability),
                actions = coalesce(\(facts["actions"])::json, provisioners.actions),
                expires = greatest(provisioners.expires, excluded.expires), last_date_active = excluded.last_date_active
            """
        )
    }

    private func provisioners(_ which: SQL, now: Timestamp) async throws -> [ProvisionerRecord] {
        let all: SQL = """
            with seen as (
                select split_part(task_queue_id, '/', 1) collate "C" as id, max(expires) as expires,
                    max(last_date_active) as last_date_active
                from tcl.queues where expires > \(now) group by 1
            ), all_of_them as (
                select coalesce(s.id, d.provisioner_id) as id, greatest(s.expires, d.expires) as expires,
                    greatest(s.last_date_active, d.last_date_active) as last_date_active,
                    coalesce(d.description, '') as description, coalesce(d.stability, 'experimental') as stability,
                    coalesce(d.actions, '[]') as actions
                from seen s
                full join (select * from tcl.provisioners where expires > \(now)) d on d.provisioner_id = s.id
            )
            select * from all_of_them \(which)
            """
        return try await pool.query(all).map { row in
            ProvisionerRecord(
                provisionerID: try row.string("id"),
                expires: try row.timestamp("expires"),
                lastDateActive: try row.timestamp("last_date_active"),
                description: try row.string("description"),
                stability: try row.string("stability"),
                actions: try row.json("actions")
            )
        }
    }

    // MARK: - Workers

    /// The workers of a queue after the given one, by name; those quarantined, those not, or all.
    public func workers(
        _ taskQueueID: String,
        quarantined: Bool?,
        after last: WorkerName?,
        limit: Int,
        now: Timestamp
    ) async throws -> [WorkerRecord] {
        try await pool.query(
            """
            select \(unsafe: Self.workerColumns) from tcl.workers
            where task_queue_id = \(taskQueueID)
                and (worker_group, worker_id) > (\(last?.group ?? ""), \(last?.id ?? ""))
                and (expires > \(now) or quarantine_until > \(now))
                and (\(quarantined)::bool is null or coalesce(quarantine_until > \(now), false) = \(quarantined)::bool)
            order by worker_group, worker_id limit \(limit)
            """
        ).map { try WorkerRecord(row: $0) }
    }

    /// A worker by name.
    public func worker(_ taskQueueID: String, _ name: WorkerName, now: Timestamp) async throws -> WorkerRecord {
        let rows = try await pool.query(
            """
            select \(unsafe: Self.workerColumns) from tcl.workers
            where task_queue_id = \(taskQueueID) and worker_group = \(name.group) and worker_id = \(name.id)
                and (expires > \(now) or quarantine_until > \(now))
            """
        )
        guard let row = rows.first else { throw Self.noWorker(taskQueueID, name) }
        return try WorkerRecord(row: row)
    }

    /// Whether a worker is to get no work now.
    public func isQuarantined(_ taskQueueID: String, _ name: WorkerName, now: Timestamp) async throws -> Bool {
        try await !pool.query(
            """
            select 1 from tcl.workers where task_queue_id = \(taskQueueID) and worker_group = \(name.group)
                and worker_id = \(name.id) and quarantine_until > \(now)
            """
        ).isEmpty
    }

    /// Keeps a worker from getting work until a moment; one in the past lifts the quarantine.
    public func quarantine(
        _ taskQueueID: String,
        _ name: WorkerName,
        until: Timestamp,
        why: String?,
        by author: String,
        now: Timestamp
    ) async throws -> WorkerRecord {
        let entry: JSONValue = [
            "clientId": JSONValue(author), "updatedAt": JSONValue(now.iso8601),
            "quarantineUntil": JSONValue(until.iso8601), "quarantineInfo": JSONValue(why ?? "[unspecified]"),
        ]
        // Whoever quarantines a machine wants to find it again tomorrow.
        let visible = max(now + .seconds(86_400), until)
        let rows = try await pool.query(
            """
            update tcl.workers set quarantine_until = \(until), expires = greatest(expires, \(visible)),
                quarantine_details = (quarantine_details::jsonb || \(JSONValue.array([entry]))::jsonb)::json
            where task_queue_id = \(taskQueueID) and worker_group = \(name.group) and worker_id = \(name.id)
            returning \(unsafe: Self.workerColumns)
            """
        )
        guard let row = rows.first else { throw Self.noWorker(taskQueueID, name) }
        return try WorkerRecord(row: row)
    }

    /// Makes sure that a worker and its queue are known.
    public func declare(_ taskQueueID: String, _ name: WorkerName, expires: Timestamp?, now: Timestamp) async throws
        -> WorkerRecord
    {
        let until = expires ?? now + .seconds(86_400)
        let rows = try await pool.pipeline([
            """
            insert into tcl.queues (task_queue_id, expires, last_date_active) values (\(taskQueueID), \(until), \(now))
            on conflict (task_queue_id) do update set expires = greatest(queues.expires, excluded.expires),
                last_date_active = greatest(queues.last_date_active, excluded.last_date_active)
            """,
            """
            insert into tcl.workers (task_queue_id, worker_group, worker_id, first_claim, last_date_active, expires)
            values (\(taskQueueID), \(name.group), \(name.id), \(now), \(now), \(until))
            on conflict (task_queue_id, worker_group, worker_id) do update
            set expires = greatest(workers.expires, excluded.expires), last_date_active = excluded.last_date_active
            returning \(unsafe: Self.workerColumns)
            """,
        ])
        guard let row = rows[1].first else { throw Self.noWorker(taskQueueID, name) }
        return try WorkerRecord(row: row)
    }

    private static func noWorker(_ taskQueueID: String, _ name: WorkerName) -> QueueProblem {
        QueueProblem(.notFound, "There is no worker \(name.group)/\(name.id) of task queue \(taskQueueID).")
    }

    private static let queueColumns = "task_queue_id, expires, last_date_active, description, stability"
    private static let workerColumns = """
        task_queue_id, worker_group, worker_id, first_claim, last_date_active, expires, quarantine_until, \
        quarantine_details, recent_tasks
        """
}

extension QueueRecord {
    fileprivate init(row: PostgresRow) throws(PostgresError) {
        self.init(
            taskQueueID: try row.string("task_queue_id"),
            expires: try row.timestamp("expires"),
            lastDateActive: try row.timestamp("last_date_active"),
            description: try row.string("description"),
            stability: try row.string("stability")
        )
    }
}

extension WorkerRecord {
    fileprivate init(row: PostgresRow) throws(PostgresError) {
        self.init(
            taskQueueID: try row.string("task_queue_id"),
            name: WorkerName(group: try row.string("worker_group"), id: try row.string("worker_id")),
            firstClaim: try row.timestamp("first_claim"),
            lastDateActive: try row.timestamp("last_date_active"),
            expires: try row.timestamp("expires"),
            quarantineUntil: try row.optionalTimestamp("quarantine_until"),
            quarantineDetails: try row.json("quarantine_details"),
            recentTasks: try row.json("recent_tasks")
        )
    }
}
