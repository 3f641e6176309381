// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5)))
struct ConnectionTests {
    @Test func `values of every type come back as they went in`() async throws {
        try await TestDatabase.with { database in
            let json: JSONValue = ["b": 1, "a": ["x", nil, true]]
            let moment = Timestamp(milliseconds: 1_707_568_496_789)
            let awkward = ["plain", "with \"quotes\"", "back\\slash", "", "NULL", "comma,{brace}", "ü"]
            let nothing: String? = nil
            let rows = try await database.pool.query(
                """
                select \("text ' \" ü")::text as t, \(-42)::bigint as i, \(1.5)::float8 as d, \(true)::boolean as b,
                    \(json)::json as j, \(moment)::timestamptz as m, \([0, 255, 92] as [UInt8])::bytea as y,
                    \(awkward)::text[] as s, (\(awkward + [nil])::text[])[8] is null as e,
                    (\(awkward + [nil])::text[])[1:7] as f, \([1, 2])::bigint[] as n, \(nothing)::text as z
                """
            )
            let row = try #require(rows.first)
            #expect(try row.string("t") == "text ' \" ü")
            #expect(try row.int("i") == -42)
            #expect(try row.double("d") == 1.5)
            #expect(try row.bool("b"))
            #expect(try row.json("j") == json)
            #expect(try row.string("j") == json.text())
            #expect(try row.timestamp("m") == moment)
            #expect(try row.bytes("y") == [0, 255, 92])
            #expect(try row.strings("s") == awkward)
            #expect(try row.bool("e"))
            #expect(try row.strings("f") == awkward)
            #expect(try row.string("n") == "{1,2}")
            #expect(try row.optionalString("z") == nil)
            #expect(throws: PostgresError.self) { try row.string("z") }
            #expect(throws: PostgresError.self) { try row.string("absent") }
        }
    }

    @Test(arguments: [
        (Int64.min, "0001-01-01T00:00:00.000Z"), (-62_150_000_000_000, "0001-01-01T00:00:00.000Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999Z"), (Int64.max, "9999-12-31T23:59:59.999Z"),
    ])
    func `a moment that no calendar of the database has is the first or the last of it`(
        _ milliseconds: Int64,
        _ expected: String
    ) async throws {
        try await TestDatabase.with { database in
            let moment = Timestamp(milliseconds: milliseconds)
            let rows = try await database.pool.query(
                "select \(moment)::timestamptz as one, (\([moment])::timestamptz[])[1] as listed"
            )
            let row = try #require(rows.first)
            #expect(try row.timestamp("one").iso8601 == expected)
            #expect(try row.timestamp("listed").iso8601 == expected)
        }
    }

    @Test func `spliced statements keep their values in order`() async throws {
        let condition: SQL = "b = \(2) and c = \("x")"
        let sql: SQL = "select 1 where a = \(1) and \(condition)"
        #expect(sql.text == "select 1 where a = $1 and b = $2 and c = $3")
        #expect((sql + " and d = \(4)").text.hasSuffix("d = $4"))
    }

    @Test func `a pipeline outside a transaction is all or nothing`() async throws {
        try await TestDatabase.with { database in
            let pool = database.pool
            try await pool.execute("create table t (id int primary key)")
            let answers = try await pool.pipeline(["insert into t values (\(1))", "select count(*) as n from t"])
            #expect(try answers[1][0].int("n") == 1)
            let error = await #expect(throws: PostgresError.self) {
                try await pool.pipeline(["insert into t values (\(2))", "insert into t values (\(1))", "select 1"])
            }
            #expect(error?.isUniqueViolation == true)
            #expect(error?.constraint == "t_pkey")
            #expect(try await pool.query("select id from t").count == 1)
        }
    }

    @Test func `a failed transaction leaves nothing and a usable session`() async throws {
        try await TestDatabase.with(poolSize: 1) { database in
            let pool = database.pool
            try await pool.execute("create table t (id int primary key)")
            await #expect(throws: CancellationError.self) {
                try await pool.transaction { connection in
                    try await connection.execute("insert into t values (1)")
                    throw CancellationError()
                }
            }
            #expect(try await pool.query("select 1 from t").isEmpty)
            // A body that swallows an error must not believe it committed.
            await #expect(throws: PostgresError.self) {
                try await pool.transaction { connection in
                    try await connection.execute("insert into t values (1)")
                    _ = try? await connection.execute("insert into t values (1)")
                }
            }
            #expect(try await pool.query("select 1 from t").isEmpty)
        }
    }

    @Test func `what was put off goes with the next statement, or with the commit`() async throws {
        try await TestDatabase.with(poolSize: 1) { database in
            let pool = database.pool
            try await pool.execute("create table t (id int primary key)")
            try await pool.transaction { connection in
                connection.later(["insert into t values (\(1))", "insert into t values (\(2))"])
                let seen = try await connection.query("select id from t")
                #expect(seen.count == 2)
                connection.later(["insert into t values (\(3))"])
            }
            #expect(try await pool.query("select id from t").count == 3)
            // Without any other statement, and without a transaction.
            try await pool.transaction { $0.later(["insert into t values (\(4))"]) }
            try await pool.withConnection { $0.later(["insert into t values (\(5))"]) }
            #expect(try await pool.query("select id from t").count == 5)
        }
    }

    @Test func `what was put off and fails takes the transaction with it and leaves a usable session`() async throws {
        try await TestDatabase.with(poolSize: 1) { database in
            let pool = database.pool
            try await pool.execute("create table t (id int primary key)")
            let session = try await pool.query("select pg_backend_pid() as id").first?.int("id")
            let atCommit = await #expect(throws: PostgresError.self) {
                try await pool.transaction { connection in
                    try await connection.execute("insert into t values (1)")
                    connection.later([
                        "insert into t values (\(2))", "insert into t values (\(1))", "insert into t values (3)",
                    ])
                }
            }
            #expect(atCommit?.isUniqueViolation == true)
            let before = await #expect(throws: PostgresError.self) {
                try await pool.transaction { connection in
                    connection.later(["insert into t values (\(4))", "select \("x")::int"])
                    _ = try await connection.query("select 1 as one")
                }
            }
            #expect(before?.sqlState == "22P02")
            await #expect(throws: CancellationError.self) {
                try await pool.transaction { connection in
                    connection.later(["insert into t values (\(5))"])
                    throw CancellationError()
                }
            }
            await #expect(throws: CancellationError.self) {
                try await pool.withConnection { connection in
                    connection.later(["insert into t values (\(6))"])
                    throw CancellationError()
                }
            }
            #expect(try await pool.query("select 1 from t").isEmpty)
            let later = try await pool.query("select pg_backend_pid() as id").first?.int("id")
            #expect(session != nil && later == session)
        }
    }

    @Test func `a task that is cancelled before its commit has put nothing off for good`() async throws {
        try await TestDatabase.with(poolSize: 1) { database in
            let pool = database.pool
            try await pool.execute("create table t (id int primary key)")
            let task = Task {
                try await pool.transaction { connection in
                    try await connection.execute("insert into t values (1)")
                    connection.later(["insert into t values (\(2))"])
                    while !Task.isCancelled { await Task.yield() }
                }
            }
            task.cancel()
            await #expect(throws: PostgresError.self) { try await task.value }
            #expect(try await pool.query("select 1 from t").isEmpty)
        }
    }

    @Test func `errors name the fault and no values`() async throws {
        try await TestDatabase.with { database in
            let error = await #expect(throws: PostgresError.self) {
                try await database.pool.query("select \("hunter2")::int")
            }
            #expect(error.map { !"\($0)".contains("hunter2") } == true)
            #expect(error?.sqlState == "22P02")
        }
    }

    @Test func `long answers and long statements pass`() async throws {
        try await TestDatabase.with { database in
            let long = String(repeating: "x", count: 5_000_000)
            let rows = try await database.pool.query("select \(long)::text as t")
            #expect(try rows[0].string("t") == long)
            #expect(try await database.pool.query("select g from generate_series(1, 20000) g").count == 20_000)
        }
    }
}
