// SPDX-License-Identifier: MPL-2.0

/// The pauses between attempts to do something that keeps failing: the first is short, later ones double up to a limit.
///
/// Each pause is spread randomly over its upper half, so that many clients of one restarted broker do not come back in
/// step.
struct BackOff {
    private(set) var failures = 0
    let base: Duration
    let maximum: Duration

    init(base: Duration = .milliseconds(250), maximum: Duration = .seconds(15)) {
        self.base = base
        self.maximum = maximum
    }

    /// The pause after one more failure.
    mutating func next(random: Double = .random(in: 0..<1)) -> Duration {
        defer { failures += 1 }
        // The first retry is almost at once: most breaks are a single lost connection.
        if failures == 0 { return .milliseconds(20) + .milliseconds(80) * random }
        let full = min(base * (1 << min(failures, 16)), maximum)
        return full / 2 + full / 2 * random
    }

    /// Starts again after a success.
    mutating func reset() {
        failures = 0
    }
}
