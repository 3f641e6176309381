// SPDX-License-Identifier: MPL-2.0

public import Postgres
import Synchronization

/// A schema of its own in the real test database, and a pool to reach it.
public struct TestDatabase: Sendable {
    /// The schema's name, safe to splice into statements.
    public let schema: String
    /// A pool whose sessions find the schema's tables without a prefix.
    public let pool: PostgresPool
    /// How the pool connects, to make more pools.
    public let configuration: PostgresConfiguration

    /// Creates a schema, lends it to a body and drops it whatever happens.
    public static func with<R: Sendable>(
        poolSize: Int = 4,
        _ body: (TestDatabase) async throws -> R
    ) async throws -> R {
        let schema = "test_" + String(UInt64.random(in: .min ... .max), radix: 36)
        var configuration = PostgresConfiguration(url: try url(), applicationName: schema, poolSize: poolSize)
        configuration.url += (configuration.url.contains("?") ? "&" : "?") + "options=-c%20search_path%3D\(schema)"
        let database = TestDatabase(
            schema: schema,
            pool: PostgresPool(configuration),
            configuration: configuration
        )
        try await database.pool.execute("create schema \(unsafe: schema)")
        do {
            let result = try await body(database)
            await database.drop()
            return result
        } catch {
            await database.drop()
            throw error
        }
    }

    /// The URL of the test database; tests need a real one.
    public static func url() throws -> String {
        guard let url = TestEnvironment.value("SLIPWAY_TEST_DATABASE_URL") else {
            throw TestEnvironmentError(variable: "SLIPWAY_TEST_DATABASE_URL")
        }
        return url
    }

    private func drop() async {
        // A schema that is left behind harms nobody: its name is never used again.
        _ = try? await pool.execute("drop schema if exists \(unsafe: schema) cascade")
        pool.close()
    }
}
