// SPDX-License-Identifier: MPL-2.0

extension JSONValue {
    /// How a document is laid out.
    public enum Style: Sendable, Hashable {
        /// No blanks, members in their order.
        case compact
        /// Two blanks per level, members in their order.
        case pretty
        /// No blanks, members sorted by code points.
        case sorted
        /// Two blanks per level, members sorted by code points.
        case prettySorted
    }

    /// The text of the document.
    public func text(_ style: Style = .compact) -> String {
        String(decoding: bytes(style), as: UTF8.self)
    }

    /// The text of the document in UTF-8.
    public func bytes(_ style: Style = .compact) -> [UInt8] {
        var printer = JSONPrinter(style)
        printer.print(self)
        return printer.out
    }

    /// The text of the document with everything outside printable ASCII escaped.
    public func asciiText(_ style: Style = .compact) -> String {
        var printer = JSONPrinter(style, escapesNonASCII: true)
        printer.print(self)
        return String(decoding: printer.out, as: UTF8.self)
    }

    /// The text with all numbers written as JavaScript writes them, whatever their spelling was.
    public func javascriptText(_ style: Style = .compact) -> String {
        var printer = JSONPrinter(style, keepsSpelling: false)
        printer.print(self)
        return String(decoding: printer.out, as: UTF8.self)
    }
}

/// Appends the text of values to a buffer.
struct JSONPrinter {
    private static let hexDigits = Array("0123456789abcdef".utf8)

    private(set) var out: [UInt8] = []
    private let isPretty: Bool
    private let isSorted: Bool
    private let escapesNonASCII: Bool
    private let keepsSpelling: Bool
    private var level = 0

    init(_ style: JSONValue.Style, escapesNonASCII: Bool = false, keepsSpelling: Bool = true) {
        isPretty = style == .pretty || style == .prettySorted
        isSorted = style == .sorted || style == .prettySorted
        self.escapesNonASCII = escapesNonASCII
        self.keepsSpelling = keepsSpelling
    }

    mutating func print(_ value: JSONValue) {
        switch value {
        case .null: out.append(contentsOf: "null".utf8)
        case .bool(let value): out.append(contentsOf: (value ? "true" : "false").utf8)
        case .number(let number): print(number)
        case .string(let text): print(text)
        case .array(let elements): print(elements)
        case .object(let members): print(members)
        }
    }

    private mutating func print(_ number: JSONNumber) {
        guard let int = number.plainInteger else {
            // Infinity has no JSON text of its own, but its source spelling (1e400) has.
            out.append(contentsOf: (keepsSpelling ? number.text : number.javascriptText).utf8)
            return
        }
        if 0...9 ~= int {
            out.append(UInt8(ascii: "0") + UInt8(int))
        } else {
            out.append(contentsOf: String(int).utf8)
        }
    }

    private mutating func print(_ elements: [JSONValue]) {
        guard !elements.isEmpty else {
            out.append(contentsOf: "[]".utf8)
            return
        }
        out.append(UInt8(ascii: "["))
        level += 1
        var isFirst = true
        for element in elements {
            if !isFirst { out.append(UInt8(ascii: ",")) }
            isFirst = false
            breakLine()
            print(element)
        }
        level -= 1
        breakLine()
        out.append(UInt8(ascii: "]"))
    }

    private mutating func print(_ members: JSONObject) {
        guard !members.isEmpty else {
            out.append(contentsOf: "{}".utf8)
            return
        }
        out.append(UInt8(ascii: "{"))
        level += 1
        var isFirst = true
        if isSorted {
            for member in members.sorted(by: { precedesByBytes($0.key, $1.key) }) {
                print(member.key, member.value, isFirst: &isFirst)
            }
        } else {
            for member in members { print(member.key, member.value, isFirst: &isFirst) }
        }
        level -= 1
        breakLine()
        out.append(UInt8(ascii: "}"))
    }

    @inline(__always)
    private mutating func print(_ key: String, _ value: JSONValue, isFirst: inout Bool) {
        if !isFirst { out.append(UInt8(ascii: ",")) }
        isFirst = false
        breakLine()
        print(key)
        out.append(UInt8(ascii: ":"))
        if isPretty { out.append(UInt8(ascii: " ")) }
        print(value)
    }

    private mutating func breakLine() {
        guard isPretty else { return }
        out.append(0x0A)
        out.append(contentsOf: repeatElement(UInt8(ascii: " "), count: 2 * level))
    }

    private mutating func print(_ text: String) {
        out.append(UInt8(ascii: "\""))
        if needsEscapes(text) {
            escapesNonASCII ? printASCII(text) : printEscaped(text)
        } else {
            out.append(contentsOf: text.utf8)
        }
        out.append(UInt8(ascii: "\""))
    }

    private func needsEscapes(_ text: String) -> Bool {
        let bytes = text.utf8.span
        let limit: UInt8 = escapesNonASCII ? 0x7E : 0xFF
        for index in bytes.indices {
            let byte = bytes[index]
            if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte > limit { return true }
        }
        return false
    }

    private mutating func printEscaped(_ text: String) {
        let bytes = text.utf8.span
        for index in bytes.indices { print(escaping: bytes[index]) }
    }

    private mutating func printASCII(_ text: String) {
        for unit in text.utf16 {
            if unit < 0x7F { print(escaping: UInt8(unit)) } else { printHex(unit) }
        }
    }

    private mutating func print(escaping byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): out += [UInt8(ascii: "\\"), byte]
        case 0x08: out.append(contentsOf: "\\b".utf8)
        case 0x09: out.append(contentsOf: "\\t".utf8)
        case 0x0A: out.append(contentsOf: "\\n".utf8)
        case 0x0C: out.append(contentsOf: "\\f".utf8)
        case 0x0D: out.append(contentsOf: "\\r".utf8)
        case ..<0x20: printHex(UInt16(byte))
        default: out.append(byte)
        }
    }

    private mutating func printHex(_ unit: UInt16) {
        out.append(contentsOf: "\\u".utf8)
        for shift: UInt16 in [12, 8, 4, 0] { out.append(Self.hexDigits[Int(unit >> shift & 15)]) }
    }
}
