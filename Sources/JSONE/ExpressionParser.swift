// SPDX-License-Identifier: MPL-2.0

import JSON

/// Reads one expression from the bytes of a string, up to its end or to a closing brace.
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
    /// Where an operand was missing; reported only when nothing else is wrong, as the original parser notices it last.
    private var missing: JSONEError?

    init(_ bytes: [UInt8], from start: Int) throws(JSONEError) {
        tokenizer = Tokenizer(bytes, from: start)
        token = try tokenizer.next()
    }

    /// Reads an expression that takes the whole text.
    static func whole(_ text: String, _ symbols: inout SymbolTable) -> Result<Expression, JSONEError> {
        do throws(JSONEError) {
            var parser = try ExpressionParser(Array(text.utf8), from: 0)
            let expression = try parser.expression(&symbols)
            if let token = parser.token { throw parser.unexpected(token, Self.operatorTokens) }
            return .success(try parser.complete(expression))
        } catch {
            return .failure(error)
        }
    }

    /// Reads an expression up to a closing brace and returns the brace's offset with it.
    static func terminated(
        _ bytes: [UInt8],
        from start: Int,
        _ symbols: inout SymbolTable
    ) throws(JSONEError) -> (Expression, Int) {
        var parser = try ExpressionParser(bytes, from: start)
        let expression = try parser.expression(&symbols)
        guard let token = parser.token else { throw JSONEError(.syntax, "Found end of string, expected }") }
        guard token.kind == .closeBrace else { throw parser.unexpected(token, Self.operatorTokens) }
        return (try parser.complete(expression), token.start)
    }

    private func complete(_ expression: Expression?) throws(JSONEError) -> Expression {
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

    private mutating func operand(_ expression: Expression?) -> Expression {
        if let expression { return expression }
        missing = missing ?? unexpectedHere()
        return .literal(.null)
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

    private mutating func expression(
        _ symbols: inout SymbolTable,
        level: Int = 0
    ) throws(JSONEError) -> Expression? {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { throw JSONEError(.syntax, "expression is nested too deeply") }
        var left = try powers(&symbols)
        while let kind = token?.kind, let found = Self.level(of: kind), found >= level {
            try advance()
            let first = operand(left)
            let second = operand(try expression(&symbols, level: found + 1))
            left = Self.combined(kind, first, second)
        }
        return left
    }

    private static func combined(_ kind: Token.Kind, _ left: Expression, _ right: Expression) -> Expression {
        switch kind {
        case .or: .or(left, right)
        case .and: .and(left, right)
        default: Expression.Operation(rawValue: kind.rawValue).map { .binary($0, left, right) } ?? left
        }
    }

    private mutating func powers(_ symbols: inout SymbolTable) throws(JSONEError) -> Expression? {
        let base = try postfix(&symbols)
        guard token?.kind == .power else { return base }
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { throw JSONEError(.syntax, "expression is nested too deeply") }
        let first = operand(base)
        try advance()
        return .binary(.power, first, operand(try powers(&symbols)))
    }

    private mutating func postfix(_ symbols: inout SymbolTable) throws(JSONEError) -> Expression? {
        var expression = try unit(&symbols)
        while let token {
            switch token.kind {
            case .dot:
                try advance()
                let name = try current()
                try take(.identifier)
                expression = .property(operand(expression), tokenizer.text(of: name))
            case .openBracket:
                expression = try access(operand(expression), &symbols)
            case .openParenthesis:
                expression = .call(operand(expression), try arguments(&symbols))
            default:
                return expression
            }
        }
        return expression
    }

    private mutating func unit(_ symbols: inout SymbolTable) throws(JSONEError) -> Expression? {
        guard let token else { throw JSONEError(.syntax, "Unexpected end of input") }
        switch token.kind {
        case .plus, .minus, .not:
            depth += 1
            defer { depth -= 1 }
            guard depth < Self.depthLimit else { throw JSONEError(.syntax, "expression is nested too deeply") }
            try advance()
            let inner = operand(try unit(&symbols))
            return token.kind == .plus ? .plus(inner) : token.kind == .minus ? .minus(inner) : .not(inner)
        case .number:
            try advance()
            return .literal(JSONValue(Double(tokenizer.text(of: token)) ?? 0))
        case .string:
            try advance()
            return .literal(.string(tokenizer.content(of: token)))
        case .null, .true, .false:
            try advance()
            return .literal(token.kind == .null ? .null : .bool(token.kind == .true))
        case .identifier:
            try advance()
            return .variable(symbols.number(of: tokenizer.text(of: token)))
        case .openParenthesis:
            try advance()
            guard let inner = try expression(&symbols) else { throw unexpectedHere() }
            try take(.closeParenthesis)
            return inner
        case .openBracket:
            try advance()
            return .list(try elements(until: .closeBracket, &symbols))
        case .openBrace:
            return try object(&symbols)
        default:
            return nil
        }
    }

    private mutating func arguments(_ symbols: inout SymbolTable) throws(JSONEError) -> [Expression] {
        try advance()
        return try elements(until: .closeParenthesis, &symbols)
    }

    private mutating func elements(
        until end: Token.Kind,
        _ symbols: inout SymbolTable
    ) throws(JSONEError) -> [Expression] {
        var elements: [Expression] = []
        if try current().kind != end {
            while true {
                guard let element = try expression(&symbols) else { throw unexpectedHere() }
                elements.append(element)
                guard token?.kind == .comma else { break }
                try advance()
            }
        }
        try take(end)
        return elements
    }

    private mutating func access(_ base: Expression, _ symbols: inout SymbolTable) throws(JSONEError) -> Expression {
        try advance()
        var left: Expression?
        var right: Expression?
        var isSlice = false
        if try current().kind == .closeBracket { throw unexpectedHere() }
        if try current().kind != .colon { left = operand(try expression(&symbols)) }
        if try current().kind == .colon {
            isSlice = true
            try advance()
        }
        if try current().kind != .closeBracket {
            right = try expression(&symbols)
            if right == nil { throw unexpectedHere() }
        }
        try take(.closeBracket)
        if isSlice { return .slice(base, left, right) }
        return .element(base, operand(left))
    }

    private mutating func object(_ symbols: inout SymbolTable) throws(JSONEError) -> Expression {
        try advance()
        var members: [(String, Expression)] = []
        while let token, token.kind == .string || token.kind == .identifier {
            let key = token.kind == .string ? tokenizer.content(of: token) : tokenizer.text(of: token)
            try advance()
            try take(.colon)
            guard let value = try expression(&symbols) else { throw unexpectedHere() }
            members.append((key, value))
            if self.token?.kind == .closeBrace { break }
            try take(.comma)
        }
        try take(.closeBrace)
        return .object(members)
    }
}
