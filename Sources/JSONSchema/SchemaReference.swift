// SPDX-License-Identifier: MPL-2.0

import JSON

/// The address of a subschema: a document and a place in it.
struct SchemaReference {
    let text: String
    let document: String
    let fragment: String

    /// Resolves a reference against the address of the document in which it stands.
    init(_ text: String, base: String) {
        self.text = text
        let parts = text.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        fragment = parts.count == 2 ? Self.percentDecoded(parts[1]) : ""
        document = parts.isEmpty || parts[0].isEmpty ? base : Self.joined(base, parts[0])
    }

    var absolute: String { "\(document)#\(fragment)" }

    /// The address a document gives itself.
    static func document(of schema: JSONValue) -> String? {
        guard let id = schema["$id"]?.string ?? schema["id"]?.string, !id.hasPrefix("#") else { return nil }
        return SchemaReference(id, base: "").document
    }

    /// The subschema the fragment names: a pointer, or the `$id` of a part.
    func target(in document: JSONValue) -> JSONValue? {
        if fragment.isEmpty { return document }
        guard fragment.hasPrefix("/") else { return Self.part(of: document, named: "#\(fragment)") }
        var value = document
        for token in fragment.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
            let name = JSONPointer.unescaped(token)
            guard let next = value[name] ?? Int(name).flatMap({ value[$0] }) else { return nil }
            value = next
        }
        return value
    }

    private static func part(of value: JSONValue, named name: String) -> JSONValue? {
        switch value {
        case .object(let members):
            if members["$id"]?.string == name || members["id"]?.string == name { return value }
            return members.lazy.compactMap { part(of: $0.value, named: name) }.first
        case .array(let elements):
            return elements.lazy.compactMap { part(of: $0, named: name) }.first
        default:
            return nil
        }
    }

    /// Resolves an address without fragment, RFC 3986 section 5 without query.
    private static func joined(_ base: String, _ reference: String) -> String {
        let schemeEnd = reference.firstIndex(of: ":")
        if let schemeEnd, !reference[..<schemeEnd].contains("/") { return reference }
        let (authority, path) = split(base)
        if reference.hasPrefix("/") { return authority + normalized(reference) }
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
        return authority + normalized(folder + reference)
    }

    /// Cuts an address behind its authority.
    private static func split(_ address: String) -> (authority: String, path: String) {
        let characters = Array(address)
        guard let colon = characters.firstIndex(of: ":"), characters[(colon + 1)...].starts(with: "//") else {
            return ("", address)
        }
        let start = colon + 3
        let end = characters[start...].firstIndex(of: "/") ?? characters.count
        return (String(characters[..<end]), String(characters[end...]))
    }

    private static func normalized(_ path: String) -> String {
        guard path.contains("./") else { return path }
        var out: [Substring] = []
        for segment in path.split(separator: "/", omittingEmptySubsequences: false) {
            if segment == ".." {
                if out.count > 1 { out.removeLast() }
            } else if segment != "." {
                out.append(segment)
            }
        }
        return out.joined(separator: "/")
    }

    private static func percentDecoded(_ text: String) -> String {
        guard text.contains("%") else { return text }
        var out: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = String(decoding: rest.prefix(2), as: UTF8.self)
            if byte == UInt8(ascii: "%"), digits.utf8.count == 2, let value = UInt8(digits, radix: 16) {
                out.append(value)
                rest = rest.dropFirst(2)
            } else {
                out.append(byte)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}
