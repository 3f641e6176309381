// SPDX-License-Identifier: MPL-2.0

public import Postgres

/// The tables that every step service has.
public enum StepTables {
    /// The migration that makes them in a service's schema; it is the first one of the service.
    public static func migration(schema: String) -> Migration {
        migration(1, "step tables", PackageResources.V0001_step_tables_sql, schema)
    }

    /// The migration that makes room for who asked for a step; services count their migrations by themselves.
    public static func requesterMigration(version: Int, schema: String) -> Migration {
        migration(version, "step requester", PackageResources.V0002_step_requester_sql, schema)
    }

    private static func migration(_ version: Int, _ name: String, _ bytes: [UInt8], _ schema: String) -> Migration {
        let text = String(decoding: bytes, as: UTF8.self)
        return Migration(
            version: version,
            name: name,
            sql: text.split(separator: "{schema}", omittingEmptySubsequences: false).joined(separator: schema)
        )
    }
}
