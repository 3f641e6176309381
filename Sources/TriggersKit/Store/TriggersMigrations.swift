// SPDX-License-Identifier: MPL-2.0

package import Postgres

/// The steps that make the tables of triggers.
package enum TriggersMigrations {
    /// The schema they are in.
    package static let schema = "triggers"

    /// All steps, oldest first.
    package static var all: [Migration] {
        [
            Migration(version: 1, name: "triggers tables", bytes: PackageResources.V0001_triggers_tables_sql),
            Migration(version: 2, name: "triggers uses", bytes: PackageResources.V0002_triggers_uses_sql),
        ]
    }

    /// Brings the schema up to date.
    package static func migrate(_ pool: PostgresPool) async throws {
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
    }
}
