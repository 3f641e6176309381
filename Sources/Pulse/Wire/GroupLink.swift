// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// The two ends of a group of consumers: the connection's thread puts deliveries in, the workers put settlements back.
final class GroupLink: Sendable {
    /// A delivery with what is needed to settle it.
    struct Item: Sendable {
        var queue: String
        var delivery: PulseDelivery
        var tag: UInt64
        /// The channel it came on; no two channels of the group ever have the same serial number.
        var channel: UInt32
        /// Counts the connections of the group.
        var connection: Int
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

        mutating func takeWaiter() -> CheckedContinuation<Void, Never>? {
            defer { waiter = nil }
            return waiter
        }
    }

    /// How many unsettled deliveries each queue may have.
    let prefetch: Int
    let onEvent: @Sendable (PulseConsumerGroup.Event) -> Void
    private let state = Mutex(State())

    init(prefetch: Int, onEvent: @escaping @Sendable (PulseConsumerGroup.Event) -> Void) {
        self.prefetch = prefetch
        self.onEvent = onEvent
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

    /// Forgets what was handed over but not taken and came on a channel that is gone.
    func discard(channel: UInt32? = nil) {
        state.withLock { state in
            if let channel {
                state.items.removeAll { $0.channel == channel }
            } else {
                state.items = []
            }
        }
    }

    /// Says that nothing will come any more, and why.
    func finish(_ error: PulseError?) {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.isFinished else { return nil }
            state.isFinished = true
            state.error = error
            state.items = []
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

    // MARK: The workers' end

    /// Waits for deliveries and swaps them for the emptied array; answers false when there will be no more.
    func next(_ items: inout [Item]) async -> Bool {
        while true {
            let isFinished = state.withLock { state in
                if !state.isFinished { swap(&items, &state.items) }
                return state.isFinished
            }
            if isFinished { return false }
            if !items.isEmpty { return true }
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

    /// Settles deliveries.
    func settle(_ items: [Item], _ disposition: PulseDisposition, mailbox: Mailbox) {
        let mustPost = state.withLock { state in
            for item in items {
                state.settlements.append(
                    Settlement(tag: item.tag, channel: item.channel, disposition: disposition)
                )
            }
            guard !state.isPosted else { return false }
            state.isPosted = true
            return true
        }
        if mustPost { mailbox.noteSettlements(of: self) }
    }
}
