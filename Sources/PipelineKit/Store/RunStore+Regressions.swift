// SPDX-License-Identifier: MPL-2.0

import Postgres
import Schedules

extension RunStore {
    /// A step whose service has said that it ended.
    struct Ended: Sendable {
        let pipelineID: Int
        let pipeline: String
        let step: String
        let attempt: Int
        let apiURL: String
    }

    /// Steps of a name at their service that ended before a moment, as far as that is known, and of which the audit does not
    /// say yet that they go on; those of the service that was named first, and of many the newest.
    func ended(_ remoteUID: String, before moment: Timestamp?, at service: String) async throws -> [Ended] {
        let rows = try await pool.query(
            """
            select p.pipeline_id, s.uid as pipeline, p.uid as step, p.attempt, p.api_url
            from shipit_pipeline.pipeline_steps p join shipit_pipeline.steps s on s.id = p.pipeline_id
            where p.remote_uid = \(remoteUID) and p.remote_ended and not p.regress_told and s.deleted_at is null
                and p.state in ('completed', 'failed', 'exception', 'cancelled')
                and coalesce(p.remote_updated < \(moment)::timestamptz, true)
            order by starts_with(p.api_url, \(service)) desc, p.pipeline_id desc limit 4
            """
        )
        var found: [Ended] = []
        for row in rows {
            found.append(
                Ended(
                    pipelineID: try row.int("pipeline_id"),
                    pipeline: try row.string("pipeline"),
                    step: try row.string("step"),
                    attempt: try row.int("attempt"),
                    apiURL: try row.string("api_url")
                )
            )
        }
        return found
    }
}
