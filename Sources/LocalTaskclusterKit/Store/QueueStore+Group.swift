// SPDX-License-Identifier: MPL-2.0
import JSON
import Postgres
public import Schedules

extension QueueStore {
    /// Stops a group from taking more tasks; the first time counts, each call is announced.
    public func sealGroup(_ taskGroupID: String, now: Timestamp) async throws -> TaskGroup {
        var group = try await group(taskGroupID)
        let sealed = group.sealed ?? now
        group.sealed = sealed
        let announcement = Self.announce(messages.groupSealed(group))
        _ = try await pool.pipeline([
            """
            update tcl.groups set sealed = \(sealed) where task_group_id = \(taskGroupID) and sealed is null
            """,
            announcement,
        ])
        notify(Aftermath(messages: true))
        return group
    }

    /// The unresolved tasks of a group.
    public func unresolvedTasks(inGroup taskGroupID: String) async throws -> [String] {
        try await pool.query(
            """
            select s.task_id from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
            where t.task_group_id = \(taskGroupID) and s.state in ('unscheduled', 'pending', 'running')
            order by s.task_id
            """
        ).map { try $0.string("task_id") }
    }

    /// How many tasks a group has.
    public func groupSize(_ taskGroupID: String) async throws -> Int {
        try await pool.query(
            "select count(*) as count from tcl.tasks where task_group_id = \(taskGroupID)"
        ).first?.int("count") ?? 0
    }

    /// Cancels those of the named tasks that are still unresolved, all in one transaction; returns their ids.
    ///
    /// Pass at most a few hundred: their rows stay locked until the end.
    public func cancelTasks(_ ids: [String], now: Timestamp) async throws -> [String] {
        let lock: SQL = """
            select \(unsafe: Self.statusColumns) from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
            where s.task_id = any(\(ids)::text[]) order by s.task_id for update of s
            """
        return try await transact(reading: [lock]) { rows in
            var decision = Decision<[String]>(answer: [])
            for row in rows[0] {
                var facts = try TaskFacts(row: row)
                guard !facts.status.isResolved, let transition = try? facts.status.cancel(now: now) else { continue }
                decision.answer.append(facts.status.taskID)
                decision.statements += statements(transition, facts, now: now, aftermath: &decision.aftermath)
            }
            return decision
        }
    }
}

extension QueueStore {
    /// The tasks of a group that were never resolved, by name after the given one.
    public func unresolvedTasks(inGroup taskGroupID: String, after taskID: String, limit: Int) async throws
        -> [String]
    {
        try await pool.query(
            """
            select task_id from tcl.task_status
            where task_group_id = \(taskGroupID) and not ever_resolved and task_id > \(taskID)
            order by task_id limit \(limit)
            """
        ).map { try $0.string("task_id") }
    }

    /// Makes those of the named tasks more or less urgent that were never resolved; returns which changed.
    ///
    /// Pass at most a few hundred: their rows stay locked until the end.
    public func changePriorities(of ids: [String], to priority: TaskPriority, now: Timestamp) async throws -> [String] {
        let lock: SQL = """
            select \(unsafe: Self.statusColumns), t.definition::text as definition
            from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
            where s.task_id = any(\(ids)::text[]) and not s.ever_resolved and t.deadline > \(now)
                and t.priority <> \(priority.rawValue)
            order by s.task_id for update of s
            """
        return try await transact(reading: [lock]) { rows in
            var decision = Decision<[String]>(answer: [])
            for row in rows[0] {
                var facts = try TaskFacts(row: row)
                let old = facts.status.priority
                facts.status.priority = priority
                decision.answer.append(facts.status.taskID)
                decision.statements += try priorityStatements(facts, from: old, definition: row.string("definition"))
                decision.aftermath.messages = true
            }
            return decision
        }
    }

    /// The statements that give a task the priority its status shows.
    func priorityStatements(_ facts: TaskFacts, from old: TaskPriority, definition: String) throws -> [SQL] {
        let status = facts.status
        var changed = try JSONValue(parsing: definition)
        changed["priority"] = JSONValue(status.priority.name)
        return [
            """
            update tcl.tasks set priority = \(status.priority.rawValue), definition = \(changed.text())::json
            where task_id = \(status.taskID)
            """,
            "update tcl.pending set priority = \(status.priority.rawValue) where task_id = \(status.taskID)",
            "update tcl.claims set priority = \(status.priority.rawValue) where task_id = \(status.taskID)",
            Self.announce(messages.priorityChanged(from: old, facts)),
        ]
    }

    /// Announces that the open tasks of a group have another priority.
    func announcePriority(_ priority: TaskPriority, of group: TaskGroup, affected: Int) async throws {
        try await pool.execute(Self.announce(messages.groupPriorityChanged(group, to: priority, affected: affected)))
        notify(Aftermath(messages: true))
    }
}
