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
    @discardableResult
    public func deliverDue() async throws -> Int {
        let due = try await store.take(limit: 20, lease: .seconds(120))
        for one in due {
            do {
                try await sender.send(one.notice)
                try await store.finish(one)
            } catch {
                try Task.checkCancellation()
                let pause = one.attempts <= Self.pauses.count ? Self.pauses[one.attempts - 1] : nil
                Logger.current.warning(
                    "a notice was not delivered",
                    metadata: [
                        "channel": "\(one.notice.channel.rawValue)", "error": "\(error)",
                        "attempts": "\(one.attempts)", "givenUp": "\(pause == nil)",
                    ]
                )
                try await store.fail(one, error: "\(error)", pause: pause)
            }
        }
        return due.count
    }
}
