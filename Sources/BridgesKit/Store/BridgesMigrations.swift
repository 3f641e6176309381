// SPDX-License-Identifier: MPL-2.0

package import Postgres

/// The steps that make the tables of bridges.
package enum BridgesMigrations {
    /// The schema they are in.
    package static let schema = "bridges"

    /// All steps, oldest first.
    package static var all: [Migration] {
        [
            Migration(version: 1, name: "bridges tables", bytes: PackageResources.V0001_bridges_tables_sql),
            Migration(version: 2, name: "bridges recovery", bytes: PackageResources.V0002_bridges_recovery_sql),
        ]
    }

    /// Brings the schema up to date.
    package static func migrate(_ pool: PostgresPool) async throws {
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
    }
}
