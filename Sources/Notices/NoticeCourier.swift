// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
public import ServiceLifecycle

/// Notices that wait for their delivery, wherever they are kept.
public protocol NoticeQueue: Sendable {
    /// Takes notices that are due; nobody else gets them until the lease is over.
    func take(limit: Int, lease: Duration) async throws -> [DueNotice]

    /// Notes that notices were delivered.
    func finish(_ due: DueNotice) async throws

    /// Notes that notices were not delivered, and when to try again; nil gives up.
    func fail(_ due: DueNotice, error: String, pause: Duration?) async throws
}

/// Notices that are due and go out as one.
public struct DueNotice: Sendable {
    /// The rows it was made of.
    public let ids: [Int]
    /// What is told.
    public let notice: Notice
    /// How often that was tried, this time included.
    public let attempts: Int

    /// A notice that is due.
    public init(ids: [Int], notice: Notice, attempts: Int) {
        self.ids = ids
        self.notice = notice
        self.attempts = attempts
    }
}

/// Delivers notices; whatever happens to them, what they tell of stays as it is.
///
/// Any number of processes share the work: a notice is leased by one of them, and one that is not delivered is tried five
/// times more, at growing distances.
public struct NoticeCourier: Service {
    private let store: any NoticeQueue
    private let sender: NoticeSender

    /// The pauses after failures.
    static let pauses: [Duration] = [.seconds(1), .seconds(5), .seconds(30), .seconds(120), .seconds(600)]

    /// Takes notices from a store to a sender.
    public init(store: any NoticeQueue, sender: NoticeSender) {
        self.store = store
        self.sender = sender
    }

    /// Delivers until graceful shutdown.
    public func run() async throws {
        try await PeriodicService(name: "notices", every: .seconds(1)) {
            while try await deliverDue() > 0 {}
        }.run()
    }

    /// Delivers what is due, a bounded number at a time, and answers how many there were.
    ///
    /// Whoever cannot be reached holds up what is for them alone; what one target is told keeps its order.
    @discardableResult
    public func deliverDue() async throws -> Int {
        let due = try await store.take(limit: 20, lease: Self.lease)
        let begun = ContinuousClock.now
        let targets = Dictionary(grouping: due) { "\($0.notice.channel.rawValue) \($0.notice.target)" }
        let failure = await withTaskGroup(of: (any Error)?.self) { group in
            for notices in targets.values {
                group.addTask { await deliver(notices, leasedAt: begun) }
            }
            var failure: (any Error)?
            for await one in group { failure = failure ?? one }
            return failure
        }
        if let failure { throw failure }
        return due.count
    }

    /// How long a process has for what it takes, and how much of that one delivery may need.
    private static let lease = Duration.seconds(120)
    private static let longest = Duration.seconds(45)

    /// Delivers notices to one target; answers what keeps it from noting what became of them.
    private func deliver(_ notices: [DueNotice], leasedAt begun: ContinuousClock.Instant) async -> (any Error)? {
        do {
            for notice in notices.sorted(by: { ($0.ids.first ?? 0) < ($1.ids.first ?? 0) }) {
                // Whoever takes it when the lease is over must find it undelivered, or it is told twice.
                guard ContinuousClock.now - begun < Self.lease - Self.longest else { return nil }
                try await deliver(notice)
            }
            return nil
        } catch {
            return error
        }
    }

    private func deliver(_ due: DueNotice) async throws {
        do {
            try await withTimeout(Self.longest) { [sender] in try await sender.send(due.notice) }
            try await store.finish(due)
        } catch {
            try Task.checkCancellation()
            let pause = due.attempts <= Self.pauses.count ? Self.pauses[due.attempts - 1] : nil
            Logger.current.warning(
                "a notice was not delivered",
                metadata: [
                    "channel": "\(due.notice.channel.rawValue)", "error": "\(error)",
                    "attempts": "\(due.attempts)", "givenUp": "\(pause == nil)",
                ]
            )
            try await store.fail(due, error: "\(error)", pause: pause)
        }
    }
}
