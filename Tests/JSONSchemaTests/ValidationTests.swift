// SPDX-License-Identifier: MPL-2.0

import JSON
import Testing

@testable import JSONSchema

struct ValidationTests {
    private static func problems(_ schema: String, _ value: String) throws -> [String] {
        try JSONSchema(JSONValue(parsing: schema)).validate(JSONValue(parsing: value)).map { $0.described() }
    }

    @Test(arguments: [
        (#"{"type":"object"}"#, "[]", ["data must be object"]),
        (#"{"type":["string","null"]}"#, "1", ["data must be string,null"]),
        (#"{"type":"integer"}"#, "1.0", []),
        (#"{"type":"integer"}"#, "1.5", ["data must be integer"]),
        (
            #"{"required":["x","y"]}"#, "{}",
            ["data must have required property 'x'", "data must have required property 'y'"]
        ),
        (
            #"{"properties":{"a":{}},"additionalProperties":false}"#, #"{"a":1,"b":2}"#,
            ["data must NOT have additional properties"]
        ),
        (#"{"additionalProperties":{"type":"string"}}"#, #"{"a/b":1}"#, ["data/a~1b must be string"]),
        (
            #"{"patternProperties":{"^x":{"type":"null"}},"additionalProperties":false}"#, #"{"x1":null,"y":1}"#,
            ["data must NOT have additional properties"]
        ),
        (#"{"items":{"type":"string"}}"#, #"["a",1,{}]"#, ["data/1 must be string", "data/2 must be string"]),
        (
            #"{"items":[{"type":"string"}],"additionalItems":false}"#, #"["a",1]"#,
            ["data must NOT have more than 1 items"]
        ),
        (#"{"minItems":2,"maxItems":1}"#, "[1]", ["data must NOT have fewer than 2 items"]),
        (#"{"maxItems":1}"#, "[1,2]", ["data must NOT have more than 1 items"]),
        (
            #"{"uniqueItems":true}"#, "[1,2,1.0]",
            ["data must NOT have duplicate items (items ## 0 and 2 are identical)"]
        ),
        (#"{"minLength":2}"#, #""😀""#, ["data must NOT have fewer than 2 characters"]),
        (#"{"maxLength":1}"#, #""😀""#, []),
        (#"{"maxLength":1}"#, #""ab""#, ["data must NOT have more than 1 characters"]),
        (#"{"minimum":1,"maximum":3}"#, "0", ["data must be >= 1"]),
        (#"{"exclusiveMinimum":1}"#, "1", ["data must be > 1"]),
        (#"{"minimum":1,"exclusiveMinimum":true}"#, "1", ["data must be > 1"]),
        (#"{"exclusiveMaximum":1}"#, "1", ["data must be < 1"]),
        (#"{"maximum":1}"#, "2", ["data must be <= 1"]),
        (#"{"multipleOf":2}"#, "3", ["data must be multiple of 2"]),
        (#"{"pattern":"^a+$"}"#, #""b""#, [#"data must match pattern "^a+$""#]),
        (#"{"format":"date-time"}"#, #""today""#, [#"data must match format "date-time""#]),
        (#"{"enum":["a",1]}"#, #""b""#, ["data must be equal to one of the allowed values"]),
        (#"{"const":{"a":1}}"#, #"{"a":1.0}"#, []),
        (#"{"const":1}"#, "2", ["data must be equal to constant"]),
        (#"{"not":{"type":"null"}}"#, "null", ["data must NOT be valid"]),
        (
            #"{"anyOf":[{"type":"null"},{"type":"string"}]}"#, "1",
            ["data must be null", "data must be string", "data must match a schema in anyOf"]
        ),
        (#"{"oneOf":[{"type":"number"},{"type":"integer"}]}"#, "1", ["data must match exactly one schema in oneOf"]),
        (#"{"allOf":[{"type":"number"},{"minimum":5}]}"#, "1", ["data must be >= 5"]),
        (#"{"contains":{"const":1}}"#, "[2]", ["data must contain at least 1 valid item(s)"]),
        (#"{"minProperties":1}"#, "{}", ["data must NOT have fewer than 1 properties"]),
        (#"{"maxProperties":0}"#, #"{"a":1}"#, ["data must NOT have more than 0 properties"]),
        (#"{"dependencies":{"a":["b"]}}"#, #"{"a":1}"#, ["data must have property b when property a is present"]),
        (
            #"{"propertyNames":{"maxLength":1}}"#, #"{"ab":1}"#,
            ["data must NOT have more than 1 characters", "data property name must be valid"]
        ),
        (
            #"{"if":{"type":"string"},"then":{"minLength":1},"else":{"type":"null"}}"#, "1",
            ["data must be null", #"data must match "else" schema"#]
        ),
        (#"{"properties":{"a":false}}"#, #"{"a":1}"#, ["data/a boolean schema is false"]),
        (
            ##"{"definitions":{"x":{"type":"string"}},"items":{"$ref":"#/definitions/x"}}"##, "[1]",
            ["data/0 must be string"]
        ),
        (
            ##"{"properties":{"n":{"$ref":"#"}},"additionalProperties":false}"##, #"{"n":{"n":{"m":1}}}"#,
            ["data/n/n must NOT have additional properties"]
        ),
        (##"{"$ref":"#"}"##, "1", ["data must not be nested this deeply"]),
    ])
    func `violations are told in the words of the original validator`(
        _ schema: String,
        _ value: String,
        _ expected: [String]
    ) throws {
        #expect(try Self.problems(schema, value) == expected)
    }

    @Test func `H12: a binding without a pattern is named`() throws {
        let schema = #"""
            {"type":"array","uniqueItems":true,"items":{"type":"object","required":["exchange","routingKeyPattern"],
            "properties":{"exchange":{"type":"string","minLength":1},"routingKeyPattern":{"type":"string","minLength":1}},
            "additionalProperties":false}}
            """#
        #expect(
            try Self.problems(schema, #"[{"exchange":""}]"#) == [
                "data/0 must have required property 'routingKeyPattern'",
                "data/0/exchange must NOT have fewer than 1 characters",
            ]
        )
        #expect(try Self.problems(schema, "{}") == ["data must be array"])
    }

    @Test(arguments: [
        (
            #"{"properties":{"a":{"default":1},"b":{"properties":{"c":{"default":[]}}}}}"#, #"{"b":{}}"#,
            #"{"b":{"c":[]},"a":1}"#
        ),
        (#"{"properties":{"a":{"default":{},"properties":{"b":{"default":2}}}}}"#, "{}", #"{"a":{"b":2}}"#),
        (#"{"properties":{"a":{"default":1}}}"#, #"{"a":null}"#, #"{"a":null}"#),
        (#"{"items":{"properties":{"a":{"default":1}}}}"#, "[{},{\"a\":2}]", #"[{"a":1},{"a":2}]"#),
        (#"{"items":[{"default":1},{"default":2}]}"#, "[0]", "[0,2]"),
        (#"{"anyOf":[{"properties":{"a":{"default":1}}}]}"#, "{}", "{}"),
        (#"{"allOf":[{"properties":{"a":{"default":1}}}]}"#, "{}", #"{"a":1}"#),
        (##"{"definitions":{"d":{"properties":{"a":{"default":1}}}},"$ref":"#/definitions/d"}"##, "{}", #"{"a":1}"#),
        (#"{"additionalProperties":{"properties":{"a":{"default":1}}}}"#, #"{"x":{}}"#, #"{"x":{"a":1}}"#),
    ])
    func `defaults are filled in`(_ schema: String, _ value: String, _ expected: String) throws {
        let schema = try JSONSchema(JSONValue(parsing: schema))
        #expect(
            try schema.applyingDefaults(JSONValue(parsing: value)).text(.sorted)
                == JSONValue(parsing: expected).text(.sorted)
        )
    }

    @Test func `H17: a schema is checked against its own draft`() throws {
        func messages(_ schema: JSONValue) -> [String] { JSONSchema.problems(inSchema: schema).map { $0.described() } }
        #expect(messages(["type": "object", "additionalProperties": false]).isEmpty)
        #expect(messages(["type": "banana"]).first == "data/type must be equal to one of the allowed values")
        #expect(messages(["$schema": "http://nowhere/x#"]).count == 1)
        #expect(
            messages(["$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": true])
                .isEmpty
        )
        #expect(messages(["$schema": "http://json-schema.org/draft-04/schema#", "required": []]).count == 1)
        #expect(messages(["$schema": "http://json-schema.org/draft-06/schema", "exclusiveMinimum": 1]).isEmpty)
        #expect(messages(["properties": ["a": ["minLength": -1]]]).first == "data/properties/a/minLength must be >= 0")
        #expect(messages(["$ref": "#/definitions/missing"]).count == 1)
        #expect(messages(["pattern": "("]).count == 1)
        #expect(messages(["x-own": 1, "format": "banana"]).isEmpty)
        #expect(messages(1) == ["data must be object,boolean"])
    }

    @Test func `references reach other documents`() throws {
        let other: JSONValue = [
            "$id": "/schemas/q/v1/b.json#", "definitions": ["n": ["type": "null"]], "type": "string",
        ]
        let schema: JSONValue = [
            "$id": "/schemas/q/v1/a.json#",
            "properties": [
                "x": ["$ref": "b.json#"], "y": ["$ref": "b.json#/definitions/n"], "z": ["$ref": "../v1/b.json"],
            ],
        ]
        let compiled = try JSONSchema(schema, resolving: { $0 == "/schemas/q/v1/b.json" ? other : nil })
        #expect(
            compiled.validate(["x": 1, "y": 1, "z": 1]).map { $0.described() } == [
                "data/x must be string", "data/y must be null", "data/z must be string",
            ]
        )
        #expect(throws: JSONSchemaError.self) { try JSONSchema(schema) }
    }

    @Test func `an unknown keyword stops the start unless users wrote it`() throws {
        #expect(throws: JSONSchemaError.self) { try JSONSchema(["typ": "object"]) }
        #expect(try JSONSchema(["typ": "object"], unknownKeywords: .ignore).validate(1).isEmpty)
        #expect(throws: JSONSchemaError.self) { try JSONSchema(["format": "banana"]) }
    }
}

struct FormatTests {
    @Test(arguments: [
        (
            Format.dateTime, ["2024-02-29T12:00:00Z", "2024-02-10 12:00:00.123+01:00"],
            ["2023-02-29T12:00:00Z", "2024-02-10T12:00:00", "x"]
        ),
        (.email, ["a@b.org", "a.b+c@d-e.example.com"], ["a", "a@b", "@b.org", "a b@c.org", "a@b@c.org", ".a@b.org"]),
        (.uri, ["https://a/b?c#d", "mailto:x", "urn:a:b"], ["a/b", "//a", "http://a b", "http://a/%zz", ":"]),
        (.hostname, ["a", "a-b.example.org"], ["-a", "a_b", "a..b", ""]),
        (.ipv4, ["0.0.0.0", "255.1.2.3"], ["256.1.1.1", "1.2.3", "01.2.3.4"]),
        (.ipv6, ["::", "::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4"], ["1:2:3", ":::", "1::2::3", "g::"]),
        (.regex, ["^a$"], ["("]),
        (.uuid, ["8f3e6b1c-2d4a-5968-7786-95a4b3c2d1e0"], ["8f3e"]),
    ])
    func `formats accept and refuse`(_ format: Format, _ good: [String], _ bad: [String]) {
        for text in good { #expect(format.accepts(text), "\(format) \(text)") }
        for text in bad { #expect(!format.accepts(text), "\(format) \(text)") }
    }
}

struct PatternTests {
    @Test(arguments: [
        ("^[a-zA-Z0-9-_]{1,38}$", ["a-b_C9"], ["", "a.b", "ä", String(repeating: "a", count: 39)]),
        (
            "^[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$", ["KsBe7cQ9QzS8o2Kq0bQ1Xw"],
            ["KsBe7cQ9"]
        ),
        ("a|b", ["xa", "b"], ["c"]),
        ("^\\d+(\\.\\d{2,3})?$", ["1", "1.25", "1.255"], ["1.2", "1.2555", "x", "२"]),
        ("^[^/]+\\/.+$", ["a/b"], ["/b", "a/"]),
        ("^[\\x20-\\x7e]*$", ["a ~", ""], ["é", "\n", "a\n"]),
        ("^\\u00e9.$", ["éx", "é😀"], ["ex", "é\n", "é\u{2028}"]),
        ("^(?=.*[0-9])(?!0)", ["a1"], ["a", "01"]),
        ("", ["", "a"], []),
        ("^([^:]*:){2,}", ["a:b:"], ["a:b"]),
    ])
    func `patterns match as in ECMAScript`(_ pattern: String, _ good: [String], _ bad: [String]) throws {
        let schema = try JSONSchema(["pattern": .string(pattern)])
        for text in good { #expect(schema.validate(.string(text)) == [], "\(pattern) \(text)") }
        for text in bad {
            let problem = JSONSchemaProblem(path: "", message: "must match pattern \"\(pattern)\"")
            #expect(schema.validate(.string(text)) == [problem], "\(pattern) \(text)")
        }
    }

    @Test(arguments: [
        "(", ")", "a**", "a++", "[b-a]", "(?<=a+)b", "\\1", "\\p{X}", "a{3,2}", "[a", "*", "(?i)a", "(?>a)", "(*FAIL)",
        "\\A", "\\R",
    ])
    func `broken patterns are refused`(_ pattern: String) throws {
        #expect(throws: JSONSchemaError.self) { try JSONSchema(["pattern": .string(pattern)]) }
        #expect(throws: JSONSchemaError.self) { try JSONSchema(["patternProperties": [pattern: true]]) }
        #expect(try JSONSchema(["format": "regex"]).validate(.string(pattern)).count == 1)
    }

    private static let endless = "^(a+)+$"
    private static let text = String(repeating: "a", count: 40) + "b"
    private static let undecided = "must match pattern \"^(a+)+$\", which takes too long to tell"

    /// Schemas that would find a value valid if a pattern that is given up counted as one that does not match, or as one that does.
    @Test(
        arguments: [
            ["pattern": .string(endless)], ["not": ["pattern": .string(endless)]],
            ["anyOf": [["pattern": .string(endless)], true]], ["oneOf": [true, ["pattern": .string(endless)]]],
            ["if": ["pattern": .string(endless)], "then": false],
            ["if": ["pattern": .string(endless)], "then": true, "else": true],
            ["allOf": [["not": ["pattern": .string(endless)]]]],
        ] as [JSONValue]
    )
    func `a value that a pattern takes too long for is not valid`(_ schema: JSONValue) throws {
        let problems = try JSONSchema(schema).validate(.string(Self.text))
        #expect(problems.contains(JSONSchemaProblem(path: "", message: Self.undecided)))
    }

    @Test(
        arguments: [
            ["patternProperties": [endless: true]], ["patternProperties": [endless: false]],
            ["patternProperties": [endless: true], "additionalProperties": false],
            ["propertyNames": ["not": ["pattern": .string(endless)]]],
        ] as [JSONValue]
    )
    func `names that a pattern takes too long for are not valid`(_ schema: JSONValue) throws {
        let problems = try JSONSchema(schema).validate([Self.text: 1])
        #expect(problems.contains { $0.message == Self.undecided })
        let value = try JSONSchema(["patternProperties": [Self.endless: ["properties": ["x": ["default": 1]]]]])
            .applyingDefaults([Self.text: [:]])
        #expect(value == [Self.text: [:]])
    }

    @Test func `many texts that a pattern takes long for are given up, each with its place`() throws {
        let schema = try JSONSchema(["items": ["pattern": .string(Self.endless)]])
        let problems = schema.validate(.array((0..<3000).map { _ in .string(Self.text) }))
        let places = Set(problems.filter { $0.message == Self.undecided }.map(\.path))
        #expect(places.count == 3000)
        #expect(schema.validate(["aaa", .string(String(repeating: "a", count: 5000))]) == [])
        // What needs few steps is decided even then.
        let hostile = (0..<3000).map { _ in JSONValue.string(Self.text) }
        let mixed = try JSONSchema([
            "items": ["anyOf": [["pattern": "^x-[0-9]+$"], ["pattern": .string(Self.endless)]]]
        ])
        #expect(!mixed.validate(.array(hostile + ["x-17"])).contains { $0.path == "/3000" })
    }
}
