// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// The two ends of whoever consumes: the connection's thread puts deliveries in, tasks take them out and put settlements
/// back.
final class DeliveryLink: Sendable {
    /// A delivery with what is needed to settle it.
    struct Item: Sendable {
        var queue: String
        var delivery: PulseDelivery
        var tag: UInt64
        /// The channel it came on; no two channels of one link ever have the same serial number.
        var channel: UInt32
        /// Counts the connections it may have come on.
        var connection = 0
    }

    struct Settlement: Sendable {
        var tag: UInt64
        var channel: UInt32
        var disposition: PulseDisposition
    }

    private struct State {
        var items: [Item] = []
        var waiter: CheckedContinuation<Void, Never>?
        var isFinished = false
        var error: PulseError?
        var settlements: [Settlement] = []
        var isPosted = false
        var isBursting = false

        mutating func takeWaiter() -> CheckedContinuation<Void, Never>? {
            defer { waiter = nil }
            return waiter
        }
    }

    private let state = Mutex(State())

    /// How many settlements may wait for the end of a burst of deliveries before the thread is told in between.
    private let postThreshold: Int

    init(prefetch: Int) {
        postThreshold = max(1, prefetch / 4)
    }

    // MARK: The thread's end

    /// Hands over what has arrived.
    func put(_ items: inout [Item]) {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.isFinished else { return nil }
            if state.items.isEmpty {
                swap(&state.items, &items)
            } else {
                state.items.append(contentsOf: items)
            }
            return state.takeWaiter()
        }
        items.removeAll(keepingCapacity: true)
        waiter?.resume()
    }

    /// Forgets what was handed over but not taken, of one channel or all: the broker will send it again on another one.
    func discard(channel: UInt32? = nil) {
        state.withLock { $0.items.removeAll { channel == nil || $0.channel == channel } }
    }

    /// Says that nothing will come any more, and why; what was not taken yet is handed out first, unless it is dropped.
    func finish(_ error: PulseError?, dropping: Bool = false) {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            if dropping { state.items = [] }
            guard !state.isFinished else { return nil }
            state.isFinished = true
            state.error = error
            return state.takeWaiter()
        }
        waiter?.resume()
    }

    /// Takes the settlements, swapping in an emptied array.
    func takeSettlements(_ settlements: inout [Settlement]) {
        state.withLock { state in
            swap(&settlements, &state.settlements)
            state.isPosted = false
        }
    }

    // MARK: The tasks' end

    /// Waits for deliveries and swaps them for the emptied array; answers false when there will be no more.
    func next(_ items: inout [Item]) async -> Bool {
        while true {
            let isFinished = state.withLock { state in
                swap(&items, &state.items)
                return state.isFinished
            }
            if !items.isEmpty { return true }
            if isFinished { return false }
            await withCheckedContinuation { continuation in
                let isReady = state.withLock { state in
                    if state.isFinished || !state.items.isEmpty { return true }
                    state.waiter = continuation
                    return false
                }
                if isReady { continuation.resume() }
            }
        }
    }

    /// Why nothing comes any more.
    var error: PulseError? { state.withLock { $0.error } }

    /// Begins a burst: until `endBurst`, the thread learns of settlements only now and then.
    func beginBurst() {
        state.withLock { $0.isBursting = true }
    }

    /// Settles deliveries; answers whether the thread must be told that there is something to settle.
    func settle(_ items: some Sequence<Item>, _ disposition: PulseDisposition) -> Bool {
        state.withLock { state in
            for item in items {
                state.settlements.append(Settlement(tag: item.tag, channel: item.channel, disposition: disposition))
            }
            guard !state.isPosted, !state.isBursting || state.settlements.count >= postThreshold else { return false }
            state.isPosted = true
            return true
        }
    }

    /// Ends a burst; answers whether the thread must be told that there is something to settle.
    func endBurst() -> Bool {
        state.withLock { state in
            state.isBursting = false
            guard !state.isPosted, !state.settlements.isEmpty else { return false }
            state.isPosted = true
            return true
        }
    }
}

/// What a consumer and its task share.
final class ConsumerLink: Sendable, Hashable {
    let subscription: PulseSubscription
    let deliveries: DeliveryLink

    init(_ subscription: PulseSubscription) {
        self.subscription = subscription
        deliveries = DeliveryLink(prefetch: subscription.prefetch)
    }

    static func == (left: ConsumerLink, right: ConsumerLink) -> Bool { left === right }

    func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}

/// What a group of consumers and its workers share.
final class GroupLink: Sendable {
    /// How many unsettled deliveries each queue may have.
    let prefetch: Int
    let onEvent: @Sendable (PulseConsumerGroup.Event) -> Void
    let deliveries: DeliveryLink

    init(prefetch: Int, onEvent: @escaping @Sendable (PulseConsumerGroup.Event) -> Void) {
        self.prefetch = prefetch
        self.onEvent = onEvent
        deliveries = DeliveryLink(prefetch: prefetch)
    }
}
