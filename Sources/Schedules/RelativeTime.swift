// SPDX-License-Identifier: MPL-2.0

/// A distance in time as people write it: `1 year 2 months`, `-3h`, `1 day 30 min`.
///
/// Years to seconds must come in descending order, each at most once and without fractions. A year is 365 days and a
/// month 30; one sign in front applies to everything; the empty text is no distance at all.
public struct RelativeTime: Sendable, Hashable {
    /// The spellings of the units, longest span first, with their seconds.
    private static let units: [(names: [String], seconds: Int)] = [
        (["y", "yr", "year", "years"], 365 * 86_400),
        (["mo", "month", "months"], 30 * 86_400),
        (["w", "wk", "week", "weeks"], 7 * 86_400),
        (["d", "day", "days"], 86_400),
        (["h", "hr", "hour", "hours"], 3600),
        (["m", "min", "minute", "minutes"], 60),
        (["s", "sec", "second", "seconds"], 1),
    ]

    private let seconds: Int

    /// Reads a text.
    public init(_ text: String) throws(RelativeTimeError) {
        guard let seconds = Self.seconds(in: text) else { throw RelativeTimeError(text: text) }
        self.seconds = seconds
    }

    /// The instant at this distance from another.
    public func from(_ timestamp: Timestamp) -> Timestamp {
        timestamp + .seconds(seconds)
    }

    private static func seconds(in text: String) -> Int? {
        var rest = text.lowercased().unicodeScalars[...]
        skipBlanks(&rest)
        var sign = 1
        if rest.first == "-" || rest.first == "+" {
            sign = rest.removeFirst() == "-" ? -1 : 1
        }
        var total = 0
        var position = 0
        while true {
            skipBlanks(&rest)
            if rest.isEmpty { return sign * total }
            let digits = rest.prefix { ("0"..."9").contains($0) }
            rest = rest.dropFirst(digits.count)
            skipBlanks(&rest)
            let name = rest.prefix { ("a"..."z").contains($0) }
            rest = rest.dropFirst(name.count)
            let unit = units[position...].firstIndex { $0.names.contains(String(name)) }
            guard let count = Int(String(digits)), let unit else { return nil }
            let (product, overflows) = count.multipliedReportingOverflow(by: units[unit].seconds)
            let (sum, sumOverflows) = total.addingReportingOverflow(product)
            // Beyond this no calendar date can be written.
            guard !overflows, !sumOverflows, sum < 8_000_000_000_000 else { return nil }
            total = sum
            position = unit + 1
        }
    }

    private static func skipBlanks(_ rest: inout Substring.UnicodeScalarView) {
        while rest.first?.properties.isWhitespace == true { rest.removeFirst() }
    }
}

/// Says that a text is not a relative time.
public struct RelativeTimeError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The text.
    public let text: String

    /// The sentence the JSON-e implementations print.
    public var description: String { "String: '\(text)' isn't a time expression" }
}
