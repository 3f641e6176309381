// SPDX-License-Identifier: MPL-2.0

import JSON

extension JSONValue {
    /// What a JSON pointer (RFC 6901) leads to; the empty pointer is the whole value.
    func value(at pointer: String) -> JSONValue? {
        guard !pointer.isEmpty else { return self }
        guard pointer.hasPrefix("/") else { return nil }
        var value = self
        for step in pointer.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
            let name = Self.unescaped(step)
            switch value {
            case .object(let members):
                guard let member = members[name] else { return nil }
                value = member
            case .array(let elements):
                guard let index = Int(name), elements.indices.contains(index), String(index) == name else { return nil }
                value = elements[index]
            default: return nil
            }
        }
        return value
    }

    /// A text, number or truth value as a word; nil for everything else.
    var scalarText: String? {
        switch self {
        case .string(let text): text
        case .number, .bool: text()
        default: nil
        }
    }

    private static func unescaped(_ step: Substring) -> String {
        var result = ""
        var rest = step[...]
        while let tilde = rest.firstIndex(of: "~") {
            result += rest[..<tilde]
            rest = rest[rest.index(after: tilde)...]
            if rest.hasPrefix("0") {
                result += "~"
                rest = rest.dropFirst()
            } else if rest.hasPrefix("1") {
                result += "/"
                rest = rest.dropFirst()
            } else {
                result += "~"
            }
        }
        return result + rest
    }
}
