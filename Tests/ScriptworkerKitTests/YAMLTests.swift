// SPDX-License-Identifier: MPL-2.0

import JSON
import Testing

@testable import YAMLReader

struct YAMLTests {
    @Test(
        arguments: [
            ("yes", true), ("off", false), ("~", nil), ("", nil), ("12", 12), ("-7", -7), ("0x1f", 31), ("010", 8),
            ("0b101", 5), ("1_000", 1000), ("1:30", 90), ("1.5", 1.5), ("1e3", "1e3"), ("1.0e+3", 1000), (".5", 0.5),
            ("2024-02-10", "2024-02-10"), ("2024-02-10T10:00:00Z", "2024-02-10T10:00:00Z"), ("a b", "a b"),
            ("0.1.2", "0.1.2"), ("+", "+"), (".", "."),
        ] as [(String, JSONValue)]
    )
    func `a plain text means what other YAML 1.1 loaders say`(_ text: String, _ expected: JSONValue) {
        #expect(YAMLScalar.value(of: text) == expected)
    }

    @Test func `anchors, merges, quotes, blocks and lists are read`() throws {
        let text = """
            base: &base {a: 1, b: [x, "yes", 'no']}
            copy:
              <<: *base
              a: 2
            text: |
              one
              two
            tagged: !!str 12
            """
        let expected: JSONValue = [
            "base": ["a": 1, "b": ["x", "yes", "no"]], "copy": ["a": 2, "b": ["x", "yes", "no"]],
            "text": "one\ntwo\n", "tagged": "12",
        ]
        #expect(try YAML.value(of: text) == expected)
        #expect(try YAML.value(of: "") == .null)
    }

    @Test(arguments: ["a: [", "a: *nothing", "a: !ruby/object x", "--- 1\n--- 2\n", "? [a]\n: 1"])
    func `what no safe loader takes is an error`(_ text: String) {
        #expect(throws: YAML.Problem.self) { try YAML.value(of: text) }
    }

    @Test func `a document that multiplies itself is refused`() {
        var text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        for level in 1...8 {
            let item = "*a\(level - 1)"
            text += "a\(level): &a\(level) [\(Array(repeating: item, count: 10).joined(separator: ","))]\n"
        }
        #expect(throws: YAML.Problem.self) { try YAML.value(of: text) }
    }
}
