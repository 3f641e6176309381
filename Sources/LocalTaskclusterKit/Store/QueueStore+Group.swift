// SPDX-License-Identifier: MPL-2.0
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
