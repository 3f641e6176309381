// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import Schedules
import Testing

/// Templates of a few lines that would take all memory, the whole stack, or for ever.
@Suite(.timeLimit(.minutes(3)))
struct BudgetTests {
    private func render(_ template: String, _ context: JSONObject = [:]) throws -> JSONValue {
        try JSONE.render(JSONValue(parsing: template), context: context, now: Timestamp(milliseconds: 0))
    }

    /// A list of one long text, of which few copies are a large value.
    private let seed = #"["\#(String(repeating: "a", count: 65_536))"]"#

    /// A loop that gives a value its next form again and again.
    private func repeated(_ times: Int, from initial: String, _ body: String) -> String {
        #"{"$reduce": {"$eval": "range(0, \#(times))"}, "initial": \#(initial), "each(acc,x)": \#(body)}"#
    }

    @Test func `a text that doubles with each turn is refused before it is large`() throws {
        for body in [#""${acc}${acc}""#, #"{"$eval": "acc + acc"}"#, #"{"$eval": "join([acc, acc], ',')"}"#] {
            let error = #expect(throws: JSONEError.self) { try render(repeated(60, from: #""aaaaaaaa""#, body)) }
            #expect(error?.kind == .interpreter)
        }
    }

    @Test func `a list or an object that doubles with each turn is refused though its halves are one`() throws {
        let bodies = [
            #"[{"$eval": "acc"}, {"$eval": "acc"}]"#, #"{"$eval": "{a: acc, b: acc}"}"#,
            #"{"$mergeDeep": [{"a": {"$eval": "[acc, acc]"}}, {"a": {"$eval": "[acc]"}}]}"#,
        ]
        for body in bodies {
            #expect(throws: JSONEError.self, "\(body)") { try render(repeated(64, from: seed, body)) }
        }
    }

    @Test func `names within names cannot double either`() throws {
        var template = #"{"$json": {"$eval": "a"}}"#
        for _ in 0..<60 { template = #"{"$let": {"a": {"$eval": "[a, a]"}}, "in": \#(template)}"# }
        #expect(throws: JSONEError.self) { try render(template, ["a": .string(seed)]) }
    }

    @Test func `what is nested ever more deeply is refused while it can still be taken down`() throws {
        for body in [#"[{"$eval": "acc"}]"#, #"{"$eval": "{a: acc}"}"#] {
            let error = #expect(throws: JSONEError.self) { try render(repeated(100_000, from: "[]", body)) }
            #expect(error?.message == "a value is nested too deeply")
        }
    }

    @Test func `reading a value that is small in memory and large on paper is refused as well`() throws {
        let big = repeated(7, from: seed, #"[{"$eval": "acc"}, {"$eval": "acc"}]"#)
        let many = Array(repeating: "a", count: 200).joined(separator: ", ")
        let readers = ["join([\(many)], '')", "[\(many)] == [\(many)]", "a in [\(many)]", "[\(many)]"]
        for reader in readers {
            let template = #"{"$let": {"a": \#(big)}, "in": {"$eval": "\#(reader)"}}"#
            #expect(throws: JSONEError.self, "\(reader.prefix(30))") { try render(template) }
        }
        for operation in ["$json", "$flattenDeep"] {
            let template = #"{"$let": {"a": \#(big)}, "in": {"\#(operation)": {"$eval": "[\#(many)]"}}}"#
            #expect(throws: JSONEError.self, "\(operation)") { try render(template) }
        }
    }

    @Test func `loops within loops end`() throws {
        let inner = #"{"$map": {"$eval": "range(0, 1000)"}, "each(y)": {"$if": "false", "then": 1}}"#
        let middle = #"{"$map": {"$eval": "range(0, 1000)"}, "each(x)": \#(inner)}"#
        let error = #expect(throws: JSONEError.self) {
            try render(#"{"$map": {"$eval": "range(0, 1000)"}, "each(w)": \#(middle)}"#)
        }
        #expect(error?.message.hasPrefix("rendering takes too much") == true)
    }

    @Test func `searching a long text for another one ends`() throws {
        let context: JSONObject = [
            "text": .string(String(repeating: "a", count: 2_000_000)),
            "part": .string(String(repeating: "a", count: 1_000_000) + "b"),
        ]
        for expression in ["part in text", "split(text, part)"] {
            #expect(throws: JSONEError.self) { try render(#"{"$eval": "\#(expression)"}"#, context) }
        }
        #expect(try render(#"{"$eval": "'b' in part"}"#, context) == true)
    }

    @Test func `comparing long texts a thousand times ends`() throws {
        let text = String(repeating: "a", count: 1_000_000)
        let context: JSONObject = [
            "a": .string(text + "b"), "b": .string(text + "b"), "named": .object(["a" + text: 1]),
            "absent": .string(String(repeating: "c", count: 1200)),
        ]
        let expressions = [
            #"{"$eval": "a == b"}"#, #"{"$eval": "a < b"}"#, #"{"$eval": "a in ['c', b]"}"#,
            #"{"$eval": "a in named"}"#, #"{"$eval": "named[a]"}"#, #"{"$merge": [{}, {"$eval": "named"}]}"#,
            #"{"$sort": {"$eval": "[a, b]"}}"#,
        ]
        for expression in expressions {
            // Most of what a template may take is used up by then, so that the test takes less.
            let template = #"""
                {"$let": {"used": {"$eval": "[absent in a, absent in b]"}},
                "in": {"$map": {"$eval": "range(0, 5000)"}, "each(x)": \#(expression)}}
                """#
            let error = #expect(throws: JSONEError.self, "\(expression)") { try render(template, context) }
            #expect(error?.message.hasPrefix("rendering takes too much") == true, "\(expression)")
            _ = try render(expression, context)
        }
    }

    @Test func `what is large and makes sense is rendered`() throws {
        let numbers = try render(#"{"$map": {"$eval": "range(0, 50000)"}, "each(x)": {"$eval": "x * 2"}}"#)
        #expect(numbers.array?.count == 50_000)
        let sum = try render(repeated(30_000, from: "0", #"{"$eval": "acc + x"}"#))
        #expect(sum == 449_985_000)
        let text = String(repeating: "long text ", count: 50_000)
        let copied = try render(#"{"a": "${text}", "b": {"$eval": "text"}, "c": "${text}!"}"#, ["text": .string(text)])
        #expect(copied["c"]?.string?.utf8.count == 500_001)
        let words = try render(#"{"$eval": "split(text, ' ')"}"#, ["text": .string(String(text.prefix(100_000)))])
        #expect(words.array?.count == 20_001)
        let growing = try render(repeated(300, from: "[]", #"{"$flatten": [{"$eval": "acc"}, [{"$eval": "x"}]]}"#))
        #expect(growing.array?.count == 300)
    }
}
