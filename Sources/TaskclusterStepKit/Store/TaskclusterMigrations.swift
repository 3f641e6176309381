// SPDX-License-Identifier: MPL-2.0

public import Postgres
import StepKit

/// The steps that make the tables of Taskcluster steps.
public enum TaskclusterMigrations {
    /// The schema they are in.
    public static let schema = "shipit_taskcluster"

    /// All steps, oldest first.
    static var all: [Migration] {
        [
            StepTables.migration(schema: schema),
            Migration(version: 2, name: "taskcluster runs", bytes: PackageResources.V0002_taskcluster_runs_sql),
            StepTables.requesterMigration(version: 3, schema: schema),
        ]
    }

    /// Brings the schema up to date.
    public static func migrate(_ pool: PostgresPool) async throws {
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
    }
}
