// SPDX-License-Identifier: MPL-2.0

import JSON

/// Turns a template into a program.
///
/// Parts without anything to do are left as they are written: reading them yields no node.
struct TemplateCompiler {
    var program = Program()

    init() {
        program.nodes.reserveCapacity(64)
        program.expressions.reserveCapacity(128)
        program.slots.reserveCapacity(128)
        program.fragments.reserveCapacity(64)
        program.constants.reserveCapacity(32)
        program.source.reserveCapacity(2048)
    }

    /// The node of a template, whatever it is.
    mutating func required(_ template: JSONValue) -> Int32 {
        if let node = node(template) { return node }
        let constant = program.add(constant: template)
        return program.add(.constant(constant))
    }

    mutating func failure(_ kind: JSONEError.Kind, _ message: String) -> Int32 {
        let error = program.add(error: JSONEError(kind, message))
        return program.add(.failure(error))
    }

    /// The node of a template; nil when the template is its own result.
    mutating func node(_ template: JSONValue) -> Int32? {
        switch template {
        case .null, .bool, .number: nil
        case .string(let text): fragments(text).map { program.add(.text($0)) }
        case .array(let elements): list(elements, template)
        case .object(let members): object(members, template)
        }
    }

    private mutating func list(_ elements: [JSONValue], _ written: JSONValue) -> Int32? {
        var start: Int?
        for (index, element) in elements.enumerated() {
            guard let node = node(element) else { continue }
            let first = start ?? reserveSlots(elements.count)
            start = first
            program.slots[first + index].node = node
        }
        guard let start else { return nil }
        let constant = program.add(constant: written)
        return program.add(.list(written: constant, Run(start, count: elements.count)))
    }

    private mutating func reserveSlots(_ count: Int) -> Int {
        program.slots.append(contentsOf: repeatElement(Slot(), count: count))
        return program.slots.count - count
    }

    private mutating func object(_ members: JSONObject, _ written: JSONValue) -> Int32? {
        var found: Operator?
        var name = ""
        for (key, _) in members where key.utf8.first == UInt8(ascii: "$") {
            guard let candidate = Operator.named(key) else { continue }
            guard found == nil else { return failure(.template, "only one operator allowed") }
            found = candidate
            name = key
        }
        if let found, let value = members[name] { return operation(found, value, members) }
        return output(members, written)
    }

    private mutating func output(_ members: JSONObject, _ written: JSONValue) -> Int32? {
        var start: Int?
        var hasPlainKeys = true
        for (index, (key, value)) in members.enumerated() {
            let key = memberKey(key)
            let node = node(value)
            guard key != nil || node != nil else { continue }
            let first = start ?? reserveSlots(members.count)
            start = first
            program.slots[first + index].node = node
            guard let key else { continue }
            program.slots[first + index].key = key
            hasPlainKeys = false
        }
        guard let start else { return nil }
        let constant = program.add(constant: written)
        return program.add(
            .object(written: constant, Run(start, count: members.count), hasPlainKeys: hasPlainKeys)
        )
    }

    /// What is done with the name of a member; nil for nothing.
    private mutating func memberKey(_ key: String) -> Slot.Key? {
        let bytes = key.utf8
        if bytes.first == UInt8(ascii: "$") {
            if bytes.dropFirst().first == UInt8(ascii: "$") { return .unescaped }
            if Identifier.isPlain(key.dropFirst()) {
                return .failure(
                    program.add(error: JSONEError(.template, "$<identifier> is reserved; use $$<identifier>"))
                )
            }
        }
        return fragments(key).map { .text($0) }
    }

    /// Cuts a string at its interpolations; nil when there is nothing to replace.
    private mutating func fragments(_ text: String) -> Run? {
        guard Self.mayInterpolate(text) else { return nil }
        let range = program.add(source: text)
        // Expressions in objects nest no fragments, so what is appended here stays together.
        let start = program.fragments.count
        var literal = range.lowerBound
        var index = literal
        while index + 1 < range.upperBound {
            guard program.source[index] == UInt8(ascii: "$") else {
                index += 1
                continue
            }
            switch program.source[index + 1] {
            case UInt8(ascii: "$")
            where index + 2 < range.upperBound && program.source[index + 2] == UInt8(ascii: "{"):
                // Of `$${` the first dollar goes.
                endLiteral(literal, index)
                literal = index + 1
                index += 3
            case UInt8(ascii: "{"):
                endLiteral(literal, index)
                do throws(JSONEError) {
                    let inner = (index + 2)..<range.upperBound
                    let (expression, end) = try ExpressionParser.terminated(inner, &program)
                    let source = Run(inner.lowerBound, count: end - inner.lowerBound)
                    program.fragments.append(.expression(expression, source: source))
                    index = end + 1
                    literal = index
                } catch {
                    program.fragments.append(.failure(program.add(error: error)))
                    return Run(start, count: program.fragments.count - start)
                }
            default:
                index += 1
            }
        }
        endLiteral(literal, range.upperBound)
        return Run(start, count: program.fragments.count - start)
    }

    private mutating func endLiteral(_ start: Int, _ end: Int) {
        if start < end { program.fragments.append(.text(Run(start, count: end - start))) }
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
