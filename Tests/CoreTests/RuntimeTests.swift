// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(5)))
struct RuntimeTests {
    @Test func `a notification before the wait is not lost and counts once`() async {
        let signal = Signal()
        signal.notify()
        signal.notify()
        #expect(await signal.wait(timeout: .seconds(10)))
        #expect(await signal.wait(timeout: .milliseconds(10)) == false)
    }

    @Test func `a notification wakes every waiting task`() async throws {
        let signal = Signal()
        let woken = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<20 { group.addTask { await signal.wait(timeout: .seconds(60)) } }
            group.addTask {
                // Tasks that come late find the next notification.
                for _ in 0..<200 {
                    signal.notify()
                    await Task.yield()
                }
                return true
            }
            var count = 0
            for await result in group where result {
                count += 1
                signal.notify()
            }
            return count
        }
        #expect(woken == 21)
    }

    @Test func `cancelling a waiting task wakes it at once`() async {
        let signal = Signal()
        await withTaskGroup(of: Bool.self) { group in
            group.addTask { await signal.wait(timeout: .seconds(30)) }
            group.cancelAll()
            #expect(await group.next() == false)
        }
    }

    @Test func `a wait whose time is over before it has begun ends, however busy the machine is`() async {
        let ends = EventFD()
        let watch = Reactor.shared.watch(ends.descriptor)
        await withDiscardingTaskGroup { group in
            for _ in 0..<3 {
                group.addTask {
                    for _ in 0..<3000 { #expect(await Signal().wait(timeout: .zero) == false) }
                }
            }
            group.addTask {
                for _ in 0..<3000 { #expect(await watch.wait(for: .readable, timeout: .zero) == .timedOut) }
            }
        }
        watch.close()
    }

    @Test func `timers fire in order and can be taken back`() async {
        let fired = Mutex<[Int]>([])
        let done = Signal()
        Reactor.shared.after(.milliseconds(1500)) {
            fired.withLock { $0.append(3) }
            done.notify()
        }
        Reactor.shared.after(.milliseconds(10)) { fired.withLock { $0.append(1) } }
        let timer = Reactor.shared.after(.milliseconds(1000)) { fired.withLock { $0.append(2) } }
        Reactor.shared.cancel(timer)
        #expect(await done.wait(timeout: .seconds(60)))
        #expect(fired.withLock { $0 } == [1, 3])
    }

    @Test func `pauses double up to the limit`() {
        let policy = RetryPolicy(attempts: 9, base: .milliseconds(100), maximum: .seconds(1), jitter: 0)
        #expect((1...6).map { policy.delay(before: $0).milliseconds } == [0, 100, 200, 400, 800, 1000])
    }

    @Test func `a policy stops at its last attempt and at errors that stay`() async {
        let policy = RetryPolicy(attempts: 3, base: .milliseconds(1), maximum: .milliseconds(1))
        var calls = 0
        await #expect(throws: CancellationError.self) {
            try await policy.run(isRetriable: { _ in true }) {
                calls += 1
                throw CancellationError()
            }
        }
        #expect(calls == 3)
        await #expect(throws: CancellationError.self) {
            try await policy.run(isRetriable: { _ in false }) {
                calls += 1
                throw CancellationError()
            }
        }
        #expect(calls == 4)
    }

    @Test func `a health check that hangs is reported after its limit`() async {
        let health = HealthRegistry(limit: .seconds(2))
        health.register("good") {}
        health.register("slow") { try await Task.sleep(for: .seconds(300)) }
        let report = await health.report()
        #expect(report.map(\.name) == ["good", "slow"])
        #expect(report[0].error == nil)
        #expect(report[1].error == "no answer within 2s")
    }

    @Test func `an actor can live on a thread of its own`() async {
        actor Worker {
            private let thread = SerialThread(name: "worker")
            nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }
            private var count = 0
            func increment() -> Int {
                count += 1
                return count
            }
        }
        let worker = Worker()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<100 { group.addTask { _ = await worker.increment() } }
        }
        #expect(await worker.increment() == 101)
    }

    @Test func `each run of periodic work is measured by its end`() async throws {
        Metrics.bootstrap()
        let runs = Mutex(0)
        let service = PeriodicService(name: "core-test", every: .milliseconds(1), jitter: 0) {
            let run = runs.withLock { runs in
                runs += 1
                return runs
            }
            if run == 1 { throw CancellationError() }
        }
        let task = Task { try await service.run() }
        while runs.withLock({ $0 }) < 3 { try await Task.sleep(for: .milliseconds(1)) }
        task.cancel()
        try await task.value
        let text = Metrics.exposition()
        #expect(text.contains("iterate_duration_seconds_count{name=\"core-test\",status=\"exception\"} 1\n"))
        #expect(text.contains("iterate_duration_seconds_count{name=\"core-test\",status=\"success\"} "))
    }

    @Test func `metrics print in the text format`() {
        Metrics.bootstrap()
        Metrics.describe("core_test_seconds", "A test.", buckets: [0.1, 1])
        Counter(label: "core.test.total", dimensions: [("kind", "a\"b")]).increment(by: 3)
        let timer = Timer(label: "core_test_seconds")
        timer.recordNanoseconds(500_000_000)
        let text = Metrics.exposition()
        #expect(text.contains("core_test_total{kind=\"a\\\"b\"} 3\n"))
        #expect(text.contains("# HELP core_test_seconds A test.\n# TYPE core_test_seconds histogram\n"))
        #expect(text.contains("core_test_seconds_bucket{le=\"0.1\"} 0\ncore_test_seconds_bucket{le=\"1\"} 1\n"))
        #expect(text.contains("process_resident_memory_bytes "))
    }
}
