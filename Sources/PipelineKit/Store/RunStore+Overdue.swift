// SPDX-License-Identifier: MPL-2.0

import Postgres
import Schedules

extension RunStore {
    /// The pipelines that have been due for long, or whose looks have failed too often.
    func overdue(since moment: Timestamp, failures: Int) async throws -> [String] {
        try await pool.query(
            """
            select uid from shipit_pipeline.steps
            where deleted_at is null and state in ('pending', 'starting', 'running', 'stopping')
                and (next_check_at <= \(moment) or check_failures >= \(failures)) order by next_check_at limit 100
            """
        ).map { try $0.string("uid") }
    }

    /// The kind of the last thing that the audit of a pipeline tells.
    func lastEvent(_ id: Int, on connection: PostgresConnection) async throws -> String? {
        try await connection.query(
            "select kind from shipit_pipeline.events where step_id = \(id) order by sequence desc limit 1"
        ).first?.string("kind")
    }
}
