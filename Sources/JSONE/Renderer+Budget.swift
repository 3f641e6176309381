// SPDX-License-Identifier: MPL-2.0

import JSON

/// What keeps a template of a few lines from taking all memory or for ever.
///
/// A variable that stands twice in its own next value doubles with each turn of a loop; as long as both halves are one
/// value in memory nobody notices, and then somebody writes it down.
struct Budget {
    /// Steps, elements and every four bytes of text that one rendering may take.
    static let whole = 10_000_000
    /// Elements, and every eight bytes of text, of one value.
    private static let valueLimit = 4_000_000
    /// Deeper than anything that another service would read.
    private static let depthLimit = 1000

    private var left = whole

    @inline(__always)
    mutating func spend(_ amount: Int = 1) throws(JSONEError) {
        left -= amount
        guard left >= 0 else {
            throw JSONEError(.interpreter, "rendering takes too much: more than \(Self.whole) steps and elements")
        }
    }

    /// For a text that is made.
    mutating func spend(text: String) throws(JSONEError) {
        try spend(text.utf8.count >> 2)
    }

    /// For a value that is kept under a name or handed out; copies of it cost nothing, but whoever reads it pays for each.
    mutating func keep(_ value: JSONValue) throws(JSONEError) {
        try spend(Self.size(of: value) >> 4)
    }

    /// For a value that is gone through or copied, all of it.
    mutating func read(_ value: JSONValue) throws(JSONEError) {
        try spend(Self.size(of: value))
    }

    /// For a search that may compare each place of a text with all of another one.
    mutating func search(_ text: String, for part: String) throws(JSONEError) {
        try spend((text.utf8.count >> 4) * (1 + part.utf8.count >> 4))
    }

    /// For comparing a text, or looking for a member by it: where texts are alike, all of them is gone through.
    mutating func compare(_ text: String, times: Int = 1) throws(JSONEError) {
        try spend((text.utf8.count >> 4) * times)
    }

    /// For putting texts in order.
    mutating func sort(_ texts: [String]) throws(JSONEError) {
        let rounds = Int.bitWidth - texts.count.leadingZeroBitCount
        try spend(texts.reduce(0) { $0 + $1.utf8.count >> 4 } * rounds)
    }

    /// For members that are added to others: each is looked for by its name.
    mutating func add(_ members: JSONObject) throws(JSONEError) {
        var amount = members.count
        for (key, _) in members { amount += key.utf8.count >> 4 }
        try spend(amount)
    }

    /// For looking at the arguments of a function.
    mutating func look(at value: JSONValue) throws(JSONEError) {
        switch value {
        case .string(let text): try spend(text.utf8.count >> 4)
        case .array(let elements): try spend(elements.count >> 2)
        default: break
        }
    }

    private static func size(of value: JSONValue) throws(JSONEError) -> Int {
        var size = 0
        try measure(value, 0, &size)
        return size
    }

    private static func measure(_ value: JSONValue, _ depth: Int, _ size: inout Int) throws(JSONEError) {
        size += 1
        switch value {
        case .string(let text):
            size += text.utf8.count >> 3
        case .array(let elements):
            try check(depth, size + elements.count)
            for element in elements { try measure(element, depth + 1, &size) }
        case .object(let members):
            try check(depth, size + members.count)
            for (key, member) in members {
                size += key.utf8.count >> 3
                try measure(member, depth + 1, &size)
            }
        default:
            break
        }
        try check(depth, size)
    }

    @inline(__always)
    private static func check(_ depth: Int, _ size: Int) throws(JSONEError) {
        guard size <= valueLimit else { throw JSONEError(.interpreter, "a value is too large") }
        guard depth < depthLimit else { throw JSONEError(.interpreter, "a value is nested too deeply") }
    }
}
