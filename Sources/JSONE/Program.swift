// SPDX-License-Identifier: MPL-2.0

import JSON

/// A template that has been read: flat lists whose entries name each other by position.
///
/// Entries hold numbers only, so that walking them neither counts references nor follows pointers.
struct Program: Sendable {
    var nodes: [Node] = []
    var expressions: [Expression] = []
    /// Members of objects that are output, and elements of lists.
    var slots: [Slot] = []
    var fragments: [Fragment] = []
    var cases: [Case] = []
    /// Positions of arguments, elements and members within expressions.
    var links: [Int32] = []
    var constants: [JSONValue] = []
    var errors: [JSONEError] = []
    /// The text of every string with something to evaluate.
    var source: [UInt8] = []
    /// Variables.
    var symbols = NameTable()
    /// Names of properties.
    var properties = NameTable()

    mutating func add(_ node: Node) -> Int32 {
        nodes.append(node)
        return Int32(nodes.count - 1)
    }

    mutating func add(expression: Expression) -> Int32 {
        expressions.append(expression)
        return Int32(expressions.count - 1)
    }

    mutating func add(constant: JSONValue) -> Int32 {
        constants.append(constant)
        return Int32(constants.count - 1)
    }

    mutating func add(error: JSONEError) -> Int32 {
        errors.append(error)
        return Int32(errors.count - 1)
    }

    /// Copies a text behind the others and returns where it is.
    mutating func add(source text: String) -> Range<Int> {
        let start = source.count
        source.append(contentsOf: text.utf8)
        return start..<source.count
    }
}

/// A stretch of one of the lists.
struct Run: Sendable, BitwiseCopyable {
    let start: Int32
    let count: Int32

    init(_ start: Int, count: Int) {
        self.start = Int32(start)
        self.count = Int32(count)
    }

    var range: Range<Int> { Int(start)..<(Int(start) + Int(count)) }
}

/// A part of a template.
enum Node: Sendable, BitwiseCopyable {
    /// Nothing to do: the value is its own result.
    case constant(Int32)
    /// A mistake that is reported when rendering comes here.
    case failure(Int32)
    case text(Run)
    /// A list as it is written (a constant) and what is done with each element.
    case list(written: Int32, Run)
    /// An object as it is written (a constant) and what is done with each member.
    case object(written: Int32, Run, hasPlainKeys: Bool)
    case evaluate(Int32)
    /// The flag tells that `$then` was written for `then`.
    case choice(condition: Int32, then: Int32?, otherwise: Int32?, isMisspelled: Bool)
    case bind(variables: Int32, body: Int32?)
    case map(Int32, Loop?)
    case reduce(Int32, Loop?, initial: Int32)
    case find(Int32, Loop?)
    case match(Run)
    case `switch`(Run, fallback: Int32?)
    case merge(Int32)
    case mergeDeep(Int32)
    case flatten(Int32)
    case flattenDeep(Int32)
    case sort(Int32)
    case sortBy(Int32, symbol: Int32, key: Int32)
    case reverse(Int32)
    case json(Int32)
    case fromNow(Int32, reference: Int32?)

    /// `each(…)`: the variables and what is done with each element.
    struct Loop: Sendable, BitwiseCopyable {
        let first: Int32
        let second: Int32?
        let third: Int32?
        let body: Int32
    }
}

/// What is done with a member or an element of what is written.
struct Slot: Sendable, BitwiseCopyable {
    enum Key: Sendable, BitwiseCopyable {
        case written
        case unescaped
        case text(Run)
        case failure(Int32)
    }

    var key = Key.written
    /// Nil when the value is its own result.
    var node: Int32?
}

/// A piece of a string with interpolations.
enum Fragment: Sendable, BitwiseCopyable {
    /// A stretch of the program's source.
    case text(Run)
    case expression(Int32, source: Run)
    case failure(Int32)
}

struct Case: Sendable, BitwiseCopyable {
    let condition: Int32
    let body: Int32
}

/// A part of an expression.
enum Expression: Sendable, BitwiseCopyable {
    /// The expression cannot be read.
    case failure(Int32)
    case literal(Int32)
    case variable(Int32)
    case property(Int32, name: Int32)
    case element(Int32, Int32)
    case slice(Int32, Int32?, Int32?)
    case call(Int32, Run)
    case list(Run)
    /// Names (constants) and expressions in turn.
    case object(Run)
    case plus(Int32)
    case minus(Int32)
    case not(Int32)
    case and(Int32, Int32)
    case or(Int32, Int32)
    case binary(Operation, Int32, Int32)

    /// The operators that evaluate both sides.
    enum Operation: Sendable, BitwiseCopyable {
        case add, subtract, multiply, divide, power, less, greater, atMost, atLeast, equal, notEqual, isIn

        var sign: String {
            switch self {
            case .add: "+"
            case .subtract: "-"
            case .multiply: "*"
            case .divide: "/"
            case .power: "**"
            case .less: "<"
            case .greater: ">"
            case .atMost: "<="
            case .atLeast: ">="
            case .equal: "=="
            case .notEqual: "!="
            case .isIn: "in"
            }
        }
    }
}
