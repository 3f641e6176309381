// SPDX-License-Identifier: MPL-2.0

/// A word of an expression.
struct Token {
    enum Kind: String {
        case power = "**"
        case plus = "+"
        case minus = "-"
        case times = "*"
        case divide = "/"
        case openBracket = "["
        case closeBracket = "]"
        case dot = "."
        case openParenthesis = "("
        case closeParenthesis = ")"
        case openBrace = "{"
        case closeBrace = "}"
        case colon = ":"
        case comma = ","
        case atLeast = ">="
        case atMost = "<="
        case less = "<"
        case greater = ">"
        case equal = "=="
        case notEqual = "!="
        case not = "!"
        case and = "&&"
        case or = "||"
        case `true` = "true"
        case `false` = "false"
        case isIn = "in"
        case null = "null"
        case number = "number"
        case identifier = "identifier"
        case string = "string"
    }

    let kind: Kind
    let start: Int
    let end: Int
}

/// Cuts the bytes of an expression into tokens, one at a time.
struct Tokenizer {
    private let bytes: [UInt8]
    private let start: Int
    private var offset: Int

    init(_ bytes: [UInt8], from start: Int) {
        self.bytes = bytes
        self.start = start
        offset = start
    }

    func text(of token: Token) -> String {
        String(decoding: bytes[token.start..<token.end], as: UTF8.self)
    }

    /// The text between the quotes; there are no escapes.
    func content(of token: Token) -> String {
        String(decoding: bytes[(token.start + 1)..<(token.end - 1)], as: UTF8.self)
    }

    mutating func next() throws(JSONEError) -> Token? {
        skipBlanks()
        guard offset < bytes.count else { return nil }
        let byte = bytes[offset]
        if Identifier.isStart(byte) { return word() }
        if 0x30...0x39 ~= byte { return number() }
        if byte == UInt8(ascii: "'") || byte == UInt8(ascii: "\"") { return try string(byte) }
        let following = offset + 1 < bytes.count ? bytes[offset + 1] : 0
        switch (byte, following) {
        case (UInt8(ascii: "*"), UInt8(ascii: "*")): return token(.power, 2)
        case (UInt8(ascii: "="), UInt8(ascii: "=")): return token(.equal, 2)
        case (UInt8(ascii: "!"), UInt8(ascii: "=")): return token(.notEqual, 2)
        case (UInt8(ascii: "<"), UInt8(ascii: "=")): return token(.atMost, 2)
        case (UInt8(ascii: ">"), UInt8(ascii: "=")): return token(.atLeast, 2)
        case (UInt8(ascii: "&"), UInt8(ascii: "&")): return token(.and, 2)
        case (UInt8(ascii: "|"), UInt8(ascii: "|")): return token(.or, 2)
        case (UInt8(ascii: "*"), _): return token(.times, 1)
        case (UInt8(ascii: "+"), _): return token(.plus, 1)
        case (UInt8(ascii: "-"), _): return token(.minus, 1)
        case (UInt8(ascii: "/"), _): return token(.divide, 1)
        case (UInt8(ascii: "["), _): return token(.openBracket, 1)
        case (UInt8(ascii: "]"), _): return token(.closeBracket, 1)
        case (UInt8(ascii: "."), _): return token(.dot, 1)
        case (UInt8(ascii: "("), _): return token(.openParenthesis, 1)
        case (UInt8(ascii: ")"), _): return token(.closeParenthesis, 1)
        case (UInt8(ascii: "{"), _): return token(.openBrace, 1)
        case (UInt8(ascii: "}"), _): return token(.closeBrace, 1)
        case (UInt8(ascii: ":"), _): return token(.colon, 1)
        case (UInt8(ascii: ","), _): return token(.comma, 1)
        case (UInt8(ascii: "<"), _): return token(.less, 1)
        case (UInt8(ascii: ">"), _): return token(.greater, 1)
        case (UInt8(ascii: "!"), _): return token(.not, 1)
        default: throw unexpectedInput()
        }
    }

    private mutating func token(_ kind: Token.Kind, _ length: Int) -> Token {
        offset += length
        return Token(kind: kind, start: offset - length, end: offset)
    }

    private mutating func word() -> Token {
        var end = offset + 1
        while end < bytes.count, Identifier.isPart(bytes[end]) { end += 1 }
        let length = end - offset
        let kind: Token.Kind =
            switch length {
            case 2 where matches("in"): .isIn
            case 4 where matches("true"): .true
            case 4 where matches("null"): .null
            case 5 where matches("false"): .false
            default: .identifier
            }
        return token(kind, length)
    }

    private func matches(_ word: StaticString) -> Bool {
        word.description.utf8.elementsEqual(bytes[offset..<(offset + word.utf8CodeUnitCount)])
    }

    private mutating func number() -> Token {
        var end = offset
        while end < bytes.count, 0x30...0x39 ~= bytes[end] { end += 1 }
        if end + 1 < bytes.count, bytes[end] == UInt8(ascii: "."), 0x30...0x39 ~= bytes[end + 1] {
            end += 1
            while end < bytes.count, 0x30...0x39 ~= bytes[end] { end += 1 }
        }
        return token(.number, end - offset)
    }

    private mutating func string(_ quote: UInt8) throws(JSONEError) -> Token {
        guard let end = bytes[(offset + 1)...].firstIndex(of: quote) else { throw unexpectedInput() }
        return token(.string, end + 1 - offset)
    }

    private mutating func skipBlanks() {
        while offset < bytes.count {
            switch bytes[offset] {
            case 0x20, 0x09...0x0D: offset += 1
            case 0x80...:
                // The few blanks outside ASCII.
                let rest = String(decoding: bytes[offset..<min(offset + 4, bytes.count)], as: UTF8.self)
                guard let first = rest.unicodeScalars.first, first.properties.isWhitespace || first == "\u{FEFF}"
                else { return }
                offset += first.utf8.count
            default: return
            }
        }
    }

    private func unexpectedInput() -> JSONEError {
        let source = String(decoding: bytes[start...], as: UTF8.self)
        let rest = String(decoding: bytes[offset...], as: UTF8.self)
        return JSONEError(.syntax, "Unexpected input for '\(source)' at '\(rest)'")
    }
}
