// SPDX-License-Identifier: MPL-2.0

import Postgres
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5)))
struct MigratorTests {
    private func steps(_ schema: String) -> [Migration] {
        [
            Migration(
                version: 1,
                name: "first",
                sql: "create table \(schema).a (id int); insert into \(schema).a values (1);"
            ),
            Migration(version: 2, name: "second", sql: "insert into \(schema).a values (2);"),
        ]
    }

    @Test func `eight processes that migrate at once apply each step once`() async throws {
        try await TestDatabase.with { database in
            let steps = steps(database.schema)
            let applied = try await withThrowingTaskGroup(of: [String].self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        let pool = PostgresPool(database.configuration)
                        defer { pool.close() }
                        return try await Migrator.migrate(pool, schema: database.schema, migrations: steps)
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            #expect(applied.sorted() == ["first", "second"])
            #expect(try await database.pool.query("select id from a").count == 2)
            try await Migrator.verify(database.pool, schema: database.schema, migrations: steps)
        }
    }

    @Test func `a changed step is refused with a clear error`() async throws {
        try await TestDatabase.with { database in
            var steps = steps(database.schema)
            try await Migrator.migrate(database.pool, schema: database.schema, migrations: steps)
            steps[1] = Migration(version: 2, name: "second", sql: "select 1;")
            let error = await #expect(throws: PostgresError.self) {
                try await Migrator.migrate(database.pool, schema: database.schema, migrations: steps)
            }
            #expect(error?.code == .migration)
            #expect(error?.message.contains("migration 2 (second)") == true)
        }
    }

    @Test func `a failing step undoes the whole run`() async throws {
        try await TestDatabase.with { database in
            let steps = steps(database.schema) + [Migration(version: 3, name: "third", sql: "select 1/0;")]
            await #expect(throws: PostgresError.self) {
                try await Migrator.migrate(database.pool, schema: database.schema, migrations: steps)
            }
            let found = try await database.pool.query("select to_regclass('a') is null as gone")
            #expect(try found[0].bool("gone"))
        }
    }
}
