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
            Migration(version: 5, name: "signoff people", bytes: PackageResources.V0005_signoff_people_sql),
        ]
    }

    /// Brings the schema up to date.
    public static func migrate(_ pool: PostgresPool) async throws {
        try await Revocations.migrate(pool)
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
        try await carryOver(pool)
    }

    /// Moves the revocations of the time before services shared them; signatures that live are from after those.
    private static func carryOver(_ pool: PostgresPool) async throws {
        let revocations = Revocations(pool: pool)
        try await pool.transaction { connection in
            let rows = try await connection.query("select * from shipit_signoff.revocations order by id for update")
            var last = 0
            for row in rows {
                last = try await revocations.add(
                    subject: row.optionalString("sub"),
                    email: row.optionalString("email"),
                    at: row.timestamp("at"),
                    by: row.string("actor"),
                    reason: row.string("reason"),
                    on: connection
                ).sequence
            }
            guard last > 0 else { return }
            try await connection.execute(
                "update shipit_signoff.signatures set revocations_seen = \(last) where revoked_at is null"
            )
            try await connection.execute("delete from shipit_signoff.revocations")
        }
    }
}
