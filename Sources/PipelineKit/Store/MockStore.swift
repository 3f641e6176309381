// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules

/// Steps that only pretend.
struct MockStore: Sendable {
    /// One of them.
    struct Mock: Sendable {
        let uid: String
        let body: JSONValue
        var duration: Duration
        var result: String
        /// Whether its status is nonsense for as long as it runs.
        var isGarbage: Bool
        let created: Timestamp
        var cancelled: Timestamp?

        /// When it ends, or has ended.
        var end: Timestamp { cancelled ?? created + duration }

        /// The word for its state at a moment.
        func state(at now: Timestamp) -> String {
            if cancelled != nil { return "cancelled" }
            return now < end ? "running" : result
        }
    }

    let pool: PostgresPool

    /// Stores a step; answers the one that is there.
    func add(_ mock: Mock) async throws -> Mock? {
        try await pool.execute(
            """
            insert into shipit_pipeline.mock_steps (uid, body, duration_ms, result, garbage, created)
            values (\(mock.uid), \(mock.body), \(Int(mock.duration.components.seconds) * 1000
                + Int(mock.duration.components.attoseconds / 1_000_000_000_000_000)), \(mock.result),
                \(mock.isGarbage), \(mock.created))
            on conflict do nothing
            """
        )
        return try await find(mock.uid)
    }

    func find(_ uid: String) async throws -> Mock? {
        let rows = try await pool.query("select * from shipit_pipeline.mock_steps where uid = \(uid)")
        return try rows.first.map { row in
            Mock(
                uid: uid,
                body: try row.json("body"),
                duration: .milliseconds(try row.int("duration_ms")),
                result: try row.string("result"),
                isGarbage: try row.bool("garbage"),
                created: try row.timestamp("created"),
                cancelled: try row.optionalTimestamp("cancelled")
            )
        }
    }

    /// Cancels a step that goes on.
    func cancel(_ mock: Mock, at now: Timestamp) async throws {
        try await pool.execute(
            """
            update shipit_pipeline.mock_steps set cancelled = \(now)
            where uid = \(mock.uid) and cancelled is null and created + duration_ms * interval '1 millisecond' > \(now)
            """
        )
    }

    func remove(_ uid: String) async throws {
        try await pool.execute("delete from shipit_pipeline.mock_steps where uid = \(uid)")
    }
}
