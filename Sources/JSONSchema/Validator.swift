// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON

/// Walks a value along the nodes of a schema and collects problems.
struct Validator {
    /// A schema that refers to itself without consuming anything would never end.
    private static let depthLimit = 2000

    let nodes: [Node]
    private(set) var problems: [JSONSchemaProblem] = []
    private var path: [PathToken] = []
    private var depth = 0
    private var budget = MatchBudget()
    /// What could not be decided; that is never valid, not even in `not` or beside an alternative that is.
    private(set) var undecided: [JSONSchemaProblem] = []
    private var told: Set<JSONSchemaProblem> = []

    private enum PathToken {
        case name(String)
        case index(Int)
    }

    init(nodes: [Node]) {
        self.nodes = nodes
    }

    private mutating func report(_ message: String) {
        problems.append(problem(message))
    }

    private func problem(_ message: String) -> JSONSchemaProblem {
        var text = ""
        for token in path {
            switch token {
            case .name(let name): text += "/\(JSONPointer.escaped(name))"
            case .index(let index): text += "/\(index)"
            }
        }
        return JSONSchemaProblem(path: text, message: message)
    }

    private mutating func check(_ value: JSONValue, _ position: Int, at token: PathToken) {
        path.append(token)
        check(value, position)
        path.removeLast()
    }

    /// Tells whether a pattern matches; not to know is a problem of the whole.
    private mutating func matches(_ pattern: RegularExpression, _ text: String) -> Bool {
        if let outcome = try? pattern.matches(text, within: &budget) { return outcome }
        let problem = problem("must match pattern \"\(pattern.text)\", which takes too long to tell")
        if told.insert(problem).inserted { undecided.append(problem) }
        return false
    }

    mutating func check(_ value: JSONValue, _ position: Int) {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { return report("must not be nested this deeply") }
        let types = nodes[position].types
        if !types.isEmpty, !types.contains(where: { $0.includes(value) }) {
            report("must be \(types.map(\.rawValue).joined(separator: ","))")
        }
        for rule in nodes[position].rules { check(value, rule) }
    }

    private mutating func check(_ value: JSONValue, _ rule: Rule) {
        switch value {
        case .number(let number): if check(number, rule) { return }
        case .string(let text): if check(text, rule) { return }
        case .array(let elements): if check(elements, rule) { return }
        case .object(let members): if check(members, rule) { return }
        default: break
        }
        switch rule {
        case .never: report("boolean schema is false")
        case .reference(let position): check(value, position)
        case .enumeration(let values):
            if !values.contains(value) { report("must be equal to one of the allowed values") }
        case .constant(let constant): if value != constant { report("must be equal to constant") }
        case .not(let position): if problems(of: value, position).isEmpty { report("must NOT be valid") }
        case .anyOf(let positions): checkAnyOf(value, positions)
        case .oneOf(let positions): checkOneOf(value, positions)
        case .allOf(let positions): for position in positions { check(value, position) }
        case .conditional(let condition, let then, let otherwise):
            let holds = problems(of: value, condition).isEmpty
            guard let branch = holds ? then : otherwise else { return }
            let count = problems.count
            check(value, branch)
            if problems.count > count { report("must match \"\(holds ? "then" : "else")\" schema") }
        default: break
        }
    }

    /// What a subschema finds, without keeping it.
    private mutating func problems(of value: JSONValue, _ position: Int) -> ArraySlice<JSONSchemaProblem> {
        let count = problems.count
        check(value, position)
        let found = problems[count...]
        problems.removeLast(found.count)
        return found
    }

    private mutating func checkAnyOf(_ value: JSONValue, _ positions: [Int]) {
        var found: [JSONSchemaProblem] = []
        for position in positions {
            let problems = problems(of: value, position)
            if problems.isEmpty { return }
            found += problems
        }
        problems += found
        report("must match a schema in anyOf")
    }

    private mutating func checkOneOf(_ value: JSONValue, _ positions: [Int]) {
        var found: [JSONSchemaProblem] = []
        var matches = 0
        for position in positions {
            let problems = problems(of: value, position)
            if problems.isEmpty { matches += 1 }
            found += problems
        }
        if matches == 1 { return }
        if matches == 0 { problems += found }
        report("must match exactly one schema in oneOf")
    }

    private mutating func check(_ number: JSONNumber, _ rule: Rule) -> Bool {
        let value = number.double
        switch rule {
        case .minimum(let limit, let isExclusive):
            if isExclusive ? value <= limit.double : value < limit.double {
                report("must be \(isExclusive ? ">" : ">=") \(limit.javascriptText)")
            }
        case .maximum(let limit, let isExclusive):
            if isExclusive ? value >= limit.double : value > limit.double {
                report("must be \(isExclusive ? "<" : "<=") \(limit.javascriptText)")
            }
        case .multipleOf(let divisor):
            let quotient = value / divisor.double
            if quotient != quotient.rounded() { report("must be multiple of \(divisor.javascriptText)") }
        default: return false
        }
        return true
    }

    private mutating func check(_ text: String, _ rule: Rule) -> Bool {
        switch rule {
        case .minLength(let limit):
            if text.unicodeScalars.count < limit { report("must NOT have fewer than \(limit) characters") }
        case .maxLength(let limit):
            if text.utf8.count > limit, text.unicodeScalars.count > limit {
                report("must NOT have more than \(limit) characters")
            }
        case .pattern(let pattern):
            if !matches(pattern, text) { report("must match pattern \"\(pattern.text)\"") }
        case .format(let format):
            if !format.accepts(text) { report("must match format \"\(format.rawValue)\"") }
        default: return false
        }
        return true
    }
}

// MARK: - Arrays and objects

extension Validator {
    private mutating func check(_ elements: [JSONValue], _ rule: Rule) -> Bool {
        switch rule {
        case .minItems(let limit):
            if elements.count < limit { report("must NOT have fewer than \(limit) items") }
        case .maxItems(let limit):
            if elements.count > limit { report("must NOT have more than \(limit) items") }
        case .uniqueItems:
            checkUnique(elements)
        case .items(let position):
            for (index, element) in elements.enumerated() { check(element, position, at: .index(index)) }
        case .tuple(let positions, let rest):
            for (index, (element, position)) in zip(elements, positions).enumerated() {
                check(element, position, at: .index(index))
            }
            guard elements.count > positions.count else { break }
            switch rest {
            case .anything: break
            case .nothing: report("must NOT have more than \(positions.count) items")
            case .schema(let position):
                for index in positions.count..<elements.count { check(elements[index], position, at: .index(index)) }
            }
        case .contains(let position):
            for element in elements where problems(of: element, position).isEmpty { return true }
            report("must contain at least 1 valid item(s)")
        default: return false
        }
        return true
    }

    /// Names the last pair of equal elements, as the original does.
    private mutating func checkUnique(_ elements: [JSONValue]) {
        guard Set(elements).count < elements.count else { return }
        for index in elements.indices.reversed() {
            guard let other = elements[..<index].lastIndex(of: elements[index]) else { continue }
            return report("must NOT have duplicate items (items ## \(other) and \(index) are identical)")
        }
    }

    private mutating func check(_ members: JSONObject, _ rule: Rule) -> Bool {
        switch rule {
        case .minProperties(let limit):
            if members.count < limit { report("must NOT have fewer than \(limit) properties") }
        case .maxProperties(let limit):
            if members.count > limit { report("must NOT have more than \(limit) properties") }
        case .required(let names):
            for name in names where !members.contains(name) { report("must have required property '\(name)'") }
        case .requiredWith(let name, let others):
            guard members.contains(name) else { break }
            let word = others.count == 1 ? "property" : "properties"
            let message = "must have \(word) \(others.joined(separator: ", ")) when property \(name) is present"
            for other in others where !members.contains(other) { report(message) }
        case .dependency(let name, let position):
            if members.contains(name) { check(.object(members), position) }
        case .propertyNames(let position):
            for name in members.keys {
                let found = problems(of: .string(name), position)
                guard !found.isEmpty else { continue }
                problems += found
                report("property name must be valid")
            }
        case .properties(let properties): check(members, properties)
        default: return false
        }
        return true
    }

    private mutating func check(_ members: JSONObject, _ properties: Rule.Properties) {
        for (name, value) in members {
            if properties.positions[name] != nil { continue }
            if matchesAny(of: properties.patterns, name) { continue }
            switch properties.rest {
            case .anything: break
            case .nothing: report("must NOT have additional properties")
            case .schema(let position): check(value, position, at: .name(name))
            }
        }
        for (name, position) in properties.named {
            if let value = members[name] { check(value, position, at: .name(name)) }
        }
        for (pattern, position) in properties.patterns {
            for (name, value) in members where matches(pattern, name) { check(value, position, at: .name(name)) }
        }
    }

    private mutating func matchesAny(of patterns: [(pattern: RegularExpression, node: Int)], _ name: String) -> Bool {
        for (pattern, _) in patterns where matches(pattern, name) { return true }
        return false
    }
}
