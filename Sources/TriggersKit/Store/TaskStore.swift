// SPDX-License-Identifier: MPL-2.0

import Core
import HooksKit
import Postgres

/// The tasks that triggers made.
struct TaskStore: Sendable {
    let pool: PostgresPool

    /// Takes tasks whose ends are not known, those not looked at for the longest time.
    ///
    /// The next time comes after one of two pauses: for tasks whose ends the queue tells, and for the others.
    func take(limit: Int, pause: Duration, pauseIfBound: Duration) async throws -> [String] {
        let rows = try await pool.query(
            """
            update triggers.tasks set next_look = now() + interval '1 millisecond'
                * case when bound then \(pauseIfBound.milliseconds)::bigint else \(pause.milliseconds)::bigint end
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

    // MARK: - News

    /// How many tasks the queue is asked to tell about at a time.
    private static let most = 5000

    /// Tasks whose ends the queue does not tell yet, oldest first; none while it tells about very many.
    func unbound(limit: Int) async throws -> [String] {
        let rows = try await pool.query(
            """
            select task_id from triggers.tasks where ended is null and not bound
                and (select count(*) from (select from triggers.tasks where bound limit \(Self.most)) b) < \(Self.most)
            order by made limit \(limit)
            """
        )
        return try rows.map { try $0.string("task_id") }
    }

    /// Tasks that ended and that the queue need not tell about any more.
    func boundInVain(limit: Int) async throws -> [String] {
        let rows = try await pool.query(
            "select task_id from triggers.tasks where bound and ended is not null order by ended limit \(limit)"
        )
        return try rows.map { try $0.string("task_id") }
    }

    /// Notes whether the queue tells how tasks end; what happened before is asked for at once.
    func noteBound(_ taskIDs: [String], _ isBound: Bool) async throws {
        try await pool.execute(
            "update triggers.tasks set bound = \(isBound), next_look = now() where task_id = any(\(taskIDs))"
        )
    }

    // MARK: - Ends

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
