// SPDX-License-Identifier: MPL-2.0

/// The time allowed for an operation was over.
public struct TimeoutError: Error, Sendable, CustomStringConvertible {
    /// The time that was allowed.
    public let limit: Duration

    /// Creates an error for a limit.
    public init(limit: Duration) {
        self.limit = limit
    }

    /// One line that names the limit.
    public var description: String { "no answer within \(limit.settingsText)" }
}

/// Runs an operation that is cancelled, and fails with ``TimeoutError``, when it takes too long.
///
/// The operation must honour cancellation: this returns only when it has ended.
public func withTimeout<Result: Sendable>(
    _ limit: Duration,
    _ operation: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    try await withThrowingTaskGroup(of: Result?.self) { group in
        group.addTask { try await operation() }
        group.addTask {
            try await Task.sleep(for: limit)
            return nil
        }
        defer { group.cancelAll() }
        guard let first = try await group.next(), let result = first else { throw TimeoutError(limit: limit) }
        return result
    }
}
