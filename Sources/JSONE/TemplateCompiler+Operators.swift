// SPDX-License-Identifier: MPL-2.0

import JSON

/// The operators.
enum Operator: String, CaseIterable {
    case eval = "$eval"
    case `if` = "$if"
    case `let` = "$let"
    case map = "$map"
    case reduce = "$reduce"
    case find = "$find"
    case match = "$match"
    case `switch` = "$switch"
    case merge = "$merge"
    case mergeDeep = "$mergeDeep"
    case flatten = "$flatten"
    case flattenDeep = "$flattenDeep"
    case sort = "$sort"
    case reverse = "$reverse"
    case json = "$json"
    case fromNow = "$fromNow"

    private static let all = allCases
    private static let names = NameTable(allCases.map(\.rawValue))

    /// The operator with a name.
    static func named(_ name: String) -> Operator? {
        names.existingNumber(of: name).map { all[Int($0)] }
    }
}

extension TemplateCompiler {
    mutating func operation(_ name: Operator, _ value: JSONValue, _ members: JSONObject) -> Int32 {
        if let complaint = undefinedProperties(name, members) { return failure(.template, complaint) }
        let operand: Int32
        switch name {
        case .eval: return evaluation(value)
        case .if: return choice(value, members)
        case .let: return binding(value, members)
        case .match: return match(value)
        case .switch: return cases(value)
        default: operand = required(value)
        }
        switch name {
        case .map: return program.add(.map(operand, loop(members, of: 2)))
        case .reduce:
            let loop = members["initial"] == nil ? nil : loop(members, of: 3)
            let initial = program.add(constant: members["initial"] ?? .null)
            return program.add(.reduce(operand, loop, initial: initial))
        case .find: return program.add(.find(operand, loop(members, of: 2, isExpression: true)))
        case .merge: return program.add(.merge(operand))
        case .mergeDeep: return program.add(.mergeDeep(operand))
        case .flatten: return program.add(.flatten(operand))
        case .flattenDeep: return program.add(.flattenDeep(operand))
        case .sort: return sort(operand, members)
        case .reverse: return program.add(.reverse(operand))
        case .json: return program.add(.json(operand))
        default: return fromNow(operand, members)
        }
    }

    /// Complains about members that do not belong to an operator.
    private func undefinedProperties(_ name: Operator, _ members: JSONObject) -> String? {
        guard members.count > 1 else { return nil }
        var unknown: [String] = []
        for (key, _) in members where key != name.rawValue && !Self.isAllowed(key, beside: name) {
            unknown.append(key)
        }
        guard !unknown.isEmpty else { return nil }
        return
            "\(name.rawValue) has undefined properties: \(unknown.sorted(by: precedesByBytes).joined(separator: " "))"
    }

    private static func isAllowed(_ key: String, beside name: Operator) -> Bool {
        switch name {
        // `$then` is told apart later; `$else` slips through in the original.
        case .if: key == "then" || key == "else" || key == "$then" || key == "$else"
        case .let: key == "in"
        case .map, .find: 1...2 ~= ParameterList(key, after: "each").count
        case .reduce: key == "initial" || 2...3 ~= ParameterList(key, after: "each").count
        case .sort: ParameterList(key, after: "by").count == 1
        case .fromNow: key == "from"
        default: false
        }
    }

    private mutating func evaluation(_ value: JSONValue) -> Int32 {
        guard case .string(let text) = value else {
            return failure(.template, "$eval must be given a string expression")
        }
        return program.add(.evaluate(ExpressionParser.whole(text, &program)))
    }

    private mutating func choice(_ value: JSONValue, _ members: JSONObject) -> Int32 {
        guard case .string(let text) = value else {
            return failure(.template, "$if can evaluate string expressions only")
        }
        let condition = ExpressionParser.whole(text, &program)
        let then = members["then"].map { required($0) }
        let otherwise = members["else"].map { required($0) }
        let isMisspelled = members.contains("$then")
        return program.add(
            .choice(condition: condition, then: then, otherwise: otherwise, isMisspelled: isMisspelled)
        )
    }

    private mutating func binding(_ value: JSONValue, _ members: JSONObject) -> Int32 {
        guard case .object(let variables) = value else {
            return failure(.template, "$let value must be an object")
        }
        for (key, _) in variables where Identifier.isValid(key) { _ = program.symbols.number(of: key) }
        let body = members["in"].flatMap { $0.isNull ? nil : required($0) }
        let node = required(value)
        return program.add(.bind(variables: node, body: body))
    }

    /// `each(…)` beside an operator; nil when it is missing or one too many.
    private mutating func loop(_ members: JSONObject, of count: Int, isExpression: Bool = false) -> Node.Loop? {
        guard members.count == count else { return nil }
        for (key, value) in members where key.utf8.first == UInt8(ascii: "e") {
            let list = ParameterList(key, after: "each")
            guard let first = list.first else { continue }
            let symbols = (
                program.symbols.number(of: first, in: key),
                list.second.map { program.symbols.number(of: $0, in: key) },
                list.third.map { program.symbols.number(of: $0, in: key) }
            )
            let body: Int32
            if !isExpression {
                body = required(value)
            } else if case .string = value {
                body = evaluation(value)
            } else {
                body = failure(.template, "$find can evaluate string expressions only")
            }
            return Node.Loop(
                first: symbols.0,
                second: symbols.1,
                third: symbols.2,
                body: body
            )
        }
        return nil
    }

    private mutating func match(_ value: JSONValue) -> Int32 {
        guard case .object(let members) = value else {
            return failure(.template, "$match can evaluate objects only")
        }
        return program.add(.match(sortedCases(members)))
    }

    private mutating func cases(_ value: JSONValue) -> Int32 {
        guard case .object(var members) = value else {
            return failure(.template, "$switch can evaluate objects only")
        }
        let fallback = members.removeValue(forKey: "$default").map { required($0) }
        return program.add(.switch(sortedCases(members), fallback: fallback))
    }

    private mutating func sortedCases(_ members: JSONObject) -> Run {
        var cases: [Case] = []
        for (condition, body) in members.sorted(by: { precedesByBytes($0.key, $1.key) }) {
            let condition = ExpressionParser.whole(condition, &program)
            cases.append(Case(condition: condition, body: required(body)))
        }
        let run = Run(program.cases.count, count: cases.count)
        program.cases += cases
        return run
    }

    private mutating func sort(_ operand: Int32, _ members: JSONObject) -> Int32 {
        guard members.count < 3 else { return failure(.template, "only one by(..) is allowed") }
        for (key, value) in members {
            let list = ParameterList(key, after: "by")
            guard let range = list.first else { continue }
            let expression: Int32
            if case .string(let text) = value {
                expression = ExpressionParser.whole(text, &program)
            } else {
                let error = program.add(error: JSONEError(.template, "$sort by(..) must be given a string expression"))
                expression = program.add(expression: .failure(error))
            }
            let symbol = program.symbols.number(of: range, in: key)
            return program.add(.sortBy(operand, symbol: symbol, key: expression))
        }
        return program.add(.sort(operand))
    }

    private mutating func fromNow(_ operand: Int32, _ members: JSONObject) -> Int32 {
        let reference: Int32? =
            switch members["from"] {
            case .null?, .bool(false)?, .string("")?, nil: nil
            case .number(let number)? where number.double == 0: nil
            case let reference?: required(reference)
            }
        return program.add(.fromNow(operand, reference: reference))
    }
}

/// Where the names in `each(a, b)` stand; none when the text does not look like that.
private struct ParameterList {
    private(set) var count = 0
    private(set) var first: Range<Int>?
    private(set) var second: Range<Int>?
    private(set) var third: Range<Int>?

    init(_ text: String, after word: String) {
        let bytes = text.utf8.span
        let name = word.utf8.span
        guard bytes.count > name.count + 2 else { return }
        for index in name.indices where bytes[index] != name[index] { return }
        let end = bytes.count - 1
        guard bytes[name.count] == UInt8(ascii: "("), bytes[end] == UInt8(ascii: ")") else { return }
        var start = name.count + 1
        while true {
            if count > 0 { start += Self.blanks(in: text, from: start, to: end) }
            var stop = start
            while stop < end, bytes[stop] != UInt8(ascii: ",") { stop += 1 }
            guard Identifier.isValid(bytes.extracting(start..<stop)) else {
                self = ParameterList()
                return
            }
            count += 1
            switch count {
            case 1: first = start..<stop
            case 2: second = start..<stop
            default: third = start..<stop
            }
            guard stop < end else { return }
            start = stop + 1
        }
    }

    private init() {}

    /// The length of the blanks at a place.
    private static func blanks(in text: String, from start: Int, to end: Int) -> Int {
        let bytes = text.utf8.span
        guard start < end, bytes[start] <= 0x20 || bytes[start] >= 0x80 else { return 0 }
        let rest = String(decoding: Array(text.utf8)[start..<end], as: UTF8.self)
        return rest.utf8.count - rest.drop(while: \.isWhitespace).utf8.count
    }
}
