// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import Postgres
import Schedules
import StepKit

/// A release as the form of the first version asks for it, and how far its runner is.
struct Submission: Sendable {
    let name: String
    let product: String
    let fields: JSONObject
    var isReady = false
    var isComplete = false
    var status = ""
    let submitter: String
    let submitted: Timestamp
    var shipped: Timestamp?
    var starter: String?
    /// The group of the tasks that build it.
    var graph: String?
    /// The task that plans those, if it is made here.
    var graphTask: JSONValue?
    /// Whether a pipeline has to be made of it.
    var isPending = false
    /// Why there is none yet.
    var problem: String?

    /// What rows have whether or not the form says anything of it.
    private static let usual = [
        "l10nChangesets", "partials", "promptWaitTime", "comment", "description", "mh_changeset", "release_eta",
    ]

    var json: JSONValue {
        var json = fields
        for name in Self.usual where json[name] == nil { json[name] = .null }
        if let text = json["promptWaitTime"]?.string {
            json["promptWaitTime"] = Int(text).map { JSONValue($0) } ?? .null
        }
        let security = json["isSecurityDriven"]?.string?.lowercased() ?? ""
        json["isSecurityDriven"] = JSONValue(["1", "true", "on", "y", "yes"].contains(security))
        json["name"] = .string(name)
        json["product"] = .string(product)
        json["submitter"] = .string(submitter)
        json["ready"] = JSONValue(isReady)
        json["complete"] = JSONValue(isComplete)
        json["status"] = .string(status)
        json["submittedAt"] = .string(submitted.iso8601)
        json["shippedAt"] = shipped.map { .string($0.iso8601) } ?? .null
        json["starter"] = starter.map { .string($0) } ?? .null
        json["taskGroupId"] = graph.map { .string($0) } ?? .null
        json["pipeline_pending"] = JSONValue(isPending)
        json["pipeline_problem"] = problem.map { .string($0) } ?? .null
        return .object(json)
    }
}

extension Submission {
    /// What is not as it was: its members as they are now.
    func differences(from before: Submission) -> JSONObject {
        var differences: JSONObject = [:]
        for (key, value) in json.object ?? [:] where before.json[key] != value { differences[key] = value }
        if graphTask != before.graphTask {
            let digest = graphTask.map { Hexadecimal.encoded(CanonicalJSON.digest($0)) }
            differences["task_sha256"] = digest.map { .string($0) } ?? .null
        }
        return differences
    }
}

/// The releases that came by the form of the first version.
struct SubmissionStore: Sendable {
    let pool: PostgresPool
    let journal: Journal

    func list(ready: Bool?, complete: Bool?) async throws -> [String] {
        var sql: SQL = "select name from shipit_releases.submissions where true"
        if let ready { sql += " and ready = \(ready)" }
        if let complete { sql += " and complete = \(complete)" }
        sql += " order by submitted, name limit 10000"
        return try await pool.query(sql).map { try $0.string("name") }
    }

    func find(_ name: String) async throws -> Submission? {
        try await pool.query("select * from shipit_releases.submissions where name = \(name)").first
            .map { try Self.submission($0) }
    }

    /// Stores what somebody asks for.
    ///
    /// - Returns: Whether there was nothing of that name.
    func add(_ submission: Submission) async throws -> Bool {
        try await journal.changing(
            "submission_added",
            submission.name,
            by: submission.submitter,
            ["product": .string(submission.product), "fields": .object(submission.fields)],
            """
            insert into shipit_releases.submissions (name, product, fields, submitter, submitted)
            values (\(submission.name), \(submission.product), \(JSONValue.object(submission.fields)),
                \(submission.submitter), \(submission.submitted))
            on conflict do nothing
            """
        )
    }

    /// Changes one under the lock of its row, and writes down what has become different; nil if there is none.
    func change(
        _ name: String,
        by actor: String,
        _ body: @Sendable (inout Submission) throws -> Void
    ) async throws -> Submission? {
        try await pool.transaction { connection -> Submission? in
            let rows = try await connection.query(
                "select * from shipit_releases.submissions where name = \(name) for update"
            )
            guard let row = rows.first else { return nil }
            let before = try Self.submission(row)
            var changed = before
            try body(&changed)
            let differences = changed.differences(from: before)
            guard !differences.isEmpty else { return changed }
            try await connection.execute(
                """
                update shipit_releases.submissions set ready = \(changed.isReady), complete = \(changed.isComplete),
                    status = \(changed.status), shipped = \(changed.shipped), starter = \(changed.starter),
                    graph = \(changed.graph), graph_task = \(changed.graphTask), pipeline_pending = \(changed.isPending),
                    pipeline_problem = \(changed.problem)
                where name = \(name)
                """
            )
            try await journal.write("submission_changed", name, by: actor, differences, on: connection)
            return changed
        }
    }

    /// Those of which a pipeline has to be made.
    func pending() async throws -> [Submission] {
        try await pool.query(
            "select * from shipit_releases.submissions where pipeline_pending order by name limit 100"
        ).map { try Self.submission($0) }
    }

    private static func submission(_ row: PostgresRow) throws -> Submission {
        Submission(
            name: try row.string("name"),
            product: try row.string("product"),
            fields: try row.json("fields").object ?? [:],
            isReady: try row.bool("ready"),
            isComplete: try row.bool("complete"),
            status: try row.string("status"),
            submitter: try row.string("submitter"),
            submitted: try row.timestamp("submitted"),
            shipped: try row.optionalTimestamp("shipped"),
            starter: try row.optionalString("starter"),
            graph: try row.optionalString("graph"),
            graphTask: try row.optionalJSON("graph_task"),
            isPending: try row.bool("pipeline_pending"),
            problem: try row.optionalString("pipeline_problem")
        )
    }
}
