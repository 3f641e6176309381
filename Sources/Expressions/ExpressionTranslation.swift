// SPDX-License-Identifier: MPL-2.0

/// Writes an expression of Python or ECMAScript as PCRE2 reads it, and refuses what they lack.
struct ExpressionTranslation {
    private let text: String
    private let dialect: RegularExpression.Dialect
    private let source: [UInt8]
    private var position = 0
    /// The expression for PCRE2.
    private(set) var bytes: [UInt8] = []
    /// For each byte of it, where it comes from.
    private var origins: [Int] = []
    /// Whether brackets are open.
    private var isInClass = false
    /// The end of what has just been repeated, which ECMAScript does not let be repeated again.
    private var repetition: Int?

    init(_ text: String, _ dialect: RegularExpression.Dialect) {
        self.text = text
        self.dialect = dialect
        source = Array(text.utf8)
        bytes.reserveCapacity(source.count)
        origins.reserveCapacity(source.count)
    }

    /// Where in the source something stands that PCRE2 complains about.
    func origin(of offset: Int) -> Int { origins.indices.contains(offset) ? origins[offset] : source.count }

    mutating func translate() throws(RegularExpression.Problem) {
        while let byte = peek() {
            if isInClass { try member(byte) } else { try item(byte) }
        }
    }

    private func problem(_ message: String) -> RegularExpression.Problem {
        RegularExpression.Problem(message: message, offset: min(position, source.count), text: text)
    }

    private func peek(_ distance: Int = 0) -> UInt8? {
        position + distance < source.count ? source[position + distance] : nil
    }

    private func follows(_ text: StaticString) -> Bool {
        source[position...].starts(with: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Takes over some bytes as they are.
    private mutating func keep(_ count: Int = 1) {
        for index in position..<min(position + count, source.count) {
            bytes.append(source[index])
            origins.append(index)
        }
        position += count
    }

    /// Writes something else for some bytes.
    private mutating func write(_ text: String, for count: Int) {
        for byte in text.utf8 {
            bytes.append(byte)
            origins.append(position)
        }
        position += count
    }

    // MARK: - Outside of brackets

    private mutating func item(_ byte: UInt8) throws(RegularExpression.Problem) {
        switch byte {
        case UInt8(ascii: "\\"): try escape()
        case UInt8(ascii: "["): open()
        case UInt8(ascii: "("): try group()
        case UInt8(ascii: "{"): brace()
        case UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "?"): try sign(byte)
        case UInt8(ascii: ".") where dialect == .ecmaScript: write(#"[^\n\r\x{2028}\x{2029}]"#, for: 1)
        default: keep()
        }
    }

    /// A sign of repetition; the second one after another means lazy, and to Python also possessive.
    private mutating func sign(_ byte: UInt8) throws(RegularExpression.Problem) {
        let isSecond = repetition == position
        if isSecond, dialect == .ecmaScript, byte != UInt8(ascii: "?") { throw problem("nothing to repeat") }
        keep()
        repetition = isSecond ? nil : position
    }

    /// `{2}`, `{2,}`, `{2,3}` and Python's `{,3}` repeat; other braces stand for themselves.
    private mutating func brace() {
        var end = position + 1
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        while end < source.count, digits.contains(source[end]) { end += 1 }
        let hasLeast = end > position + 1
        var hasMost = false
        if end < source.count, source[end] == UInt8(ascii: ",") {
            end += 1
            let first = end
            while end < source.count, digits.contains(source[end]) { end += 1 }
            hasMost = end > first
        }
        let isClosed = end < source.count && source[end] == UInt8(ascii: "}")
        if isClosed, hasLeast {
            keep(end + 1 - position)
            repetition = position
        } else if isClosed, hasMost, dialect == .python {
            write("{0", for: 1)
            keep(end + 1 - position)
            repetition = position
        } else {
            write("\\{", for: 1)
        }
    }

    /// Groups that both know, and those of each; nothing else that PCRE2 begins with a parenthesis.
    private mutating func group() throws(RegularExpression.Problem) {
        if follows("(*") { throw problem("nothing to repeat") }
        guard follows("(?") else { return keep() }
        for known: StaticString in ["(?:", "(?=", "(?!", "(?<=", "(?<!"] where follows(known) {
            return keep(known.utf8CodeUnitCount)
        }
        if follows("(?<") { return keep(3) }
        guard dialect == .python else { throw problem("invalid group") }
        for known: StaticString in ["(?P<", "(?P=", "(?>", "(?("] where follows(known) {
            return keep(known.utf8CodeUnitCount)
        }
        if follows("(?#") {
            let comment = source[position...].prefix { $0 != UInt8(ascii: ")") }
            return keep(comment.count + 1)
        }
        var flags = 2
        while let flag = peek(flags), "ims-".utf8.contains(flag) { flags += 1 }
        guard flags > 2, let end = peek(flags), ":)".utf8.contains(end) else { throw problem("unknown extension") }
        keep(flags + 1)
    }

    // MARK: - Inside of brackets

    private mutating func open() {
        isInClass = true
        keep()
        if peek() == UInt8(ascii: "^") { keep() }
        // Only ECMAScript has brackets around nothing.
        if peek() == UInt8(ascii: "]"), dialect == .python { write("\\]", for: 1) }
    }

    private mutating func member(_ byte: UInt8) throws(RegularExpression.Problem) {
        switch byte {
        case UInt8(ascii: "\\"): try escape()
        case UInt8(ascii: "]"):
            isInClass = false
            keep()
        // Neither has classes with names in brackets of their own.
        case UInt8(ascii: "["): write("\\[", for: 1)
        default: keep()
        }
    }

    // MARK: - Escapes

    private mutating func escape() throws(RegularExpression.Problem) {
        guard let letter = peek(1), Self.isWord(letter), letter != UInt8(ascii: "_") else { return keep(2) }
        switch letter {
        case UInt8(ascii: "v"): write(#"\x{0b}"#, for: 2)
        case UInt8(ascii: "x"): try codePoint(digits: 2)
        case UInt8(ascii: "u"): try unicode()
        default:
            switch dialect {
            case .python: try pythonEscape(letter)
            case .ecmaScript: try ecmaScriptEscape(letter)
            }
        }
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    private mutating func pythonEscape(_ letter: UInt8) throws(RegularExpression.Problem) {
        switch letter {
        case UInt8(ascii: "U"): return try codePoint(digits: 8)
        case UInt8(ascii: "Z") where !isInClass: return write(#"\z"#, for: 2)
        default: break
        }
        let known: StaticString = isInClass ? "abdDfnrsStwW0123456789" : "AabBdDfnrsStwW0123456789"
        try keepEscape(letter, of: known)
    }

    private mutating func ecmaScriptEscape(_ letter: UInt8) throws(RegularExpression.Problem) {
        let blanks = #"\s\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"#
        switch letter {
        case UInt8(ascii: "s"): return write(isInClass ? blanks : "[\(blanks)]", for: 2)
        case UInt8(ascii: "S") where !isInClass: return write("[^\(blanks)]", for: 2)
        case UInt8(ascii: "0"):
            if let next = peek(2), (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(next) {
                throw problem("invalid escape")
            }
            return write(#"\x{0}"#, for: 2)
        case UInt8(ascii: "c"):
            guard let control = peek(2), Self.isWord(control), control >= UInt8(ascii: "A"),
                control != UInt8(ascii: "_")
            else { throw problem("invalid control escape") }
            return write("\\x{\(String(control & 31, radix: 16))}", for: 3)
        case UInt8(ascii: "p"), UInt8(ascii: "P"):
            guard peek(2) == UInt8(ascii: "{") else { throw problem("invalid property") }
            return keep(source[position...].prefix { $0 != UInt8(ascii: "}") }.count + 1)
        default: break
        }
        let known: StaticString = isInClass ? "bdDfnrStwW" : "bBdDfknrtwW123456789"
        try keepEscape(letter, of: known)
    }

    private mutating func keepEscape(_ letter: UInt8, of known: StaticString) throws(RegularExpression.Problem) {
        let isKnown = UnsafeBufferPointer(start: known.utf8Start, count: known.utf8CodeUnitCount).contains(letter)
        guard isKnown else { throw problem("invalid escape") }
        keep(2)
    }

    /// The number in hexadecimal digits from a distance on.
    private func hexadecimal(_ count: Int, at distance: Int) throws(RegularExpression.Problem) -> UInt32 {
        let digits = source[min(position + distance, source.count)...].prefix(count)
        guard count > 0, digits.count == count, digits.allSatisfy(Self.isWord),
            let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw problem("invalid escape") }
        return value
    }

    private mutating func write(codePoint value: UInt32, for count: Int) throws(RegularExpression.Problem) {
        guard Unicode.Scalar(value) != nil else { throw problem("invalid Unicode escape") }
        write("\\x{\(String(value, radix: 16))}", for: count)
    }

    private mutating func codePoint(digits: Int) throws(RegularExpression.Problem) {
        try write(codePoint: try hexadecimal(digits, at: 2), for: 2 + digits)
    }

    /// `\uHHHH`, and in ECMAScript `\u{H…}` and two surrogates for one character.
    private mutating func unicode() throws(RegularExpression.Problem) {
        guard dialect == .ecmaScript else { return try codePoint(digits: 4) }
        if peek(2) == UInt8(ascii: "{") {
            let count = source[(position + 3)...].prefix { $0 != UInt8(ascii: "}") }.count
            guard count <= 8 else { throw problem("invalid Unicode escape") }
            return try write(codePoint: try hexadecimal(count, at: 3), for: count + 4)
        }
        let first = try hexadecimal(4, at: 2)
        guard (0xD800...0xDBFF).contains(first), peek(6) == UInt8(ascii: "\\"), peek(7) == UInt8(ascii: "u") else {
            return try write(codePoint: first, for: 6)
        }
        let second = try hexadecimal(4, at: 8)
        guard (0xDC00...0xDFFF).contains(second) else { throw problem("invalid Unicode escape") }
        try write(codePoint: 0x10000 + (first - 0xD800) << 10 + (second - 0xDC00), for: 12)
    }
}
