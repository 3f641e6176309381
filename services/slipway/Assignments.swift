// SPDX-License-Identifier: MPL-2.0

import JSON

/// What `NAME=VALUE` words say of something in the inventory.
enum Assignments {
    private static let numbers: Set<String> = [
        "boot_seconds_hint", "port", "priority", "max_concurrency", "min_interval_ms",
    ]
    private static let lists: Set<String> = ["groups", "aliases"]
    private static let documents: Set<String> = ["workers", "controls", "properties", "options"]

    /// The members as the API wants them: `-` clears, lists have commas, and `properties.x` or `options.x` sets one member.
    static func members(_ words: [String]) throws -> JSONValue {
        var members: JSONObject = [:]
        for word in words {
            guard let equals = word.firstIndex(of: "="), equals != word.startIndex else {
                throw Failure(usage: "\(word) is not of the form NAME=VALUE")
            }
            let name = String(word[..<equals])
            let text = String(word[word.index(after: equals)...])
            if let dot = name.firstIndex(of: "."), documents.contains(String(name[..<dot])) {
                let whole = String(name[..<dot])
                var inner = members[whole]?.object ?? [:]
                inner[String(name[name.index(after: dot)...])] = text == "-" ? .null : value(text)
                members[whole] = .object(inner)
            } else {
                members[name] = text == "-" ? .null : try member(name, text)
            }
        }
        return .object(members)
    }

    private static func member(_ name: String, _ text: String) throws -> JSONValue {
        if lists.contains(name) { return JSONValue(text.split(separator: ",").map(String.init)) }
        if numbers.contains(name) {
            guard let number = Int(text) else { throw Failure(usage: "\(name) must be a whole number") }
            return JSONValue(number)
        }
        guard documents.contains(name) else { return .string(text) }
        do { return try JSONValue(parsing: text) } catch { throw Failure(usage: "\(name) must be JSON: \(error)") }
    }

    /// JSON where it is some, else the text itself.
    private static func value(_ text: String) -> JSONValue { (try? JSONValue(parsing: text)) ?? .string(text) }
}
