// SPDX-License-Identifier: MPL-2.0

import JSON
import Testing

struct DocumentTests {
    @Test(arguments: [
        #"{"b":1,"a":[true,false,null,"x"],"":{}}"#, "[]", "{}", #""\"\\\b\f\n\r\t\u0001/é""#, "1.0", "1e5", "-0", "0",
        "9007199254740993", "-12.50", "1E+2", "123456789012345678901234567890", "1e400", "0.1", "[[[]]]", "5e-324",
        "-9223372036854775808", "9223372036854775807", "-9.223372036854775807e18",
    ])
    func `a compact document is printed as it was read`(_ text: String) throws {
        #expect(try JSONValue(parsing: text).text() == text)
    }

    @Test(arguments: [
        "", " ", "{", "[1,]", "{\"a\":1,}", "01", "1.", ".5", "+1", "-", "1e", "tru", "nul", "'a'", "\"\u{1}\"", "\"a",
        #""\x""#, #""\u12g4""#, "[1 2]", "{\"a\" 1}", "{a:1}", "1 1", "\u{FEFF}1", "NaN", "[1]]", "\"\\", "{\"a\":",
    ])
    func `anything but strict JSON is refused`(_ text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
    }

    @Test func `malformed UTF-8 is refused`() {
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xFF, 0x22]) }
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0x5C, 0x6E, 0xED, 0xA0, 0x80, 0x22]) }
    }

    @Test func `errors name the place`() {
        #expect {
            try JSONValue(parsing: "{\n  \"a\": ?}")
        } throws: { error in
            "\(error)" == "unexpected character, a value was expected at line 2, column 8"
        }
    }

    @Test func `512 levels are the limit`() throws {
        let deep = String(repeating: "[", count: 512) + String(repeating: "]", count: 512)
        #expect(try JSONValue(parsing: deep).text() == deep)
        #expect(throws: JSONError.self) { try JSONValue(parsing: "[\(deep)]") }
    }

    @Test(arguments: [
        (#""\ud83d\ude00""#, "😀"), (#""\ud83d""#, "\u{FFFD}"), (#""\ude00x""#, "\u{FFFD}x"),
        (#""\ud83dA""#, "\u{FFFD}A"),
        (#""\/\u00e9""#, "/é"), (#""\ud83d\u0041""#, "\u{FFFD}A"),
    ])
    func `escapes become characters`(_ text: String, _ expected: String) throws {
        #expect(try JSONValue(parsing: text).string == expected)
    }

    @Test(arguments: [
        (1.0, "1"), (-0.0, "0"), (0.1 + 0.2, "0.30000000000000004"), (1e21, "1e+21"), (1e20, "100000000000000000000"),
        (1e-6, "0.000001"), (1e-7, "1e-7"), (1.5e-9, "1.5e-9"), (123e-20, "1.23e-18"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9_007_199_254_740_992, "9007199254740992"), (-1.5, "-1.5"), (.infinity, "null"), (.nan, "null"),
        (12_345_678_901_234_567_168, "12345678901234567000"), (100.25, "100.25"), (.leastNonzeroMagnitude, "5e-324"),
        (1e100, "1e+100"), (-9_223_372_036_854_775_808, "-9223372036854776000"),
    ])
    func `H93: numbers are printed as JavaScript prints them`(_ value: Double, _ text: String) {
        #expect(JSONNumber(value).javascriptText == text)
    }

    @Test func `numbers are equal by value and exact beyond 2 to the 53rd`() throws {
        func parsed(_ text: String) throws -> JSONValue { try JSONValue(parsing: text) }
        #expect(try parsed("1.0") == parsed("1"))
        #expect(try parsed("1e2") == parsed("100"))
        #expect(try parsed("9007199254740993") != parsed("9007199254740992"))
        #expect(try parsed("9007199254740993.0") == parsed("9007199254740993"))
        #expect(try parsed("9007199254740993").hashValue == parsed("9007199254740992").hashValue)
        #expect(try parsed("9223372036854775807").int == .max)
        #expect(JSONValue(Int.max).text() == "9223372036854775807")
        #expect(try parsed("1.5").int == nil)
        #expect(try parsed("2.0").int == 2)
    }

    @Test func `objects keep order, compare without it, and the last duplicate wins`() throws {
        let object = try JSONValue(parsing: #"{"b":1,"a":2,"b":3}"#)
        #expect(object.text() == #"{"b":3,"a":2}"#)
        #expect(object == ["a": 2, "b": 3])
        #expect(object.hashValue == (["a": 2, "b": 3] as JSONValue).hashValue)
        #expect(object.text(.sorted) == #"{"a":2,"b":3}"#)
    }

    @Test func `names are compared by code points, not by Unicode equivalence`() throws {
        let object = try JSONValue(parsing: #"{"\u00e9":1,"e\u0301":2}"#)
        #expect(object.object?.count == 2)
        #expect(object["e\u{301}"] == 2)
    }

    @Test func `large objects find, replace and remove like small ones`() {
        var object = JSONObject()
        for index in 0..<100 { object["k\(index)"] = JSONValue(index) }
        object["k50"] = "x"
        object.removeValue(forKey: "k0")
        object["k99"] = nil
        #expect(object.count == 98)
        #expect(object["k50"] == "x")
        #expect(object["k0"] == nil)
        #expect(object.keys.first == "k1")
        for index in 1..<99 where index != 50 { #expect(object["k\(index)"] == JSONValue(index)) }
        for key in object.keys.prefix(95) { object.removeValue(forKey: key) }
        #expect(object.keys == ["k96", "k97", "k98"])
        #expect(object["k97"] == 97)
    }

    @Test func `members can be changed in place`() {
        var value: JSONValue = ["a": ["b": 1]]
        value["a"]?["b"] = 2
        value["c"] = [1]
        value["d"] = nil
        #expect(value == ["a": ["b": 2], "c": [1]])
        value["a"] = nil
        #expect(value == ["c": [1]])
        #expect(value["c"]?[0] == 1)
        #expect(value["c"]?[1] == nil)
    }

    @Test func `pretty text has two blanks per level`() {
        let value: JSONValue = ["b": [1, ["c": nil]], "a": [:], "d": []]
        #expect(
            value.text(.prettySorted) == """
                {
                  "a": {},
                  "b": [
                    1,
                    {
                      "c": null
                    }
                  ],
                  "d": []
                }
                """
        )
    }

    @Test func `ASCII text escapes the rest`() {
        let value: JSONValue = "é😀\u{7F}\n\"x"
        #expect(value.asciiText() == #""\u00e9\ud83d\ude00\u007f\n\"x""#)
    }

    @Test func `printing and parsing random documents are inverse`() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            let value = Self.value(depth: 4, &random)
            for style: JSONValue.Style in [.compact, .pretty, .sorted, .prettySorted] {
                #expect(try JSONValue(parsing: value.bytes(style)) == value)
                #expect(try JSONValue(parsing: value.asciiText(style)) == value)
            }
        }
    }

    private static func value(depth: Int, _ random: inout SystemRandomNumberGenerator) -> JSONValue {
        switch Int.random(in: 0..<(depth > 0 ? 7 : 5), using: &random) {
        case 0: return .null
        case 1: return .bool(.random(using: &random))
        case 2: return JSONValue(Double(bitPattern: .random(in: 0..<0x7FF0_0000_0000_0000, using: &random)))
        case 3: return JSONValue(Int.random(in: .min ... .max, using: &random))
        case 4: return .string(text(&random))
        case 5:
            return .array((0..<Int.random(in: 0..<5, using: &random)).map { _ in value(depth: depth - 1, &random) })
        default:
            var members = JSONObject()
            for _ in 0..<Int.random(in: 0..<20, using: &random) {
                members[text(&random)] = value(depth: depth - 1, &random)
            }
            return .object(members)
        }
    }

    private static func text(_ random: inout SystemRandomNumberGenerator) -> String {
        var text = ""
        for _ in 0..<Int.random(in: 0..<8, using: &random) {
            let limit: UInt32 = Bool.random(using: &random) ? 0x7F : 0x1_FFFF
            if let scalar = Unicode.Scalar(UInt32.random(in: 0...limit, using: &random)) {
                text.unicodeScalars.append(scalar)
            }
        }
        return text
    }
}
