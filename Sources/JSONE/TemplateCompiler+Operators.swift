// SPDX-License-Identifier: MPL-2.0

import JSON

extension TemplateCompiler {
    static let operators: Set<String> = [
        "$eval", "$if", "$let", "$map", "$reduce", "$find", "$match", "$switch", "$merge", "$mergeDeep", "$flatten",
        "$flattenDeep", "$sort", "$reverse", "$json", "$fromNow",
    ]

    mutating func operation(_ name: String, _ value: JSONValue, _ members: JSONObject) -> Node {
        if let failure = undefinedProperties(name, members) { return .failure(failure) }
        switch name {
        case "$eval": return evaluation(value)
        case "$if": return choice(value, members)
        case "$let": return binding(value, members)
        case "$map": return .map(node(value), loop(members, besides: ["$map"]))
        case "$reduce":
            let initial = members["initial"]
            let loop = loop(members, besides: ["$reduce", "initial"])
            return .reduce(node(value), initial == nil ? nil : loop, initial: initial ?? .null)
        case "$find": return .find(node(value), loop(members, besides: ["$find"], isExpression: true))
        case "$match": return match(value)
        case "$switch": return cases(value)
        case "$merge": return .merge(node(value))
        case "$mergeDeep": return .mergeDeep(node(value))
        case "$flatten": return .flatten(node(value))
        case "$flattenDeep": return .flattenDeep(node(value))
        case "$sort": return sort(value, members)
        case "$reverse": return .reverse(node(value))
        case "$json": return .json(node(value))
        default: return fromNow(value, members)
        }
    }

    /// Complains about members that do not belong to an operator.
    private func undefinedProperties(_ name: String, _ members: JSONObject) -> JSONEError? {
        guard members.count > 1 else { return nil }
        let unknown = members.keys.filter { $0 != name && !Self.isAllowed($0, beside: name) }
        guard !unknown.isEmpty else { return nil }
        let list = unknown.sorted(by: precedesByBytes).joined(separator: " ")
        return JSONEError(.template, "\(name) has undefined properties: \(list)")
    }

    private static func isAllowed(_ key: String, beside name: String) -> Bool {
        switch name {
        // `$then` is told apart later; `$else` slips through in the original.
        case "$if": ["then", "else", "$then", "$else"].contains(key)
        case "$let": key == "in"
        case "$map", "$find": 1...2 ~= variables(of: key, "each").count
        case "$reduce": key == "initial" || 2...3 ~= variables(of: key, "each").count
        case "$sort": variables(of: key, "by").count == 1
        case "$fromNow": key == "from"
        default: false
        }
    }

    /// The names in `each(a, b)`; none when the key does not look like that.
    private static func variables(of key: String, _ word: String) -> [String] {
        guard key.hasPrefix(word + "("), key.hasSuffix(")") else { return [] }
        var names: [String] = []
        for part in key.dropFirst(word.count + 1).dropLast().split(separator: ",", omittingEmptySubsequences: false) {
            let name = names.isEmpty ? part : part.drop(while: \.isWhitespace)
            guard Identifier.isValid(String(name)) else { return [] }
            names.append(String(name))
        }
        return names
    }

    private mutating func evaluation(_ value: JSONValue) -> Node {
        guard case .string(let text) = value else {
            return .failure(JSONEError(.template, "$eval must be given a string expression"))
        }
        return .evaluate(ExpressionParser.whole(text, &symbols))
    }

    private mutating func choice(_ value: JSONValue, _ members: JSONObject) -> Node {
        guard case .string(let text) = value else {
            return .failure(JSONEError(.template, "$if can evaluate string expressions only"))
        }
        return .choice(
            Node.Choice(
                condition: ExpressionParser.whole(text, &symbols),
                then: members["then"].map { node($0) },
                otherwise: members["else"].map { node($0) },
                isMisspelled: members.contains("$then")
            )
        )
    }

    private mutating func binding(_ value: JSONValue, _ members: JSONObject) -> Node {
        guard case .object(let variables) = value else {
            return .failure(JSONEError(.template, "$let value must be an object"))
        }
        for key in variables.keys where Identifier.isValid(key) { _ = symbols.number(of: key) }
        let body = members["in"].flatMap { $0.isNull ? nil : node($0) }
        return .bind(variables: node(value), body: body)
    }

    private mutating func loop(
        _ members: JSONObject,
        besides own: Set<String>,
        isExpression: Bool = false
    ) -> Node.Loop? {
        guard members.count == own.count + 1, let key = members.keys.first(where: { !own.contains($0) }),
            let value = members[key]
        else { return nil }
        let numbers = Self.variables(of: key, "each").map { symbols.number(of: $0) }
        guard isExpression else { return Node.Loop(key: key, symbols: numbers, body: node(value)) }
        guard case .string = value else {
            let failure = JSONEError(.template, "$find can evaluate string expressions only")
            return Node.Loop(key: key, symbols: numbers, body: .failure(failure))
        }
        return Node.Loop(key: key, symbols: numbers, body: evaluation(value))
    }

    private mutating func match(_ value: JSONValue) -> Node {
        guard case .object(let members) = value else {
            return .failure(JSONEError(.template, "$match can evaluate objects only"))
        }
        return .match(sortedCases(members))
    }

    private mutating func cases(_ value: JSONValue) -> Node {
        guard case .object(var members) = value else {
            return .failure(JSONEError(.template, "$switch can evaluate objects only"))
        }
        let fallback = members.removeValue(forKey: "$default").map { node($0) }
        return .switch(sortedCases(members), fallback: fallback)
    }

    private mutating func sortedCases(_ members: JSONObject) -> [Node.Case] {
        var cases: [Node.Case] = []
        for (condition, body) in members.sorted(by: { precedesByBytes($0.key, $1.key) }) {
            cases.append(Node.Case(condition: ExpressionParser.whole(condition, &symbols), body: node(body)))
        }
        return cases
    }

    private mutating func sort(_ value: JSONValue, _ members: JSONObject) -> Node {
        let keys = members.keys.filter { $0 != "$sort" }
        guard keys.count < 2 else { return .failure(JSONEError(.template, "only one by(..) is allowed")) }
        guard let key = keys.first, let name = Self.variables(of: key, "by").first else {
            return .sort(node(value), by: nil)
        }
        let expression: Result<Expression, JSONEError> =
            if case .string(let text)? = members[key] {
                ExpressionParser.whole(text, &symbols)
            } else {
                .failure(JSONEError(.template, "$sort by(..) must be given a string expression"))
            }
        return .sort(node(value), by: Node.Key(symbol: symbols.number(of: name), expression: expression))
    }

    private mutating func fromNow(_ value: JSONValue, _ members: JSONObject) -> Node {
        let reference: JSONValue? =
            switch members["from"] {
            case .null?, .bool(false)?, .string("")?, nil: nil
            case .number(let number)? where number.double == 0: nil
            case let reference?: reference
            }
        return .fromNow(node(value), reference: reference.map { node($0) })
    }
}
