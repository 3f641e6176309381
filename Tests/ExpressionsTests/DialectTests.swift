// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON
import Testing

/// Both dialects against what Python and node themselves said, see facts.py.
struct DialectTests {
    private struct Fact {
        let expression: String
        /// What was found in which text; nil for what is no expression.
        let rows: JSONObject?
    }

    private static func facts(_ table: String) throws -> [Fact] {
        try #require(try JSONValue(parsing: table).array).map { fact in
            Fact(expression: try #require(fact[0]?.string), rows: fact[1]?.object)
        }
    }

    private static func texts() throws -> [String] {
        try #require(try JSONValue(parsing: Facts.texts).array?.compactMap(\.string))
    }

    private static func groups(_ value: JSONValue?) -> [String?]? { value?.array.map { $0.map(\.string) } }

    /// Compiles an expression that the language knows; nil where both refuse it.
    private static func compiled(
        _ fact: Fact,
        _ dialect: RegularExpression.Dialect,
        onlyOurs: Set<String>,
        onlyTheirs: Set<String>
    ) throws -> RegularExpression? {
        do throws(RegularExpression.Problem) {
            let expression = try RegularExpression(fact.expression, as: dialect)
            #expect((fact.rows == nil) == onlyOurs.contains(fact.expression), "\(fact.expression) is taken")
            return fact.rows == nil ? nil : expression
        } catch {
            #expect((fact.rows != nil) == onlyTheirs.contains(fact.expression), "\(error)")
            return nil
        }
    }

    @Test func `Python's expressions find what they find there`() throws {
        let texts = try Self.texts()
        for fact in try Self.facts(Facts.python) {
            let onlyOurs: Set = [#"(?<n>a)\k<n>"#]
            let onlyTheirs: Set = ["(?x) a", #"(?a)\w"#, #"\ud83d"#, #"\ud83d\ude00"#]
            guard
                let expression = try Self.compiled(fact, .python, onlyOurs: onlyOurs, onlyTheirs: onlyTheirs)
            else { continue }
            for (index, text) in texts.enumerated() {
                // Ours is the very end; another test looks at that.
                if text.hasSuffix("\n"), fact.expression.contains("$") { continue }
                let place = "\(fact.expression) in \(index)"
                let row = fact.rows?["\(index)"]
                let match = try expression.firstMatch(in: text)
                #expect(match?.groups == Self.groups(row?[0]), "\(place)")
                #expect((match?.named).map { JSONObject($0) } == row?[1]?.object, "\(place)")
                #expect(try expression.matches(text) == (row != nil), "\(place)")
                #expect(try expression.matches(text, at: .start) == (row?[2]?.bool ?? false), "\(place)")
                #expect(try expression.matches(text, at: .whole) == (row?[3]?.bool ?? false), "\(place)")
            }
        }
    }

    @Test func `ECMAScript's expressions find what they find there`() throws {
        let texts = try Self.texts()
        // Escapes and braces that stand for themselves; nothing is taken for something else.
        let onlyOurs: Set = [
            "a{,2}b", "a{x}", "}", "]", "[]a]", "[^]a]", "[[:alpha:]]+", #"\-"#, #"\@"#, #"\p{Greek}"#,
        ]
        // A group keeps what it took in an earlier turn; only a back-reference could tell.
        let keepsGroups: Set = ["(a*)*", "((a)|b)+"]
        for fact in try Self.facts(Facts.ecmaScript) {
            guard let expression = try Self.compiled(fact, .ecmaScript, onlyOurs: onlyOurs, onlyTheirs: [#"\ud83d"#])
            else { continue }
            for (index, text) in texts.enumerated() {
                let match = try expression.firstMatch(in: text)
                let row = Self.groups(fact.rows?["\(index)"])
                // The one difference that is documented.
                if fact.expression == #"[\S]"#, text.hasPrefix("\u{a0}") || text == "\u{2028}" { continue }
                #expect(match?.groups.first == row?.first, "\(fact.expression) in \(index)")
                if keepsGroups.contains(fact.expression) { continue }
                #expect(match?.groups == row, "\(fact.expression) in \(index)")
            }
        }
    }
}

extension JSONObject {
    fileprivate init(_ members: [String: String]) {
        self.init()
        for (name, value) in members { self[name] = .string(value) }
    }
}
