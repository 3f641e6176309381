// SPDX-License-Identifier: MPL-2.0

public import Postgres
import StepKit

/// The steps that make the tables of pipelines.
public enum PipelineMigrations {
    /// The schema they are in.
    public static let schema = "shipit_pipeline"

    /// All steps, oldest first.
    static var all: [Migration] {
        [
            StepTables.migration(schema: schema),
            Migration(version: 2, name: "pipeline steps", bytes: PackageResources.V0002_pipeline_steps_sql),
            Migration(version: 3, name: "pipeline templates", bytes: PackageResources.V0003_pipeline_templates_sql),
            Migration(version: 4, name: "pipeline hints", bytes: PackageResources.V0004_pipeline_hints_sql),
            Migration(
                version: 5,
                name: "pipeline notices digest",
                bytes: PackageResources.V0005_pipeline_notices_digest_sql
            ),
            Migration(version: 6, name: "pipeline mock", bytes: PackageResources.V0006_pipeline_mock_sql),
            StepTables.requesterMigration(version: 7, schema: schema),
            Migration(version: 8, name: "pipeline journal", bytes: PackageResources.V0008_pipeline_journal_sql),
            Migration(version: 9, name: "pipeline regressions", bytes: PackageResources.V0009_pipeline_regressions_sql),
        ]
    }

    /// Brings the schema up to date.
    public static func migrate(_ pool: PostgresPool) async throws {
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
    }
}
