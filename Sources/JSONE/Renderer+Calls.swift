// SPDX-License-Identifier: MPL-2.0

import JSON

extension Renderer {
    /// More elements than this are taken for a mistake.
    private static let rangeLimit = 1_000_000.0

    mutating func call(_ callee: Int32, _ links: Run) throws(JSONEError) -> JSONValue {
        if !functions.isEmpty, case .variable(let symbol) = program.expressions[Int(callee)],
            variables[Int(symbol)] == nil, let function = functions[name(of: symbol)]
        {
            var arguments: [JSONValue] = []
            for link in links.range { arguments.append(try evaluate(program.links[link])) }
            return try function(arguments)
        }
        let callable: JSONValue
        if case .variable(let symbol) = program.expressions[Int(callee)], let value = variables[Int(symbol)] {
            // Calling a function does not make it a value.
            callable = value
        } else {
            callable = try evaluate(callee)
        }
        guard let builtin = Builtin(callable) else {
            try budget.read(callable)
            throw JSONEError(.interpreter, "\(Self.javascriptString(callable).prefix(1000)) is not callable")
        }
        var arguments: [JSONValue] = []
        arguments.reserveCapacity(Int(links.count))
        for link in links.range {
            let argument = try evaluate(program.links[link])
            try budget.look(at: argument)
            arguments.append(argument)
        }
        return try apply(builtin, arguments)
    }

    private static func javascriptString(_ value: JSONValue) -> String {
        switch value {
        case .null: "null"
        case .bool(let value): value ? "true" : "false"
        case .number(let number): NumberText.text(number.double)
        case .string(let text): text
        case .array(let elements): elements.map { $0.isNull ? "" : javascriptString($0) }.joined(separator: ",")
        case .object: "[object Object]"
        }
    }

    private mutating func apply(_ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        switch builtin {
        case .min, .max, .sqrt, .ceil, .floor, .abs, .range: try applyNumeric(builtin, arguments)
        case .typeof: .string(Self.typeName(try single(builtin, arguments)))
        case .defined: .bool(isDefined(try text(builtin, arguments)))
        case .fromNow: try relativeTime(builtin, arguments)
        default: try applyTextual(builtin, arguments)
        }
    }

    // MARK: - Arguments

    private mutating func invalid(_ builtin: Builtin, _ detail: String = "") -> JSONEError {
        JSONEError(.builtin, "invalid arguments to builtin: \(builtin.rawValue)\(detail)")
    }

    private mutating func single(_ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        guard arguments.count == 1 else { throw invalid(builtin) }
        return arguments[0]
    }

    private mutating func text(_ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) -> String {
        guard case .string(let text) = try single(builtin, arguments) else { throw invalid(builtin) }
        return text
    }

    private mutating func atLeast(_ count: Int, _ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) {
        guard arguments.count >= count else { throw invalid(builtin, ": expected at least \(count) arguments") }
    }

    private mutating func numbers(_ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) -> [Double] {
        let numbers = arguments.compactMap(Self.number)
        guard numbers.count == arguments.count else { throw invalid(builtin) }
        return numbers
    }

    /// A separator may be a string or a number.
    private mutating func separator(_ value: JSONValue, _ builtin: Builtin) throws(JSONEError) -> String {
        if case .string(let text) = value { return text }
        guard let number = Self.number(value) else { throw invalid(builtin) }
        return NumberText.text(number)
    }

    private static func typeName(_ value: JSONValue) -> String {
        switch value {
        case .null: "null"
        case .bool: "boolean"
        case .number: Builtin(value) == nil ? "number" : "function"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }

    // MARK: - Numbers

    private mutating func applyNumeric(_ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        switch builtin {
        case .min, .max:
            try atLeast(1, builtin, arguments)
            let numbers = try numbers(builtin, arguments)
            if numbers.contains(where: \.isNaN) { return JSONValue(Double.nan) }
            return JSONValue((builtin == .min ? numbers.min() : numbers.max()) ?? 0)
        case .range:
            return try range(arguments)
        default:
            guard let number = Self.number(try single(builtin, arguments)) else { throw invalid(builtin) }
            return switch builtin {
            case .sqrt: JSONValue(number.squareRoot())
            case .ceil: JSONValue(number.rounded(.up))
            case .floor: JSONValue(number.rounded(.down))
            default: JSONValue(number.magnitude)
            }
        }
    }

    private mutating func range(_ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        try atLeast(2, .range, arguments)
        let numbers = try numbers(.range, arguments)
        let step = numbers.count > 2 ? numbers[2] : 1
        guard numbers.count <= 3, numbers.allSatisfy({ $0 == $0.rounded() && $0.isFinite }), step != 0 else {
            throw invalid(.range)
        }
        let count = ((numbers[1] - numbers[0]) / step).rounded(.up)
        guard count <= Self.rangeLimit else { throw invalid(.range, ": more than \(Int(Self.rangeLimit)) elements") }
        guard count > 0 else { return .array([]) }
        try budget.spend(Int(count))
        return .array((0..<Int(count)).map { JSONValue(numbers[0] + Double($0) * step) })
    }

    // MARK: - Texts

    private mutating func applyTextual(_ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        switch builtin {
        case .lowercase, .uppercase:
            let text = try text(builtin, arguments)
            try budget.spend(text: text)
            return .string(builtin == .lowercase ? text.lowercased() : text.uppercased())
        case .strip: return .string(Self.stripped(try text(builtin, arguments), start: true, end: true))
        case .lstrip: return .string(Self.stripped(try text(builtin, arguments), start: true, end: false))
        case .rstrip: return .string(Self.stripped(try text(builtin, arguments), start: false, end: true))
        case .number:
            guard let number = JavaScriptNumberText.value(try text(builtin, arguments)) else { throw invalid(builtin) }
            return JSONValue(number)
        case .len: return try length(arguments)
        case .split: return try split(arguments)
        case .join: return try join(arguments)
        default:
            let value = try single(builtin, arguments)
            if value.array != nil || value.object != nil || Builtin(value) != nil { throw invalid(builtin) }
            return .string(Self.javascriptString(value))
        }
    }

    private mutating func length(_ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        switch try single(.len, arguments) {
        case .string(let text): return JSONValue(Scalars(text).count)
        case .array(let elements): return JSONValue(elements.count)
        default: throw invalid(.len)
        }
    }

    private static func stripped(_ text: String, start: Bool, end: Bool) -> String {
        func isBlank(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.isWhitespace || scalar == "\u{FEFF}" }
        var rest = text.unicodeScalars[...]
        if start { rest = rest.drop(while: isBlank) }
        if end { while let last = rest.last, isBlank(last) { rest.removeLast() } }
        return String(rest)
    }

    private mutating func split(_ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        guard arguments.count == 2, case .string(let text) = arguments[0] else { throw invalid(.split) }
        let separator = Array(try separator(arguments[1], .split).utf8)
        try budget.spend(text.utf8.count)
        try budget.search(text, for: String(decoding: separator, as: UTF8.self))
        guard !separator.isEmpty else { return .array(text.unicodeScalars.map { .string(String($0)) }) }
        let bytes = Array(text.utf8)
        var parts: [JSONValue] = []
        var start = 0
        while let index = Substrings.firstIndex(of: separator, in: bytes, from: start) {
            parts.append(.string(String(decoding: bytes[start..<index], as: UTF8.self)))
            start = index + separator.count
        }
        parts.append(.string(String(decoding: bytes[start...], as: UTF8.self)))
        return .array(parts)
    }

    private mutating func join(_ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        guard arguments.count == 2, case .array(let elements) = arguments[0] else { throw invalid(.join) }
        let separator = try separator(arguments[1], .join)
        var texts: [String] = []
        for element in elements {
            if element.array != nil { try budget.read(element) }
            guard element.object == nil, !Builtin.occurs(in: element) else { throw invalid(.join) }
            let text = element.isNull ? "" : Self.javascriptString(element)
            try budget.spend(1 + (text.utf8.count + separator.utf8.count) >> 2)
            texts.append(text)
        }
        return .string(texts.joined(separator: separator))
    }

    private mutating func relativeTime(_ builtin: Builtin, _ arguments: [JSONValue]) throws(JSONEError) -> JSONValue {
        try atLeast(1, builtin, arguments)
        let texts = arguments.compactMap(\.string)
        guard texts.count == arguments.count, texts.count <= 2 else { throw invalid(builtin) }
        let reference = texts.count == 2 ? JSONValue.string(texts[1]) : nil
        return try relativeTime(texts[0], from: reference, complaining: .builtin)
    }
}

/// Numbers as ECMAScript reads them from strings.
enum JavaScriptNumberText {
    static func value(_ text: String) -> Double? {
        let scalars = Array(text.unicodeScalars)
        func isBlank(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.isWhitespace || scalar == "\u{FEFF}" }
        guard let first = scalars.firstIndex(where: { !isBlank($0) }),
            let last = scalars.lastIndex(where: { !isBlank($0) })
        else { return 0 }
        let body = String(String.UnicodeScalarView(scalars[first...last]))
        for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)]
        where body.hasPrefix(prefix) {
            let digits = body.dropFirst(2)
            guard digits.first != "-", digits.first != "+" else { return nil }
            return UInt64(digits, radix: radix).map { Double($0) }
        }
        let unsigned = body.first == "-" || body.first == "+" ? body.dropFirst() : body[...]
        if unsigned == "Infinity" { return body.first == "-" ? -.infinity : .infinity }
        guard isDecimal(Array(unsigned.utf8)) else { return nil }
        // The standard library wants digits on both sides of the point.
        var literal = unsigned.hasPrefix(".") ? "0" + unsigned : String(unsigned)
        if let point = literal.firstIndex(of: "."), case let next = literal.index(after: point),
            next == literal.endIndex || !literal[next].isNumber
        {
            literal.insert("0", at: next)
        }
        guard let value = Double(literal) else { return nil }
        return body.first == "-" ? -value : value
    }

    private static func isDecimal(_ bytes: [UInt8]) -> Bool {
        var index = 0
        func digits() -> Int {
            let start = index
            while index < bytes.count, 0x30...0x39 ~= bytes[index] { index += 1 }
            return index - start
        }
        var count = digits()
        if index < bytes.count, bytes[index] == UInt8(ascii: ".") {
            index += 1
            count += digits()
        }
        guard count > 0 else { return false }
        if index < bytes.count, bytes[index] | 0x20 == UInt8(ascii: "e") {
            index += 1
            if index < bytes.count, bytes[index] == UInt8(ascii: "+") || bytes[index] == UInt8(ascii: "-") {
                index += 1
            }
            guard digits() > 0 else { return false }
        }
        return index == bytes.count
    }
}
