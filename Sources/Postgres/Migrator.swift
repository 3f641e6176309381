// SPDX-License-Identifier: MPL-2.0

import Core

/// A numbered step of a schema, never changed once it has been released.
public struct Migration: Sendable {
    /// Its number, counted from 1.
    public let version: Int
    /// What it does, in a word or two.
    public let name: String
    /// Its statements.
    public let sql: String

    /// Creates a migration from a script.
    public init(version: Int, name: String, sql: String) {
        self.version = version
        self.name = name
        self.sql = sql
    }

    /// Creates a migration from an embedded file.
    public init(version: Int, name: String, bytes: [UInt8]) {
        self.init(version: version, name: name, sql: String(decoding: bytes, as: UTF8.self))
    }
}

/// Brings a schema up to date; any number of processes may try at once.
///
/// What was applied is recorded with a checksum in the table `migrations` of the schema. One run is one transaction: it
/// takes effect completely or not at all.
public enum Migrator {
    /// Applies what is missing and returns the names of the steps it applied.
    @discardableResult
    public static func migrate(
        _ pool: PostgresPool,
        schema: String,
        migrations: [Migration]
    ) async throws -> [String] {
        try await pool.transaction { connection in
            try await connection.execute("set local statement_timeout = 0")
            // One lock for all schemas: creating schemas at the same time conflicts in the catalogue.
            _ = try await connection.query("select pg_advisory_xact_lock(8244116202)")
            let exists = try await connection.query("select 1 from pg_namespace where nspname = \(schema)")
            if exists.isEmpty { try await connection.script("create schema \(identifier(schema))") }
            try await connection.script(
                """
                create table if not exists \(identifier(schema)).migrations (
                    version integer primary key,
                    name text not null,
                    checksum text not null,
                    applied timestamptz not null default now()
                );
                """
            )
            var applied: [String] = []
            for migration in try await pending(connection, schema, migrations) {
                do {
                    try await connection.script(migration.sql)
                } catch let error as PostgresError {
                    throw PostgresError(
                        .migration,
                        "migration \(migration.version) (\(migration.name)) of schema \(schema) failed: \(error.message)",
                        sqlState: error.sqlState
                    )
                }
                try await connection.execute(
                    """
                    insert into \(unsafe: identifier(schema)).migrations (version, name, checksum)
                    values (\(migration.version), \(migration.name), encode(sha256(\(Array(migration.sql.utf8))), 'hex'))
                    """
                )
                applied.append(migration.name)
            }
            return applied
        }
    }

    /// Throws when a step is missing or differs from what was applied.
    public static func verify(_ pool: PostgresPool, schema: String, migrations: [Migration]) async throws {
        try await pool.withConnection { connection in
            let table = "\(identifier(schema)).migrations"
            let found = try await connection.query("select to_regclass(\(table)) is not null as found")
            guard try found.first?.bool("found") == true else {
                throw PostgresError(.migration, "schema \(schema) does not exist: run migrate first")
            }
            let missing = try await pending(connection, schema, migrations)
            guard let first = missing.first else { return }
            throw PostgresError(
                .migration,
                "schema \(schema) lacks migration \(first.version) (\(first.name)): run migrate first"
            )
        }
    }

    private static func pending(
        _ connection: PostgresConnection,
        _ schema: String,
        _ migrations: [Migration]
    ) async throws(PostgresError) -> [Migration] {
        let rows = try await connection.query(
            "select version, checksum from \(unsafe: identifier(schema)).migrations"
        )
        var checksums: [Int: String] = [:]
        for row in rows { checksums[try row.int("version")] = try row.string("checksum") }
        var pending: [Migration] = []
        for migration in migrations.sorted(by: { $0.version < $1.version }) {
            guard let recorded = checksums[migration.version] else {
                pending.append(migration)
                continue
            }
            let bytes = Array(migration.sql.utf8)
            let own = try await connection.query("select encode(sha256(\(bytes)), 'hex') as checksum")
            guard try own.first?.string("checksum") == recorded else {
                throw PostgresError(
                    .migration,
                    "migration \(migration.version) (\(migration.name)) of schema \(schema) was changed after it was "
                        + "applied: restore its file and put the change into a new migration"
                )
            }
        }
        return pending
    }

    private static func identifier(_ name: String) -> String {
        "\"" + name.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    }
}
