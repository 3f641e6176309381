// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

extension Renderer {
    // MARK: - Loops

    mutating func map(_ node: Int32, _ loop: Node.Loop?) throws(JSONEError) -> JSONValue {
        switch try operand(node) {
        case .array(let elements):
            guard let loop else { throw JSONEError(.template, "$map must have exactly two properties") }
            var results: [JSONValue] = []
            results.reserveCapacity(elements.count)
            try iterate(elements, loop) { (renderer, _) throws(JSONEError) in
                if let result = try renderer.render(loop.body) { results.append(result) }
                return false
            }
            return .array(results)
        case .object(let members):
            guard let loop else { throw JSONEError(.template, "$map must have exactly two properties") }
            return .object(try map(members, loop))
        default:
            throw JSONEError(.template, "$map value must evaluate to an array or object")
        }
    }

    /// Gives the variables of a loop their values for each element, until the body says that this is enough.
    private mutating func iterate(
        _ elements: [JSONValue],
        _ loop: Node.Loop,
        _ body: (inout Renderer, JSONValue) throws(JSONEError) -> Bool
    ) throws(JSONEError) {
        let first = variables[Int(loop.first)]
        let second = loop.second.flatMap { variables[Int($0)] }
        for index in elements.indices {
            variables[Int(loop.first)] = elements[index]
            if let symbol = loop.second { variables[Int(symbol)] = JSONValue(index) }
            if try body(&self, elements[index]) { break }
        }
        if let symbol = loop.second { variables[Int(symbol)] = second }
        variables[Int(loop.first)] = first
    }

    private mutating func map(_ members: JSONObject, _ loop: Node.Loop) throws(JSONEError) -> JSONObject {
        var results = JSONObject()
        let first = variables[Int(loop.first)]
        let second = loop.second.flatMap { variables[Int($0)] }
        for (key, value) in members {
            if let symbol = loop.second {
                variables[Int(loop.first)] = value
                variables[Int(symbol)] = .string(key)
            } else {
                variables[Int(loop.first)] = ["key": .string(key), "val": value]
            }
            guard case .object(let object) = try operand(loop.body) else {
                let each = "each(\(name(of: loop.first)))"
                throw JSONEError(.template, "$map on objects expects \(each) to evaluate to an object")
            }
            try budget.add(object)
            for (key, value) in object { results[key] = value }
        }
        if let symbol = loop.second { variables[Int(symbol)] = second }
        variables[Int(loop.first)] = first
        return results
    }

    mutating func reduce(_ node: Int32, _ loop: Node.Loop?, _ initial: Int32) throws(JSONEError) -> JSONValue {
        guard case .array(let elements) = try operand(node) else {
            throw JSONEError(.template, "$reduce value must evaluate to an array")
        }
        guard let loop, let current = loop.second else {
            throw JSONEError(.template, "$reduce must have exactly three properties")
        }
        var result = program.constants[Int(initial)]
        let saved = [loop.first, current, loop.third ?? current].map { ($0, variables[Int($0)]) }
        for index in elements.indices {
            variables[Int(loop.first)] = result
            variables[Int(current)] = elements[index]
            if let symbol = loop.third { variables[Int(symbol)] = JSONValue(index) }
            if let next = try render(loop.body) {
                try budget.keep(next)
                result = next
            }
        }
        for (symbol, value) in saved { variables[Int(symbol)] = value }
        return result
    }

    mutating func find(_ node: Int32, _ loop: Node.Loop?) throws(JSONEError) -> JSONValue? {
        guard case .array(let elements) = try operand(node) else {
            throw JSONEError(.template, "$find value must evaluate to an array")
        }
        guard let loop else { throw JSONEError(.template, "$find must have exactly two properties") }
        if case .failure(let error) = program.nodes[Int(loop.body)] { throw program.errors[Int(error)] }
        var found: JSONValue?
        try iterate(elements, loop) { (renderer, element) throws(JSONEError) in
            guard Self.isTruthy(try renderer.operand(loop.body)) else { return false }
            found = element
            return true
        }
        return found
    }

    // MARK: - Cases

    mutating func matches(_ cases: Run) throws(JSONEError) -> [JSONValue] {
        var results: [JSONValue] = []
        for index in cases.range {
            let one = program.cases[index]
            guard Self.isTruthy(try evaluate(one.condition)) else { continue }
            if let result = try render(one.body) { results.append(result) }
        }
        return results
    }

    mutating func selected(_ cases: Run, _ fallback: Int32?) throws(JSONEError) -> JSONValue? {
        var results: [JSONValue?] = []
        for index in cases.range {
            let one = program.cases[index]
            if Self.isTruthy(try evaluate(one.condition)) { results.append(try render(one.body)) }
        }
        guard results.count < 2 else { throw JSONEError(.template, "$switch can only have one truthy condition") }
        if let result = results.first { return result }
        guard let fallback else { return nil }
        return try render(fallback)
    }

    // MARK: - Collections

    private mutating func objects(_ node: Int32, for name: String) throws(JSONEError) -> [JSONObject] {
        guard case .array(let elements) = try operand(node) else { throw Self.noObjects(name) }
        var objects: [JSONObject] = []
        objects.reserveCapacity(elements.count)
        for element in elements {
            guard case .object(let object) = element else { throw Self.noObjects(name) }
            objects.append(object)
        }
        return objects
    }

    private static func noObjects(_ name: String) -> JSONEError {
        JSONEError(.template, "\(name) value must evaluate to an array of objects")
    }

    mutating func merged(_ node: Int32) throws(JSONEError) -> JSONObject {
        let objects = try objects(node, for: "$merge")
        guard var result = objects.first else { return JSONObject() }
        for object in objects.dropFirst() {
            try budget.add(object)
            for (key, value) in object { result[key] = value }
        }
        return result
    }

    mutating func deeplyMerged(_ node: Int32) throws(JSONEError) -> JSONObject {
        let objects = try objects(node, for: "$mergeDeep")
        guard var result = objects.first else { return JSONObject() }
        for object in objects.dropFirst() {
            try budget.read(.object(result))
            try budget.read(.object(object))
            result = Self.merge(result, object)
        }
        return result
    }

    private static func merge(_ first: JSONObject, _ second: JSONObject) -> JSONObject {
        var result = first
        for (key, value) in second {
            result[key] =
                switch (result[key], value) {
                case (.array(let left), .array(let right)): .array(left + right)
                case (.object(let left), .object(let right)): .object(merge(left, right))
                default: value
                }
        }
        return result
    }

    private mutating func elements(_ node: Int32, _ complaint: String) throws(JSONEError) -> [JSONValue] {
        guard case .array(let elements) = try operand(node) else { throw JSONEError(.template, complaint) }
        try budget.spend(elements.count)
        return elements
    }

    mutating func flattened(_ node: Int32) throws(JSONEError) -> [JSONValue] {
        var result: [JSONValue] = []
        for element in try elements(node, "$flatten value must evaluate to an array") {
            if case .array(let inner) = element {
                try budget.spend(inner.count)
                result += inner
            } else {
                result.append(element)
            }
        }
        return result
    }

    mutating func deeplyFlattened(_ node: Int32) throws(JSONEError) -> [JSONValue] {
        var result: [JSONValue] = []
        let elements = try elements(node, "$flattenDeep value must evaluate to an array")
        try budget.read(.array(elements))
        Self.flatten(elements, into: &result)
        return result
    }

    private static func flatten(_ elements: [JSONValue], into result: inout [JSONValue]) {
        for element in elements {
            if case .array(let inner) = element { flatten(inner, into: &result) } else { result.append(element) }
        }
    }

    mutating func reversed(_ node: Int32) throws(JSONEError) -> [JSONValue] {
        try elements(node, "$reverse value must evaluate to an array of objects").reversed()
    }

    mutating func sorted(_ node: Int32) throws(JSONEError) -> [JSONValue] {
        let elements = try elements(node, Self.sortComplaint)
        return try sorted(elements, by: elements)
    }

    mutating func sorted(_ node: Int32, _ symbol: Int32, _ key: Int32) throws(JSONEError) -> [JSONValue] {
        let elements = try elements(node, Self.sortComplaint)
        var keys: [JSONValue] = []
        keys.reserveCapacity(elements.count)
        let saved = variables[Int(symbol)]
        for element in elements {
            variables[Int(symbol)] = element
            keys.append(try evaluate(key))
        }
        variables[Int(symbol)] = saved
        return try sorted(elements, by: keys)
    }

    private static let sortComplaint = "$sorted values to be sorted must have the same type"

    private mutating func sorted(_ elements: [JSONValue], by keys: [JSONValue]) throws(JSONEError) -> [JSONValue] {
        let numbers = keys.compactMap(Self.number)
        if numbers.count == keys.count {
            let order = numbers.indices.sorted { numbers[$0] < numbers[$1] || numbers[$0] == numbers[$1] && $0 < $1 }
            return order.map { elements[$0] }
        }
        let texts = keys.compactMap(\.string)
        guard texts.count == keys.count else { throw JSONEError(.template, Self.sortComplaint) }
        try budget.sort(texts)
        let order = texts.indices.sorted {
            precedesByBytes(texts[$0], texts[$1]) || hasSameBytes(texts[$0], texts[$1]) && $0 < $1
        }
        return order.map { elements[$0] }
    }

    // MARK: - Texts

    mutating func jsonText(_ node: Int32) throws(JSONEError) -> String {
        let value = try operand(node)
        try budget.read(value)
        if hasUsedFunctionAsValue, Builtin.occurs(in: value) { throw .uncalledFunctions }
        let text = value.javascriptText(.sorted)
        try budget.spend(text: text)
        return text
    }

    mutating func relativeTime(_ node: Int32, _ reference: Int32?) throws(JSONEError) -> JSONValue {
        let text = try operand(node)
        var start: JSONValue?
        if let reference { start = try operand(reference) }
        guard case .string(let text) = text else { throw JSONEError(.template, "$fromNow expects a string") }
        return try relativeTime(text, from: start, complaining: .template)
    }

    /// Null when the reference is no date; without a reference times count from now.
    mutating func relativeTime(
        _ text: String,
        from reference: JSONValue?,
        complaining kind: JSONEError.Kind
    ) throws(JSONEError) -> JSONValue {
        let distance: RelativeTime
        do throws(RelativeTimeError) {
            distance = try RelativeTime(text)
        } catch {
            throw JSONEError(kind, "\(error)")
        }
        var start: Timestamp?
        switch reference {
        case .string(let date)? where !date.isEmpty: start = Self.timestamp(date)
        case let value? where Self.isTruthy(value): start = nil
        default: start = currentTimestamp
        }
        return start.map { .string(distance.from($0).iso8601) } ?? .null
    }
}
