// SPDX-License-Identifier: MPL-2.0

import Metrics
import Synchronization

/// Keeps one series per name and label values and prints them.
final class MetricsRegistry: MetricsFactory {
    enum Kind: String, Sendable {
        case counter, gauge, histogram
    }

    private struct Family {
        let kind: Kind
        var series: [String: Series] = [:]
    }

    private struct State {
        var families: [String: Family] = [:]
        var help: [String: String] = [:]
        var buckets: [String: [Double]] = [:]
    }

    static let defaultBuckets: [Double] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60]

    private let state = Mutex(State())

    func describe(_ name: String, _ help: String, _ buckets: [Double]?) {
        let name = Self.name(name)
        state.withLock { state in
            state.help[name] = help
            if let buckets { state.buckets[name] = buckets.sorted() }
        }
    }

    func exposition() -> String {
        let (families, help) = state.withLock { ($0.families, $0.help) }
        var text = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            if let help = help[name] {
                let escaped = help.map { $0 == "\\" ? "\\\\" : $0 == "\n" ? "\\n" : String($0) }.joined()
                text += "# HELP \(name) \(escaped)\n"
            }
            text += "# TYPE \(name) \(family.kind.rawValue)\n"
            for (_, series) in family.series.sorted(by: { $0.key < $1.key }) { series.print(name, into: &text) }
        }
        return text
    }

    // MARK: Factory

    func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        series(label, dimensions, .counter)
    }

    func makeFloatingPointCounter(label: String, dimensions: [(String, String)]) -> any FloatingPointCounterHandler {
        series(label, dimensions, .counter)
    }

    func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        series(label, dimensions, .gauge)
    }

    func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        series(label, dimensions, aggregate ? .histogram : .gauge)
    }

    func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        series(label, dimensions, .histogram)
    }

    // Series live as long as the process: their number is bounded by the label values.
    func destroyCounter(_ handler: any CounterHandler) {}
    func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}
    func destroyMeter(_ handler: any MeterHandler) {}
    func destroyRecorder(_ handler: any RecorderHandler) {}
    func destroyTimer(_ handler: any TimerHandler) {}

    private func series(_ label: String, _ dimensions: [(String, String)], _ kind: Kind) -> Series {
        let name = Self.name(label)
        let labels = Self.labels(dimensions)
        return state.withLock { state in
            var family = state.families[name] ?? Family(kind: kind)
            if let known = family.series[labels] { return known }
            // A second kind under one name would break the format: the first kind wins.
            let buckets = family.kind == .histogram ? state.buckets[name] ?? Self.defaultBuckets : []
            let series = Series(labels: labels, kind: family.kind, buckets: buckets)
            family.series[labels] = series
            state.families[name] = family
            return series
        }
    }

    private static func name(_ text: String) -> String {
        String(text.lowercased().map { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == ":") ? $0 : "_" })
    }

    private static func labels(_ dimensions: [(String, String)]) -> String {
        dimensions.map { key, value in
            var escaped = ""
            for character in value {
                switch character {
                case "\\": escaped += "\\\\"
                case "\"": escaped += "\\\""
                case "\n": escaped += "\\n"
                default: escaped.append(character)
                }
            }
            return "\(name(key))=\"\(escaped)\""
        }.joined(separator: ",")
    }
}

/// One series: a number, or the buckets of a histogram.
final class Series: CounterHandler, FloatingPointCounterHandler, MeterHandler, RecorderHandler, TimerHandler {
    private struct Values {
        var value = 0.0
        var count = 0
        var buckets: [Int]
    }

    private let labels: String
    private let kind: MetricsRegistry.Kind
    private let limits: [Double]
    private let values: Mutex<Values>

    init(labels: String, kind: MetricsRegistry.Kind, buckets: [Double]) {
        self.labels = labels
        self.kind = kind
        limits = buckets
        values = Mutex(Values(buckets: [Int](repeating: 0, count: buckets.count)))
    }

    func increment(by amount: Int64) { increment(by: Double(amount)) }
    func increment(by amount: Double) { values.withLock { $0.value += amount } }
    func decrement(by amount: Double) { values.withLock { $0.value -= amount } }
    func reset() { values.withLock { $0.value = 0 } }
    func set(_ value: Int64) { set(Double(value)) }
    func set(_ value: Double) { values.withLock { $0.value = value } }
    func record(_ value: Int64) { record(Double(value)) }
    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }

    func record(_ value: Double) {
        guard kind == .histogram else {
            set(value)
            return
        }
        values.withLock { values in
            values.value += value
            values.count += 1
            if let index = limits.firstIndex(where: { value <= $0 }) { values.buckets[index] += 1 }
        }
    }

    func print(_ name: String, into text: inout String) {
        let (value, count, buckets) = values.withLock { ($0.value, $0.count, $0.buckets) }
        let braces = labels.isEmpty ? "" : "{\(labels)}"
        guard kind == .histogram else {
            text += "\(name)\(braces) \(Self.number(value))\n"
            return
        }
        let prefix = labels.isEmpty ? "" : labels + ","
        var total = 0
        for (limit, own) in zip(limits, buckets) {
            total += own
            text += "\(name)_bucket{\(prefix)le=\"\(Self.number(limit))\"} \(total)\n"
        }
        text += "\(name)_bucket{\(prefix)le=\"+Inf\"} \(count)\n"
        text += "\(name)_sum\(braces) \(Self.number(value))\n\(name)_count\(braces) \(count)\n"
    }

    private static func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : "\(value)"
    }
}
