// SPDX-License-Identifier: MPL-2.0

public import Postgres

/// The tables that every step service has.
public enum StepTables {
    /// The migration that makes them in a service's schema; it is the first one of the service.
    public static func migration(schema: String) -> Migration {
        let text = String(decoding: PackageResources.V0001_step_tables_sql, as: UTF8.self)
        return Migration(
            version: 1,
            name: "step tables",
            sql: text.split(separator: "{schema}", omittingEmptySubsequences: false).joined(separator: schema)
        )
    }
}
