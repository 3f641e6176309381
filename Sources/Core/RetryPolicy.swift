// SPDX-License-Identifier: MPL-2.0

/// How often and how patiently to repeat something that may succeed later.
public struct RetryPolicy: Sendable {
    /// How many times to try in total, the first time included.
    public var attempts: Int
    /// The pause before the second attempt; it doubles from there.
    public var base: Duration
    /// The longest pause.
    public var maximum: Duration
    /// The share by which a pause may be shorter or longer, from 0 to 1.
    public var jitter: Double

    /// Creates a policy.
    public init(attempts: Int, base: Duration, maximum: Duration, jitter: Double = 0.25) {
        self.attempts = attempts
        self.base = base
        self.maximum = maximum
        self.jitter = jitter
    }

    /// What Taskcluster clients do: five repetitions from 100 ms, doubling, a quarter of jitter, 30 s at most.
    public static let taskcluster = RetryPolicy(attempts: 6, base: .milliseconds(100), maximum: .seconds(30))

    /// What connections do: for ever, from 100 ms to 15 s.
    public static let reconnect = RetryPolicy(
        attempts: .max,
        base: .milliseconds(100),
        maximum: .seconds(15),
        jitter: 0.5
    )

    /// The pause before an attempt, counted from 1; the first needs none.
    public func delay(before attempt: Int) -> Duration {
        guard attempt > 1 else { return .zero }
        var pause = base
        for _ in 0..<min(attempt - 2, 62) where pause < maximum { pause = pause * 2 }
        pause = min(pause, maximum)
        guard jitter > 0 else { return pause }
        return min(pause * Double.random(in: (1 - jitter)...(1 + jitter)), maximum)
    }

    /// Runs a body until it succeeds, fails for good or the attempts are used up.
    public func run<T>(
        isRetriable: (any Error) -> Bool,
        _ body: () async throws -> T
    ) async throws -> T {
        var attempt = 1
        while true {
            do {
                return try await body()
            } catch {
                attempt = attempt &+ 1
                guard attempt <= attempts, isRetriable(error) else { throw error }
                try await Task.sleep(for: delay(before: attempt))
            }
        }
    }
}
