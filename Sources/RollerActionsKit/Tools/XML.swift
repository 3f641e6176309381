// SPDX-License-Identifier: MPL-2.0

/// An element of an XML document, as far as the protocols of controllers need it.
struct XMLElement: Hashable {
    var name: String
    var attributes: [String: String] = [:]
    var children: [XMLElement] = []
    /// The character data directly in the element.
    var text = ""

    /// The first child of a name.
    func child(_ name: String) -> XMLElement? { children.first { $0.name == name } }

    /// The first element of a name at any depth, this one included.
    func first(_ name: String) -> XMLElement? {
        if self.name == name { return self }
        for child in children {
            if let found = child.first(name) { return found }
        }
        return nil
    }

    /// All elements of a name at any depth.
    func all(_ name: String) -> [XMLElement] {
        (self.name == name ? [self] : []) + children.flatMap { $0.all(name) }
    }
}

/// Reads and writes small XML documents; no entities but the five, no document types, bounded depth.
enum XML {
    /// The text with the five special characters replaced.
    static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// The root elements of one document after the other; nil when the text is not well formed.
    static func documents(_ text: String) -> [XMLElement]? {
        var parser = Parser(Array(text.utf8))
        return parser.documents()
    }

    private struct Parser {
        private let bytes: [UInt8]
        private var position = 0

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        mutating func documents() -> [XMLElement]? {
            var roots: [XMLElement] = []
            while true {
                skipSpace()
                guard position < bytes.count else { return roots }
                if skipMarkup() { continue }
                guard let root = element(depth: 0) else { return nil }
                roots.append(root)
            }
        }

        private mutating func element(depth: Int) -> XMLElement? {
            guard depth < 64, take("<") else { return nil }
            let name = word()
            guard !name.isEmpty else { return nil }
            var element = XMLElement(name: name)
            while true {
                skipSpace()
                if take("/>") { return element }
                if take(">") { break }
                let key = word()
                skipSpace()
                guard !key.isEmpty, take("=") else { return nil }
                skipSpace()
                guard let quote = current, quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") else { return nil }
                position += 1
                let start = position
                while let byte = current, byte != quote { _ = byte; position += 1 }
                guard current == quote, let value = unescaped(bytes[start..<position]) else { return nil }
                position += 1
                element.attributes[key] = value
            }
            while true {
                let start = position
                while let byte = current, byte != UInt8(ascii: "<") { _ = byte; position += 1 }
                guard let text = unescaped(bytes[start..<position]) else { return nil }
                element.text += text
                if take("</") {
                    guard word() == name else { return nil }
                    skipSpace()
                    return take(">") ? element : nil
                }
                if starts("<![CDATA[") {
                    position += 9
                    let begin = position
                    while position < bytes.count, !starts("]]>") { position += 1 }
                    guard position < bytes.count else { return nil }
                    element.text += String(decoding: bytes[begin..<position], as: UTF8.self)
                    position += 3
                    continue
                }
                if skipMarkup() { continue }
                guard current != nil, let child = self.element(depth: depth + 1) else { return nil }
                element.children.append(child)
            }
        }

        private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

        private func starts(_ text: StaticString) -> Bool {
            bytes[position...].starts(with: "\(text)".utf8)
        }

        private mutating func take(_ text: StaticString) -> Bool {
            guard starts(text) else { return false }
            position += text.utf8CodeUnitCount
            return true
        }

        /// Passes over a declaration or comment.
        private mutating func skipMarkup() -> Bool {
            if starts("<?") { return skip(past: "?>") }
            if starts("<!--") { return skip(past: "-->") }
            return false
        }

        private mutating func skip(past end: StaticString) -> Bool {
            while position < bytes.count {
                if take(end) { return true }
                position += 1
            }
            return false
        }

        private mutating func skipSpace() {
            while let byte = current, [0x20, 0x09, 0x0a, 0x0d].contains(byte) { _ = byte; position += 1 }
        }

        private mutating func word() -> String {
            let start = position
            while let byte = current, !" \t\r\n=/><\"'".utf8.contains(byte) { _ = byte; position += 1 }
            return String(decoding: bytes[start..<position], as: UTF8.self)
        }

        private func unescaped(_ slice: ArraySlice<UInt8>) -> String? {
            let text = String(decoding: slice, as: UTF8.self)
            guard text.utf8.contains(UInt8(ascii: "&")) else { return text }
            var result = ""
            var rest = Substring(text)
            while let ampersand = rest.firstIndex(of: "&") {
                result += rest[..<ampersand]
                guard let end = rest[ampersand...].firstIndex(of: ";") else { return nil }
                let name = rest[rest.index(after: ampersand)..<end]
                switch name {
                case "amp": result += "&"
                case "lt": result += "<"
                case "gt": result += ">"
                case "quot": result += "\""
                case "apos": result += "'"
                default:
                    guard name.first == "#" else { return nil }
                    let digits = name.dropFirst()
                    let number = digits.first == "x" ? UInt32(digits.dropFirst(), radix: 16) : UInt32(digits)
                    guard let scalar = number.flatMap(Unicode.Scalar.init) else { return nil }
                    result.unicodeScalars.append(scalar)
                }
                rest = rest[rest.index(after: end)...]
            }
            return result + rest
        }
    }
}
