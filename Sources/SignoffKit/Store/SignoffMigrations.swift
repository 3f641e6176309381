// SPDX-License-Identifier: MPL-2.0

public import Postgres
import StepKit

/// The steps that make the tables of sign-offs.
public enum SignoffMigrations {
    /// The schema they are in.
    public static let schema = "shipit_signoff"

    /// All steps, oldest first.
    static var all: [Migration] {
        [
            StepTables.migration(schema: schema),
            Migration(
                version: 2,
                name: "signoff signatures",
                bytes: PackageResources.V0002_signoff_signatures_sql
            ),
            Migration(
                version: 3,
                name: "signoff revocations",
                bytes: PackageResources.V0003_signoff_revocations_sql
            ),
            StepTables.requesterMigration(version: 4, schema: schema),
        ]
    }

    /// Brings the schema up to date.
    public static func migrate(_ pool: PostgresPool) async throws {
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
    }
}
