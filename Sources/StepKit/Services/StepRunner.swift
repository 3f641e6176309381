// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Schedules
public import ServiceLifecycle
import Synchronization

/// Looks at the steps whose time has come, many at a time, each under a lease that only one process holds.
///
/// A process that dies loses its leases after a while, and the next one looks. What a process writes after it has lost a
/// lease without knowing is refused by the lease's number. One step whose look fails delays no other.
public final class StepRunner: Service {
    /// How many steps are claimed at a time, so that replicas share what is due.
    private static let claimLimit = 32

    private let store: StepStore
    private let owner: String
    private let interval: Duration
    private let concurrency: Int
    private let lease: Duration
    private let look: @Sendable (StepClaim) async throws -> Void
    private let held = Mutex<[Int: Int]>([:])
    private let underWay = Mutex(0)

    /// Prepares to look at the steps of a store.
    ///
    /// - Parameters:
    ///   - store: The steps.
    ///   - owner: What the leases say about this process.
    ///   - interval: How often to look for due steps when nothing wakes it.
    ///   - concurrency: How many steps are looked at at a time.
    ///   - lease: How long a step is left to a process that says nothing.
    ///   - look: Looks at one step and releases it.
    public init(
        store: StepStore,
        owner: String,
        interval: Duration = .seconds(1),
        concurrency: Int = 32,
        lease: Duration = .seconds(30),
        look: @escaping @Sendable (StepClaim) async throws -> Void
    ) {
        self.store = store
        self.owner = owner
        self.interval = interval
        self.concurrency = concurrency
        self.lease = lease
        self.look = look
    }

    /// Looks until graceful shutdown; what is being looked at then is finished.
    public func run() async throws {
        let isStopping = Atomic<Bool>(false)
        await withGracefulShutdownHandler {
            await withDiscardingTaskGroup { group in
                group.addTask { await self.keepLeases() }
                await self.loop(until: isStopping)
                group.cancelAll()
            }
        } onGracefulShutdown: {
            isStopping.store(true, ordering: .releasing)
            self.store.changes.work.notify()
        }
    }

    /// Looks once at everything that is due now; answers how many steps that were.
    public func runOnce(limit: Int = 1000) async throws -> Int {
        var count = 0
        while count < limit {
            let claims = try await store.claim(limit: min(concurrency, limit - count), owner: owner, lease: lease)
            if claims.isEmpty { break }
            count += claims.count
            await withDiscardingTaskGroup { group in
                for claim in claims { group.addTask { await self.carryOut(claim) } }
            }
        }
        return count
    }

    private func loop(until isStopping: borrowing Atomic<Bool>) async {
        var failures = 0
        await withDiscardingTaskGroup { group in
            while !Task.isCancelled, !isStopping.load(ordering: .acquiring) {
                var pause = interval
                do {
                    store.changes.runnerIsAwake()
                    let free = concurrency - self.underWay.withLock { $0 }
                    let wanted = min(free, Self.claimLimit)
                    let claims = wanted > 0 ? try await store.claim(limit: wanted, owner: owner, lease: lease) : []
                    if failures > 0 { Logger.current.notice("steps are looked at again") }
                    failures = 0
                    self.underWay.withLock { $0 += claims.count }
                    for claim in claims {
                        group.addTask {
                            await self.carryOut(claim)
                            let wasFull = self.underWay.withLock { count in
                                count -= 1
                                return count == self.concurrency - 1
                            }
                            // Others may have waited for a free place.
                            if wasFull { self.store.changes.workIsDue() }
                        }
                    }
                    if !claims.isEmpty { continue }
                    if free > 0, let due = try await store.nextDue() {
                        pause = min(max(due - store.now(), .milliseconds(5)), interval)
                    }
                } catch {
                    if Task.isCancelled { return }
                    failures += 1
                    Logger.current.log(
                        level: failures == 1 ? .error : .debug,
                        "steps not looked at",
                        metadata: ["db.schema": "\(store.schema)", "error": "\(error)"]
                    )
                    pause = RetryPolicy.reconnect.delay(before: failures + 1)
                }
                store.changes.runnerSleeps(until: store.now() + pause)
                _ = await store.changes.work.wait(timeout: pause)
            }
        }
    }

    private func carryOut(_ claim: StepClaim) async {
        held.withLock { $0[claim.step.id] = claim.epoch }
        defer { held.withLock { $0[claim.step.id] = nil } }
        do {
            try await look(claim)
        } catch {
            if Task.isCancelled { return }
            Logger.current.error(
                "step not looked after",
                metadata: ["step.uid": "\(claim.step.uid)", "error": "\(error)"]
            )
            let pause = RetryPolicy(attempts: .max, base: .seconds(1), maximum: .seconds(60))
                .delay(before: claim.step.checkFailures + 2)
            do {
                try await claim.fail(error, pause: pause)
            } catch {
                // The lease ends by itself.
                Logger.current.debug("step not parked", metadata: ["error": "\(error)"])
            }
        }
    }

    private func keepLeases() async {
        while !Task.isCancelled {
            do { try await Task.sleep(for: lease / 3) } catch { return }
            let claims = held.withLock { held in held.map { (id: $0.key, epoch: $0.value) } }
            do {
                try await store.prolong(claims, lease: lease)
            } catch {
                Logger.current.warning("leases not prolonged", metadata: ["error": "\(error)"])
            }
        }
    }
}
