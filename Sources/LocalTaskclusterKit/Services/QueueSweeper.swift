// SPDX-License-Identifier: MPL-2.0
public import Core
import Logging
import Metrics
public import Schedules
public import ServiceLifecycle

/// Does what nobody asks for: ends expired claims and overdue tasks, and draws the consequences of resolutions.
///
/// Any number of instances may sweep at once; they skip each other's rows.
public struct QueueSweeper: Service {
    private let store: QueueStore
    private let resolved: Signal
    private let deadlineDelay: Duration
    private let announce: @Sendable (Timestamp) async throws -> Bool
    private let now: @Sendable () -> Timestamp

    /// Sweeps every second, and at once when `resolved` is notified; `announce` tells people of some of the events they
    /// asked about, and answers true while there are more.
    public init(
        store: QueueStore,
        resolved: Signal,
        deadlineDelay: Duration,
        now: @escaping @Sendable () -> Timestamp,
        announce: @escaping @Sendable (Timestamp) async throws -> Bool = { _ in false }
    ) {
        self.store = store
        self.resolved = resolved
        self.deadlineDelay = deadlineDelay
        self.now = now
        self.announce = announce
    }

    /// Sweeps until graceful shutdown.
    public func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await PeriodicService(name: "sweeper", every: .seconds(1)) { try await sweep() }.run()
            }
            group.addTask { await followResolutions() }
            try await group.next()
            group.cancelAll()
        }
    }

    /// Handles everything that is due.
    public func sweep() async throws {
        try await repeatedly(QueueMetrics.expired) { try await store.expireClaims(limit: Self.step, now: now()) }
        try await repeatedly(QueueMetrics.deadlines) {
            try await store.handleDeadlines(delay: deadlineDelay, limit: Self.step, now: now())
        }
        try await follow()
    }

    /// How many rows one step handles at most, so that no lock is held for long.
    private static let step = 32

    private func repeatedly(_ counter: Counter, _ body: () async throws -> Int) async throws {
        while true {
            let count = try await body()
            counter.increment(by: count)
            guard count == Self.step else { return }
        }
    }

    /// Handles what follows from events.
    private func follow() async throws {
        while try await store.drawConsequences(now: now()) {}
        while try await announce(now()) {}
    }

    private func followResolutions() async {
        while !Task.isCancelled, !Task.isShuttingDownGracefully {
            guard await resolved.wait(timeout: .seconds(1)) else { continue }
            do {
                try await follow()
            } catch {
                Logger.current.warning("resolutions wait for the next sweep", metadata: ["error": "\(error)"])
            }
        }
    }
}
