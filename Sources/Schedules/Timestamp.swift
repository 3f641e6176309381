// SPDX-License-Identifier: MPL-2.0

/// An instant in milliseconds, the precision of all dates on the wire.
public struct Timestamp: Sendable, Hashable, Comparable {
    /// The first of February 4000: "never" for hooks without a schedule.
    public static let farFuture = Timestamp(milliseconds: 64_063_267_200_000)

    /// Milliseconds since the beginning of 1970 in UTC.
    public var milliseconds: Int64

    /// Makes an instant from milliseconds since 1970.
    public init(milliseconds: Int64) {
        self.milliseconds = milliseconds
    }

    /// Makes an instant from seconds since 1970; fractions below a millisecond are dropped.
    public init(seconds: Double) {
        let scaled = (seconds * 1000).rounded(.down)
        milliseconds = Int64(exactly: scaled) ?? (scaled > 0 ? .max : .min)
    }

    /// Makes an instant from a calendar date and a time of day in UTC.
    init(date: CalendarDate, hour: Int, minute: Int, second: Int, millisecond: Int = 0) {
        let seconds = ((date.dayNumber * 24 + hour) * 60 + minute) * 60 + second
        milliseconds = Int64(seconds * 1000 + millisecond)
    }

    /// Compares two instants.
    public static func < (first: Timestamp, second: Timestamp) -> Bool {
        first.milliseconds < second.milliseconds
    }

    /// The instant a duration later.
    public static func + (timestamp: Timestamp, duration: Duration) -> Timestamp {
        let (sum, overflows) = timestamp.milliseconds.addingReportingOverflow(duration.inMilliseconds)
        return Timestamp(milliseconds: overflows ? (timestamp.milliseconds < 0 ? .min : .max) : sum)
    }

    /// The instant a duration earlier.
    public static func - (timestamp: Timestamp, duration: Duration) -> Timestamp {
        let (difference, overflows) = timestamp.milliseconds.subtractingReportingOverflow(duration.inMilliseconds)
        return Timestamp(milliseconds: overflows ? (timestamp.milliseconds < 0 ? .min : .max) : difference)
    }

    /// The time from the second instant to the first.
    public static func - (later: Timestamp, earlier: Timestamp) -> Duration {
        let (difference, overflows) = later.milliseconds.subtractingReportingOverflow(earlier.milliseconds)
        return .milliseconds(overflows ? (later.milliseconds < 0 ? .min : .max) : difference)
    }
}

extension Duration {
    /// Whole milliseconds, rounded towards zero and clamped to what an `Int64` holds.
    fileprivate var inMilliseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflows) = seconds.multipliedReportingOverflow(by: 1000)
        if overflows { return seconds > 0 ? .max : .min }
        let (sum, sumOverflows) = product.addingReportingOverflow(attoseconds / 1_000_000_000_000_000)
        return sumOverflows ? (seconds > 0 ? .max : .min) : sum
    }
}

// MARK: - Text

extension Timestamp: CustomStringConvertible {
    /// The instant as `2024-02-10T12:34:56.789Z`.
    ///
    /// Years outside 0…9999 get a sign and six digits, as in JavaScript, or as many as they have.
    public var iso8601: String {
        let milliseconds = Int(self.milliseconds)
        let day = milliseconds.dividedDown(by: 86_400_000)
        // The beginning of the first day there is lies before the first number there is: only the difference counts.
        let rest = milliseconds &- day &* 86_400_000
        let date = CalendarDate(dayNumber: day)
        var out: [UInt8] = []
        out.reserveCapacity(27)
        func append(_ value: Int, digits: Int) {
            var divisor = 1
            for _ in 1..<digits { divisor *= 10 }
            while divisor > 0 {
                out.append(UInt8(ascii: "0") + UInt8(value / divisor % 10))
                divisor /= 10
            }
        }
        if 0...9999 ~= date.year {
            append(date.year, digits: 4)
        } else {
            out.append(date.year < 0 ? UInt8(ascii: "-") : UInt8(ascii: "+"))
            append(abs(date.year), digits: max(6, String(abs(date.year)).utf8.count))
        }
        out.append(UInt8(ascii: "-"))
        append(date.month, digits: 2)
        out.append(UInt8(ascii: "-"))
        append(date.day, digits: 2)
        out.append(UInt8(ascii: "T"))
        append(rest / 3_600_000, digits: 2)
        out.append(UInt8(ascii: ":"))
        append(rest / 60_000 % 60, digits: 2)
        out.append(UInt8(ascii: ":"))
        append(rest / 1000 % 60, digits: 2)
        out.append(UInt8(ascii: "."))
        append(rest % 1000, digits: 3)
        out.append(UInt8(ascii: "Z"))
        return String(decoding: out, as: UTF8.self)
    }

    /// The instant as in ``iso8601``.
    public var description: String { iso8601 }

    /// Reads an RFC 3339 date-time: any offset, any number of fraction digits (cut to milliseconds), a leap second.
    ///
    /// A blank in place of the `T` is accepted; a missing offset is not.
    public init?(_ rfc3339: String) {
        var reader = DateReader(rfc3339)
        guard let timestamp = reader.timestamp() else { return nil }
        self = timestamp
    }
}

/// Reads the fields of a date-time from ASCII bytes.
private struct DateReader {
    private let bytes: [UInt8]
    private var offset = 0

    init(_ text: String) {
        bytes = Array(text.utf8)
    }

    mutating func timestamp() -> Timestamp? {
        guard let year = number(4), take("-"), let month = number(2), take("-"), let day = number(2),
            take("T") || take("t") || take(" "),
            let hour = number(2), take(":"), let minute = number(2), take(":"), let second = number(2),
            1...12 ~= month, 1...CalendarDate.length(ofMonth: month, year: year) ~= day,
            hour < 24, minute < 60, second <= 60
        else { return nil }
        guard let millisecond = fraction(), let offsetMinutes = zone(), offset == bytes.count else { return nil }
        let date = CalendarDate(year: year, month: month, day: day)
        let local = Timestamp(date: date, hour: hour, minute: minute, second: second, millisecond: millisecond)
        return Timestamp(milliseconds: local.milliseconds - Int64(offsetMinutes * 60_000))
    }

    private mutating func fraction() -> Int? {
        guard take(".") else { return 0 }
        var value = 0
        var count = 0
        while let digit = digit() {
            if count < 3 { value = value * 10 + digit }
            count += 1
        }
        guard count > 0 else { return nil }
        while count < 3 {
            value *= 10
            count += 1
        }
        return value
    }

    private mutating func zone() -> Int? {
        if take("Z") || take("z") { return 0 }
        let isNegative = take("-")
        guard isNegative || take("+"), let hours = number(2), take(":"), let minutes = number(2), hours < 24,
            minutes < 60
        else { return nil }
        return (isNegative ? -1 : 1) * (hours * 60 + minutes)
    }

    private mutating func number(_ count: Int) -> Int? {
        var value = 0
        for _ in 0..<count {
            guard let digit = digit() else { return nil }
            value = value * 10 + digit
        }
        return value
    }

    private mutating func digit() -> Int? {
        guard offset < bytes.count, case let digit = bytes[offset] &- UInt8(ascii: "0"), digit <= 9 else { return nil }
        offset += 1
        return Int(digit)
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard offset < bytes.count, bytes[offset] == UInt8(ascii: character) else { return false }
        offset += 1
        return true
    }
}
