// SPDX-License-Identifier: MPL-2.0

extension Duration {
    /// Reads a length of time such as `30s`, `1.5h` or `250ms`; a bare number counts seconds.
    public init?(settingsText text: String) {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let amount = Double(number), amount.isFinite else { return nil }
        let milliseconds: Double
        switch text.dropFirst(number.count) {
        case "ms": milliseconds = 1
        case "", "s": milliseconds = 1_000
        case "m": milliseconds = 60_000
        case "h": milliseconds = 3_600_000
        case "d": milliseconds = 86_400_000
        default: return nil
        }
        let total = amount * milliseconds
        guard total < 1e15 else { return nil }
        self = .milliseconds(Int64(total.rounded()))
    }

    /// The shortest spelling that ``init(settingsText:)`` reads back.
    public var settingsText: String {
        let total = milliseconds
        for (unit, size) in [("d", Int64(86_400_000)), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        where total != 0 && total % size == 0 {
            return "\(total / size)\(unit)"
        }
        return total == 0 ? "0s" : "\(total)ms"
    }

    /// The whole milliseconds in this length of time.
    public var milliseconds: Int64 {
        components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000
    }

    /// This length of time as a number of seconds.
    public var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}
