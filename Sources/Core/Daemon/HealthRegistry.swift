// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// The checks that decide whether this process can do its work.
public final class HealthRegistry: Sendable {
    private struct State {
        var checks: [(name: String, check: @Sendable () async throws -> Void)] = []
        var isReady = false
    }

    private let state = Mutex(State())
    private let limit: Duration

    /// Creates an empty registry whose checks may each take a limited time.
    public init(limit: Duration = .seconds(5)) {
        self.limit = limit
    }

    /// Adds a check that throws while something the process needs is away; it must honour cancellation.
    public func register(_ name: String, _ check: @escaping @Sendable () async throws -> Void) {
        state.withLock { $0.checks.append((name, check)) }
    }

    /// Notes that the process has started completely.
    public func noteReady() {
        state.withLock { $0.isReady = true }
    }

    /// Whether ``noteReady()`` has been called.
    public var isReady: Bool { state.withLock { $0.isReady } }

    /// Runs all checks at the same time; an entry without an error is healthy.
    public func report() async -> [(name: String, error: String?)] {
        let checks = state.withLock { $0.checks }
        let limit = limit
        return await withTaskGroup(of: (Int, String?).self) { group in
            for (index, entry) in checks.enumerated() {
                group.addTask {
                    do {
                        try await withTimeout(limit) { try await entry.check() }
                        return (index, nil)
                    } catch {
                        return (index, "\(error)")
                    }
                }
            }
            var errors = [String?](repeating: nil, count: checks.count)
            for await (index, error) in group { errors[index] = error }
            return zip(checks, errors).map { ($0.name, $1) }
        }
    }
}
