// SPDX-License-Identifier: MPL-2.0

import JSON

/// Reads one expression from a stretch of a program's source, up to its end or to a closing brace.
struct ExpressionParser {
    private static let depthLimit = 250
    private static let unitTokens = [
        "!", "(", "+", "-", "[", "false", "identifier", "null", "number", "string", "true", "{",
    ]
    private static let operatorTokens = [
        "!=", "&&", "(", "*", "**", "+", "-", ".", "/", "<", "<=", "==", ">", ">=", "[", "in", "||",
    ]

    private var tokenizer: Tokenizer
    private var token: Token?
    private var depth = 0
    /// Arguments and elements of the lists being read.
    private var aside: [Int32] = []
    /// Where an operand was missing; reported only when nothing else is wrong, as the original parser notices it last.
    private var missing: JSONEError?

    private init(_ program: Program, _ range: Range<Int>) throws(JSONEError) {
        tokenizer = Tokenizer(program.source, range)
        token = try tokenizer.next()
    }

    /// Reads an expression that takes the whole text; what cannot be read becomes an expression that fails.
    static func whole(_ text: String, _ program: inout Program) -> Int32 {
        let range = program.add(source: text)
        do throws(JSONEError) {
            var parser = try ExpressionParser(program, range)
            let expression = try parser.expression(&program)
            if let token = parser.token { throw parser.unexpected(token, Self.operatorTokens) }
            return try parser.complete(expression)
        } catch {
            let error = program.add(error: error)
            return program.add(expression: .failure(error))
        }
    }

    /// Reads an expression up to a closing brace and returns the brace's offset with it.
    static func terminated(
        _ range: Range<Int>,
        _ program: inout Program
    ) throws(JSONEError) -> (expression: Int32, end: Int) {
        var parser = try ExpressionParser(program, range)
        let expression = try parser.expression(&program)
        guard let token = parser.token else { throw JSONEError(.syntax, "Found end of string, expected }") }
        guard token.kind == .closeBrace else { throw parser.unexpected(token, Self.operatorTokens) }
        return (try parser.complete(expression), token.start)
    }

    private func complete(_ expression: Int32?) throws(JSONEError) -> Int32 {
        if let missing { throw missing }
        guard let expression else { throw unexpectedHere() }
        return expression
    }

    private func unexpected(_ token: Token, _ expected: [String]) -> JSONEError {
        let list = expected.joined(separator: ", ")
        return JSONEError(.syntax, "Found: \(tokenizer.text(of: token)) token, expected one of: \(list)")
    }

    private func unexpectedHere() -> JSONEError {
        token.map { unexpected($0, Self.unitTokens) } ?? JSONEError(.syntax, "Unexpected end of input")
    }

    private mutating func operand(_ expression: Int32?, _ program: inout Program) -> Int32 {
        if let expression { return expression }
        missing = missing ?? unexpectedHere()
        let null = program.add(constant: .null)
        return program.add(expression: .literal(null))
    }

    private mutating func advance() throws(JSONEError) {
        token = try tokenizer.next()
    }

    private mutating func take(_ kind: Token.Kind) throws(JSONEError) {
        guard let token else { throw JSONEError(.syntax, "Unexpected end of input") }
        guard token.kind == kind else { throw unexpected(token, [kind.rawValue]) }
        try advance()
    }

    private func current() throws(JSONEError) -> Token {
        guard let token else { throw JSONEError(.syntax, "Unexpected end of input") }
        return token
    }

    /// How tightly an operator binds; nil for what is no operator between two operands.
    private static func level(of kind: Token.Kind) -> Int? {
        switch kind {
        case .or: 0
        case .and: 1
        case .isIn: 2
        case .equal, .notEqual: 3
        case .less, .greater, .atMost, .atLeast: 4
        case .plus, .minus: 5
        case .times, .divide: 6
        default: nil
        }
    }

    private mutating func descend() throws(JSONEError) {
        depth += 1
        guard depth < Self.depthLimit else { throw JSONEError(.syntax, "expression is nested too deeply") }
    }

    private mutating func expression(_ program: inout Program, level: Int = 0) throws(JSONEError) -> Int32? {
        try descend()
        var left = try powers(&program)
        while let kind = token?.kind, let found = Self.level(of: kind), found >= level {
            try advance()
            let first = operand(left, &program)
            let second = operand(try expression(&program, level: found + 1), &program)
            left = program.add(expression: Self.combined(kind, first, second))
        }
        depth -= 1
        return left
    }

    private static func combined(_ kind: Token.Kind, _ left: Int32, _ right: Int32) -> Expression {
        switch kind {
        case .or: .or(left, right)
        case .and: .and(left, right)
        case .isIn: .binary(.isIn, left, right)
        case .equal: .binary(.equal, left, right)
        case .notEqual: .binary(.notEqual, left, right)
        case .less: .binary(.less, left, right)
        case .greater: .binary(.greater, left, right)
        case .atMost: .binary(.atMost, left, right)
        case .atLeast: .binary(.atLeast, left, right)
        case .plus: .binary(.add, left, right)
        case .minus: .binary(.subtract, left, right)
        case .times: .binary(.multiply, left, right)
        default: .binary(.divide, left, right)
        }
    }

    private mutating func powers(_ program: inout Program) throws(JSONEError) -> Int32? {
        let base = try postfix(&program)
        guard token?.kind == .power else { return base }
        try descend()
        let first = operand(base, &program)
        try advance()
        let second = operand(try powers(&program), &program)
        depth -= 1
        return program.add(expression: .binary(.power, first, second))
    }

    private mutating func postfix(_ program: inout Program) throws(JSONEError) -> Int32? {
        var expression = try unit(&program)
        while let token {
            switch token.kind {
            case .dot:
                try advance()
                let name = try current()
                try take(.identifier)
                let base = operand(expression, &program)
                let number = program.properties.number(of: name.start..<name.end, in: tokenizer.bytes)
                expression = program.add(expression: .property(base, name: number))
            case .openBracket:
                expression = try access(operand(expression, &program), &program)
            case .openParenthesis:
                let callee = operand(expression, &program)
                try advance()
                let arguments = try elements(until: .closeParenthesis, &program)
                expression = program.add(expression: .call(callee, arguments))
            default:
                return expression
            }
        }
        return expression
    }

    private mutating func unit(_ program: inout Program) throws(JSONEError) -> Int32? {
        guard let token else { throw JSONEError(.syntax, "Unexpected end of input") }
        switch token.kind {
        case .plus, .minus, .not:
            try descend()
            try advance()
            let inner = operand(try unit(&program), &program)
            depth -= 1
            return program.add(
                expression: token.kind == .plus ? .plus(inner) : token.kind == .minus ? .minus(inner) : .not(inner)
            )
        case .number:
            try advance()
            return literal(JSONValue(Double(tokenizer.text(of: token)) ?? 0), &program)
        case .string:
            try advance()
            return literal(.string(tokenizer.content(of: token)), &program)
        case .null, .true, .false:
            try advance()
            return literal(token.kind == .null ? .null : .bool(token.kind == .true), &program)
        case .identifier:
            try advance()
            return program.add(
                expression: .variable(program.symbols.number(of: token.start..<token.end, in: tokenizer.bytes))
            )
        case .openParenthesis:
            try advance()
            guard let inner = try expression(&program) else { throw unexpectedHere() }
            try take(.closeParenthesis)
            return inner
        case .openBracket:
            try advance()
            return program.add(expression: .list(try elements(until: .closeBracket, &program)))
        case .openBrace:
            return try object(&program)
        default:
            return nil
        }
    }

    private func literal(_ value: JSONValue, _ program: inout Program) -> Int32 {
        let constant = program.add(constant: value)
        return program.add(expression: .literal(constant))
    }

    /// Moves what has been put aside since a mark into the program.
    private mutating func unload(since mark: Int, _ program: inout Program) -> Run {
        let run = Run(program.links.count, count: aside.count - mark)
        program.links.append(contentsOf: aside[mark...])
        aside.removeSubrange(mark...)
        return run
    }

    private mutating func elements(until end: Token.Kind, _ program: inout Program) throws(JSONEError) -> Run {
        let mark = aside.count
        if try current().kind != end {
            while true {
                guard let element = try expression(&program) else { throw unexpectedHere() }
                aside.append(element)
                guard token?.kind == .comma else { break }
                try advance()
            }
        }
        try take(end)
        return unload(since: mark, &program)
    }

    private mutating func access(_ base: Int32, _ program: inout Program) throws(JSONEError) -> Int32 {
        try advance()
        var left: Int32?
        var right: Int32?
        var isSlice = false
        if try current().kind == .closeBracket { throw unexpectedHere() }
        if try current().kind != .colon { left = operand(try expression(&program), &program) }
        if try current().kind == .colon {
            isSlice = true
            try advance()
        }
        if try current().kind != .closeBracket {
            right = try expression(&program)
            if right == nil { throw unexpectedHere() }
        }
        try take(.closeBracket)
        if isSlice { return program.add(expression: .slice(base, left, right)) }
        let position = operand(left, &program)
        return program.add(expression: .element(base, position))
    }

    private mutating func object(_ program: inout Program) throws(JSONEError) -> Int32 {
        try advance()
        let mark = aside.count
        // Where each key's expression stands: a repeated key replaces it, and the earlier one is never evaluated.
        var places = JSONObject()
        while let token, token.kind == .string || token.kind == .identifier {
            let key = token.kind == .string ? tokenizer.content(of: token) : tokenizer.text(of: token)
            try advance()
            try take(.colon)
            guard let value = try expression(&program) else { throw unexpectedHere() }
            if let place = places[key]?.int {
                aside[place] = value
            } else {
                places.append(new: key, JSONValue(aside.count + 1))
                aside.append(program.add(constant: .string(key)))
                aside.append(value)
            }
            if self.token?.kind == .closeBrace { break }
            try take(.comma)
        }
        try take(.closeBrace)
        return program.add(expression: .object(unload(since: mark, &program)))
    }
}
