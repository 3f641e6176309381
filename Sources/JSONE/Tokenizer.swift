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
    let bytes: [UInt8]
    private let start: Int
    private let end: Int
    private var offset: Int

    init(_ bytes: [UInt8], _ range: Range<Int>) {
        self.bytes = bytes
        start = range.lowerBound
        end = range.upperBound
        offset = range.lowerBound
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
        guard offset < end else { return nil }
        let byte = bytes[offset]
        switch byte {
        case 0x41...0x5A, 0x61...0x7A, 0x5F: return word()
        case 0x30...0x39: return number()
        case UInt8(ascii: "'"), UInt8(ascii: "\""): return try string(byte)
        case UInt8(ascii: "."): return token(.dot, 1)
        case UInt8(ascii: "("): return token(.openParenthesis, 1)
        case UInt8(ascii: ")"): return token(.closeParenthesis, 1)
        case UInt8(ascii: "["): return token(.openBracket, 1)
        case UInt8(ascii: "]"): return token(.closeBracket, 1)
        case UInt8(ascii: "{"): return token(.openBrace, 1)
        case UInt8(ascii: "}"): return token(.closeBrace, 1)
        case UInt8(ascii: ":"): return token(.colon, 1)
        case UInt8(ascii: ","): return token(.comma, 1)
        case UInt8(ascii: "+"): return token(.plus, 1)
        case UInt8(ascii: "-"): return token(.minus, 1)
        case UInt8(ascii: "/"): return token(.divide, 1)
        case UInt8(ascii: "*"): return follows(byte) ? token(.power, 2) : token(.times, 1)
        case UInt8(ascii: "<"): return follows(UInt8(ascii: "=")) ? token(.atMost, 2) : token(.less, 1)
        case UInt8(ascii: ">"): return follows(UInt8(ascii: "=")) ? token(.atLeast, 2) : token(.greater, 1)
        case UInt8(ascii: "!"): return follows(UInt8(ascii: "=")) ? token(.notEqual, 2) : token(.not, 1)
        case UInt8(ascii: "=") where follows(byte): return token(.equal, 2)
        case UInt8(ascii: "&") where follows(byte): return token(.and, 2)
        case UInt8(ascii: "|") where follows(byte): return token(.or, 2)
        default: throw unexpectedInput()
        }
    }

    /// Whether the next byte but one is this.
    private func follows(_ byte: UInt8) -> Bool {
        offset + 1 < end && bytes[offset + 1] == byte
    }

    private mutating func token(_ kind: Token.Kind, _ length: Int) -> Token {
        offset += length
        return Token(kind: kind, start: offset - length, end: offset)
    }

    private mutating func word() -> Token {
        var last = offset + 1
        while last < end, Identifier.isPart(bytes[last]) { last += 1 }
        let length = last - offset
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

    private func matches(_ word: String) -> Bool {
        let word = word.utf8.span
        for index in word.indices where word[index] != bytes[offset + index] { return false }
        return true
    }

    private mutating func number() -> Token {
        var last = offset
        while last < end, 0x30...0x39 ~= bytes[last] { last += 1 }
        if last + 1 < end, bytes[last] == UInt8(ascii: "."), 0x30...0x39 ~= bytes[last + 1] {
            last += 1
            while last < end, 0x30...0x39 ~= bytes[last] { last += 1 }
        }
        return token(.number, last - offset)
    }

    private mutating func string(_ quote: UInt8) throws(JSONEError) -> Token {
        var last = offset + 1
        while last < end, bytes[last] != quote { last += 1 }
        guard last < end else { throw unexpectedInput() }
        return token(.string, last + 1 - offset)
    }

    private mutating func skipBlanks() {
        while offset < end {
            switch bytes[offset] {
            case 0x20, 0x09...0x0D: offset += 1
            case 0x80...:
                // The few blanks outside ASCII.
                let rest = String(decoding: bytes[offset..<min(offset + 4, end)], as: UTF8.self)
                guard let first = rest.unicodeScalars.first, first.properties.isWhitespace || first == "\u{FEFF}"
                else { return }
                offset += first.utf8.count
            default: return
            }
        }
    }

    private func unexpectedInput() -> JSONEError {
        let source = String(decoding: bytes[start..<end], as: UTF8.self)
        let rest = String(decoding: bytes[offset..<end], as: UTF8.self)
        return JSONEError(.syntax, "Unexpected input for '\(source)' at '\(rest)'")
    }
}
