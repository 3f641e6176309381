// SPDX-License-Identifier: MPL-2.0
public import JSON
import Postgres
public import Schedules

/// A task as listings show it.
public struct TaskListing: Sendable {
    /// Its status.
    public let status: TaskStatus
    /// The exact text of its definition.
    public let definition: String
}

/// A run as the lists of pending and claimed work show it.
public struct WorkListing: Sendable {
    /// The task.
    public let taskID: String
    /// The run.
    public let runID: Int
    /// The worker, if it was claimed.
    public let worker: WorkerName?
    /// When it was inserted or claimed.
    public let since: Timestamp
    /// The exact text of the definition.
    public let definition: String
    /// Where a listing goes on after this row.
    public let position: [JSONValue]
}

/// How much work a queue has.
public struct QueueCounts: Sendable, Hashable {
    /// The queue.
    public let taskQueueID: String
    /// How many runs wait.
    public let pending: Int
    /// How many runs workers have.
    public let claimed: Int
}

extension QueueStore {
    /// The status of a task.
    public func status(_ taskID: String) async throws -> TaskStatus {
        try await facts(taskID).status
    }

    /// The exact text of a task's definition.
    public func definition(_ taskID: String) async throws -> String {
        let rows = try await pool.query(
            "select t.definition::text as definition from tcl.tasks t where t.task_id = \(taskID)"
        )
        guard let row = rows.first else { throw QueueProblem.noTask(taskID) }
        return try row.string("definition")
    }

    /// What is known about a task apart from its definition.
    func facts(_ taskID: String) async throws -> TaskFacts {
        let rows = try await pool.query(
            """
            select \(unsafe: Self.statusColumns) from tcl.tasks t join tcl.task_status s on s.task_id = t.task_id
            where t.task_id = \(taskID)
            """
        )
        guard let row = rows.first else { throw QueueProblem.noTask(taskID) }
        return try TaskFacts(row: row)
    }

    /// Those of the named tasks that exist, in the order of the names.
    public func tasks(_ ids: [String]) async throws -> [TaskListing] {
        try await listing(
            """
            select \(unsafe: Self.listingColumns)
            from unnest(\(ids)::text[]) with ordinality as x (id, position)
            join tcl.tasks t on t.task_id = x.id join tcl.task_status s on s.task_id = t.task_id order by x.position
            """
        )
    }

    /// The latest expiry of the tasks of group `g`.
    ///
    /// The sum with nothing keeps the planner from looking for it in the index of all expiries, from the end, until it
    /// meets a task of this group.
    static let lastExpiry = """
        (select max(t.expires + interval '0') from tcl.tasks t where t.task_group_id = g.task_group_id)
        """

    /// The group with this name.
    public func group(_ taskGroupID: String) async throws -> TaskGroup {
        let rows = try await pool.query(
            """
            select g.task_group_id, g.scheduler_id, g.sealed,
                \(unsafe: Self.lastExpiry) as last_expiry
            from tcl.groups g where g.task_group_id = \(taskGroupID)
            """
        )
        guard let row = rows.first, try row.optionalTimestamp("last_expiry") != nil else {
            throw QueueProblem(.notFound, "There is no task group \(taskGroupID).")
        }
        return try TaskGroup(row: row)
    }

    /// The tasks of a group after the given one, by task.
    public func tasks(inGroup taskGroupID: String, after taskID: String?, limit: Int) async throws -> [TaskListing] {
        try await listing(
            """
            select \(unsafe: Self.listingColumns)
            from tcl.tasks t join tcl.task_status s on s.task_id = t.task_id
            where t.task_group_id = \(taskGroupID) and t.task_id > \(taskID ?? "") order by t.task_id limit \(limit)
            """
        )
    }

    /// The tasks that wait for this one, by task.
    public func tasks(dependingOn taskID: String, after last: String?, limit: Int) async throws -> [TaskListing] {
        try await listing(
            """
            select \(unsafe: Self.listingColumns)
            from tcl.edges e join tcl.tasks t on t.task_id = e.dependent join tcl.task_status s on s.task_id = t.task_id
            where e.required = \(taskID) and e.dependent > \(last ?? "") order by e.dependent limit \(limit)
            """
        )
    }

    /// How many runs of a queue wait, and how many are claimed.
    public func counts(_ taskQueueID: String, now: Timestamp) async throws -> (pending: Int, claimed: Int) {
        let counts = try await counts([taskQueueID], now: now).first
        return (counts?.pending ?? 0, counts?.claimed ?? 0)
    }

    /// The same for several queues, in the order of their names in the question.
    public func counts(_ taskQueueIDs: [String], now: Timestamp) async throws -> [QueueCounts] {
        try await pool.query(
            """
            select q.id,
                (select count(*) from tcl.pending where task_queue_id = q.id and deadline > \(now)) as pending,
                (select count(*) from tcl.claims where task_queue_id = q.id and taken_until > \(now)) as claimed
            from unnest(\(taskQueueIDs)::text[]) with ordinality as q (id, place) order by q.place
            """
        ).map { row in
            QueueCounts(
                taskQueueID: try row.string("id"),
                pending: try row.int("pending"),
                claimed: try row.int("claimed")
            )
        }
    }

    /// The runs of a queue that wait, in the order they came.
    ///
    /// The index is in the order of claims; within one priority that is the order they came in, so the first of each
    /// priority are enough.
    public func pending(_ taskQueueID: String, after seq: Int?, limit: Int, now: Timestamp) async throws
        -> [WorkListing]
    {
        try await pool.query(
            """
            with first as (
                select p.* from generate_series(\(TaskPriority.lowest.rawValue)::int,
                    \(TaskPriority.highest.rawValue)::int) as level
                cross join lateral (
                    select task_id, run_id, inserted, seq from tcl.pending
                    where task_queue_id = \(taskQueueID) and priority = level and seq > \(seq ?? -1)
                        and deadline > \(now)
                    order by priority desc, seq limit \(limit)
                ) p
                order by p.seq limit \(limit)
            )
            select p.task_id, p.run_id, p.inserted, p.seq, t.definition::text as definition
            from first p join tcl.tasks t on t.task_id = p.task_id order by p.seq
            """
        ).map { row in
            WorkListing(
                taskID: try row.string("task_id"),
                runID: try row.int("run_id"),
                worker: nil,
                since: try row.timestamp("inserted"),
                definition: try row.string("definition"),
                position: [JSONValue(try row.int("seq"))]
            )
        }
    }

    /// The runs of a queue that workers have, by the time they were claimed.
    public func claimed(
        _ taskQueueID: String,
        after last: (claimed: String, taskID: String)?,
        limit: Int
    ) async throws -> [WorkListing] {
        try await pool.query(
            """
            select c.task_id, c.run_id, c.worker_group, c.worker_id, c.claimed, t.definition::text as definition
            from tcl.claims c join tcl.tasks t on t.task_id = c.task_id
            where c.task_queue_id = \(taskQueueID)
                and (c.claimed, c.task_id) > (\(last?.claimed ?? "1970-01-01T00:00:00Z")::timestamptz, \(last?.taskID ?? ""))
            order by c.claimed, c.task_id limit \(limit)
            """
        ).map { row in
            let claimed = try row.timestamp("claimed")
            let taskID = try row.string("task_id")
            return WorkListing(
                taskID: taskID,
                runID: try row.int("run_id"),
                worker: WorkerName(group: try row.string("worker_group"), id: try row.string("worker_id")),
                since: claimed,
                definition: try row.string("definition"),
                position: [JSONValue(claimed.iso8601), JSONValue(taskID)]
            )
        }
    }

    private static let listingColumns = "\(statusColumns), t.definition::text as definition"

    private func listing(_ sql: SQL) async throws -> [TaskListing] {
        try await pool.query(sql).map { row in
            TaskListing(status: try TaskFacts(row: row).status, definition: try row.string("definition"))
        }
    }
}
