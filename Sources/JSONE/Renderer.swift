// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// One rendering: the variables in force and the walk along the nodes.
///
/// Rendering yields nil where a branch was not taken; the surrounding array or object then leaves the place out.
struct Renderer {
    /// Deeper than any expression that means something; a long chain of operators nests as well.
    private static let depthLimit = 2000

    let program: Program
    /// The value of every variable that the template names, by number.
    var variables: [JSONValue?]
    /// How many definitions of names that only `defined("…")` can ask for are in force.
    private var unnamed: [String: Int] = [:]
    private let context: JSONObject
    private let instant: Timestamp
    private let now: JSONValue
    /// The text being put together.
    private var buffer: [UInt8] = []
    private var depth = 0
    var budget = Budget()
    /// Only then must the result be searched for functions.
    var hasUsedFunctionAsValue = false
    /// Functions of the caller, by name.
    var functions: [String: JSONETemplate.Function] = [:]

    init(_ program: Program, builtins: [JSONValue?], context: JSONObject, now: Timestamp) {
        self.program = program
        self.context = context
        instant = now
        self.now = .string(now.iso8601)
        variables = builtins
        for (name, value) in context {
            if let symbol = program.symbols.existingNumber(of: name) { variables[Int(symbol)] = value }
        }
        if !context.contains("now"), let symbol = program.symbols.existingNumber(of: "now") {
            variables[Int(symbol)] = self.now
        }
    }

    func name(of symbol: Int32) -> String {
        program.symbols.names[Int(symbol)]
    }

    mutating func isDefined(_ name: String) -> Bool {
        if let symbol = program.symbols.existingNumber(of: name) { return variables[Int(symbol)] != nil }
        return unnamed[name] != nil || context.contains(name) || name == "now" || Builtin.named(name) != nil
    }

    /// The instant from which relative times count when no other is given.
    var currentInstant: JSONValue {
        mutating get {
            guard let symbol = program.symbols.existingNumber(of: "now") else { return context["now"] ?? now }
            return variables[Int(symbol)] ?? now
        }
    }

    /// The same, read; nil when it is no date.
    var currentTimestamp: Timestamp? {
        mutating get {
            guard case .string(let text) = currentInstant else { return nil }
            if case .string(let own) = now, hasSameBytes(own, text) { return instant }
            return Self.timestamp(text)
        }
    }

    static func timestamp(_ text: String) -> Timestamp? {
        Timestamp(text) ?? Timestamp("\(text)T00:00:00Z")
    }

    mutating func render(_ node: Int32) throws(JSONEError) -> JSONValue? {
        try budget.spend()
        switch program.nodes[Int(node)] {
        case .constant(let value): return program.constants[Int(value)]
        case .failure(let error): throw program.errors[Int(error)]
        case .text(let fragments): return .string(try text(fragments))
        case .list(let written, let slots): return try list(written, slots)
        case .object(let written, let slots, let hasPlainKeys): return try object(written, slots, hasPlainKeys)
        case .evaluate(let expression): return try evaluate(expression)
        case .choice(let condition, let then, let otherwise, let isMisspelled):
            let isTrue = Self.isTruthy(try evaluate(condition))
            if isTrue, isMisspelled {
                throw JSONEError(.template, "$if Syntax error: $then: should be spelled then: (no $)")
            }
            guard let branch = isTrue ? then : otherwise else { return nil }
            return try render(branch)
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
        case .sort(let value): return .array(try sorted(value))
        case .sortBy(let value, let symbol, let key): return .array(try sorted(value, symbol, key))
        case .reverse(let value): return .array(try reversed(value))
        case .json(let value): return .string(try jsonText(value))
        case .fromNow(let value, let reference): return try relativeTime(value, reference)
        }
    }

    /// Renders what an operator works on; a branch not taken counts as an object without members, as in JavaScript.
    mutating func operand(_ node: Int32) throws(JSONEError) -> JSONValue {
        try render(node) ?? .object(JSONObject())
    }

    private mutating func list(_ written: Int32, _ slots: Run) throws(JSONEError) -> JSONValue {
        guard case .array(let written) = program.constants[Int(written)] else { return [] }
        try budget.spend(written.count >> 3)
        var elements: [JSONValue] = []
        elements.reserveCapacity(written.count)
        let start = Int(slots.start)
        for index in written.indices {
            guard let node = program.slots[start + index].node else {
                elements.append(written[index])
                continue
            }
            do throws(JSONEError) {
                if let value = try render(node) { elements.append(value) }
            } catch {
                throw error.inside("[\(index)]")
            }
        }
        return .array(elements)
    }

    private mutating func object(
        _ written: Int32,
        _ slots: Run,
        _ hasPlainKeys: Bool
    ) throws(JSONEError) -> JSONValue {
        guard case .object(let written) = program.constants[Int(written)] else { return [:] }
        try budget.spend(written.count >> 3)
        var object = JSONObject()
        object.reserveCapacity(written.count)
        let start = Int(slots.start)
        for index in written.indices {
            let slot = program.slots[start + index]
            guard let node = slot.node else {
                let (key, value) = written[index]
                try add(value, as: slot.key, key, to: &object, hasPlainKeys)
                continue
            }
            let value: JSONValue?
            do throws(JSONEError) {
                value = try render(node)
            } catch {
                throw error.inside(Self.step(written[index].key))
            }
            if let value { try add(value, as: slot.key, written[index].key, to: &object, hasPlainKeys) }
        }
        return .object(object)
    }

    @inline(__always)
    private mutating func add(
        _ value: JSONValue,
        as kind: Slot.Key,
        _ key: String,
        to object: inout JSONObject,
        _ hasPlainKeys: Bool
    ) throws(JSONEError) {
        if hasPlainKeys {
            object.append(new: key, value)
            return
        }
        try budget.compare(key)
        switch kind {
        case .written: object[key] = value
        case .unescaped: object[String(key.dropFirst())] = value
        case .text(let fragments): object[try text(fragments)] = value
        case .failure(let error): throw program.errors[Int(error)]
        }
    }

    private static func step(_ key: String) -> String {
        Identifier.isPlain(key[...]) ? ".\(key)" : "[\(JSONValue.string(key).text())]"
    }

    private mutating func text(_ fragments: Run) throws(JSONEError) -> String {
        // Expressions put no texts together, so the buffer is ours until the end.
        buffer.removeAll(keepingCapacity: true)
        for index in fragments.range {
            switch program.fragments[index] {
            case .text(let literal):
                try budget.spend(literal.range.count >> 2)
                buffer.append(contentsOf: program.source[literal.range])
            case .failure(let error): throw program.errors[Int(error)]
            case .expression(let expression, let source):
                switch try evaluate(expression) {
                case .null: break
                case .bool(let value): buffer.append(contentsOf: (value ? "true" : "false").utf8)
                case .string(let value):
                    try budget.spend(text: value)
                    buffer.append(contentsOf: value.utf8)
                case .number(let number):
                    if Builtin(.number(number)) != nil { throw .uncalledFunctions }
                    buffer.append(contentsOf: NumberText.text(number.double).utf8)
                case .array, .object:
                    let source = String(decoding: program.source[source.range], as: UTF8.self)
                    throw JSONEError(.template, "interpolation of '\(source)' produced an array or object")
                }
            }
        }
        return String(decoding: buffer, as: UTF8.self)
    }

    // MARK: - Expressions

    /// The value of an expression, unless it nests too deeply.
    mutating func evaluate(_ expression: Int32) throws(JSONEError) -> JSONValue {
        guard depth < Self.depthLimit else { throw JSONEError(.interpreter, "expression is nested too deeply") }
        try budget.spend()
        depth += 1
        // After an error nothing is evaluated any more.
        let value = try evaluate(program.expressions[Int(expression)])
        depth -= 1
        return value
    }

    // MARK: - Variables

    /// Gives a variable another value and returns the one it had.
    ///
    /// After an error nothing is rendered any more, so putting it back can wait for success.
    mutating func replace(_ symbol: Int32, by value: JSONValue?) -> JSONValue? {
        let old = variables[Int(symbol)]
        variables[Int(symbol)] = value
        return old
    }

    private mutating func bind(_ variables: Int32, _ body: Int32?) throws(JSONEError) -> JSONValue? {
        guard case .object(let members) = try operand(variables) else {
            throw JSONEError(.template, "$let value must be an object")
        }
        for (key, _) in members where !Identifier.isValid(key) {
            throw JSONEError(.template, "top level keys of $let must follow /[a-zA-Z_][a-zA-Z0-9_]*/")
        }
        guard let body else { throw JSONEError(.template, "$let operator requires an `in` clause") }
        for (key, value) in members {
            try budget.compare(key)
            try budget.keep(value)
        }
        var saved: [(symbol: Int32, value: JSONValue?)] = []
        saved.reserveCapacity(members.count)
        for (key, value) in members {
            if let symbol = program.symbols.existingNumber(of: key) {
                saved.append((symbol, replace(symbol, by: value)))
            } else {
                unnamed[key, default: 0] += 1
            }
        }
        let result = try render(body)
        for (symbol, value) in saved { _ = replace(symbol, by: value) }
        if saved.count < members.count {
            for (key, _) in members where program.symbols.existingNumber(of: key) == nil {
                unnamed[key] = (unnamed[key] ?? 1) == 1 ? nil : (unnamed[key] ?? 1) - 1
            }
        }
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
