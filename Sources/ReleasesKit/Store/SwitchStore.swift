// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import Postgres

/// What is small and belongs to products: which are disabled, current versions, nightly releases.
struct SwitchStore: Sendable {
    let pool: PostgresPool
    let journal: Journal

    // MARK: - Disabled products

    func disabled() async throws -> [String: [String]] {
        let rows = try await pool.query(
            "select product, branch from shipit_releases.disabled_products order by product, branch"
        )
        var disabled: [String: [String]] = [:]
        for row in rows { disabled[try row.string("product"), default: []].append(try row.string("branch")) }
        return disabled
    }

    func disable(_ product: String, _ branch: String, by actor: String) async throws {
        _ = try await journal.changing(
            "product_disabled",
            product,
            by: actor,
            ["branch": .string(branch)],
            """
            insert into shipit_releases.disabled_products (product, branch, created_by)
            values (\(product), \(branch), \(actor)) on conflict do nothing
            """
        )
    }

    func enable(_ product: String, _ branch: String, by actor: String) async throws -> Bool {
        try await journal.changing(
            "product_enabled",
            product,
            by: actor,
            ["branch": .string(branch)],
            "delete from shipit_releases.disabled_products where product = \(product) and branch = \(branch)"
        )
    }

    // MARK: - Versions

    func version(_ product: String, _ channel: String) async throws -> String? {
        try await pool.query(
            "select version from shipit_releases.versions where product = \(product) and channel = \(channel)"
        ).first?.string("version")
    }

    /// Stores the first version of a channel.
    ///
    /// - Returns: Whether there was none.
    func create(_ product: String, _ channel: String, _ version: String, by actor: String) async throws -> Bool {
        try await journal.changing(
            "version_added",
            product,
            by: actor,
            ["channel": .string(channel), "version": .string(version)],
            """
            insert into shipit_releases.versions (product, channel, version, changed_by)
            values (\(product), \(channel), \(version), \(actor)) on conflict do nothing
            """
        )
    }

    /// Stores another version of a channel.
    ///
    /// - Returns: Whether it was another one.
    func update(_ product: String, _ channel: String, _ version: String, by actor: String) async throws -> Bool {
        try await journal.changing(
            "version_changed",
            product,
            by: actor,
            ["channel": .string(channel), "version": .string(version)],
            """
            update shipit_releases.versions set version = \(version), changed_by = \(actor), changed = now()
            where product = \(product) and channel = \(channel) and version <> \(version)
            """
        )
    }

    // MARK: - Nightly releases

    struct Nightly: Sendable {
        let product: String
        let channel: String
        let version: String
        let buildID: String
        let locales: JSONValue

        var json: JSONValue {
            [
                "product": .string(product), "channel": .string(channel), "version": .string(version),
                "buildid": .string(buildID), "locales": locales,
            ]
        }
    }

    struct NightlyFilter: Sendable {
        var product: String?
        var channel: String?
        var before: String?
        var after: String?
        var isAscending = false
        var limit = 100
    }

    func nightlies(_ filter: NightlyFilter) async throws -> [Nightly] {
        var sql: SQL = "select * from shipit_releases.nightly_releases where true"
        if let product = filter.product { sql += " and product = \(product)" }
        if let channel = filter.channel { sql += " and channel = \(channel)" }
        if let before = filter.before { sql += " and buildid < \(before)" }
        if let after = filter.after { sql += " and buildid > \(after)" }
        sql += filter.isAscending ? " order by buildid" : " order by buildid desc"
        sql += " limit \(filter.limit)"
        let rows = try await pool.query(sql)
        return try rows.map { row in
            Nightly(
                product: try row.string("product"),
                channel: try row.string("channel"),
                version: try row.string("version"),
                buildID: try row.string("buildid"),
                locales: try row.json("locales")
            )
        }
    }

    /// Stores a nightly release.
    ///
    /// - Returns: Whether there was none of its build.
    func add(_ nightly: Nightly, by actor: String) async throws -> Bool {
        try await journal.changing(
            "nightly_added",
            nightly.product,
            by: actor,
            [
                "channel": .string(nightly.channel), "buildid": .string(nightly.buildID),
                "version": .string(nightly.version),
            ],
            """
            insert into shipit_releases.nightly_releases (product, channel, buildid, version, locales)
            values (\(nightly.product), \(nightly.channel), \(nightly.buildID), \(nightly.version), \(nightly.locales))
            on conflict do nothing
            """
        )
    }
}
