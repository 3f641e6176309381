// SPDX-License-Identifier: MPL-2.0

extension JSONValue {
    /// Reads a text; strict RFC 8259 with at most 512 levels.
    public init(parsing text: String) throws(JSONError) {
        try self.init(parsing: Array(text.utf8))
    }

    /// Reads UTF-8 bytes; strict RFC 8259 with at most 512 levels.
    ///
    /// A byte order mark, malformed UTF-8, and anything behind the value are errors. An escaped half of a surrogate pair
    /// becomes the replacement character; of a name that occurs twice the last value stays.
    public init(parsing bytes: [UInt8]) throws(JSONError) {
        var parser = JSONParser(bytes)
        self = try parser.document()
    }
}

/// A recursive descent parser over bytes.
struct JSONParser {
    private static let depthLimit = 512

    private let bytes: [UInt8]
    private var offset = 0
    private var depth = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    mutating func document() throws(JSONError) -> JSONValue {
        skipBlanks()
        let value = try value()
        skipBlanks()
        guard offset == bytes.count else { throw error("unexpected characters after the value") }
        return value
    }

    private mutating func value() throws(JSONError) -> JSONValue {
        guard offset < bytes.count else { throw error("unexpected end of text") }
        switch bytes[offset] {
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try number())
        default: throw error("unexpected character, a value was expected")
        }
    }

    private mutating func object() throws(JSONError) -> JSONValue {
        try enter()
        var members = JSONObject()
        offset += 1
        skipBlanks()
        if take(UInt8(ascii: "}")) { return leave(.object(members)) }
        while true {
            skipBlanks()
            guard peek() == UInt8(ascii: "\"") else { throw error("a member name in double quotes was expected") }
            let key = try string()
            skipBlanks()
            guard take(UInt8(ascii: ":")) else { throw error("a colon was expected after the member name") }
            skipBlanks()
            members[key] = try value()
            skipBlanks()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "}")) else { throw error("a comma or a closing brace was expected") }
            return leave(.object(members))
        }
    }

    private mutating func array() throws(JSONError) -> JSONValue {
        try enter()
        var elements: [JSONValue] = []
        offset += 1
        skipBlanks()
        if take(UInt8(ascii: "]")) { return leave(.array(elements)) }
        while true {
            skipBlanks()
            elements.append(try value())
            skipBlanks()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "]")) else { throw error("a comma or a closing bracket was expected") }
            return leave(.array(elements))
        }
    }

    private mutating func literal(_ word: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        for expected in word.description.utf8 {
            guard peek() == expected else { throw error("unknown word, expected \(word)") }
            offset += 1
        }
        return value
    }

    private mutating func enter() throws(JSONError) {
        depth += 1
        guard depth <= Self.depthLimit else { throw error("more than \(Self.depthLimit) levels") }
    }

    private mutating func leave(_ value: JSONValue) -> JSONValue {
        depth -= 1
        return value
    }

    @inline(__always)
    private func peek() -> UInt8? {
        offset < bytes.count ? bytes[offset] : nil
    }

    @inline(__always)
    private mutating func take(_ byte: UInt8) -> Bool {
        guard offset < bytes.count, bytes[offset] == byte else { return false }
        offset += 1
        return true
    }

    @inline(__always)
    private mutating func skipBlanks() {
        while offset < bytes.count {
            switch bytes[offset] {
            case 0x20, 0x0A, 0x0D, 0x09: offset += 1
            default: return
            }
        }
    }

    private func error(_ message: String) -> JSONError {
        var line = 1
        var lineStart = 0
        let end = min(offset, bytes.count)
        for index in 0..<end where bytes[index] == 0x0A {
            line += 1
            lineStart = index + 1
        }
        return JSONError(message: message, offset: end, line: line, column: end - lineStart + 1)
    }
}

// MARK: - Strings

extension JSONParser {
    private mutating func string() throws(JSONError) -> String {
        offset += 1
        let start = offset
        while offset < bytes.count {
            let byte = bytes[offset]
            if byte == UInt8(ascii: "\"") {
                let text = try decoded(bytes[start..<offset])
                offset += 1
                return text
            }
            if byte == UInt8(ascii: "\\") { return try escapedString(from: start) }
            guard byte >= 0x20 else { throw error("a control character must be escaped") }
            offset += 1
        }
        throw error("the string does not end")
    }

    private func decoded(_ slice: ArraySlice<UInt8>) throws(JSONError) -> String {
        guard let text = String(validating: slice, as: UTF8.self) else { throw error("malformed UTF-8 in a string") }
        return text
    }

    private mutating func escapedString(from start: Int) throws(JSONError) -> String {
        var out = Array(bytes[start..<offset])
        while offset < bytes.count {
            let byte = bytes[offset]
            switch byte {
            case UInt8(ascii: "\""):
                let text = try decoded(out[...])
                offset += 1
                return text
            case UInt8(ascii: "\\"):
                offset += 1
                try escape(into: &out)
            case ..<0x20:
                throw error("a control character must be escaped")
            default:
                out.append(byte)
                offset += 1
            }
        }
        throw error("the string does not end")
    }

    private mutating func escape(into out: inout [UInt8]) throws(JSONError) {
        guard let byte = peek() else { throw error("the string does not end") }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
        case UInt8(ascii: "b"): out.append(0x08)
        case UInt8(ascii: "f"): out.append(0x0C)
        case UInt8(ascii: "n"): out.append(0x0A)
        case UInt8(ascii: "r"): out.append(0x0D)
        case UInt8(ascii: "t"): out.append(0x09)
        case UInt8(ascii: "u"): out.append(contentsOf: String(try escapedScalar()).utf8)
        default:
            offset -= 1
            throw error("unknown escape")
        }
    }

    private mutating func escapedScalar() throws(JSONError) -> Character {
        let first = try fourHexDigits()
        guard 0xD800...0xDBFF ~= first else {
            return Character(Unicode.Scalar(first) ?? "\u{FFFD}")
        }
        let back = offset
        guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else {
            offset = back
            return "\u{FFFD}"
        }
        let second = try fourHexDigits()
        guard 0xDC00...0xDFFF ~= second else {
            offset = back
            return "\u{FFFD}"
        }
        return Character(Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00)) ?? "\u{FFFD}")
    }

    private mutating func fourHexDigits() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = peek() else { throw error("the string does not end") }
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
            default: throw error("four hexadecimal digits were expected")
            }
            value = value << 4 | UInt32(digit)
            offset += 1
        }
        return value
    }
}

// MARK: - Numbers

extension JSONParser {
    /// Powers of ten that are exact doubles.
    private static let powersOfTen: [Double] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22,
    ]

    private mutating func number() throws(JSONError) -> JSONNumber {
        let start = offset
        let isNegative = take(UInt8(ascii: "-"))
        var mantissa: UInt64 = 0
        let digitsStart = offset
        try digits(into: &mantissa)
        if bytes[digitsStart] == UInt8(ascii: "0"), offset - digitsStart > 1 {
            offset = digitsStart + 1
            throw error("a number must not begin with a zero")
        }
        var count = offset - digitsStart
        var isInteger = true
        var exponent = 0
        if take(UInt8(ascii: ".")) {
            isInteger = false
            let fractionStart = offset
            try digits(into: &mantissa)
            exponent = fractionStart - offset
            count += offset - fractionStart
        }
        if peek() == UInt8(ascii: "e") || peek() == UInt8(ascii: "E") {
            isInteger = false
            offset += 1
            let isDown = take(UInt8(ascii: "-"))
            if !isDown { _ = take(UInt8(ascii: "+")) }
            var written: UInt64 = 0
            let exponentStart = offset
            try digits(into: &written)
            let bounded = offset - exponentStart > 9 ? 1_000_000 : Int(written)
            exponent += isDown ? -bounded : bounded
        }
        if isInteger, count <= 15, !(isNegative && mantissa == 0) {
            return JSONNumber(isNegative ? -Double(mantissa) : Double(mantissa))
        }
        let text = String(decoding: bytes[start..<offset], as: UTF8.self)
        if count <= 15, abs(exponent) <= 22 {
            // Both factors are exact doubles, so one rounding gives the nearest value.
            let power = Self.powersOfTen[abs(exponent)]
            let value = exponent < 0 ? Double(mantissa) / power : Double(mantissa) * power
            return JSONNumber(isNegative ? -value : value, spelledAs: text)
        }
        let value = Double(text) ?? (exponent > 0 ? .infinity : 0)
        return JSONNumber(value.isInfinite && isNegative ? -.infinity : value, spelledAs: text)
    }

    private mutating func digits(into value: inout UInt64) throws(JSONError) {
        let start = offset
        while offset < bytes.count, case let digit = bytes[offset] &- UInt8(ascii: "0"), digit <= 9 {
            value = value &* 10 &+ UInt64(digit)
            offset += 1
        }
        guard offset > start else { throw error("a digit was expected") }
    }
}
