// SPDX-License-Identifier: MPL-2.0

import Pulse
import Synchronization

/// What handlers saw, for a test to look at.
final class Journal: Sendable {
    private let entries = Mutex<[PulseDelivery]>([])

    var all: [PulseDelivery] { entries.withLock { $0 } }
    var count: Int { entries.withLock { $0.count } }
    var texts: [String] { all.map { String(decoding: $0.body, as: UTF8.self) } }

    func note(_ delivery: PulseDelivery) { entries.withLock { $0.append(delivery) } }
}

struct NotInTime: Error {
    let what: String
}

/// Polls until the condition holds; fails the test after the limit.
func eventually(
    _ what: String,
    within limit: Duration = .seconds(60),
    _ condition: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while try await !condition() {
        guard .now < deadline else { throw NotInTime(what: what) }
        try await Task.sleep(for: .milliseconds(5))
    }
}

/// Runs a consumer beside the body and cancels it when the body returns.
func consuming(
    _ pulse: PulseConnection,
    _ subscription: PulseSubscription,
    _ handler: @escaping @Sendable (PulseDelivery) async throws -> PulseDisposition,
    while body: () async throws -> Void
) async throws {
    let flag = Flag()
    var subscription = subscription
    let previous = subscription.onConsuming
    subscription.onConsuming = {
        flag.raise()
        previous?()
    }
    let ready = subscription
    try await withThrowingTaskGroup { group in
        group.addTask {
            do { try await pulse.consume(ready, handler) } catch is CancellationError {}
        }
        try await eventually("consuming begins") { flag.isRaised }
        try await body()
        group.cancelAll()
        try await group.waitForAll()
    }
}

final class Flag: Sendable {
    private let value = Atomic<Int>(0)

    var isRaised: Bool { value.load(ordering: .acquiring) > 0 }
    var count: Int { value.load(ordering: .acquiring) }

    func raise() { value.add(1, ordering: .acquiringAndReleasing) }
}

extension PulseMessage {
    init(_ text: String, to exchange: String, _ routingKey: String = "k", cc: [String] = []) {
        self.init(exchange: exchange, routingKey: routingKey, cc: cc, body: Array(text.utf8))
    }
}
