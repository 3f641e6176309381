// SPDX-License-Identifier: MPL-2.0

import JSON

extension Renderer {
    static func isTruthy(_ value: JSONValue) -> Bool {
        switch value {
        case .null: false
        case .bool(let value): value
        case .number(let number): number.double != 0
        case .string(let text): !text.isEmpty
        case .array(let elements): !elements.isEmpty
        case .object(let members): !members.isEmpty
        }
    }

    /// The value of a number; nil for anything else, functions included.
    static func number(_ value: JSONValue) -> Double? {
        guard case .number(let number) = value, Builtin(value) == nil else { return nil }
        return number.double
    }

    static func isEqual(_ first: JSONValue, _ second: JSONValue) -> Bool {
        switch (first, second) {
        case (.number(let a), .number(let b)):
            return a.double == b.double || Builtin(first).map { $0 == Builtin(second) } ?? false
        case (.array(let a), .array(let b)):
            return a.count == b.count && zip(a, b).allSatisfy { isEqual($0, $1) }
        case (.object(let a), .object(let b)):
            return a.count == b.count
                && a.allSatisfy { member in b[member.key].map { isEqual(member.value, $0) } ?? false }
        default:
            return first == second
        }
    }

    mutating func evaluate(_ expression: Expression) throws(JSONEError) -> JSONValue {
        switch expression {
        case .failure(let error):
            throw program.errors[Int(error)]
        case .literal(let value):
            return program.constants[Int(value)]
        case .variable(let symbol):
            guard let value = variables[Int(symbol)] else {
                throw JSONEError(.interpreter, "unknown context value \(name(of: symbol))")
            }
            if Builtin(value) != nil { hasUsedFunctionAsValue = true }
            return value
        case .property(let base, let name):
            return try property(base, program.properties.names[Int(name)])
        case .element(let base, let position):
            return try element(of: try evaluate(base), at: try evaluate(position))
        case .slice(let base, let start, let end):
            return try slice(base, start, end)
        case .call(let callee, let arguments):
            return try call(callee, arguments)
        case .list(let links):
            var elements: [JSONValue] = []
            elements.reserveCapacity(Int(links.count))
            for link in links.range { elements.append(try evaluate(program.links[link])) }
            return .array(elements)
        case .object(let links):
            var members = JSONObject()
            for link in stride(from: links.range.lowerBound, to: links.range.upperBound, by: 2) {
                let value = try evaluate(program.links[link + 1])
                guard case .string(let key) = program.constants[Int(program.links[link])] else { continue }
                try budget.compare(key)
                members[key] = value
            }
            return .object(members)
        case .plus(let inner):
            return JSONValue(try unaryOperand(inner, "+"))
        case .minus(let inner):
            return JSONValue(-(try unaryOperand(inner, "-")))
        case .not(let inner):
            return .bool(!Self.isTruthy(try evaluate(inner)))
        case .and(let left, let right):
            guard Self.isTruthy(try evaluate(left)) else { return false }
            return .bool(Self.isTruthy(try evaluate(right)))
        case .or(let left, let right):
            if Self.isTruthy(try evaluate(left)) { return true }
            return .bool(Self.isTruthy(try evaluate(right)))
        case .binary(let operation, let left, let right):
            let first = try evaluate(left)
            return try apply(operation, first, try evaluate(right))
        }
    }

    private mutating func property(_ base: Int32, _ name: String) throws(JSONEError) -> JSONValue {
        guard case .object(let members) = try evaluate(base) else {
            throw JSONEError(.interpreter, "infix: . expects objects")
        }
        try budget.compare(name)
        guard let value = members[name] else {
            throw JSONEError(.interpreter, "object has no property \"\(name)\"")
        }
        return value
    }

    private mutating func unaryOperand(_ expression: Int32, _ sign: String) throws(JSONEError) -> Double {
        guard let value = Self.number(try evaluate(expression)) else {
            throw JSONEError(.interpreter, "unary \(sign) expects number")
        }
        return value
    }

    // MARK: - Operators

    private mutating func areEqual(_ left: JSONValue, _ right: JSONValue) throws(JSONEError) -> Bool {
        switch (left, right) {
        case (.array, .array), (.object, .object): try budget.read(left)
        case (.string(let a), .string(let b)) where a.utf8.count == b.utf8.count: try budget.compare(a)
        default: break
        }
        return Self.isEqual(left, right)
    }

    private mutating func apply(
        _ operation: Expression.Operation,
        _ left: JSONValue,
        _ right: JSONValue
    ) throws(JSONEError) -> JSONValue {
        switch operation {
        case .equal: return .bool(try areEqual(left, right))
        case .notEqual: return .bool(try !areEqual(left, right))
        case .isIn: return .bool(try isContained(left, right))
        case .add:
            if case (.string(let a), .string(let b)) = (left, right) {
                try budget.spend((a.utf8.count + b.utf8.count) >> 2)
                return .string(a + b)
            }
            guard let a = Self.number(left), let b = Self.number(right) else {
                throw JSONEError(.interpreter, "infix: + expects numbers/strings + numbers/strings")
            }
            return JSONValue(a + b)
        case .subtract, .multiply, .divide, .power:
            guard let a = Self.number(left), let b = Self.number(right) else {
                let sign = operation.sign
                throw JSONEError(.interpreter, "infix: \(sign) expects number \(sign) number")
            }
            return JSONValue(try Self.calculated(operation, a, b))
        case .less, .greater, .atMost, .atLeast:
            return .bool(try isOrdered(operation, left, right))
        }
    }

    private static func calculated(
        _ operation: Expression.Operation,
        _ first: Double,
        _ second: Double
    ) throws(JSONEError) -> Double {
        switch operation {
        case .subtract: return first - second
        case .multiply: return first * second
        case .power: return Power.power(first, second)
        default:
            guard second != 0 else { throw JSONEError(.interpreter, "division by zero") }
            return first / second
        }
    }

    private mutating func isOrdered(
        _ operation: Expression.Operation,
        _ left: JSONValue,
        _ right: JSONValue
    ) throws(JSONEError) -> Bool {
        if let a = Self.number(left), let b = Self.number(right) {
            return switch operation {
            case .less: a < b
            case .greater: a > b
            case .atMost: a <= b
            default: a >= b
            }
        }
        guard case (.string(let a), .string(let b)) = (left, right) else {
            let sign = operation.sign
            throw JSONEError(.interpreter, "infix: \(sign) expects numbers/strings \(sign) numbers/strings")
        }
        try budget.compare(a.utf8.count < b.utf8.count ? a : b)
        return switch operation {
        case .less: precedesByBytes(a, b)
        case .greater: precedesByBytes(b, a)
        case .atMost: !precedesByBytes(b, a)
        default: !precedesByBytes(a, b)
        }
    }

    private mutating func isContained(_ value: JSONValue, _ collection: JSONValue) throws(JSONEError) -> Bool {
        switch collection {
        case .object(let members):
            guard case .string(let key) = value else {
                throw JSONEError(.interpreter, "Infix: in-object expects string on left side")
            }
            try budget.compare(key)
            return members.contains(key)
        case .string(let text):
            guard case .string(let part) = value else {
                throw JSONEError(.interpreter, "Infix: in-string expects string on left side")
            }
            try budget.search(text, for: part)
            return Substrings.contains(text, part)
        case .array(let elements):
            if value.array != nil || value.object != nil {
                try budget.read(collection)
            } else {
                try budget.look(at: collection)
                if case .string(let text) = value, text.utf8.count >= 16 {
                    let alike = elements.count { $0.string?.utf8.count == text.utf8.count }
                    try budget.compare(text, times: alike)
                }
            }
            return elements.contains { Self.isEqual(value, $0) }
        default:
            throw JSONEError(.interpreter, "Infix: in expects Array, string, or object on right side")
        }
    }

    // MARK: - Access

    private mutating func element(of value: JSONValue, at position: JSONValue) throws(JSONEError) -> JSONValue {
        switch value {
        case .array(let elements):
            return elements[try Self.index(position, count: elements.count)]
        case .string(let text):
            try budget.look(at: value)
            let scalars = Scalars(text)
            let index = try Self.index(position, count: scalars.count)
            return .string(scalars.text(index..<(index + 1)))
        case .object(let members):
            guard case .string(let key) = position else {
                throw JSONEError(.interpreter, "object keys must be strings")
            }
            try budget.compare(key)
            return members[key] ?? .null
        default:
            throw JSONEError(.interpreter, "infix: \"[..]\" expects object, array, or string")
        }
    }

    private static func index(_ position: JSONValue, count: Int) throws(JSONEError) -> Int {
        guard let number = number(position), let index = Int(exactly: number) else {
            throw JSONEError(.interpreter, "should only use integers to access arrays or strings")
        }
        let fromStart = index < 0 ? max(0, count + index) : index
        guard fromStart < count else { throw JSONEError(.interpreter, "index out of bounds") }
        return fromStart
    }

    private mutating func slice(
        _ base: Int32,
        _ start: Int32?,
        _ end: Int32?
    ) throws(JSONEError) -> JSONValue {
        let value = try evaluate(base)
        var first: JSONValue = 0
        var last: JSONValue = nil
        if let start { first = try evaluate(start) }
        if let end { last = try evaluate(end) }
        switch value {
        case .array(let elements):
            let bounds = try Self.bounds(first, last, count: elements.count)
            try budget.spend(bounds.count)
            return .array(Array(elements[bounds]))
        case .string(let text):
            try budget.spend(text: text)
            let scalars = Scalars(text)
            return .string(scalars.text(try Self.bounds(first, last, count: scalars.count)))
        case .object:
            guard case .string(let key) = first else {
                throw JSONEError(.interpreter, "object keys must be strings")
            }
            return value[key] ?? .null
        default:
            throw JSONEError(.interpreter, "infix: \"[..]\" expects object, array, or string")
        }
    }

    private static func bounds(_ start: JSONValue, _ end: JSONValue, count: Int) throws(JSONEError) -> Range<Int> {
        let last = end.isNull ? Double(count) : number(end)
        guard let first = number(start), let last, first == first.rounded(), last == last.rounded(), first.isFinite,
            last.isFinite
        else {
            throw JSONEError(.interpreter, "cannot perform interval access with non-integers")
        }
        func clamped(_ position: Double) -> Int {
            let fromStart = position < 0 ? Double(count) + position : position
            return Int(min(max(fromStart, 0), Double(count)))
        }
        let upper = clamped(last)
        return min(clamped(first), upper)..<upper
    }
}

/// A string as the sequence of its code points; of ASCII characters they are the bytes.
struct Scalars {
    private let text: String
    private let isASCII: Bool
    let count: Int

    init(_ text: String) {
        self.text = text
        isASCII = text.utf8.allSatisfy { $0 < 0x80 }
        count = isASCII ? text.utf8.count : text.unicodeScalars.count
    }

    func text(_ range: Range<Int>) -> String {
        let start = index(range.lowerBound, after: text.startIndex)
        return String(text[start..<index(range.count, after: start)])
    }

    private func index(_ distance: Int, after start: String.Index) -> String.Index {
        isASCII
            ? text.utf8.index(start, offsetBy: distance) : text.unicodeScalars.index(start, offsetBy: distance)
    }
}

/// Searching by code points.
enum Substrings {
    static func contains(_ text: String, _ part: String) -> Bool {
        firstIndex(of: Array(part.utf8), in: Array(text.utf8), from: 0) != nil
    }

    static func firstIndex(of part: [UInt8], in text: [UInt8], from start: Int) -> Int? {
        guard text.count - start >= part.count else { return nil }
        for index in start...(text.count - part.count)
        where text[index..<(index + part.count)].elementsEqual(part) {
            return index
        }
        return nil
    }
}
