// SPDX-License-Identifier: MPL-2.0
import Postgres
public import Schedules

import JSON

extension QueueStore {
    /// Stores a new task, or finds that exactly this task exists already.
    ///
    /// Without dependencies this is one round trip and the task is claimable when it returns.
    ///
    /// - Throws: `QueueProblem` with `conflict` if the id is taken by another definition or the group does not take the
    ///   task, with `input` if dependencies are missing or expire too early.
    public func createTask(_ task: TaskDefinition, now: Timestamp) async throws -> TaskStatus {
        task.dependencies.isEmpty && !Self.isNoticed(task)
            ? try await createFreeTask(task, now: now)
            : try await createDependentTask(task, now: now)
    }

    private func createFreeTask(_ task: TaskDefinition, now: Timestamp) async throws -> TaskStatus {
        arriving.begin()
        defer { arriving.end() }
        let created = try await creations.submit(NewTask(definition: task, now: now))
        if let created { return created }
        return try await existing(task)
    }

    private func createDependentTask(_ task: TaskDefinition, now: Timestamp) async throws -> TaskStatus {
        var status = task.initialStatus
        let defined = messages.defined(TaskFacts(status: status, routes: task.routes, tags: task.tags))
        let waiting: SQL = """
            insert into tcl.edges (required, dependent, completion)
            select required, \(task.taskID), \(task.requiresCompletion)
            from unnest(\(task.dependencies)::text[]) as required on conflict do nothing
            """
        // Locking after the edges are written: either this sees a resolution, or whoever resolves sees the edge.
        let look: SQL = """
            select s.task_id, s.state, t.expires from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
            where s.task_id = any(\(task.dependencies)::text[]) order by s.task_id for share of s
            """
        let created: TaskStatus? = try await transact(
            reading: [
                Self.openGroup(task, now: now), Self.insert(task, status, [defined]),
                waiting,
                look,
            ]
        ) { rows in
            guard let verdict = rows[1].first, try verdict.bool("inserted") else { throw AlreadyThere() }
            let satisfied = try satisfiedDependencies(of: task, rows[3])
            var decision = Decision<TaskStatus?>(answer: nil)
            decision.aftermath.messages = true
            let undefined = TaskFacts(status: task.initialStatus, routes: task.routes, tags: task.tags)
            decision.statements = Self.notices(of: [.defined], undefined)
            decision.aftermath.notices = !decision.statements.isEmpty
            if !satisfied.isEmpty {
                decision.statements.append(
                    """
                    update tcl.edges set satisfied = true
                    where dependent = \(task.taskID) and required = any(\(satisfied)::text[])
                    """
                )
            }
            let open = task.dependencies.count - satisfied.count
            decision.statements.append(
                "update tcl.task_status set unsatisfied = \(open) where task_id = \(task.taskID)"
            )
            if open == 0 {
                let transition = try status.scheduled(now: now)
                let facts = TaskFacts(status: status, routes: task.routes, tags: task.tags)
                decision.statements += statements(transition, facts, now: now, aftermath: &decision.aftermath)
            }
            decision.answer = status
            return decision
        } recovering: {
            $0 is AlreadyThere
        }
        if let created { return created }
        return try await existing(task)
    }

    private func satisfiedDependencies(of task: TaskDefinition, _ rows: [PostgresRow]) throws -> [String] {
        var missing = Set(task.dependencies)
        var expiring: [String] = []
        var satisfied: [String] = []
        for row in rows {
            let id = try row.string("task_id")
            missing.remove(id)
            if try row.timestamp("expires") < task.deadline { expiring.append(id) }
            let state = try row.string("state")
            let isSatisfied =
                state == "completed" || (!task.requiresCompletion && (state == "failed" || state == "exception"))
            if isSatisfied, id != task.taskID { satisfied.append(id) }
        }
        guard missing.isEmpty, expiring.isEmpty else {
            var parts: [String] = []
            if !missing.isEmpty { parts.append("do not exist: \(missing.sorted().joined(separator: ", "))") }
            if !expiring.isEmpty { parts.append("expire before the deadline: \(expiring.joined(separator: ", "))") }
            throw QueueProblem(.input, "Some `dependencies` \(parts.joined(separator: "; some "))")
        }
        return satisfied
    }

    /// What became of an insertion that found something in its way.
    private func existing(_ task: TaskDefinition) async throws -> TaskStatus {
        let rows = try await pool.withConnection { connection in
            try await connection.pipeline([
                "select scheduler_id, sealed from tcl.groups where task_group_id = \(task.taskGroupID)",
                """
                select \(unsafe: Self.statusColumns), t.definition from tcl.tasks t
                join tcl.task_status s on s.task_id = t.task_id where t.task_id = \(task.taskID)
                """,
            ])
        }
        if let group = rows[0].first {
            let scheduler = try group.string("scheduler_id")
            guard scheduler == task.schedulerID else {
                throw QueueProblem(
                    .conflict,
                    "Task group \(task.taskGroupID) belongs to scheduler \(scheduler), not \(task.schedulerID)."
                )
            }
            guard try group.optionalTimestamp("sealed") == nil else {
                throw QueueProblem(.conflict, "Task group \(task.taskGroupID) is sealed and takes no more tasks.")
            }
        }
        guard let row = rows[1].first, try row.json("definition") == .object(task.json) else {
            throw QueueProblem(.conflict, "Task \(task.taskID) exists already with a different definition.")
        }
        return try TaskFacts(row: row).status
    }

    // MARK: - Statements

    private static func openGroup(_ task: TaskDefinition, now: Timestamp) -> SQL {
        """
        insert into tcl.groups (task_group_id, scheduler_id, created)
        values (\(task.taskGroupID), \(task.schedulerID), \(now)) on conflict do nothing
        """
    }

    /// Inserts a task and all that belongs to it, unless its id is taken or its group refuses it.
    private static func insert(
        _ task: TaskDefinition,
        _ status: TaskStatus,
        _ news: [QueueMessage]
    ) -> SQL {
        let head: SQL = """
            with allowed as (
                select from tcl.groups where task_group_id = \(task.taskGroupID)
                    and scheduler_id = \(task.schedulerID) and sealed is null
            ), task as (
                insert into tcl.tasks (task_id, task_queue_id, scheduler_id, project_id, task_group_id, priority,
                    retries, deadline, expires, routes, tags, definition)
                select \(task.taskID)::text, \(task.taskQueueID)::text, \(task.schedulerID)::text,
                    \(task.projectID)::text, \(task.taskGroupID)::text, \(task.priority.rawValue)::smallint,
                    \(task.retries)::smallint, \(task.deadline)::timestamptz, \(task.expires)::timestamptz,
                    \(task.routes)::text[], \(task.tags)::json, \(task.text)::json
                from allowed on conflict (task_id) do nothing returning task_id
            ), status as (
                insert into tcl.task_status (task_id, task_group_id, state, retries_left, runs)
                select task_id, \(task.taskGroupID)::text, \(status.state)::text, \(status.retriesLeft)::smallint,
                    \(status.runsText)::json from task
            ), due as (
                insert into tcl.deadlines (task_id, due) select task_id, \(task.deadline)::timestamptz from task
            )
            """
        let routes = news.first?.cc ?? []
        var announcements: SQL =
            ", news as (insert into tcl.outbox (exchange, routing_key, cc, body) select m.exchange, m.routing_key, \(routes)::text[], m.body from task, (values "
        for (position, message) in news.enumerated() {
            if position > 0 { announcements = announcements + ", " }
            announcements =
                announcements
                + "(\(unsafe: String(position)), \(message.exchange)::text, \(message.routingKey)::text, \(message.body)::text)"
        }
        announcements = announcements + ") as m (position, exchange, routing_key, body) order by m.position)"
        let verdict: SQL = " select exists (select from task) as inserted"
        return head + announcements + verdict
    }
}

/// Leaves a transaction that found the task in place.
private struct AlreadyThere: Error {}

extension QueueStore {
    /// The same as `transact(reading:_:)`, but rolls back and answers nil for the named failures.
    fileprivate func transact<Answer: Sendable>(
        reading: [SQL],
        _ decide: ([[PostgresRow]]) throws -> Decision<Answer?>,
        recovering: (any Error) -> Bool
    ) async throws -> Answer? {
        do {
            return try await transact(reading: reading, decide)
        } catch  where recovering(error) {
            return nil
        }
    }
}
