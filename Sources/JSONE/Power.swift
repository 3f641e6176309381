// SPDX-License-Identifier: MPL-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Exponentiation, which the standard library leaves to the C library.
enum Power {
    static func power(_ base: Double, _ exponent: Double) -> Double {
        // C says 1 for these two, ECMAScript says NaN.
        if exponent.isNaN || base.magnitude == 1 && exponent.isInfinite { return .nan }
        return pow(base, exponent)
    }
}
