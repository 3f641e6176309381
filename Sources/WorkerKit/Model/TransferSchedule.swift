// SPDX-License-Identifier: MPL-2.0

/// The pauses between attempts to move an artifact.
public struct TransferSchedule: Sendable {
    /// How often to try at most.
    public var attempts = 5
    /// The first pause, before jitter.
    public var base: Duration = .seconds(10)
    /// The longest pause.
    public var maximum: Duration

    /// Uploads: 10–15, 20–30, 40–60 and 80–120 seconds.
    public static let upload = TransferSchedule(maximum: .seconds(120))
    /// Downloads: 10–15, then 15 seconds each.
    public static let download = TransferSchedule(maximum: .seconds(15))

    /// Creates a schedule that doubles its pauses up to a longest one.
    public init(attempts: Int = 5, base: Duration = .seconds(10), maximum: Duration) {
        self.attempts = attempts
        self.base = base
        self.maximum = maximum
    }

    /// The same with another first pause, and a longest one in proportion.
    public func beginning(with pause: Duration) -> TransferSchedule {
        TransferSchedule(attempts: attempts, base: pause, maximum: maximum * (pause / base))
    }

    /// The pause before the given attempt (2, 3, …); chance is a number from 0 to 1.
    public func pause(before attempt: Int, chance: Double = .random(in: 0...1)) -> Duration {
        min(maximum, base * (1 << min(max(attempt - 2, 0), 16)) * (1 + 0.5 * chance))
    }
}
