// SPDX-License-Identifier: MPL-2.0

public import Schedules

/// Decides when to renew a claim, and when it is lost.
///
/// ```
/// held ──time──► due ──renewed──► held
///                 ├──unreachable──► held, tried again after 1, 2, 4 … 30 s
///                 └──refused, or takenUntil passed──► lost (final)
/// ```
public struct ClaimUpkeep: Sendable {
    /// What to do at a moment.
    public enum Step: Sendable, Hashable {
        /// Nothing before this time.
        case wait(until: Timestamp)
        /// Renew the claim now.
        case reclaim
        /// The run is no longer ours: stop everything that is done for it.
        case lost(String)
    }

    /// How an attempt to renew went wrong.
    public enum Failure: Sendable, Hashable {
        /// No answer, or one that says nothing about the claim.
        case unreachable(String)
        /// The queue said that the claim is not ours to renew.
        case refused(String)
    }

    /// Until when the run is ours.
    public private(set) var takenUntil: Timestamp
    /// How many attempts in a row have failed.
    public private(set) var failures = 0
    private var nextAttempt: Timestamp
    private var loss: String?
    private let interval: Duration

    /// Starts with a fresh claim and the longest pause the operator wants between renewals.
    public init(takenUntil: Timestamp, interval: Duration, now: Timestamp) {
        self.takenUntil = takenUntil
        self.interval = interval
        nextAttempt = now + Self.pause(remaining: takenUntil - now, interval: interval)
    }

    /// How long to wait for the first attempt when this much of the claim remains.
    ///
    /// A quarter of the claim, but at least 30 s, is kept for retries. Of claims too short for that a quarter is let pass, and half at
    /// most, so that they are neither lost nor renewed every second.
    public static func pause(remaining: Duration, interval: Duration) -> Duration {
        var pause = max(remaining - max(.seconds(30), remaining / 4), remaining / 4)
        if remaining < .seconds(120) { pause = min(pause, remaining / 2) }
        return max(min(interval, pause), .seconds(1))
    }

    /// What to do now.
    public func step(at now: Timestamp) -> Step {
        if let loss { return .lost(loss) }
        if now >= takenUntil { return .lost("the claim ended at \(takenUntil) without having been renewed") }
        if now >= nextAttempt { return .reclaim }
        return .wait(until: min(nextAttempt, takenUntil))
    }

    /// Notes a renewal.
    public mutating func renewed(until takenUntil: Timestamp, now: Timestamp) {
        self.takenUntil = takenUntil
        failures = 0
        nextAttempt = now + Self.pause(remaining: takenUntil - now, interval: interval)
    }

    /// Notes a failed attempt.
    public mutating func failed(_ failure: Failure, now: Timestamp) {
        switch failure {
        case .refused(let reason):
            loss = reason
        case .unreachable:
            failures += 1
            let pause = min(30, 1 << min(failures - 1, 5))
            nextAttempt = now + .seconds(pause)
        }
    }
}
