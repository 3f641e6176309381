// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

extension Renderer {
    mutating func render(_ choice: Node.Choice) throws(JSONEError) -> JSONValue? {
        let isTrue = Self.isTruthy(try evaluated(choice.condition))
        if isTrue, choice.isMisspelled {
            throw JSONEError(.template, "$if Syntax error: $then: should be spelled then: (no $)")
        }
        guard let branch = isTrue ? choice.then : choice.otherwise else { return nil }
        return try render(branch)
    }

    // MARK: - Loops

    private static func bindings(_ loop: Node.Loop, _ first: JSONValue, _ second: JSONValue) -> [(Int, JSONValue)] {
        loop.symbols.count > 1 ? [(loop.symbols[0], first), (loop.symbols[1], second)] : [(loop.symbols[0], first)]
    }

    mutating func map(_ node: Node, _ loop: Node.Loop?) throws(JSONEError) -> JSONValue {
        switch try operand(node) {
        case .array(let elements):
            guard let loop else { throw JSONEError(.template, "$map must have exactly two properties") }
            var results: [JSONValue] = []
            results.reserveCapacity(elements.count)
            for (index, element) in elements.enumerated() {
                let bindings = Self.bindings(loop, element, JSONValue(index))
                let result = try with(bindings) { (renderer) throws(JSONEError) in try renderer.render(loop.body) }
                if let result { results.append(result) }
            }
            return .array(results)
        case .object(let members):
            guard let loop else { throw JSONEError(.template, "$map must have exactly two properties") }
            return .object(try map(members, loop))
        default:
            throw JSONEError(.template, "$map value must evaluate to an array or object")
        }
    }

    private mutating func map(_ members: JSONObject, _ loop: Node.Loop) throws(JSONEError) -> JSONObject {
        var results = JSONObject()
        for (key, value) in members {
            let pair: JSONValue = loop.symbols.count > 1 ? value : ["key": .string(key), "val": value]
            let bindings = Self.bindings(loop, pair, .string(key))
            let result = try with(bindings) { (renderer) throws(JSONEError) in try renderer.operand(loop.body) }
            guard case .object(let object) = result else {
                let each = "each(\(name(of: loop.symbols[0])))"
                throw JSONEError(.template, "$map on objects expects \(each) to evaluate to an object")
            }
            for (key, value) in object { results[key] = value }
        }
        return results
    }

    mutating func reduce(_ node: Node, _ loop: Node.Loop?, _ initial: JSONValue) throws(JSONEError) -> JSONValue {
        guard case .array(let elements) = try operand(node) else {
            throw JSONEError(.template, "$reduce value must evaluate to an array")
        }
        guard let loop else { throw JSONEError(.template, "$reduce must have exactly three properties") }
        var result = initial
        for (index, element) in elements.enumerated() {
            var bindings = [(symbol: loop.symbols[0], value: result), (symbol: loop.symbols[1], value: element)]
            if loop.symbols.count > 2 { bindings.append((loop.symbols[2], JSONValue(index))) }
            let next = try with(bindings) { (renderer) throws(JSONEError) in try renderer.render(loop.body) }
            if let next { result = next }
        }
        return result
    }

    mutating func find(_ node: Node, _ loop: Node.Loop?) throws(JSONEError) -> JSONValue? {
        guard case .array(let elements) = try operand(node) else {
            throw JSONEError(.template, "$find value must evaluate to an array")
        }
        guard let loop else { throw JSONEError(.template, "$find must have exactly two properties") }
        if case .failure(let error) = loop.body { throw error }
        for (index, element) in elements.enumerated() {
            let bindings = Self.bindings(loop, element, JSONValue(index))
            let isFound = try with(bindings) { (renderer) throws(JSONEError) in
                Self.isTruthy(try renderer.operand(loop.body))
            }
            if isFound { return element }
        }
        return nil
    }

    // MARK: - Cases

    mutating func matches(_ cases: [Node.Case]) throws(JSONEError) -> [JSONValue] {
        var results: [JSONValue] = []
        for one in cases where Self.isTruthy(try evaluated(one.condition)) {
            if let result = try render(one.body) { results.append(result) }
        }
        return results
    }

    mutating func selected(_ cases: [Node.Case], _ fallback: Node?) throws(JSONEError) -> JSONValue? {
        var results: [JSONValue?] = []
        for one in cases where Self.isTruthy(try evaluated(one.condition)) { results.append(try render(one.body)) }
        guard results.count < 2 else { throw JSONEError(.template, "$switch can only have one truthy condition") }
        if let result = results.first { return result }
        guard let fallback else { return nil }
        return try render(fallback)
    }

    // MARK: - Collections

    private mutating func objects(_ node: Node, for name: String) throws(JSONEError) -> [JSONObject] {
        let objects = try operand(node).array.map { elements in (elements.count, elements.compactMap(\.object)) }
        guard let (count, objects) = objects, objects.count == count else {
            throw JSONEError(.template, "\(name) value must evaluate to an array of objects")
        }
        return objects
    }

    mutating func merged(_ node: Node) throws(JSONEError) -> JSONObject {
        var result = JSONObject()
        for object in try objects(node, for: "$merge") {
            for (key, value) in object { result[key] = value }
        }
        return result
    }

    mutating func deeplyMerged(_ node: Node) throws(JSONEError) -> JSONObject {
        var result = JSONObject()
        for object in try objects(node, for: "$mergeDeep") { result = Self.merge(result, object) }
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

    private mutating func elements(_ node: Node, _ complaint: String) throws(JSONEError) -> [JSONValue] {
        guard case .array(let elements) = try operand(node) else { throw JSONEError(.template, complaint) }
        return elements
    }

    mutating func flattened(_ node: Node) throws(JSONEError) -> [JSONValue] {
        var result: [JSONValue] = []
        for element in try elements(node, "$flatten value must evaluate to an array") {
            if case .array(let inner) = element { result += inner } else { result.append(element) }
        }
        return result
    }

    mutating func deeplyFlattened(_ node: Node) throws(JSONEError) -> [JSONValue] {
        var result: [JSONValue] = []
        Self.flatten(try elements(node, "$flattenDeep value must evaluate to an array"), into: &result)
        return result
    }

    private static func flatten(_ elements: [JSONValue], into result: inout [JSONValue]) {
        for element in elements {
            if case .array(let inner) = element { flatten(inner, into: &result) } else { result.append(element) }
        }
    }

    mutating func reversed(_ node: Node) throws(JSONEError) -> [JSONValue] {
        try elements(node, "$reverse value must evaluate to an array of objects").reversed()
    }

    mutating func sorted(_ node: Node, _ key: Node.Key?) throws(JSONEError) -> [JSONValue] {
        let complaint = "$sorted values to be sorted must have the same type"
        let elements = try elements(node, complaint)
        var keys = elements
        if let key {
            for (index, element) in elements.enumerated() {
                keys[index] = try with([(key.symbol, element)]) { (renderer) throws(JSONEError) in
                    try renderer.evaluated(key.expression)
                }
            }
        }
        let numbers = keys.compactMap(Self.number)
        if numbers.count == keys.count {
            let order = numbers.indices.sorted { numbers[$0] < numbers[$1] || numbers[$0] == numbers[$1] && $0 < $1 }
            return order.map { elements[$0] }
        }
        let texts = keys.compactMap(\.string)
        guard texts.count == keys.count else { throw JSONEError(.template, complaint) }
        let order = texts.indices.sorted {
            precedesByBytes(texts[$0], texts[$1]) || hasSameBytes(texts[$0], texts[$1]) && $0 < $1
        }
        return order.map { elements[$0] }
    }

    // MARK: - Texts

    mutating func jsonText(_ node: Node) throws(JSONEError) -> String {
        let value = try operand(node)
        if hasUsedFunctionAsValue, Builtin.occurs(in: value) { throw .uncalledFunctions }
        return value.javascriptText(.sorted)
    }

    mutating func relativeTime(_ node: Node, _ reference: Node?) throws(JSONEError) -> JSONValue {
        let text = try operand(node)
        var start = currentInstant
        if let reference { start = try operand(reference) }
        guard case .string(let text) = text else { throw JSONEError(.template, "$fromNow expects a string") }
        return try relativeTime(text, from: start, complaining: .template)
    }

    /// Null when the reference is no date.
    func relativeTime(
        _ text: String,
        from reference: JSONValue,
        complaining kind: JSONEError.Kind
    ) throws(JSONEError) -> JSONValue {
        let distance: RelativeTime
        do throws(RelativeTimeError) {
            distance = try RelativeTime(text)
        } catch {
            throw JSONEError(kind, "\(error)")
        }
        let start = Self.isTruthy(reference) ? reference : currentInstant
        guard case .string(let date) = start, let instant = Timestamp(date) ?? Timestamp("\(date)T00:00:00Z") else {
            return .null
        }
        return .string(distance.from(instant).iso8601)
    }
}
