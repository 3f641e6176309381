// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
package import Postgres
import Schedules

/// What hooks did: the history people read, and its expiry.
package struct HistoryStore: Sendable {
    package let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// One line of a hook's history.
    struct LastFire: Sendable {
        let taskID: String
        let firedBy: String
        let time: Timestamp
        let result: String
        let error: String
    }

    /// Fires of a hook, newest first, after those of the page before.
    func fires(of name: HookName, before: (time: Timestamp, taskID: String)? = nil, limit: Int) async throws
        -> [LastFire]
    {
        let bound: SQL =
            if let before { "and (task_create_time, task_id) < (\(before.time), \(before.taskID))" } else { "" }
        return try await pool.query(
            """
            select task_id, fired_by, task_create_time, result, error from hooks.last_fires
            where hook_group_id = \(name.group) and hook_id = \(name.hook) \(bound)
            order by task_create_time desc, task_id desc limit \(limit)
            """
        ).map { row in
            LastFire(
                taskID: try row.string("task_id"),
                firedBy: try row.string("fired_by"),
                time: try row.timestamp("task_create_time"),
                result: try row.string("result"),
                error: try row.string("error")
            )
        }
    }

    /// The instant of a scheduled fire that is still being repeated; the schedule stands still until it ends.
    func outstandingInstant(of name: HookName) async throws -> Timestamp? {
        try await pool.query(
            """
            select f.created from hooks.hooks h join hooks.fires f on f.fire_id = h.waits_for
            where h.hook_group_id = \(name.group) and h.hook_id = \(name.hook) and f.state = 'pending'
            """
        ).first?.optionalTimestamp("created")
    }

    /// Forgets the ledger and the history after a year, a bounded number at a time.
    package func expire() async throws {
        for table in ["hooks.fires", "hooks.last_fires"] {
            let condition =
                table == "hooks.fires" ? "state = 'done' and finished" : "task_create_time"
            while true {
                let deleted = try await pool.execute(
                    """
                    delete from \(unsafe: table) where ctid = any(array(
                        select ctid from \(unsafe: table)
                        where \(unsafe: condition) < now() - interval '1 year' limit 5000))
                    """
                )
                if deleted < 5000 { break }
                try await Task.sleep(for: .milliseconds(100))
            }
        }
    }
}
