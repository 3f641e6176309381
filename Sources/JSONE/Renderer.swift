// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// One rendering: the variables in force and the walk along the nodes.
///
/// Rendering yields nil where a branch was not taken; the surrounding array or object then leaves the place out.
struct Renderer {
    private let symbols: SymbolTable
    /// The value of every variable that the template names, by number.
    var variables: [JSONValue?]
    /// How many definitions of names that only `defined("…")` can ask for are in force.
    private var unnamed: [String: Int] = [:]
    private let context: JSONObject
    private let now: String
    /// Only then must the result be searched for functions.
    var hasUsedFunctionAsValue = false

    init(symbols: SymbolTable, context: JSONObject, now: Timestamp) {
        self.symbols = symbols
        self.context = context
        self.now = now.iso8601
        variables = []
        variables.reserveCapacity(symbols.names.count)
        for name in symbols.names { variables.append(context[name] ?? initialValue(of: name)) }
    }

    private func initialValue(of name: String) -> JSONValue? {
        name == "now" ? .string(now) : Builtin(rawValue: name)?.value
    }

    func name(of symbol: Int) -> String {
        symbols.names[symbol]
    }

    func isDefined(_ name: String) -> Bool {
        if let symbol = symbols.existingNumber(of: name) { return variables[symbol] != nil }
        return unnamed[name] != nil || context.contains(name) || initialValue(of: name) != nil
    }

    /// The instant from which relative times count when no other is given.
    var currentInstant: JSONValue {
        guard let symbol = symbols.existingNumber(of: "now") else { return context["now"] ?? .string(now) }
        return variables[symbol] ?? .string(now)
    }

    mutating func render(_ node: Node) throws(JSONEError) -> JSONValue? {
        switch node {
        case .constant(let value): return value
        case .failure(let error): throw error
        case .text(let fragments): return .string(try text(fragments))
        case .list(let nodes): return .array(try list(nodes))
        case .object(let members): return .object(try object(members))
        case .evaluate(let expression): return try evaluated(expression)
        case .choice(let choice): return try render(choice)
        case .bind(let variables, let body): return try bind(variables, body)
        case .map(let value, let loop): return try map(value, loop)
        case .reduce(let value, let loop, let initial): return try reduce(value, loop, initial)
        case .find(let value, let loop): return try find(value, loop)
        case .match(let cases): return .array(try matches(cases))
        case .switch(let cases, let fallback): return try selected(cases, fallback)
        case .merge(let value): return .object(try merged(value))
        case .mergeDeep(let value): return .object(try deeplyMerged(value))
        case .flatten(let value): return .array(try flattened(value))
        case .flattenDeep(let value): return .array(try deeplyFlattened(value))
        case .sort(let value, let key): return .array(try sorted(value, key))
        case .reverse(let value): return .array(try reversed(value))
        case .json(let value): return .string(try jsonText(value))
        case .fromNow(let value, let reference): return try relativeTime(value, reference)
        }
    }

    /// Renders what an operator works on; a branch not taken counts as an object without members, as in JavaScript.
    mutating func operand(_ node: Node) throws(JSONEError) -> JSONValue {
        try render(node) ?? .object(JSONObject())
    }

    mutating func evaluated(_ expression: Result<Expression, JSONEError>) throws(JSONEError) -> JSONValue {
        switch expression {
        case .success(let expression): return try evaluate(expression)
        case .failure(let error): throw error
        }
    }

    private mutating func list(_ nodes: [Node]) throws(JSONEError) -> [JSONValue] {
        var elements: [JSONValue] = []
        elements.reserveCapacity(nodes.count)
        for (index, node) in nodes.enumerated() {
            do throws(JSONEError) {
                if let value = try render(node) { elements.append(value) }
            } catch {
                throw error.inside("[\(index)]")
            }
        }
        return elements
    }

    private mutating func object(_ members: [Node.Member]) throws(JSONEError) -> JSONObject {
        var object = JSONObject()
        object.reserveCapacity(members.count)
        for member in members {
            let value: JSONValue?
            do throws(JSONEError) {
                value = try render(member.value)
            } catch {
                throw error.inside(Self.step(member.step))
            }
            guard let value else { continue }
            switch member.key {
            case .constant(let key): object[key] = value
            case .text(let fragments): object[try text(fragments)] = value
            case .failure(let error): throw error
            }
        }
        return object
    }

    private static func step(_ key: String) -> String {
        Identifier.isPlain(key[...]) ? ".\(key)" : "[\(JSONValue.string(key).text())]"
    }

    private mutating func text(_ fragments: [Node.Fragment]) throws(JSONEError) -> String {
        var text = ""
        for fragment in fragments {
            switch fragment {
            case .text(let literal): text += literal
            case .failure(let error): throw error
            case .expression(let expression, let source):
                switch try evaluate(expression) {
                case .null: break
                case .bool(let value): text += value ? "true" : "false"
                case .string(let value): text += value
                case .number(let number):
                    if Builtin(.number(number)) != nil { throw .uncalledFunctions }
                    text += NumberText.text(number.double)
                case .array, .object:
                    throw JSONEError(.template, "interpolation of '\(source)' produced an array or object")
                }
            }
        }
        return text
    }

    // MARK: - Variables

    /// Gives variables other values while something is rendered.
    mutating func with<Output>(
        _ values: [(symbol: Int, value: JSONValue)],
        _ body: (inout Renderer) throws(JSONEError) -> Output
    ) throws(JSONEError) -> Output {
        var saved: [(symbol: Int, value: JSONValue?)] = []
        saved.reserveCapacity(values.count)
        for (symbol, value) in values {
            saved.append((symbol, variables[symbol]))
            variables[symbol] = value
        }
        // After an error nothing is rendered any more, so restoring can wait for success.
        let output = try body(&self)
        for (symbol, value) in saved.reversed() { variables[symbol] = value }
        return output
    }

    private mutating func bind(_ variables: Node, _ body: Node?) throws(JSONEError) -> JSONValue? {
        guard case .object(let members) = try operand(variables) else {
            throw JSONEError(.template, "$let value must be an object")
        }
        var values: [(symbol: Int, value: JSONValue)] = []
        var others: [String] = []
        for (key, value) in members {
            guard Identifier.isValid(key) else {
                throw JSONEError(.template, "top level keys of $let must follow /[a-zA-Z_][a-zA-Z0-9_]*/")
            }
            if let symbol = symbols.existingNumber(of: key) {
                values.append((symbol, value))
            } else {
                others.append(key)
            }
        }
        guard let body else { throw JSONEError(.template, "$let operator requires an `in` clause") }
        for name in others { unnamed[name, default: 0] += 1 }
        let result = try with(values) { (renderer) throws(JSONEError) in try renderer.render(body) }
        for name in others { unnamed[name] = (unnamed[name] ?? 1) == 1 ? nil : (unnamed[name] ?? 1) - 1 }
        return result
    }
}

/// Texts of numbers with a short way for small integers.
enum NumberText {
    static func text(_ value: Double) -> String {
        if value.isFinite { return JSONNumber(value).javascriptText }
        return value.isNaN ? "NaN" : value < 0 ? "-Infinity" : "Infinity"
    }
}
