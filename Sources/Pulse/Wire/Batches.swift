// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// Messages one caller publishes together, and the broker's verdict on each.
final class PublishBatch: Sendable {
    let messages: [PulseMessage]
    let deadline: ContinuousClock.Instant

    private struct State {
        var outstanding: Int
        var errors: [Int: PulseError] = [:]
    }

    private let state: Mutex<State>
    private let completion = Completion()

    init(_ messages: [PulseMessage], deadline: ContinuousClock.Instant) {
        self.messages = messages
        self.deadline = deadline
        state = Mutex(State(outstanding: messages.count))
    }

    /// Whether nobody waits any more, so that unsent messages need not be sent.
    var isAbandoned: Bool { completion.isDone }

    /// Notes the verdict on one message; each message gets exactly one.
    func complete(_ index: Int, _ error: PulseError?) {
        let isLast = state.withLock { state in
            if let error { state.errors[index] = error }
            state.outstanding -= 1
            return state.outstanding == 0
        }
        if isLast { completion.complete() }
    }

    /// Ends the waiting: what has no verdict yet fails with `error`.
    func abandon(_ error: PulseError) {
        completion.complete(error)
    }

    /// Waits for all verdicts: one for the batch as a whole if it was abandoned, and those on single messages.
    func verdict() async -> (whole: PulseError?, errors: [Int: PulseError]) {
        let whole = await completion.wait()
        return (whole, state.withLock { $0.errors })
    }
}

/// One step on the topology, done on a channel of its own so that its failure hurts nobody else.
final class Operation: Sendable {
    enum Kind: Sendable {
        case declareExchange(String)
        case deleteExchange(String)
        case declareQueue(PulseQueue)
        case deleteQueue(String)
        /// Asks what is in a queue, without making it.
        case inspectQueue(String)
        case bind(queue: String, PulseBinding)
        case unbind(queue: String, PulseBinding)
        /// Opens and closes a channel: the broker is alive.
        case ping

        var isPing: Bool { if case .ping = self { true } else { false } }
    }

    let kind: Kind
    let deadline: ContinuousClock.Instant
    let completion = Completion()

    /// What the broker counted: the messages in a declared or deleted queue.
    let messageCount = Atomic<Int>(0)
    /// How many consumers a declared queue has.
    let consumerCount = Atomic<Int>(0)

    init(_ kind: Kind, deadline: ContinuousClock.Instant) {
        self.kind = kind
        self.deadline = deadline
    }

    /// The operation in words, for errors.
    var description: String {
        switch kind {
        case .declareExchange(let name): "declare exchange \(name)"
        case .deleteExchange(let name): "delete exchange \(name)"
        case .declareQueue(let queue): "declare queue \(queue.name)"
        case .deleteQueue(let name): "delete queue \(name)"
        case .inspectQueue(let name): "look at queue \(name)"
        case .bind(let queue, let binding): "bind queue \(queue) to \(binding.exchange)"
        case .unbind(let queue, let binding): "unbind queue \(queue) from \(binding.exchange)"
        case .ping: "open a channel"
        }
    }
}
