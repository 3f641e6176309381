// SPDX-License-Identifier: MPL-2.0

package import Postgres

/// The steps that make the tables of hooks.
package enum HooksMigrations {
    /// All steps, oldest first.
    package static var all: [Migration] {
        [
            Migration(version: 1, name: "hooks tables", bytes: PackageResources.V0001_hooks_tables_sql),
            Migration(version: 10, name: "hooks listeners", bytes: PackageResources.V0010_hooks_listeners_sql),
            Migration(version: 11, name: "hooks queue names", bytes: PackageResources.V0011_hooks_queue_names_sql),
            Migration(version: 20, name: "hooks scheduling", bytes: PackageResources.V0020_hooks_scheduling_sql),
            Migration(version: 30, name: "hooks options", bytes: PackageResources.V0030_hooks_options_sql),
            Migration(version: 31, name: "hooks redeliveries", bytes: PackageResources.V0031_hooks_redeliveries_sql),
        ]
    }

    /// Brings the schema `hooks` up to date.
    package static func migrate(_ pool: PostgresPool) async throws {
        _ = try await Migrator.migrate(pool, schema: "hooks", migrations: all)
    }
}
