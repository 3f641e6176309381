// SPDX-License-Identifier: MPL-2.0

/// A threshold in the notation of monitoring plugins: `10`, `10:`, `~:10`, `10:20`, `@10:20`.
public struct CheckRange: Sendable, Hashable, CustomStringConvertible {
    /// The notation.
    public let description: String
    private let start: Double
    private let end: Double
    private let alertsInside: Bool

    /// Reads the notation; a percent sign after a number is dropped.
    public init?(_ text: String) {
        description = text
        var rest = text[...]
        alertsInside = rest.first == "@"
        if alertsInside { rest.removeFirst() }
        let parts = rest.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        func number(_ text: String) -> Double? {
            let plain = text.hasSuffix("%") ? String(text.dropLast()) : text
            guard plain.allSatisfy({ $0.isASCII && ($0.isNumber || $0 == "." || $0 == "-") }) else { return nil }
            return Double(plain)
        }
        switch parts.count {
        case 1:
            guard let value = number(parts[0]) else { return nil }
            (start, end) = (0, value)
        case 2:
            guard let low = parts[0] == "~" ? -.infinity : number(parts[0]),
                let high = parts[1].isEmpty ? .infinity : number(parts[1])
            else { return nil }
            (start, end) = (low, high)
        default: return nil
        }
        guard start <= end else { return nil }
    }

    /// Whether a value is one to worry about.
    public func alerts(_ value: Double) -> Bool {
        let isInside = start <= value && value <= end
        return isInside == alertsInside
    }
}

/// What a check says, as monitoring plugins say it.
public struct CheckResult: Sendable, Hashable {
    /// The four answers, by their exit status.
    public enum State: Int32, Sendable, Hashable {
        /// All is well.
        case ok = 0
        /// Somebody should look.
        case warning = 1
        /// Something is broken.
        case critical = 2
        /// The check itself failed.
        case unknown = 3

        /// The word for it.
        public var word: String {
            switch self {
            case .ok: "OK"
            case .warning: "WARNING"
            case .critical: "CRITICAL"
            case .unknown: "UNKNOWN"
            }
        }

        private var weight: Int {
            switch self {
            case .ok: 0
            case .unknown: 1
            case .warning: 2
            case .critical: 3
            }
        }

        /// The graver of two.
        static func worst(_ first: State, _ second: State) -> State { first.weight >= second.weight ? first : second }
    }

    /// A measured value with the limits it was held against.
    public struct Measure: Sendable, Hashable {
        let label: String
        let value: Double
        let unit: String
        var warning: CheckRange?
        var critical: CheckRange?
        var minimum: Double?

        /// Critical limits count before warning ones.
        var state: State {
            if critical?.alerts(value) ?? false { return .critical }
            return warning?.alerts(value) ?? false ? .warning : .ok
        }

        var text: String {
            let needsQuotes = label.contains { $0 == " " || $0 == "=" || $0 == "'" }
            let name = needsQuotes ? "'\(label.replacing("'", with: "''"))'" : label
            let limits = [
                warning.map { $0.description.filter { $0 != "%" } } ?? "",
                critical.map { $0.description.filter { $0 != "%" } } ?? "",
                minimum.map(Self.number) ?? "",
            ]
            return "\(name)=\(Self.number(value))\(unit);\(limits.joined(separator: ";"))"
        }

        static func number(_ value: Double) -> String {
            guard value.isFinite else { return "0" }
            let rounded = (value * 100).rounded() / 100
            return rounded == rounded.rounded() && abs(rounded) < 1e15 ? "\(Int(rounded))" : "\(rounded)"
        }
    }

    /// The check's name.
    public let name: String
    /// The answer.
    public var state: State
    /// One line for a person.
    public var text: String
    /// What was measured.
    public var measures: [Measure]
    /// Further lines.
    public var details: [String]

    init(_ name: String, _ state: State, _ text: String, _ measures: [Measure] = [], details: [String] = []) {
        self.name = name
        self.text = text
        self.measures = measures
        self.details = details
        self.state = measures.map(\.state).reduce(state, State.worst)
    }

    /// The output of a plugin, at most 4 KiB.
    public var output: String {
        var line = "SCRIPTWORKER \(name.uppercased()) \(state.word) - \(text.replacing("|", with: "/"))"
        if !measures.isEmpty { line += " | " + measures.map(\.text).joined(separator: " ") }
        let whole = ([line.replacing("\n", with: " ")] + details.map { $0.replacing("|", with: "/") })
            .joined(separator: "\n")
        return whole.utf8.count <= 4096 ? whole : String(decoding: Array(whole.utf8.prefix(4090)), as: UTF8.self) + "…"
    }
}
