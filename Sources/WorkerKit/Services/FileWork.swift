// SPDX-License-Identifier: MPL-2.0

import Core
import Synchronization

/// Runs work on big files on a thread of its own, one piece at a time.
///
/// Hashing or compressing a gigabyte takes seconds; on the cooperative pool it would hold up claim renewals and signals for as long.
public final class FileWork: Sendable {
    private struct State {
        var isBusy = false
        var queue: [@Sendable () -> Void] = []
    }

    private let state = Mutex(State())

    /// Creates a queue that starts its thread when there is work, and ends it when there is none.
    public init() {}

    /// Runs the work and returns what it returned.
    public func run<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            let starts = state.withLock { state in
                state.queue.append { continuation.resume(with: Swift.Result { try work() }) }
                defer { state.isBusy = true }
                return !state.isBusy
            }
            if starts { startThread(named: "files") { self.drain() } }
        }
    }

    private func drain() {
        while let next = take() { next() }
    }

    private func take() -> (@Sendable () -> Void)? {
        state.withLock { state in
            guard !state.queue.isEmpty else {
                state.isBusy = false
                return nil
            }
            return state.queue.removeFirst()
        }
    }
}
