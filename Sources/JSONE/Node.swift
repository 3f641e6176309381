// SPDX-License-Identifier: MPL-2.0

import JSON

/// A template that has been read.
indirect enum Node: Sendable {
    /// Nothing to do: the value is its own result.
    case constant(JSONValue)
    /// A mistake that is reported when rendering comes here.
    case failure(JSONEError)
    case text([Fragment])
    case list([Node])
    case object([Member])
    case evaluate(Result<Expression, JSONEError>)
    case choice(Choice)
    case bind(variables: Node, body: Node?)
    case map(Node, Loop?)
    case reduce(Node, Loop?, initial: JSONValue)
    case find(Node, Loop?)
    case match([Case])
    case `switch`([Case], fallback: Node?)
    case merge(Node)
    case mergeDeep(Node)
    case flatten(Node)
    case flattenDeep(Node)
    case sort(Node, by: Key?)
    case reverse(Node)
    case json(Node)
    case fromNow(Node, reference: Node?)

    /// A piece of a string with interpolations.
    enum Fragment: Sendable {
        case text(String)
        case expression(Expression, source: String)
        case failure(JSONEError)
    }

    /// A member of an object that is output, not an operator.
    struct Member: Sendable {
        let key: MemberKey
        let value: Node
        /// How the place is written in errors.
        let step: String
    }

    /// The name of a member.
    enum MemberKey: Sendable {
        case constant(String)
        case text([Fragment])
        case failure(JSONEError)
    }

    struct Choice: Sendable {
        let condition: Result<Expression, JSONEError>
        let then: Node?
        let otherwise: Node?
        /// `$then` was written for `then`.
        let isMisspelled: Bool
    }

    /// `each(…)`: the variables and what is done with each element.
    struct Loop: Sendable {
        let key: String
        let symbols: [Int]
        let body: Node
    }

    struct Case: Sendable {
        let condition: Result<Expression, JSONEError>
        let body: Node
    }

    /// `by(x)`.
    struct Key: Sendable {
        let symbol: Int
        let expression: Result<Expression, JSONEError>
    }
}

/// An expression that has been read.
indirect enum Expression: Sendable {
    case literal(JSONValue)
    case variable(Int)
    case property(Expression, String)
    case element(Expression, Expression)
    case slice(Expression, Expression?, Expression?)
    case call(Expression, [Expression])
    case list([Expression])
    case object([(String, Expression)])
    case plus(Expression)
    case minus(Expression)
    case not(Expression)
    case and(Expression, Expression)
    case or(Expression, Expression)
    case binary(Operation, Expression, Expression)

    /// The operators that evaluate both sides.
    enum Operation: String, Sendable {
        case add = "+"
        case subtract = "-"
        case multiply = "*"
        case divide = "/"
        case power = "**"
        case less = "<"
        case greater = ">"
        case atMost = "<="
        case atLeast = ">="
        case equal = "=="
        case notEqual = "!="
        case isIn = "in"
    }
}

/// Numbers for the names of variables, so that looking one up is an array access.
struct SymbolTable: Sendable {
    private(set) var names: [String] = []
    private var numbers: [String: Int] = [:]

    mutating func number(of name: String) -> Int {
        if let number = numbers[name] { return number }
        let number = names.count
        names.append(name)
        numbers[name] = number
        return number
    }

    func existingNumber(of name: String) -> Int? {
        numbers[name]
    }
}

enum Identifier {
    static func isStart(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x41...0x5A, 0x61...0x7A, 0x5F: true
        default: false
        }
    }

    static func isPart(_ byte: UInt8) -> Bool {
        isStart(byte) || 0x30...0x39 ~= byte
    }

    static func isValid(_ text: String) -> Bool {
        let bytes = text.utf8.span
        guard !bytes.isEmpty, isStart(bytes[0]) else { return false }
        for index in bytes.indices where !isPart(bytes[index]) { return false }
        return true
    }

    /// Letters and digits only: what follows a dot in the place of an error, or a dollar in a reserved key.
    static func isPlain(_ text: Substring) -> Bool {
        guard let first = text.utf8.first, isStart(first), first != 0x5F else { return false }
        return text.utf8.allSatisfy { isPart($0) && $0 != 0x5F }
    }
}
