// SPDX-License-Identifier: MPL-2.0

import Postgres
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(2)))
struct GatheringTests {
    /// Holds work up until it is told to go on, and counts who waits for that.
    private final class Gate: Sendable {
        private let isOpen = Mutex(false)
        let arrivals = Mutex(0)

        func open() { isOpen.withLock { $0 = true } }

        func pass() async throws {
            arrivals.withLock { $0 += 1 }
            while !isOpen.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(2)) }
        }

        func waitForArrival() async throws {
            while arrivals.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(2)) }
        }
    }

    @Test func `what arrives while work is under way is done together, and everybody gets an own answer`() async throws
    {
        let gate = Gate()
        let sizes = Mutex<[Int]>([])
        let gathering = Gathering<Int, Int>(limit: 16) { items in
            try await gate.pass()
            sizes.withLock { $0.append(items.count) }
            return items.map { $0 * 2 }
        }
        let answers = try await withThrowingTaskGroup(of: (Int, Int).self) { group in
            group.addTask { (0, try await gathering.add(0)) }
            try await gate.waitForArrival()
            for item in 1...40 { group.addTask { (item, try await gathering.add(item)) } }
            while gathering.waiting < 40 { try await Task.sleep(for: .milliseconds(2)) }
            gate.open()
            return try await group.reduce(into: [Int: Int]()) { $0[$1.0] = $1.1 }
        }
        #expect(answers.count == 41 && answers.allSatisfy { $0.value == $0.key * 2 })
        #expect(sizes.withLock { $0 } == [1, 16, 16, 8])
    }

    @Test func `one that is refused does not take the others with it`() async throws {
        try await TestDatabase.with(poolSize: 4) { database in
            let pool = database.pool
            try await pool.execute("create table t (id int primary key check (id <> 13))")
            let gate = Gate()
            let gathering = Gathering<Int, Int> { ids in
                try await gate.pass()
                return try await pool.transaction { connection in
                    _ = try await connection.pipeline(ids.map { "insert into t values (\($0))" })
                    return ids
                }
            }
            let outcomes = try await withThrowingTaskGroup(of: (Int, Bool).self) { group in
                @Sendable func add(_ id: Int) async throws -> (Int, Bool) {
                    do { return (id, try await gathering.add(id) == id) } catch let error as PostgresError {
                        #expect(error.sqlState == "23514")
                        return (id, false)
                    }
                }
                group.addTask { try await add(0) }
                try await gate.waitForArrival()
                for id in 1..<30 { group.addTask { try await add(id) } }
                while gathering.waiting < 29 { try await Task.sleep(for: .milliseconds(2)) }
                gate.open()
                return try await group.reduce(into: [Int: Bool]()) { $0[$1.0] = $1.1 }
            }
            #expect(outcomes.count == 30 && outcomes.allSatisfy { $0.value == ($0.key != 13) })
            #expect(try await pool.query("select id from t").count == 29)
        }
    }

    @Test func `who gives up learns the end and leaves the others alone, and who gave up before has nothing done`()
        async throws
    {
        let gate = Gate()
        let done = Mutex<[Int]>([])
        let gathering = Gathering<Int, Int> { items in
            try await gate.pass()
            done.withLock { $0 += items }
            return items
        }
        let first = Task { try await gathering.add(1) }
        try await gate.waitForArrival()
        let second = Task { try await gathering.add(2) }
        let third = Task { try await gathering.add(3) }
        while gathering.waiting < 2 { try await Task.sleep(for: .milliseconds(2)) }
        first.cancel()
        second.cancel()
        gate.open()
        #expect(try await first.value == 1)
        #expect(try await second.value == 2)
        #expect(try await third.value == 3)
        let late = Task {
            while !Task.isCancelled { await Task.yield() }
            return try await gathering.add(4)
        }
        late.cancel()
        await #expect(throws: CancellationError.self) { try await late.value }
        #expect(done.withLock { $0.sorted() } == [1, 2, 3])
    }

    @Test func `a database that is away fails for all of them at once`() async throws {
        let calls = Mutex(0)
        let gate = Gate()
        let gathering = Gathering<Int, Int> { _ in
            try await gate.pass()
            calls.withLock { $0 += 1 }
            throw PostgresError(.connection, "gone")
        }
        let failures = try await withThrowingTaskGroup(of: Bool.self) { group in
            @Sendable func fails(_ item: Int) async throws -> Bool {
                do { return try await gathering.add(item) < 0 } catch let error as PostgresError {
                    return error.isConnectionFailure
                }
            }
            group.addTask { try await fails(0) }
            try await gate.waitForArrival()
            for item in 1..<10 { group.addTask { try await fails(item) } }
            while gathering.waiting < 9 { try await Task.sleep(for: .milliseconds(2)) }
            gate.open()
            return try await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        #expect(failures == 10)
        // The first one by itself and the others together: nobody was tried again.
        #expect(calls.withLock { $0 } == 2)
    }
}
