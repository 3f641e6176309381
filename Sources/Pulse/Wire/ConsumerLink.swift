// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// The two ends of a consumer: the connection's thread puts deliveries in, the consuming task takes them out and puts
/// settlements back.
final class ConsumerLink: Sendable, Hashable {
    /// A delivery with what is needed to settle it.
    struct Item: Sendable {
        var delivery: PulseDelivery
        var tag: UInt64
        /// The channel it came on, in the life of this consumer; tags of an earlier channel mean nothing to a later one.
        var epoch: UInt32
    }

    struct Settlement: Sendable {
        var tag: UInt64
        var epoch: UInt32
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

    let subscription: PulseSubscription
    private let state = Mutex(State())

    /// How many settlements may wait for the end of a burst of deliveries before the thread is told in between.
    private let postThreshold: Int

    init(_ subscription: PulseSubscription) {
        self.subscription = subscription
        postThreshold = max(1, subscription.prefetch / 4)
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

    /// Forgets what was handed over but not taken: the broker will send it again on another channel.
    func discardItems() {
        state.withLock { $0.items.removeAll(keepingCapacity: true) }
    }

    /// Says that nothing will come any more, and why.
    func finish(_ error: PulseError?) {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
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

    // MARK: The task's end

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

    /// Settles a delivery.
    func settle(_ item: Item, _ disposition: PulseDisposition, mailbox: Mailbox) {
        let mustPost = state.withLock { state in
            state.settlements.append(Settlement(tag: item.tag, epoch: item.epoch, disposition: disposition))
            guard !state.isPosted, !state.isBursting || state.settlements.count >= postThreshold else { return false }
            state.isPosted = true
            return true
        }
        if mustPost { mailbox.noteSettlements(of: self) }
    }

    /// Ends a burst and tells the thread about settlements it does not know of.
    func endBurst(_ mailbox: Mailbox) {
        let mustPost = state.withLock { state in
            state.isBursting = false
            guard !state.isPosted, !state.settlements.isEmpty else { return false }
            state.isPosted = true
            return true
        }
        if mustPost { mailbox.noteSettlements(of: self) }
    }

    static func == (left: ConsumerLink, right: ConsumerLink) -> Bool { left === right }

    func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}
