// SPDX-License-Identifier: MPL-2.0

import Glibc

/// The processor time that many matches may take together, so that the cost of a text does not grow with how often it defeats an expression.
///
/// Matches that take few steps are not counted; once it is spent, only they are decided.
public struct MatchBudget: Sendable {
    private var left: Duration

    /// A time for the matches of one validation.
    public init(_ time: Duration = .seconds(1)) { left = time }

    /// The characters that may be looked at in what is left, four in a nanosecond at best.
    var work: Int { Int(max(0, left / .nanoseconds(1))) * 4 }

    mutating func spend<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
        let began = Self.used()
        defer { left -= Self.used() - began }
        return try body()
    }

    /// What this thread has used; nobody else's load counts.
    private static func used() -> Duration {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }
}
