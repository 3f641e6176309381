// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON

/// Fills defaults into a value in place.
struct Defaults {
    private static let depthLimit = 600

    let nodes: [Node]
    private var budget = MatchBudget()

    init(nodes: [Node]) { self.nodes = nodes }

    mutating func fill(_ value: inout JSONValue, _ position: Int, depth: Int = 0) {
        guard depth < Self.depthLimit else { return }
        for rule in nodes[position].rules {
            switch (rule, value) {
            case (.reference(let target), _):
                fill(&value, target, depth: depth + 1)
            case (.allOf(let targets), _):
                for target in targets { fill(&value, target, depth: depth + 1) }
            case (.items(let target), .array(var elements)):
                value = .null
                for index in elements.indices { fill(&elements[index], target, depth: depth + 1) }
                value = .array(elements)
            case (.tuple(let targets, let rest), .array(var elements)):
                value = .null
                fill(&elements, targets, rest, depth)
                value = .array(elements)
            case (.properties(let properties), .object(var members)):
                value = .null
                fill(&members, properties, depth)
                value = .object(members)
            default:
                break
            }
        }
    }

    private mutating func fill(_ elements: inout [JSONValue], _ targets: [Int], _ rest: Rule.Rest, _ depth: Int) {
        for (index, target) in targets.enumerated() {
            if index == elements.count, let value = nodes[target].defaultValue { elements.append(value) }
            if index < elements.count { fill(&elements[index], target, depth: depth + 1) }
        }
        guard case .schema(let target) = rest, elements.count > targets.count else { return }
        for index in targets.count..<elements.count { fill(&elements[index], target, depth: depth + 1) }
    }

    private mutating func fill(_ members: inout JSONObject, _ properties: Rule.Properties, _ depth: Int) {
        for (name, target) in properties.named {
            if !members.contains(name), let value = nodes[target].defaultValue { members[name] = value }
            fillMember(&members, name, target, depth)
        }
        for name in members.keys where properties.positions[name] == nil {
            var isMatched = false
            // A name that takes too long gets no defaults; the validation that follows refuses it.
            for (pattern, target) in properties.patterns where (try? pattern.matches(name, within: &budget)) == true {
                isMatched = true
                fillMember(&members, name, target, depth)
            }
            if !isMatched, case .schema(let target) = properties.rest { fillMember(&members, name, target, depth) }
        }
    }

    private mutating func fillMember(_ members: inout JSONObject, _ name: String, _ target: Int, _ depth: Int) {
        guard var value = members[name] else { return }
        // Scalars have nothing to fill; leaving them alone spares the copy.
        guard value.array != nil || value.object != nil else { return }
        members[name] = .null
        fill(&value, target, depth: depth + 1)
        members[name] = value
    }
}
