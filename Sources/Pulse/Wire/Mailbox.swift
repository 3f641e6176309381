// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc
import Synchronization

/// What other threads leave for the connection's thread, and the bell that wakes it.
///
/// The bell, an eventfd, is rung only while the thread sleeps: a busy thread looks into the mailbox by itself before it
/// sleeps, so most of the traffic under load costs no system call.
final class Mailbox: Sendable {
    private struct State {
        var commands: [Command] = []
        var settled: [Consuming] = []
        var isSleeping = false
        var isClosed = false
    }

    private let state = Mutex(State())

    /// The descriptor that becomes readable when the bell rings, or -1 when the system had none left.
    let bell: Int32

    init() {
        bell = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    }

    deinit {
        if bell >= 0 { close(bell) }
    }

    /// Leaves a command; answers false when the thread is gone and nobody will look.
    @discardableResult
    func post(_ command: sending Command) -> Bool {
        let (accepted, mustRing) = state.withLock { state -> (Bool, Bool) in
            guard !state.isClosed else { return (false, false) }
            state.commands.append(command)
            return (true, state.isSleeping)
        }
        if mustRing { ring() }
        return accepted
    }

    /// Notes that somebody has deliveries to settle.
    func noteSettlements(of consumer: Consuming) {
        let mustRing = state.withLock { state in
            state.settled.append(consumer)
            return state.isSleeping
        }
        if mustRing { ring() }
    }

    /// Takes everything, swapping in the caller's emptied arrays to save allocations.
    func take(commands: inout [Command], settled: inout [Consuming]) {
        state.withLock { state in
            swap(&commands, &state.commands)
            swap(&settled, &state.settled)
        }
    }

    /// Announces that the thread goes to sleep; answers false when something has arrived meanwhile.
    func beginSleep() -> Bool {
        state.withLock { state in
            guard state.commands.isEmpty, state.settled.isEmpty else { return false }
            state.isSleeping = true
            return true
        }
    }

    /// Announces that the thread is awake again.
    func endSleep(bellRang: Bool) {
        state.withLock { $0.isSleeping = false }
        if bellRang {
            var count: eventfd_t = 0
            _ = eventfd_read(bell, &count)
        }
    }

    /// Refuses everything from now on and hands back what nobody looked at.
    func closeAndTake() -> [Command] {
        state.withLock { state in
            state.isClosed = true
            defer { state.commands = [] }
            return state.commands
        }
    }

    private func ring() {
        _ = eventfd_write(bell, 1)
    }
}

/// Who has deliveries to settle.
enum Consuming: Sendable {
    case consumer(ConsumerLink)
    case group(GroupLink)
}

/// What can be asked of the connection's thread.
enum Command: Sendable {
    /// Publish the messages of the batch.
    case publish(PublishBatch)
    /// Carry out one step on the topology.
    case operate(Operation)
    /// Consume for this link until told otherwise.
    case subscribe(ConsumerLink)
    /// Ask the broker for no more messages.
    case cancelConsumer(ConsumerLink)
    /// Settle what is left, close the channel, forget the consumer.
    case closeConsumer(ConsumerLink, Completion)
    /// Consume for this group, on each connection anew.
    case openGroup(GroupLink)
    /// Consume a queue for the group, on this connection.
    case consumeQueue(String, GroupLink)
    /// Ask the broker for no more messages of a queue.
    case stopQueue(String, GroupLink)
    /// Settle what is left, close the group's channels, forget it.
    case closeGroup(GroupLink, Completion)
    /// Finish what was taken, close the connection, end the thread.
    case shutDown
}

/// Completes when a number of things have happened; belongs to the connection's thread.
final class Countdown {
    private var left: Int
    private let completion: Completion

    init(_ count: Int, _ completion: Completion) {
        left = count
        self.completion = completion
    }

    func arrive() {
        left -= 1
        if left == 0 { completion.complete() }
    }
}

/// An answer that somebody waits for, given exactly once; later ones are ignored.
final class Completion: Sendable {
    private enum State {
        case waiting(CheckedContinuation<PulseError?, Never>?)
        case done(PulseError?)
    }

    private let state = Mutex(State.waiting(nil))

    /// Whether an answer was given already.
    var isDone: Bool {
        state.withLock { state in
            if case .done = state { return true }
            return false
        }
    }

    /// Whether the answer was given and is good.
    var isSuccess: Bool {
        state.withLock { state in
            if case .done(.none) = state { return true }
            return false
        }
    }

    /// Gives the answer; nil means success.
    func complete(_ error: PulseError? = nil) {
        let waiter = state.withLock { state -> CheckedContinuation<PulseError?, Never>? in
            guard case .waiting(let waiter) = state else { return nil }
            state = .done(error)
            return waiter
        }
        waiter?.resume(returning: error)
    }

    /// Waits for the answer, which is `cancelled` when the calling task is cancelled before.
    func wait() async -> PulseError? {
        await withTaskCancellationHandler {
            await waitShielded()
        } onCancel: {
            complete(PulseError(.cancelled, "the task waiting for the broker was cancelled"))
        }
    }

    /// Waits for the answer whether or not the calling task is cancelled.
    func waitShielded() async -> PulseError? {
        await withCheckedContinuation { continuation in
            let early = state.withLock { state -> PulseError?? in
                if case .done(let error) = state { return .some(error) }
                state = .waiting(continuation)
                return .none
            }
            if let early { continuation.resume(returning: early) }
        }
    }
}
