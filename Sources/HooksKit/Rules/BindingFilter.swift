// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import Schedules

/// A binding with its filter read.
struct BindingRule: Sendable {
    let exchange: String
    let routingKeyPattern: String
    let filter: JSONETemplate?

    init(_ binding: HookBinding) throws(JSONEError) {
        exchange = binding.exchange
        routingKeyPattern = binding.routingKeyPattern
        filter = if let text = binding.filter { try Self.compile(text) } else { nil }
    }

    /// Whether the broker put a message into the queue because of this binding.
    func matches(exchange: String, keys: [String]) -> Bool {
        self.exchange == exchange && keys.contains { TopicPattern.matches(routingKeyPattern, $0) }
    }

    private static func compile(_ filter: String) throws(JSONEError) -> JSONETemplate {
        try JSONETemplate(["$eval": JSONValue(filter)])
    }

    /// What is wrong with a filter as a text, or nil if it can be read.
    static func problem(inFilter filter: String) -> String? {
        do {
            _ = try compile(filter).render([:], now: Timestamp(milliseconds: 0))
            return nil
        } catch {
            // Every other complaint is about the message that is not there.
            return error.kind == .syntax ? error.description : nil
        }
    }
}

/// What the filters of a hook say to a message.
enum FilterVerdict: Sendable, Equatable {
    case passes
    case declined(String)
    /// A filter could not be evaluated, and no other one let the message pass.
    case failed(String)

    /// Asks the filters of the bindings that a message matches; one that lets it pass suffices.
    ///
    /// A message that matches none came by a way that is not visible here, through exchanges bound to each other for
    /// instance; then all bindings are asked.
    static func of(_ rules: [BindingRule], exchange: String, keys: [String], names: JSONObject, now: Timestamp)
        -> FilterVerdict
    {
        guard rules.contains(where: { $0.filter != nil }) else { return .passes }
        let matching = rules.filter { $0.matches(exchange: exchange, keys: keys) }
        var failure: String?
        for rule in matching.isEmpty ? rules : matching {
            guard let filter = rule.filter else { return .passes }
            do {
                if isTruthy(try filter.render(names, now: now)) { return .passes }
            } catch {
                failure = failure ?? "filter of \(rule.exchange) \(rule.routingKeyPattern): \(error)"
            }
        }
        if let failure { return .failed(failure) }
        return .declined("no filter lets it pass")
    }

    /// Truth as JSON-e sees it: empty lists and objects are false.
    private static func isTruthy(_ value: JSONValue) -> Bool {
        switch value {
        case .null: false
        case .bool(let bool): bool
        case .number(let number): number.double != 0 && !number.double.isNaN
        case .string(let text): !text.isEmpty
        case .array(let array): !array.isEmpty
        case .object(let object): !object.isEmpty
        }
    }
}

/// Topic patterns as the broker reads them.
enum TopicPattern {
    /// Whether a routing key matches a pattern of words, `*` for one word and `#` for any number.
    static func matches(_ pattern: String, _ key: String) -> Bool {
        let pattern = pattern.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map(Array.init)
        let key =
            key.isEmpty
            ? [] : key.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map(Array.init)
        let words = pattern == [[]] ? [] : pattern
        // Which prefixes of the key the pattern so far can cover.
        var covered = [true] + [Bool](repeating: false, count: key.count)
        for word in words {
            var next = [Bool](repeating: false, count: key.count + 1)
            if word == [UInt8(ascii: "#")] {
                var isCovered = false
                for index in 0...key.count {
                    isCovered = isCovered || covered[index]
                    next[index] = isCovered
                }
            } else {
                for index in 0..<key.count where covered[index] {
                    next[index + 1] = word == [UInt8(ascii: "*")] || word == key[index]
                }
            }
            covered = next
        }
        return covered[key.count]
    }
}
