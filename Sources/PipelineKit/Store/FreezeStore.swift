// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Postgres
import Schedules

/// Times during which steps are not started.
struct FreezeStore: Sendable {
    /// A freeze as somebody asked for it.
    struct Request: Sendable {
        var uid: String
        var name: String
        var reason: String
        var start: Timestamp
        var end: Timestamp
        var cron: (start: CronExpression, end: CronExpression)?
        var zone = "UTC"
        var labels: JSONObject = [:]
        var apiPrefix: String?
        var stepPattern: String?
        var overrideScopes: [String] = []

        /// What the journal says of it.
        var json: JSONObject {
            var json: JSONObject = ["reason": .string(reason)]
            if let cron {
                json["cron_start"] = .string(cron.start.text)
                json["cron_end"] = .string(cron.end.text)
                json["tz"] = .string(zone)
            } else {
                json["start"] = .string(start.iso8601)
                json["end"] = .string(end.iso8601)
            }
            return json
        }
    }

    let pool: PostgresPool
    let journal: Journal
    let zones: TimeZoneFiles

    /// Reads the freezes that are not over for good.
    static func query(at now: Timestamp) -> SQL {
        """
        select uid, reason, starts, ends, cron_start, cron_end, tz, labels, api_url_prefix, step_uid_glob, override_scopes
        from shipit_pipeline.freezes where ends > \(now) order by starts, uid
        """
    }

    /// What that has read.
    func freezes(_ rows: [PostgresRow]) throws -> [Freeze] {
        try rows.map { try freeze($0) }
    }

    private func freeze(_ row: PostgresRow) throws -> Freeze {
        var period = Freeze.Period.once(try row.timestamp("starts"), try row.timestamp("ends"))
        if let start = try row.optionalString("cron_start"), let end = try row.optionalString("cron_end") {
            period = .recurring(
                start: try CronExpression(start),
                end: try CronExpression(end),
                zone: try zones.rules(of: row.string("tz"))
            )
        }
        return Freeze(
            uid: try row.string("uid"),
            reason: try row.string("reason"),
            period: period,
            labels: try row.json("labels").object ?? [:],
            apiPrefix: try row.optionalString("api_url_prefix"),
            stepPattern: try row.optionalString("step_uid_glob"),
            overrideScopes: try row.strings("override_scopes")
        )
    }

    func save(_ freeze: Request, by actor: String, at now: Timestamp) async throws {
        try await journal.changing("freeze_saved", freeze.uid, by: actor, freeze.json) { connection in
            try await connection.pipeline([
                Self.revise,
                """
                insert into shipit_pipeline.freezes (uid, name, reason, starts, ends, cron_start, cron_end, tz, labels,
                    api_url_prefix, step_uid_glob, override_scopes, created_by, created)
                values (\(freeze.uid), \(freeze.name), \(freeze.reason), \(freeze.start), \(freeze.end),
                    \(freeze.cron?.start.text), \(freeze.cron?.end.text), \(freeze.zone),
                    \(JSONValue.object(freeze.labels)), \(freeze.apiPrefix), \(freeze.stepPattern),
                    \(freeze.overrideScopes), \(actor), \(now))
                on conflict (uid) do update set name = excluded.name, reason = excluded.reason, starts = excluded.starts,
                    ends = excluded.ends, cron_start = excluded.cron_start, cron_end = excluded.cron_end, tz = excluded.tz,
                    labels = excluded.labels, api_url_prefix = excluded.api_url_prefix,
                    step_uid_glob = excluded.step_uid_glob, override_scopes = excluded.override_scopes
                """,
            ])
        }
    }

    func delete(_ uid: String, by actor: String) async throws -> Bool {
        try await journal.changing("freeze_deleted", uid, by: actor) { connection in
            let rows = try await connection.pipeline([
                Self.revise,
                "delete from shipit_pipeline.freezes where uid = \(uid) returning uid",
            ])
            return rows.last?.isEmpty == false ? true : nil
        } ?? false
    }

    /// What is told of waiting pipelines depends on all freezes.
    private static let revise: SQL = """
        update shipit_pipeline.revisions set number = number + 1 where name = 'freezes'
        """

    /// All freezes, or the one of a name.
    func list(_ uid: String? = nil) async throws -> [JSONValue] {
        let rows = try await pool.query(
            """
            select * from shipit_pipeline.freezes where \(uid)::text is null or uid = \(uid)
            order by starts desc, uid limit 1000
            """
        )
        return try rows.map { try Self.json($0) }
    }

    private static func json(_ row: PostgresRow) throws -> JSONValue {
        var match: JSONObject = ["labels": try row.json("labels")]
        match["api_url_prefix"] = try row.optionalString("api_url_prefix").map { .string($0) }
        match["step_uid_glob"] = try row.optionalString("step_uid_glob").map { .string($0) }
        var json: JSONObject = [
            "uid": .string(try row.string("uid")), "name": .string(try row.string("name")),
            "reason": .string(try row.string("reason")), "match": .object(match),
            "allow_override": JSONValue(try row.strings("override_scopes")),
            "created_by": .string(try row.string("created_by")),
        ]
        if let start = try row.optionalString("cron_start"), let end = try row.optionalString("cron_end") {
            json["cron_start"] = .string(start)
            json["cron_end"] = .string(end)
            json["tz"] = .string(try row.string("tz"))
        } else {
            json["start"] = .string(try row.timestamp("starts").iso8601)
            json["end"] = .string(try row.timestamp("ends").iso8601)
        }
        return .object(json)
    }
}
