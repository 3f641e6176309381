// SPDX-License-Identifier: MPL-2.0

import Glibc

/// Numbers that look random and are the same for the same seed, as SplitMix64 makes them.
public struct Dice: RandomNumberGenerator {
    /// How many orders of events the tests of properties try in memory; `SHIPIT_SCHEDULES` sets it.
    public static let schedules = getenv("SHIPIT_SCHEDULES").flatMap { Int(String(cString: $0)) } ?? 300

    private var state: UInt64

    /// Begins with a seed.
    public init(state: UInt64) {
        self.state = state
    }

    /// The next number.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
