// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
import Schedules
import Taskcluster

/// The schedules of hooks as the scheduler sees them: what is due, and what comes next.
package struct ScheduleStore: Sendable {
    package let pool: PostgresPool
    let box: SecretBox

    package init(pool: PostgresPool, box: SecretBox) {
        self.pool = pool
        self.box = box
    }

    /// A hook whose instant has come, locked by the transaction that read it.
    struct Due: Sendable {
        let name: HookName
        let version: Int
        let schedule: [String]
        let instant: Timestamp
        let taskID: String
    }

    /// Locks hooks whose instant has come, the longest overdue first, and leaves out what others have locked.
    ///
    /// A hook whose last fire is being repeated because the queue is unwell waits: its missed instants become one.
    func lockDue(now: Timestamp, limit: Int, on connection: PostgresConnection) async throws -> [Due] {
        try await connection.query(
            """
            select hook_group_id, hook_id, definition_version, schedule, next_scheduled_date, encrypted_next_task_id
            from hooks.hooks h
            where next_scheduled_date <= \(now) and next_scheduled_date < '3999-01-01Z' and not exists (
                select from hooks.fires f where f.hook_group_id = h.hook_group_id and f.hook_id = h.hook_id
                    and f.state = 'pending' and f.fired_by = 'schedule' and f.failures > 0)
            order by next_scheduled_date limit \(limit) for no key update skip locked
            """
        ).map { row in
            let name = HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id"))
            return Due(
                name: name,
                version: try row.int("definition_version"),
                schedule: try row.json("schedule").array?.compactMap(\.string) ?? [],
                instant: try row.timestamp("next_scheduled_date"),
                taskID: try box.open(row.string("encrypted_next_task_id"), for: name)
            )
        }
    }

    /// Moves locked hooks to their next instant, each with a fresh task.
    func advance(_ steps: [(name: HookName, next: Timestamp)], on connection: PostgresConnection) async throws {
        guard !steps.isEmpty else { return }
        let statements = try steps.map { step -> SQL in
            let taskID = try box.seal(Slugid.make(), for: step.name)
            return """
                update hooks.hooks set next_scheduled_date = \(step.next), encrypted_next_task_id = \(taskID)
                where hook_group_id = \(step.name.group) and hook_id = \(step.name.hook)
                """
        }
        _ = try await connection.pipeline(statements)
    }

    /// The earliest instant after a time that any schedule has.
    func nextInstant(after now: Timestamp) async throws -> Timestamp? {
        try await pool.query(
            """
            select min(next_scheduled_date) as next from hooks.hooks
            where next_scheduled_date > \(now) and next_scheduled_date < '3999-01-01Z'
            """
        ).first?.optionalTimestamp("next")
    }

    /// After a fire that had to be repeated: skips the instants that passed meanwhile, as they are part of that fire.
    func skipMissed(_ name: HookName, now: Timestamp) async throws {
        try await pool.transaction { connection in
            let row = try await connection.query(
                """
                select schedule from hooks.hooks
                where hook_group_id = \(name.group) and hook_id = \(name.hook) and next_scheduled_date <= \(now)
                for no key update
                """
            ).first
            guard let row else { return }
            let schedule = try row.json("schedule").array?.compactMap(\.string) ?? []
            let next = HookRules.nextInstant(of: schedule, after: now) ?? .farFuture
            try await advance([(name, next)], on: connection)
            _ = try await connection.query("select pg_notify(\(HookStore.changes), '')")
        }
    }
}
