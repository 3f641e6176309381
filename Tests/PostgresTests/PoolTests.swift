// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5)))
struct PoolTests {
    @Test func `a hundred tasks share two sessions`() async throws {
        try await TestDatabase.with(poolSize: 2) { database in
            let sum = try await withThrowingTaskGroup(of: Int.self) { group in
                for number in 1...100 {
                    group.addTask { try await database.pool.query("select \(number)::int as n")[0].int("n") }
                }
                return try await group.reduce(0, +)
            }
            #expect(sum == 5050)
        }
    }

    @Test func `who waits too long for a session is told so`() async throws {
        var configuration = PostgresConfiguration(url: try TestDatabase.url(), poolSize: 1)
        configuration.acquireTimeout = .milliseconds(50)
        let pool = PostgresPool(configuration)
        try await pool.withConnection { _ in
            let error = await #expect(throws: PostgresError.self) { try await pool.query("select 1") }
            #expect(error?.code == .poolExhausted)
        }
        #expect(try await pool.query("select 1").count == 1)
        pool.close()
    }

    @Test func `conflicting serializable transactions both take effect`() async throws {
        try await TestDatabase.with { database in
            let pool = database.pool
            try await pool.execute("create table counter (n int not null)")
            try await pool.execute("insert into counter values (0)")
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<4 {
                    group.addTask {
                        for _ in 0..<5 {
                            try await pool.transaction(.serializable) { connection in
                                let value = try await connection.query("select n from counter")[0].int("n")
                                try await connection.execute("update counter set n = \(value + 1)")
                            }
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await pool.query("select n from counter")[0].int("n") == 20)
        }
    }

    @Test func `killed sessions are replaced`() async throws {
        try await TestDatabase.with(poolSize: 2) { database in
            let pool = database.pool
            let pid = try await pool.query("select pg_backend_pid() as pid")[0].int("pid")
            let killer = PostgresPool(PostgresConfiguration(url: try TestDatabase.url(), poolSize: 1))
            try await killer.query("select pg_terminate_backend(\(pid)::int)").forEach { _ in }
            try await eventually {
                try await killer.query("select 1 from pg_stat_activity where pid = \(pid)::int").isEmpty
            }
            // The server may have ended the session before the news of it has crossed the socket: then one statement fails.
            try await eventually(within: .seconds(30), "a new session") {
                do {
                    return try await pool.query("select pg_backend_pid() as pid")[0].int("pid") != pid
                } catch let error as PostgresError where error.isRetriable {
                    return false
                }
            }
            killer.close()
        }
    }

    @Test func `a session killed in the middle of a statement fails it as retriable`() async throws {
        try await TestDatabase.with(poolSize: 1) { database in
            let killer = PostgresPool(PostgresConfiguration(url: try TestDatabase.url(), poolSize: 1))
            async let sleeping = database.pool.query("select pg_sleep(20)")
            try await eventually {
                try await killer.query(
                    """
                    select pg_terminate_backend(pid) from pg_stat_activity
                    where application_name = \(database.schema) and query like 'select pg_sleep%'
                    """
                ).count == 1
            }
            do {
                _ = try await sleeping
                Issue.record("the statement survived its session")
            } catch {
                #expect((error as? PostgresError)?.isRetriable == true)
            }
            #expect(try await database.pool.query("select 1").count == 1)
            killer.close()
        }
    }

    /// Half a second of patience: an answer within it saves the session, a later one costs it.
    @Test(arguments: [(0.2, true), (20.0, false)])
    func `a cancelled statement ends soon and the pool stays whole`(seconds: Double, survives: Bool) async throws {
        try await TestDatabase.with(poolSize: 1) { database in
            let pool = database.pool
            let sleep: SQL = "select pg_sleep(\(seconds)::float8 * \(0.0)::float8)"
            _ = try await pool.query(sleep)
            let pid = try await pool.query("select pg_backend_pid() as pid")[0].int("pid")
            for isInTransaction in [false, true] {
                let start = ContinuousClock.now
                await #expect(throws: (any Error).self) {
                    try await withTimeout(.milliseconds(20)) {
                        let slow: SQL = "select pg_sleep(\(seconds)::float8 * \(1.0)::float8)"
                        if isInTransaction {
                            _ = try await pool.transaction { try await $0.query(slow) }
                        } else {
                            _ = try await pool.query(slow)
                        }
                    }
                }
                #expect(ContinuousClock.now - start < .seconds(2))
                let now = try await pool.query("select pg_backend_pid() as pid")[0].int("pid")
                if !isInTransaction { #expect((now == pid) == survives) }
                _ = try await pool.query(sleep)
            }
        }
    }

    @Test func `an unreachable server is an error at once and in plain words`() async throws {
        let pool = PostgresPool(PostgresConfiguration(url: "postgres://u:secret@127.0.0.1:1/x", poolSize: 1))
        let error = await #expect(throws: PostgresError.self) { try await pool.query("select 1") }
        #expect(error?.isConnectionFailure == true)
        #expect(error.map { !"\($0)".contains("secret") } == true)
    }

    @Test func `a listener hears again after its session was killed`() async throws {
        try await TestDatabase.with { database in
            let pool = database.pool
            var events = pool.notifications(on: [database.schema]).makeAsyncIterator()
            #expect(await events.next() == .reconnected)
            try await pool.query("select pg_notify(\(database.schema), 'one')").forEach { _ in }
            #expect(await events.next() == .notification(channel: database.schema, payload: "one"))
            try await pool.query(
                """
                select pg_terminate_backend(pid) from pg_stat_activity
                where application_name = \(database.schema) and query like 'listen%'
                """
            ).forEach { _ in }
            #expect(await events.next() == .reconnected)
            try await pool.query("select pg_notify(\(database.schema), 'two')").forEach { _ in }
            #expect(await events.next() == .notification(channel: database.schema, payload: "two"))
        }
    }
}
