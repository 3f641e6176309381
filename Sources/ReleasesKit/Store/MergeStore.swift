// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import Postgres
import Schedules

/// A merge of branches that a script carries out.
struct Merge: Sendable {
    /// How it stands.
    enum Status: String, Sendable {
        case pending
        case running
        case failed
        case completed
        case canceled
    }

    let id: Int
    let product: String
    let behavior: String
    let revision: String
    let isDryRun: Bool
    let version: String
    let message: String
    let author: String
    let way: Product.Merge
    let status: Status
    let created: Timestamp
    let completed: Timestamp?

    /// The name of its pipeline.
    var pipeline: String { Self.pipeline(id) }

    static func pipeline(_ id: Int) -> String { "merge-automation-\(id)" }

    /// How it stands by what its step has come to.
    func status(_ step: PipelineDoor.StepView?) -> Status {
        guard status == .running, let step else { return status }
        return ["failed", "exception", "cancelled"].contains(step.state) ? .failed : .running
    }

    func json(_ step: PipelineDoor.StepView?) -> JSONValue {
        [
            "id": JSONValue(id), "product": .string(product), "behavior": .string(behavior),
            "revision": .string(revision), "dry_run": JSONValue(isDryRun), "created": .string(created.iso8601),
            "completed": completed.map { .string($0.iso8601) } ?? .null, "status": .string(status(step).rawValue),
            "task_id": step?.info["task_id"] ?? .null, "version": .string(version), "commit_message": .string(message),
            "commit_author": .string(author), "repo": .string(way.repository),
            "pretty_name": .string(way.prettyName), "project": .string(way.project),
        ]
    }
}

/// Merges of branches.
struct MergeStore: Sendable {
    let pool: PostgresPool
    let journal: Journal

    func add(_ merge: Merge, by actor: String) async throws -> Int {
        let statement: SQL = """
            insert into shipit_releases.merges (product, behavior, revision, dry_run, version, commit_message,
                commit_author, repo, pretty_name, project, created_by)
            values (\(merge.product), \(merge.behavior), \(merge.revision), \(merge.isDryRun), \(merge.version),
                \(merge.message), \(merge.author), \(merge.way.repository), \(merge.way.prettyName),
                \(merge.way.project), \(actor))
            returning id
            """
        return try await pool.transaction { connection in
            guard let id = try await connection.query(statement).first?.int("id") else {
                throw PostgresError(.decoding, "a merge got no number")
            }
            let data: JSONObject = [
                "product": .string(merge.product), "behavior": .string(merge.behavior),
                "revision": .string(merge.revision), "version": .string(merge.version),
                "dry_run": JSONValue(merge.isDryRun),
            ]
            try await journal.write("merge_added", Merge.pipeline(id), by: actor, data, on: connection)
            return id
        }
    }

    /// The merges of a product that were not cancelled: those that go on first, newest first.
    func list(_ product: String) async throws -> [Merge] {
        let rows = try await pool.query(
            """
            select * from shipit_releases.merges where product = \(product) and status <> 'canceled'
            order by (status = 'completed'), created desc, id desc limit 20
            """
        )
        return try rows.map { try Self.merge($0) }
    }

    func find(_ id: Int) async throws -> Merge? {
        try await pool.query("select * from shipit_releases.merges where id = \(id)").first.map { try Self.merge($0) }
    }

    /// Notes in the transaction that is open on a connection that a merge is started, if it may be.
    ///
    /// - Returns: How it stood before; until the transaction ends it stays as it is then.
    func start(_ id: Int, by actor: String, on connection: PostgresConnection) async throws -> Merge.Status? {
        let rows = try await connection.query("select * from shipit_releases.merges where id = \(id) for update")
        guard let merge = try rows.first.map({ try Self.merge($0) }), merge.status == .pending else {
            return try rows.first.map { try Self.merge($0).status }
        }
        try await connection.execute("update shipit_releases.merges set status = 'running' where id = \(id)")
        try await journal.write("merge_running", merge.pipeline, by: actor, [:], on: connection)
        return merge.status
    }

    /// Moves a merge, if it is in one of some states.
    ///
    /// - Returns: Whether it was.
    func move(
        _ id: Int,
        from states: [Merge.Status],
        to state: Merge.Status,
        by actor: String
    ) async throws -> Bool {
        try await journal.changing(
            "merge_\(state.rawValue)",
            Merge.pipeline(id),
            by: actor,
            [:],
            """
            update shipit_releases.merges set status = \(state.rawValue),
                completed = case when \(state == .completed) then now() else completed end
            where id = \(id) and status = any(\(states.map(\.rawValue)))
            """
        )
    }

    private static func merge(_ row: PostgresRow) throws -> Merge {
        let status = try row.string("status")
        guard let known = Merge.Status(rawValue: status) else {
            throw PostgresError(.decoding, "the status \(status) of a merge is unknown")
        }
        return Merge(
            id: try row.int("id"),
            product: try row.string("product"),
            behavior: try row.string("behavior"),
            revision: try row.string("revision"),
            isDryRun: try row.bool("dry_run"),
            version: try row.string("version"),
            message: try row.string("commit_message"),
            author: try row.string("commit_author"),
            way: Product.Merge(
                repository: try row.string("repo"),
                project: try row.string("project"),
                prettyName: try row.string("pretty_name")
            ),
            status: known,
            created: try row.timestamp("created"),
            completed: try row.optionalTimestamp("completed")
        )
    }
}
