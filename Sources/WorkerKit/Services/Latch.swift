// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// A fact that becomes true at most once and that many may wait for.
public final class Latch<Value: Sendable>: Sendable {
    private struct State {
        var value: Value?
        var next = 0
        var waiters: [Int: CheckedContinuation<Value?, Never>] = [:]
        var handlers: [Int: @Sendable (Value) -> Void] = [:]
    }

    private let state = Mutex(State())

    /// Creates a latch that is open.
    public init() {}

    /// The fact, once it is known.
    public var value: Value? { state.withLock { $0.value } }

    /// Makes the fact known; only the first call counts, and it returns true.
    @discardableResult
    public func set(_ value: Value) -> Bool {
        let released = state.withLock { state -> State? in
            guard state.value == nil else { return nil }
            defer { (state.waiters, state.handlers) = ([:], [:]) }
            state.value = value
            return state
        }
        guard let released else { return false }
        for waiter in released.waiters.values { waiter.resume(returning: value) }
        for handler in released.handlers.values { handler(value) }
        return true
    }

    /// Waits for the fact; nil when the waiting task was cancelled first.
    public func wait() async -> Value? {
        let key = state.withLock { state in
            state.next += 1
            return state.next
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let known: Value?? = state.withLock { state in
                    if let value = state.value { return .some(value) }
                    if Task.isCancelled { return .some(nil) }
                    state.waiters[key] = continuation
                    return nil
                }
                if let known { continuation.resume(returning: known) }
            }
        } onCancel: {
            state.withLock { $0.waiters.removeValue(forKey: key) }?.resume(returning: nil)
        }
    }

    /// Runs a body, calling the handler if the fact becomes (or already is) known meanwhile.
    public func observing<Result>(
        _ handler: @escaping @Sendable (Value) -> Void,
        during body: () async throws -> Result
    ) async rethrows -> Result {
        let (key, known) = state.withLock { state in
            state.next += 1
            if state.value == nil { state.handlers[state.next] = handler }
            return (state.next, state.value)
        }
        defer { state.withLock { _ = $0.handlers.removeValue(forKey: key) } }
        if let known { handler(known) }
        return try await body()
    }
}

/// Runs an operation that is cancelled as soon as the latch is set; the operation still decides its own result.
public func cancelled<Value: Sendable, Result: Sendable>(
    by latch: Latch<Value>,
    _ operation: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    try await withThrowingTaskGroup(of: Result?.self) { group in
        group.addTask { try await operation() }
        group.addTask {
            _ = await latch.wait()
            return nil
        }
        defer { group.cancelAll() }
        while let result = try await group.next() {
            if let result { return result }
            group.cancelAll()
        }
        throw CancellationError()
    }
}
