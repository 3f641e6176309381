// SPDX-License-Identifier: MPL-2.0

public import Postgres
import StepKit

/// The steps that make the tables of releases.
public enum ReleasesMigrations {
    /// The schema they are in.
    public static let schema = "shipit_releases"

    /// Brings the schema up to date.
    public static func migrate(_ pool: PostgresPool) async throws {
        let all = [
            Migration(version: 1, name: "releases", bytes: PackageResources.V0001_releases_sql),
            Migration(version: 2, name: "releases merges", bytes: PackageResources.V0002_releases_merges_sql),
            Migration(version: 3, name: "releases runner", bytes: PackageResources.V0003_releases_runner_sql),
            Migration(version: 4, name: "releases xpi", bytes: PackageResources.V0004_releases_xpi_sql),
            Migration(version: 5, name: "releases signatures", bytes: PackageResources.V0005_releases_signatures_sql),
            Migration(version: 6, name: "releases pipeline", bytes: PackageResources.V0006_releases_pipeline_sql),
        ]
        try await Revocations.migrate(pool)
        _ = try await Migrator.migrate(pool, schema: schema, migrations: all)
    }
}
