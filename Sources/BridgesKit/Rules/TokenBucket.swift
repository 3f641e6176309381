// SPDX-License-Identifier: MPL-2.0

/// A measure of how much may pass: it fills at a steady rate up to a burst, and everything that passes takes one.
struct TokenBucket: Sendable {
    private let rate: Double
    private let burst: Double
    private var tokens: Double
    private var last: Duration

    /// Creates a full bucket; times are counted from any fixed moment.
    init(rate: Double, burst: Int, at time: Duration) {
        self.rate = rate
        self.burst = Double(burst)
        tokens = Double(burst)
        last = time
    }

    /// How long to wait until something may pass, which nothing does by this; nil if it may now.
    mutating func delay(at time: Duration) -> Duration? {
        if time > last {
            let (seconds, attoseconds) = (time - last).components
            tokens = min(burst, tokens + rate * (Double(seconds) + Double(attoseconds) / 1e18))
            last = time
        }
        return tokens >= 1 ? nil : .seconds((1 - tokens) / rate)
    }

    /// Takes one if there is one; otherwise answers how long to wait.
    mutating func take(at time: Duration) -> Duration? {
        if let delay = delay(at: time) { return delay }
        tokens -= 1
        return nil
    }
}
