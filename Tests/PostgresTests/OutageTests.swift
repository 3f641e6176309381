// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres
import Synchronization
import TestSupport
import Testing

/// What tasks notice of a pool that is used up and of a server that goes away and comes back.
@Suite(.timeLimit(.minutes(5)))
struct OutageTests {
    @Test func `those beyond the limit of waiters are refused at once and the others are served in order`() async throws
    {
        var configuration = PostgresConfiguration(url: try TestDatabase.url(), poolSize: 1)
        configuration.maximumWaiters = 3
        configuration.acquireTimeout = .seconds(30)
        let pool = PostgresPool(configuration)
        defer { pool.close() }
        let served = Order()
        let release = Signal()
        try await withThrowingTaskGroup(of: Void.self) { group in
            let lent = Signal()
            group.addTask {
                try await pool.withConnection { _ in
                    lent.notify()
                    _ = await release.wait(timeout: .seconds(30))
                }
            }
            #expect(await lent.wait(timeout: .seconds(10)))
            for number in 1...3 {
                group.addTask {
                    try await pool.withConnection { _ in served.note(number) }
                }
                // One waits before the next one comes; only then is their order known.
                try await eventually("a waiter") { pool.waiting == number }
            }
            let start = ContinuousClock.now
            for _ in 0..<5 {
                let error = await #expect(throws: PostgresError.self) { try await pool.query("select 1") }
                #expect(error?.code == .poolExhausted)
                #expect(error?.isRetriable == true)
            }
            #expect(ContinuousClock.now - start < configuration.acquireTimeout)
            #expect(pool.waiting == 3)
            release.notify()
            try await group.waitForAll()
        }
        #expect(served.all == [1, 2, 3])
        #expect(try await pool.query("select 1").count == 1)
    }

    @Test func `a waiter that is cancelled makes room for another`() async throws {
        var configuration = PostgresConfiguration(url: try TestDatabase.url(), poolSize: 1)
        configuration.maximumWaiters = 1
        let pool = PostgresPool(configuration)
        defer { pool.close() }
        try await pool.withConnection { _ in
            let waiting = Task { try await pool.query("select 1") }
            try await eventually("a waiter") { pool.waiting == 1 }
            waiting.cancel()
            await #expect(throws: PostgresError.self) { try await waiting.value }
            let next = Task { try await pool.query("select 1") }
            try await eventually("the next waiter") { pool.waiting == 1 }
            next.cancel()
            await #expect(throws: PostgresError.self) { try await next.value }
        }
        #expect(try await pool.query("select 1").count == 1)
    }

    @Test func `a pool and its listener survive a server that refuses everybody for a while`() async throws {
        try await OwnDatabase.with { database in
            let pool = PostgresPool(PostgresConfiguration(url: database.url, poolSize: 3))
            defer { pool.close() }
            try await pool.execute("create table kept (n int primary key)")
            var events = pool.notifications(on: ["news"]).makeAsyncIterator()
            #expect(await events.next() == .reconnected)

            // Writers go on through the outage; what was confirmed has to be there afterwards, once.
            let confirmed = Order()
            let stop = Signal()
            let failed = Order()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for writer in 0..<4 {
                    group.addTask {
                        var number = writer
                        while await !stop.wait(timeout: .milliseconds(2)) {
                            do {
                                _ = try await pool.transaction {
                                    try await $0.execute("insert into kept values (\(number)::int)")
                                }
                                confirmed.note(number)
                            } catch let error as PostgresError {
                                guard error.isRetriable else { throw error }
                                failed.note(number)
                            }
                            number += 4
                        }
                        stop.notify()
                    }
                }
                try await eventually("writes") { confirmed.all.count > 20 }
                try await database.shut()
                try await eventually("failures") { failed.all.count > 5 }
                let away = await #expect(throws: PostgresError.self) { try await pool.query("select 1") }
                #expect(away?.isRetriable == true)
                try await database.reopen()
                let before = confirmed.all.count
                try await eventually("writes after the outage") { confirmed.all.count > before + 20 }
                stop.notify()
                try await group.waitForAll()
            }
            let rows = try await pool.query("select n from kept").map { try $0.int("n") }
            #expect(Set(confirmed.all).isSubset(of: rows))
            #expect(confirmed.all.count == Set(confirmed.all).count)

            #expect(await events.next() == .reconnected)
            try await pool.execute("select pg_notify('news', 'again')")
            #expect(await events.next() == .notification(channel: "news", payload: "again"))
        }
    }

    @Test func `a transaction that is cut by the outage leaves nothing behind`() async throws {
        try await OwnDatabase.with { database in
            let pool = PostgresPool(PostgresConfiguration(url: database.url, poolSize: 2))
            defer { pool.close() }
            try await pool.execute("create table cut (n int)")
            let error = await #expect(throws: PostgresError.self) {
                try await pool.transaction { connection in
                    try await connection.execute("insert into cut values (1)")
                    try await database.shut()
                    try await connection.execute("insert into cut values (2)")
                }
            }
            #expect(error?.isConnectionFailure == true)
            try await database.reopen()
            #expect(try await pool.query("select count(*)::int as n from cut")[0].int("n") == 0)
        }
    }
}

/// Numbers in the order in which they were noted.
private final class Order: Sendable {
    private let numbers = Mutex<[Int]>([])

    var all: [Int] { numbers.withLock { $0 } }

    func note(_ number: Int) {
        numbers.withLock { $0.append(number) }
    }
}

/// A database of its own, which can be shut like a server that stops: sessions end and new ones are refused.
private struct OwnDatabase {
    let name: String
    let url: String
    let keeper: PostgresPool

    static func with(_ body: (OwnDatabase) async throws -> Void) async throws {
        let name = "outage_" + String(UInt64.random(in: .min ... .max), radix: 36)
        let url = try TestDatabase.url()
        let slash = try #require(url.lastIndex(of: "/"))
        let end = url[slash...].firstIndex(of: "?") ?? url.endIndex
        let keeper = PostgresPool(PostgresConfiguration(url: url, poolSize: 1))
        try await keeper.execute("create database \(unsafe: name)")
        let database = OwnDatabase(name: name, url: url[...slash] + name + url[end...], keeper: keeper)
        do {
            try await body(database)
        } catch {
            await database.drop()
            throw error
        }
        await database.drop()
    }

    func shut() async throws {
        try await keeper.execute("alter database \(unsafe: name) with allow_connections false")
        _ = try await keeper.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = \(name)")
    }

    func reopen() async throws {
        try await keeper.execute("alter database \(unsafe: name) with allow_connections true")
    }

    private func drop() async {
        // A database that is left behind harms nobody: its name is never used again.
        _ = try? await keeper.execute("drop database if exists \(unsafe: name) with (force)")
        keeper.close()
    }
}
