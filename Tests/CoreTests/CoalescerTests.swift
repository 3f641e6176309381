// SPDX-License-Identifier: MPL-2.0

import Core
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(5)))
struct CoalescerTests {
    private struct Refused: Error {
        let item: Int
    }

    /// Remembers rounds, and holds each until it is let go.
    private final class Work: Sendable {
        let rounds = Mutex<[[Int]]>([])
        private let (gate, opener) = AsyncStream<Void>.makeStream()

        func open(_ times: Int) {
            for _ in 0..<times { opener.yield() }
        }

        func run(_ items: [Int]) async -> [Result<Int, any Error>] {
            rounds.withLock { $0.append(items) }
            var turns = gate.makeAsyncIterator()
            _ = await turns.next()
            return items.map { $0 < 0 ? .failure(Refused(item: $0)) : .success(2 * $0) }
        }
    }

    @Test func `what comes while a round is under way goes together in the next one`() async throws {
        let work = Work()
        let rounds = Coalescer(concurrency: 1, largest: 64) { await work.run($0) }
        let results = try await withThrowingTaskGroup(of: Int.self) { group in
            group.addTask { try await rounds.submit(0) }
            while work.rounds.withLock({ $0.isEmpty }) { await Task.yield() }
            let waiting = Atomic(0)
            for item in 1...20 {
                rounds.submit(item) { result in
                    if case .success(2 * item) = result { waiting.add(1, ordering: .relaxed) }
                }
            }
            group.addTask { try await rounds.submit(21) }
            work.open(100)
            var results: [Int] = []
            for try await result in group { results.append(result) }
            while waiting.load(ordering: .relaxed) < 20 { await Task.yield() }
            return results
        }
        #expect(results.sorted() == [0, 42])
        let seen = work.rounds.withLock { $0 }
        #expect(seen.first == [0])
        #expect(seen.dropFirst().first?.starts(with: 1...20) == true)
        #expect(Set(seen.joined()) == Set(0...21))
    }

    @Test func `a round is never larger than allowed`() async throws {
        let work = Work()
        work.open(100)
        let rounds = Coalescer(concurrency: 2, largest: 3) { await work.run($0) }
        try await withThrowingTaskGroup(of: Int.self) { group in
            for item in 0..<50 { group.addTask { try await rounds.submit(item) } }
            var sum = 0
            for try await result in group { sum += result }
            #expect(sum == 2 * (0..<50).reduce(0, +))
        }
        #expect(work.rounds.withLock { $0.allSatisfy { (1...3).contains($0.count) } })
    }

    @Test func `one that fails spoils no other`() async throws {
        let work = Work()
        work.open(100)
        let rounds = Coalescer(concurrency: 1) { await work.run($0) }
        await withTaskGroup(of: Void.self) { group in
            for item in -10..<10 {
                group.addTask {
                    do {
                        let result = try await rounds.submit(item)
                        #expect(item >= 0 && result == 2 * item)
                    } catch {
                        #expect((error as? Refused)?.item == item)
                    }
                }
            }
        }
    }

    @Test func `a caller who is cancelled does not end the round of the others`() async throws {
        let work = Work()
        let rounds = Coalescer(concurrency: 1) { await work.run($0) }
        let first = Task { try await rounds.submit(1) }
        while work.rounds.withLock({ $0.isEmpty }) { await Task.yield() }
        first.cancel()
        let second = Task { try await rounds.submit(2) }
        work.open(2)
        #expect(try await first.value == 2)
        #expect(try await second.value == 4)
    }

    @Test func `company that is expected and does not come holds nobody up`() async throws {
        let work = Work()
        work.open(1000)
        let rounds = Coalescer(concurrency: 2, expecting: { 1000 }) { await work.run($0) }
        #expect(try await rounds.submit(1) == 2)
        try await withThrowingTaskGroup(of: Int.self) { group in
            for item in 0..<100 { group.addTask { try await rounds.submit(item) } }
            var sum = 0
            for try await result in group { sum += result }
            #expect(sum == 2 * (0..<100).reduce(0, +))
        }
        #expect(rounds.waiting == 0)
    }

    @Test func `who is alone begins before submitting returns, and others still go together`() async throws {
        let work = Work()
        let rounds = Coalescer(concurrency: 1, isAlone: { true }) { await work.run($0) }
        let answered = Mutex<[Int]>([])
        for item in 1...5 {
            rounds.submit(item) { result in
                if case .success(let value) = result { answered.withLock { $0.append(value) } }
            }
            #expect(work.rounds.withLock { $0 } == [[1]])
        }
        work.open(2)
        while answered.withLock({ $0.count }) < 5 { await Task.yield() }
        #expect(work.rounds.withLock { $0 } == [[1], [2, 3, 4, 5]])
        #expect(answered.withLock { $0 } == [2, 4, 6, 8, 10])
    }

    @Test func `a lone caller who is cancelled does not end the round it began`() async throws {
        let work = Work()
        let rounds = Coalescer(concurrency: 1, expecting: { 1 }) { items in
            let results = await work.run(items)
            return Task.isCancelled ? items.map { .failure(Refused(item: $0)) } : results
        }
        let caller = Task { try await rounds.submit(1) }
        while work.rounds.withLock({ $0.isEmpty }) { await Task.yield() }
        caller.cancel()
        work.open(1)
        #expect(try await caller.value == 2)
    }
}
