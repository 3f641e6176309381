// SPDX-License-Identifier: MPL-2.0

import JSON

/// Turns a template into nodes; parts without anything to do become constants.
struct TemplateCompiler {
    var symbols = SymbolTable()

    mutating func node(_ template: JSONValue) -> Node {
        switch template {
        case .null, .bool, .number: .constant(template)
        case .string(let text): node(text)
        case .array(let elements): node(elements)
        case .object(let members): node(members)
        }
    }

    private mutating func node(_ elements: [JSONValue]) -> Node {
        var nodes: [Node] = []
        nodes.reserveCapacity(elements.count)
        var isConstant = true
        for element in elements {
            let node = node(element)
            if case .constant = node {} else { isConstant = false }
            nodes.append(node)
        }
        return isConstant
            ? .constant(.array(elements.count == 0 ? [] : nodes.compactMap(\.constantValue))) : .list(nodes)
    }

    private mutating func node(_ members: JSONObject) -> Node {
        var found: String?
        for (key, _) in members where key.utf8.first == UInt8(ascii: "$") && Self.operators.contains(key) {
            guard found == nil else { return .failure(JSONEError(.template, "only one operator allowed")) }
            found = key
        }
        if let found, let value = members[found] { return operation(found, value, members) }
        return output(members)
    }

    private mutating func output(_ members: JSONObject) -> Node {
        var nodes: [Node.Member] = []
        nodes.reserveCapacity(members.count)
        var isConstant = true
        for (key, value) in members {
            let memberKey = memberKey(key)
            let node = node(value)
            if case (.constant, .constant) = (memberKey, node) {} else { isConstant = false }
            nodes.append(Node.Member(key: memberKey, value: node, step: key))
        }
        guard isConstant else { return .object(nodes) }
        var object = JSONObject()
        object.reserveCapacity(nodes.count)
        for member in nodes {
            if case (.constant(let key), .constant(let value)) = (member.key, member.value) { object[key] = value }
        }
        return .constant(.object(object))
    }

    private mutating func memberKey(_ key: String) -> Node.MemberKey {
        if key.utf8.first == UInt8(ascii: "$") {
            if key.hasPrefix("$$") { return .constant(String(key.dropFirst())) }
            if Identifier.isPlain(key.dropFirst()) {
                return .failure(JSONEError(.template, "$<identifier> is reserved; use $$<identifier>"))
            }
        }
        return switch fragments(key) {
        case nil: .constant(key)
        case let fragments?: .text(fragments)
        }
    }

    private mutating func node(_ text: String) -> Node {
        guard let fragments = fragments(text) else { return .constant(.string(text)) }
        if fragments.isEmpty { return .constant(.string("")) }
        if fragments.count == 1, case .text(let text) = fragments[0] { return .constant(.string(text)) }
        return .text(fragments)
    }

    /// Cuts a string at its interpolations; nil when there is nothing to replace.
    private mutating func fragments(_ text: String) -> [Node.Fragment]? {
        guard Self.mayInterpolate(text) else { return nil }
        let bytes = Array(text.utf8)
        var fragments: [Node.Fragment] = []
        var literal: [UInt8] = []
        var index = 0
        while index < bytes.count {
            guard bytes[index] == UInt8(ascii: "$") else {
                literal.append(bytes[index])
                index += 1
                continue
            }
            let next = index + 1 < bytes.count ? bytes[index + 1] : 0
            if next == UInt8(ascii: "$"), index + 2 < bytes.count, bytes[index + 2] == UInt8(ascii: "{") {
                literal += [UInt8(ascii: "$"), UInt8(ascii: "{")]
                index += 3
                continue
            }
            guard next == UInt8(ascii: "{") else {
                literal.append(bytes[index])
                index += 1
                continue
            }
            if !literal.isEmpty {
                fragments.append(.text(String(decoding: literal, as: UTF8.self)))
                literal.removeAll(keepingCapacity: true)
            }
            do throws(JSONEError) {
                let start = index + 2
                let (expression, end) = try ExpressionParser.terminated(bytes, from: start, &symbols)
                let source = String(decoding: bytes[start..<end], as: UTF8.self)
                fragments.append(.expression(expression, source: source))
                index = end + 1
            } catch {
                fragments.append(.failure(error))
                return fragments
            }
        }
        if !literal.isEmpty { fragments.append(.text(String(decoding: literal, as: UTF8.self))) }
        return fragments
    }

    private static func mayInterpolate(_ text: String) -> Bool {
        let bytes = text.utf8.span
        guard bytes.count > 1 else { return false }
        for index in 1..<bytes.count
        where bytes[index] == UInt8(ascii: "{") && bytes[index - 1] == UInt8(ascii: "$") {
            return true
        }
        return false
    }
}

extension Node {
    fileprivate var constantValue: JSONValue? {
        if case .constant(let value) = self { value } else { nil }
    }
}
