// SPDX-License-Identifier: MPL-2.0

import Core
import HooksKit
import Postgres

/// The tasks that triggers made.
struct TaskStore: Sendable {
    let pool: PostgresPool

    /// Takes tasks whose ends are not known, those not looked at for the longest time.
    func take(limit: Int, pause: Duration) async throws -> [String] {
        let rows = try await pool.query(
            """
            update triggers.tasks set next_look = now() + \(pause.milliseconds)::bigint * interval '1 millisecond'
            where task_id = any(array(
                select task_id from triggers.tasks where ended is null and next_look <= now()
                order by next_look limit \(limit) for update skip locked))
            returning task_id
            """
        )
        return try rows.map { try $0.string("task_id") }
    }

    /// Notes states; answers how many tasks ended with each final one.
    func note(_ states: [String: String]) async throws -> [String: Int] {
        guard !states.isEmpty else { return [:] }
        let pairs = states.sorted { $0.key < $1.key }
        let rows = try await pool.query(
            """
            update triggers.tasks t set state = s.state,
                ended = case when s.state in ('completed', 'failed', 'exception') then now() end
            from unnest(\(pairs.map(\.key))::text[], \(pairs.map(\.value))::text[]) as s (task_id, state)
            where t.task_id = s.task_id and t.ended is null
            returning t.state, t.ended is not null as is_final
            """
        )
        var ended: [String: Int] = [:]
        for row in rows where try row.bool("is_final") { ended[try row.string("state"), default: 0] += 1 }
        return ended
    }

    /// Gives up on tasks that the queue has told nothing of for a month.
    func giveUp() async throws {
        try await pool.execute(
            """
            update triggers.tasks set state = 'unknown', ended = now()
            where ended is null and made < now() - interval '30 days'
            """
        )
    }

    /// Takes the ends that were not told yet, in the transaction of the report that tells them.
    func report(on connection: PostgresConnection) async throws -> [Report.Ending] {
        let rows = try await connection.query(
            """
            update triggers.tasks set reported = true where ended is not null and not reported
            returning hook_group_id, hook_id, task_id, state
            """
        )
        return try rows.map { row in
            Report.Ending(
                hook: HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id")),
                taskID: try row.string("task_id"),
                state: try row.optionalString("state") ?? "unknown"
            )
        }
    }
}
