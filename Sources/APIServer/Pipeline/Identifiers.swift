// SPDX-License-Identifier: MPL-2.0

import Glibc
import Synchronization

/// Random identifiers of requests and incidents.
enum Identifiers {
    /// A version 4 UUID in its usual spelling.
    static func uuid() -> String {
        var random = SystemRandomNumberGenerator()
        let high = random.next() & ~0xF000 | 0x4000
        let low = random.next() & ~(0b11 << 62) | 0b10 << 62
        var text: [UInt8] = []
        text.reserveCapacity(36)
        for index in 0..<32 {
            if index == 8 || index == 12 || index == 16 || index == 20 { text.append(UInt8(ascii: "-")) }
            let word = index < 16 ? high : low
            let nibble = UInt8(truncatingIfNeeded: word >> UInt64(60 - index % 16 * 4) & 15)
            text.append(nibble < 10 ? nibble + 48 : nibble + 87)
        }
        return String(decoding: text, as: UTF8.self)
    }
}

/// The text of the `Date` field, made once a second.
final class DateField: Sendable {
    private let cache = Mutex<(second: Int, text: String)>((second: 0, text: ""))

    var text: String {
        let second = time(nil)
        return cache.withLock { cache in
            if cache.second != second {
                cache = (second, Self.format(second))
            }
            return cache.text
        }
    }

    static func format(_ second: Int) -> String {
        var parts = tm()
        var second = second
        gmtime_r(&second, &parts)
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ number: CInt) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let clock = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
        return "\(days[Int(parts.tm_wday)]), \(two(parts.tm_mday)) \(months[Int(parts.tm_mon)]) \(parts.tm_year + 1900)"
            + " \(clock) GMT"
    }
}
