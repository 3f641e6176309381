// SPDX-License-Identifier: MPL-2.0
import Core
import Synchronization

/// Lets workers wait for work without holding a connection or a thread.
///
/// Waiters of a queue are served in the order they came. When runs become pending, as many waiters are woken as there
/// are runs; whoever finds nothing goes back to the head of the line. A wake-up between a fruitless look and the wait
/// is noticed by a counter, so none is lost. A waiter costs a continuation and a timer, no task of its own.
public final class ClaimDispatch: Sendable {
    private struct Line {
        var generation = 0
        /// How many requests are about this queue, waiting or looking; the line goes with the last one.
        var visitors = 0
        var waiters: [(id: Int, continuation: CheckedContinuation<Bool, Never>)] = []
    }

    private struct State {
        var lines: [String: Line] = [:]
        var next = 0
        /// Those who are about to park, and whether they shall leave at once instead.
        var arriving: [Int: Bool] = [:]
        var isClosed = false
    }

    private let state = Mutex(State())

    /// Makes a dispatch without waiters.
    public init() {}

    /// Wakes up to `count` waiters of a queue.
    public func wake(_ taskQueueID: String, count: Int) {
        let woken = state.withLock { state -> [CheckedContinuation<Bool, Never>] in
            guard let line = state.lines[taskQueueID] else { return [] }
            let some = line.waiters.prefix(count).map(\.continuation)
            state.lines[taskQueueID]?.generation += 1
            state.lines[taskQueueID]?.waiters.removeFirst(some.count)
            return some
        }
        for continuation in woken { continuation.resume(returning: true) }
    }

    /// Wakes the first waiter of every queue that has one; the safety net for wake-ups that never came.
    public func probe() {
        let queues = state.withLock { state in state.lines.filter { !$0.value.waiters.isEmpty }.map(\.key) }
        for queue in queues { wake(queue, count: 1) }
    }

    /// Lets every waiter go with what it has, and none wait any more: the process is about to end.
    public func close() {
        let waiters = state.withLock { state -> [CheckedContinuation<Bool, Never>] in
            state.isClosed = true
            defer { state.lines = [:] }
            return state.lines.values.flatMap { $0.waiters.map(\.continuation) }
        }
        for waiter in waiters { waiter.resume(returning: false) }
    }

    /// How many waiters there are, in all queues.
    public var waiting: Int { state.withLock { $0.lines.values.reduce(0) { $0 + $1.waiters.count } } }

    /// Whether nothing is kept because nobody is here.
    var isForgetful: Bool { state.withLock { $0.lines.isEmpty && $0.arriving.isEmpty } }

    /// Looks for work until some is found, the time is up, or the calling task is cancelled.
    public func claim(
        from taskQueueID: String,
        within timeout: Duration,
        _ look: @escaping @Sendable () async throws -> [TaskClaim]
    ) async throws -> [TaskClaim] {
        let end = ContinuousClock.now + timeout
        var isWoken = false
        state.withLock { $0.lines[taskQueueID, default: Line()].visitors += 1 }
        defer {
            state.withLock { state in
                state.lines[taskQueueID]?.visitors -= 1
                if state.lines[taskQueueID]?.visitors == 0 { state.lines[taskQueueID] = nil }
            }
        }
        while true {
            let generation = state.withLock { $0.lines[taskQueueID]?.generation ?? 0 }
            do {
                let found = try await apart(look)
                guard found.isEmpty else { return found }
            } catch {
                // Somebody else shall use the wake-up.
                if isWoken { wake(taskQueueID, count: 1) }
                throw error
            }
            let left = end - ContinuousClock.now
            guard left > .zero else { return [] }
            let wasWoken = isWoken
            isWoken = await wait(in: taskQueueID, since: generation, atHead: wasWoken, timeout: left)
            guard isWoken else {
                try Task.checkCancellation()
                return []
            }
            if Task.isCancelled {
                wake(taskQueueID, count: 1)
                throw CancellationError()
            }
        }
    }

    private func wait(in queue: String, since generation: Int, atHead: Bool, timeout: Duration) async -> Bool {
        let id = state.withLock { state in
            state.next += 1
            state.arriving[state.next] = false
            return state.next
        }
        let timer = Reactor.shared.after(timeout) { self.leave(queue, id) }
        defer { Reactor.shared.cancel(timer) }
        return await park(queue, id: id, since: generation, atHead: atHead)
    }

    private func park(_ queue: String, id: Int, since generation: Int, atHead: Bool) async -> Bool {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer: Bool? = state.withLock { state in
                    let isLeaving = state.arriving.removeValue(forKey: id) ?? true
                    guard !isLeaving, !state.isClosed, let line = state.lines[queue] else { return false }
                    guard line.generation == generation else { return true }
                    state.lines[queue]?.waiters.insert((id, continuation), at: atHead ? 0 : line.waiters.count)
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            leave(queue, id)
        }
    }

    private func leave(_ queue: String, _ id: Int) {
        let continuation = state.withLock { state -> CheckedContinuation<Bool, Never>? in
            if state.arriving[id] != nil { state.arriving[id] = true }
            guard let index = state.lines[queue]?.waiters.firstIndex(where: { $0.id == id }) else { return nil }
            return state.lines[queue]?.waiters.remove(at: index).continuation
        }
        continuation?.resume(returning: false)
    }
}

/// Does something in a task of its own, whose stack goes with it.
///
/// A task keeps what its stack once grew to. Whoever waits for long afterwards, a thousand times, would keep the stacks of a thousand
/// finished requests to the database.
func apart<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
    // Cancelled with the caller, as if the caller did it.
    let task = Task { try await body() }
    return try await withTaskCancellationHandler {
        try await task.value
    } onCancel: {
        task.cancel()
    }
}
