// SPDX-License-Identifier: MPL-2.0

package import Postgres

/// The steps that make the tables of roller.
package enum RollerMigrations {
    /// The schema they are in.
    package static let schema = "roller"

    /// All steps, oldest first.
    package static var all: [Migration] {
        [
            Migration(version: 1, name: "roller tables", bytes: PackageResources.V0001_roller_tables_sql),
            Migration(version: 2, name: "roller loans", bytes: PackageResources.V0002_roller_loans_sql),
            Migration(version: 3, name: "roller callbacks", bytes: PackageResources.V0003_roller_callbacks_sql),
            Migration(version: 4, name: "roller claims", bytes: PackageResources.V0004_roller_claims_sql),
        ]
    }

    /// Brings the schema up to date.
    package static func migrate(_ pool: PostgresPool) async throws {
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
    }
}
