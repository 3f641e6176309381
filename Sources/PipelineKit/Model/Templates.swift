// SPDX-License-Identifier: MPL-2.0

import JSON

/// Finds out what of a value is computed when a step starts.
enum Templates {
    /// Whether a value has such parts.
    static func areIn(_ value: JSONValue) -> Bool {
        switch value {
        case .null, .bool, .number: false
        case .string(let text): text.contains("${")
        case .array(let elements): elements.contains(where: areIn)
        case .object(let members): members.contains { $0.key.hasPrefix("$") || areIn($0.value) }
        }
    }

    /// The names of the steps that those parts certainly use; none where a template gives `steps` another meaning.
    static func steps(in value: JSONValue) -> Set<String> {
        var expressions: [String] = []
        guard collect(value, &expressions) else { return [] }
        return expressions.reduce(into: []) { $0.formUnion(names(in: Array($1.unicodeScalars))) }
    }

    /// Collects the expressions of a template; answers whether `steps` means the same in all of them.
    private static func collect(_ value: JSONValue, _ expressions: inout [String]) -> Bool {
        switch value {
        case .null, .bool, .number:
            return true
        case .string(let text):
            expressions += interpolations(text)
            return true
        case .array(let elements):
            for element in elements where !collect(element, &expressions) { return false }
            return true
        case .object(let members):
            for (key, member) in members {
                if key == "$let", member["steps"] != nil || member.object == nil { return false }
                if key.hasPrefix("each("), key.contains("steps") { return false }
                if ["$eval", "$if", "$fromNow"].contains(key), let text = member.string { expressions.append(text) }
                guard collect(member, &expressions) else { return false }
            }
            return true
        }
    }

    /// What stands between `${` and `}` in a text; `$${` stands for itself.
    private static func interpolations(_ text: String) -> [String] {
        var found: [String] = []
        var rest = text[...]
        while let start = rest.firstRange(of: "${") {
            let isEscaped = rest[..<start.lowerBound].last == "$"
            rest = rest[start.upperBound...]
            if isEscaped { continue }
            var depth = 1
            let piece = rest.prefix { character in
                if character == "{" { depth += 1 }
                if character == "}" { depth -= 1 }
                return depth > 0
            }
            found.append(String(piece))
            rest = rest[piece.endIndex...]
        }
        return found
    }

    /// The names that follow `steps` in an expression, as `steps.name` or `steps["name"]`.
    private static func names(in text: [Unicode.Scalar]) -> Set<String> {
        func isWord(_ scalar: Unicode.Scalar) -> Bool {
            scalar == "_" || scalar.isASCII && (scalar.properties.isAlphabetic || scalar.properties.numericType != nil)
        }
        func word(from start: Int) -> [Unicode.Scalar] { Array(text[start...].prefix(while: isWord)) }
        func string(from start: Int) -> [Unicode.Scalar] { Array(text[(start + 1)...].prefix { $0 != text[start] }) }
        func afterBlanks(_ start: Int) -> Int { start + text[start...].prefix { $0 == " " }.count }
        var found: Set<String> = []
        var position = 0
        while position < text.count {
            let scalar = text[position]
            if scalar == "'" || scalar == "\"" {
                position += string(from: position).count + 2
                continue
            }
            let name = word(from: position)
            guard !name.isEmpty else {
                position += 1
                continue
            }
            let isMember = text[..<position].last { $0 != " " } == "."
            position += name.count
            guard !isMember, name == Array("steps".unicodeScalars) else { continue }
            var next = afterBlanks(position)
            guard next + 1 < text.count, text[next] == "." || text[next] == "[" else { continue }
            let isQuoted = text[next] == "["
            next = afterBlanks(next + 1)
            guard next < text.count else { continue }
            var step: [Unicode.Scalar] = []
            if !isQuoted {
                step = word(from: next)
            } else if text[next] == "'" || text[next] == "\"" {
                step = string(from: next)
                position = next + step.count + 2
            }
            if !step.isEmpty { found.insert(String(String.UnicodeScalarView(step))) }
        }
        return found
    }
}
