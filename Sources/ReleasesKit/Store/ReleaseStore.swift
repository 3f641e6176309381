// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules

/// Releases with their phases and signatures.
struct ReleaseStore: Sendable {
    let pool: PostgresPool

    // MARK: - Reading

    /// Which releases a list shows.
    struct Filter: Sendable {
        var product: String?
        var branch: String?
        var version: String?
        var buildNumber: Int?
        var statuses: [Release.Status] = [.scheduled]
        var extensions = Extensions.none
    }

    /// Whether a list shows products or extensions.
    enum Extensions: Sendable {
        case none
        /// All extensions, or those of a name.
        case named(String?)
    }

    func list(_ filter: Filter) async throws -> [Release] {
        var sql: SQL = "select * from shipit_releases.releases where status = any(\(filter.statuses.map(\.rawValue)))"
        if let product = filter.product { sql += " and product = \(product)" }
        if let branch = filter.branch { sql += " and branch = \(branch)" }
        if let version = filter.version { sql += " and version = \(version)" }
        if let number = filter.buildNumber { sql += " and build_number = \(number)" }
        switch filter.extensions {
        case .none: sql += " and xpi is null"
        case .named(let name):
            sql += " and xpi is not null"
            if let name { sql += " and xpi ->> 'name' = \(name)" }
        }
        sql += " order by id"
        let rows = try await pool.query(sql)
        return try await withPhases(rows.map { try Self.release($0) }) { try await pool.query($0) }
    }

    func find(_ name: String) async throws -> Release? {
        let rows = try await pool.query("select * from shipit_releases.releases where name = \(name)")
        return try await withPhases(rows.map { try Self.release($0) }) { try await pool.query($0) }.first
    }

    /// A release under the lock of its row.
    func lock(_ name: String, on connection: PostgresConnection) async throws -> Release? {
        let rows = try await connection.query(
            "select * from shipit_releases.releases where name = \(name) for update"
        )
        return try await withPhases(rows.map { try Self.release($0) }) { try await connection.query($0) }.first
    }

    private func withPhases(
        _ releases: [Release],
        _ query: (SQL) async throws -> [PostgresRow]
    ) async throws -> [Release] {
        guard !releases.isEmpty else { return [] }
        let rows = try await query(
            """
            select * from shipit_releases.phases where release_id = any(\(releases.map(\.id))::bigint[])
            order by release_id, position
            """
        )
        var phases: [Int: [Release.Phase]] = [:]
        for row in rows {
            let phase = Release.Phase(
                name: try row.string("name"),
                wanted: try row.optionalTimestamp("wanted"),
                wantedBy: try row.optionalString("wanted_by"),
                isSkipped: try row.bool("skipped"),
                digest: try row.optionalBytes("digest")
            )
            phases[try row.int("release_id"), default: []].append(phase)
        }
        return releases.map { release in
            var release = release
            release.phases = phases[release.id] ?? []
            return release
        }
    }

    private static func release(_ row: PostgresRow) throws -> Release {
        let status = try row.string("status")
        guard let known = Release.Status(rawValue: status) else {
            throw PostgresError(.decoding, "the status \(status) of a release is unknown")
        }
        return Release(
            id: try row.int("id"),
            name: try row.string("name"),
            product: try row.string("product"),
            productKey: try row.optionalString("product_key"),
            branch: try row.string("branch"),
            version: try row.string("version"),
            buildNumber: try row.int("build_number"),
            revision: try row.string("revision"),
            repository: try row.string("repo_url"),
            releaseETA: try row.string("release_eta"),
            decisionTask: try row.string("decision_task"),
            input: try row.json("input").object ?? [:],
            status: known,
            created: try row.timestamp("created"),
            createdBy: try row.string("created_by"),
            createdSubject: try row.optionalString("created_sub"),
            pipeline: try row.optionalInt("pipeline_id"),
            completed: try row.optionalTimestamp("completed"),
            allowsSkipping: try row.bool("allows_skipping"),
            extension: try row.optionalJSON("xpi").flatMap { Extension($0) }
        )
    }

    // MARK: - Writing

    /// Stores a new release; answers nil if there is one of its name.
    func insert(
        _ release: Release,
        _ signoffs: [Signoff],
        by caller: Caller,
        pipeline: Int,
        on connection: PostgresConnection
    ) async throws -> Int? {
        let rows = try await connection.query(
            """
            insert into shipit_releases.releases (name, product, product_key, branch, version, build_number, revision,
                repo_url, release_eta, decision_task, input, allows_skipping, xpi, created_by,
                created_sub, created, pipeline_id)
            values (\(release.name), \(release.product), \(release.productKey), \(release.branch), \(release.version),
                \(release.buildNumber), \(release.revision), \(release.repository), \(release.releaseETA),
                \(release.decisionTask), \(JSONValue.object(release.input)), \(release.allowsSkipping),
                \(release.extension?.json), \(caller.name), \(caller.subject), \(release.created),
                \(pipeline))
            on conflict (name) do nothing returning id
            """
        )
        guard let id = try rows.first?.int("id") else { return nil }
        var statements: [SQL] = []
        for (position, phase) in release.phases.enumerated() {
            statements.append(
                """
                insert into shipit_releases.phases (release_id, position, name)
                values (\(id), \(position), \(phase.name))
                """
            )
        }
        for (position, signoff) in signoffs.enumerated() {
            statements.append(
                """
                insert into shipit_releases.signoffs
                    (uid, release_id, phase, position, name, description, permissions)
                values (\(signoff.uid), \(id), \(signoff.phase), \(position), \(signoff.name), \(signoff.description),
                    \(signoff.permissions))
                """
            )
        }
        try await connection.pipeline(statements)
        return id
    }

    func setStatus(
        _ status: Release.Status,
        _ release: Int,
        completed: Timestamp?,
        on connection: PostgresConnection
    ) async throws {
        try await connection.execute(
            """
            update shipit_releases.releases set status = \(status.rawValue), completed = \(completed)
            where id = \(release)
            """
        )
    }

    /// Notes that somebody wants a phase, or that it is left out.
    func want(
        _ phase: String,
        of release: Int,
        by actor: String,
        at now: Timestamp,
        skipped: Bool,
        digest: [UInt8]? = nil,
        on connection: PostgresConnection
    ) async throws {
        try await connection.execute(
            """
            update shipit_releases.phases set wanted = \(now), wanted_by = \(actor), skipped = \(skipped),
                digest = \(digest)
            where release_id = \(release) and name = \(phase)
            """
        )
    }

    /// Notes that the step of a phase has been called for.
    func noteStarted(_ phase: String, of release: Int, on connection: PostgresConnection) async throws {
        try await connection.execute(
            "update shipit_releases.phases set started = true where release_id = \(release) and name = \(phase)"
        )
    }

    /// Notes that nobody wants a phase any more, whose step has not been called for.
    func leave(_ phase: String, of release: Int, on connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            update shipit_releases.phases set wanted = null, wanted_by = null, digest = null
            where release_id = \(release) and name = \(phase) and not started
            """
        )
    }

    /// The releases with phases that somebody wants and that have not been called for yet.
    func waiting() async throws -> [String] {
        try await pool.query(
            """
            select distinct r.name from shipit_releases.phases p join shipit_releases.releases r on r.id = p.release_id
            where p.wanted is not null and not p.started and not p.skipped and r.status = 'scheduled' limit 100
            """
        ).map { try $0.string("name") }
    }
}
