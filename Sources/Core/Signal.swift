// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// A wake-up between tasks of one process: any number of notifications before a wait count as one.
public final class Signal: Sendable {
    private struct Waiter {
        let continuation: CheckedContinuation<Bool, Never>
        let timer: Reactor.Timer
    }

    private struct State {
        var isPending = false
        var nextID: UInt64 = 0
        var waiters: [UInt64: Waiter] = [:]
        var cancelled: Set<UInt64> = []
    }

    private let state = Mutex(State())

    /// Creates a signal that nobody has given yet.
    public init() {}

    /// Wakes every waiting task; without one, the next wait returns at once.
    public func notify() {
        let waiters = state.withLock { state in
            if state.waiters.isEmpty { state.isPending = true }
            defer { state.waiters = [:] }
            return state.waiters
        }
        for waiter in waiters.values { Self.finish(waiter, true) }
    }

    /// Waits for a notification; returns false when the time is over or the task is cancelled.
    public func wait(timeout: Duration) async -> Bool {
        let id: UInt64? = state.withLock { state in
            if state.isPending {
                state.isPending = false
                return nil
            }
            state.nextID += 1
            return state.nextID
        }
        guard let id else { return true }
        defer { state.withLock { _ = $0.cancelled.remove(id) } }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let immediate: Bool? = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return false }
                    if state.isPending {
                        state.isPending = false
                        return true
                    }
                    // Set under the lock: a timer that fired before there is a waiter would be lost, and the wait endless.
                    let timer = Reactor.shared.after(timeout) { self.remove(id) }
                    state.waiters[id] = Waiter(continuation: continuation, timer: timer)
                    return nil
                }
                if let immediate { continuation.resume(returning: immediate) }
            }
        } onCancel: {
            let waiter = state.withLock { state in
                let waiter = state.waiters.removeValue(forKey: id)
                if waiter == nil { state.cancelled.insert(id) }
                return waiter
            }
            if let waiter { Self.finish(waiter, false) }
        }
    }

    private func remove(_ id: UInt64) {
        let waiter = state.withLock { $0.waiters.removeValue(forKey: id) }
        waiter?.continuation.resume(returning: false)
    }

    private static func finish(_ waiter: Waiter, _ result: Bool) {
        Reactor.shared.cancel(waiter.timer)
        waiter.continuation.resume(returning: result)
    }
}
