// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON

/// Turns schema documents into nodes.
struct SchemaCompiler {
    /// Keywords without a say in validation.
    private static let annotations: Set<String> = [
        "$schema", "$id", "id", "$comment", "title", "description", "default", "examples", "definitions", "readOnly",
        "writeOnly", "contentMediaType", "contentEncoding", "metadata", "then", "else", "additionalItems",
    ]

    private let ignoresUnknown: Bool
    private var nodes: [Node] = []
    private var documents: [String: JSONValue] = [:]
    /// Positions of compiled references by absolute address.
    private var positions: [String: Int] = [:]
    /// References still to be compiled.
    private var pending: [(reference: SchemaReference, path: String, position: Int)] = []

    init(unknownKeywords: JSONSchema.UnknownKeywords) {
        ignoresUnknown = unknownKeywords == .ignore
    }

    mutating func compile(
        _ schema: JSONValue,
        id: String?,
        resolving: (String) -> JSONValue?
    ) throws(JSONSchemaError) -> [Node] {
        let base = SchemaReference.document(of: schema) ?? id.map { SchemaReference($0, base: "").document } ?? ""
        documents[base] = schema
        positions["\(base)#"] = 0
        _ = try node(schema, base, path: "")
        while let (reference, path, position) = pending.popLast() {
            guard let document = documents[reference.document] ?? resolving(reference.document) else {
                throw JSONSchemaError(path: path, message: "can't resolve reference \(reference.text)")
            }
            documents[reference.document] = document
            guard let target = reference.target(in: document) else {
                throw JSONSchemaError(path: path, message: "can't resolve reference \(reference.text)")
            }
            try fill(position, target, reference.document, path: path)
        }
        return nodes
    }

    private mutating func node(_ schema: JSONValue, _ base: String, path: String) throws(JSONSchemaError) -> Int {
        let position = nodes.count
        nodes.append(Node())
        try fill(position, schema, base, path: path)
        return position
    }

    private mutating func fill(
        _ position: Int,
        _ schema: JSONValue,
        _ base: String,
        path: String
    ) throws(JSONSchemaError) {
        switch schema {
        case .bool(true): return
        case .bool(false): nodes[position].rules = [.never]
        case .object(let keywords):
            var scope = KeywordScope(keywords: keywords, base: base, path: path)
            nodes[position].defaultValue = keywords["default"]
            nodes[position].types = try types(keywords, path)
            var rules: [Rule] = []
            try addNumberRules(scope, &rules)
            try addStringRules(scope, &rules)
            try addGeneralRules(scope, &rules)
            try addArrayRules(scope, &rules)
            try addObjectRules(scope, &rules)
            try checkUnknown(&scope)
            nodes[position].rules = rules
        default:
            throw JSONSchemaError(path: path, message: "must be object,boolean")
        }
    }

    /// The keywords of one subschema and where it stands.
    private struct KeywordScope {
        let keywords: JSONObject
        let base: String
        let path: String

        func error(_ keyword: String, _ message: String) -> JSONSchemaError {
            JSONSchemaError(path: "\(path)/\(keyword)", message: message)
        }

        func count(_ keyword: String) throws(JSONSchemaError) -> Int? {
            guard let value = keywords[keyword] else { return nil }
            guard let count = value.int, count >= 0 else { throw error(keyword, "must be a non-negative integer") }
            return count
        }

        func number(_ keyword: String) throws(JSONSchemaError) -> JSONNumber? {
            guard let value = keywords[keyword] else { return nil }
            guard case .number(let number) = value else { throw error(keyword, "must be number") }
            return number
        }

        func strings(_ keyword: String) throws(JSONSchemaError) -> [String]? {
            guard let value = keywords[keyword] else { return nil }
            let strings = value.array?.compactMap(\.string)
            guard let strings, strings.count == value.array?.count else {
                throw error(keyword, "must be array of strings")
            }
            return strings
        }
    }

    private func types(_ keywords: JSONObject, _ path: String) throws(JSONSchemaError) -> [SchemaType] {
        guard let value = keywords["type"] else { return [] }
        var types: [SchemaType] = []
        for name in value.array ?? [value] {
            guard let type = name.string.flatMap(SchemaType.init(rawValue:)) else {
                throw JSONSchemaError(path: "\(path)/type", message: "must be equal to one of the allowed values")
            }
            types.append(type)
        }
        return types
    }

    private func checkUnknown(_ scope: inout KeywordScope) throws(JSONSchemaError) {
        guard !ignoresUnknown else { return }
        for key in scope.keywords.keys where !Self.annotations.contains(key) && !Self.rules.contains(key) {
            throw scope.error(key, "unknown keyword")
        }
    }

    /// Keywords with rules.
    private static let rules: Set<String> = [
        "type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
        "pattern", "format", "$ref", "enum", "const", "not", "anyOf", "oneOf", "allOf", "if", "minItems", "maxItems",
        "uniqueItems", "items", "contains", "minProperties", "maxProperties", "required", "dependencies",
        "propertyNames", "properties", "patternProperties", "additionalProperties",
    ]
}

// MARK: - Rules by type

extension SchemaCompiler {
    private func addNumberRules(_ scope: KeywordScope, _ rules: inout [Rule]) throws(JSONSchemaError) {
        // In draft 4 the exclusive keywords are booleans beside the limit.
        let minimumIsExclusive = scope.keywords["exclusiveMinimum"]?.bool
        let maximumIsExclusive = scope.keywords["exclusiveMaximum"]?.bool
        if let limit = try scope.number("maximum") {
            rules.append(.maximum(limit, isExclusive: maximumIsExclusive == true))
        }
        if let limit = try scope.number("minimum") {
            rules.append(.minimum(limit, isExclusive: minimumIsExclusive == true))
        }
        if maximumIsExclusive == nil, let limit = try scope.number("exclusiveMaximum") {
            rules.append(.maximum(limit, isExclusive: true))
        }
        if minimumIsExclusive == nil, let limit = try scope.number("exclusiveMinimum") {
            rules.append(.minimum(limit, isExclusive: true))
        }
        if let divisor = try scope.number("multipleOf") {
            guard divisor.double > 0 else { throw scope.error("multipleOf", "must be > 0") }
            rules.append(.multipleOf(divisor))
        }
    }

    private func addStringRules(_ scope: KeywordScope, _ rules: inout [Rule]) throws(JSONSchemaError) {
        if let count = try scope.count("maxLength") { rules.append(.maxLength(count)) }
        if let count = try scope.count("minLength") { rules.append(.minLength(count)) }
        if let value = scope.keywords["pattern"] {
            rules.append(.pattern(try pattern(value.string, scope.error("pattern", "must be string"))))
        }
        guard let value = scope.keywords["format"] else { return }
        guard let name = value.string else { throw scope.error("format", "must be string") }
        if let format = Format(rawValue: name) {
            rules.append(.format(format))
        } else if !ignoresUnknown {
            throw scope.error("format", "unknown format \"\(name)\"")
        }
    }

    private func pattern(_ text: String?, _ missing: JSONSchemaError) throws(JSONSchemaError) -> RegularExpression {
        guard let text else { throw missing }
        do throws(RegularExpression.Problem) {
            return try RegularExpression(text, as: .ecmaScript)
        } catch {
            throw JSONSchemaError(path: missing.path, message: "must be a supported regex: \(error)")
        }
    }

    private mutating func addGeneralRules(_ scope: KeywordScope, _ rules: inout [Rule]) throws(JSONSchemaError) {
        if let value = scope.keywords["$ref"] {
            guard let text = value.string else { throw scope.error("$ref", "must be string") }
            rules.append(.reference(position(of: text, scope)))
        }
        if let value = scope.keywords["const"] { rules.append(.constant(value)) }
        if let value = scope.keywords["enum"] {
            guard let values = value.array else { throw scope.error("enum", "must be array") }
            rules.append(.enumeration(values))
        }
        if let position = try child("not", scope) { rules.append(.not(position)) }
        if let positions = try children("anyOf", scope) { rules.append(.anyOf(positions)) }
        if let positions = try children("oneOf", scope) { rules.append(.oneOf(positions)) }
        if let positions = try children("allOf", scope) { rules.append(.allOf(positions)) }
        if let condition = try child("if", scope) {
            let then = try child("then", scope)
            let otherwise = try child("else", scope)
            rules.append(.conditional(condition: condition, then: then, otherwise: otherwise))
        }
    }

    private mutating func addArrayRules(_ scope: KeywordScope, _ rules: inout [Rule]) throws(JSONSchemaError) {
        if let count = try scope.count("maxItems") { rules.append(.maxItems(count)) }
        if let count = try scope.count("minItems") { rules.append(.minItems(count)) }
        if scope.keywords["uniqueItems"]?.bool == true { rules.append(.uniqueItems) }
        if scope.keywords["items"]?.array != nil, let positions = try children("items", scope) {
            rules.append(.tuple(positions, rest: try rest("additionalItems", scope)))
        } else if let position = try child("items", scope) {
            rules.append(.items(position))
        }
        if let position = try child("contains", scope) { rules.append(.contains(position)) }
    }

    private mutating func addObjectRules(_ scope: KeywordScope, _ rules: inout [Rule]) throws(JSONSchemaError) {
        if let count = try scope.count("maxProperties") { rules.append(.maxProperties(count)) }
        if let count = try scope.count("minProperties") { rules.append(.minProperties(count)) }
        // A boolean here is draft 3, which nobody uses; draft 4 on wants a list.
        if let names = try scope.strings("required") { rules.append(.required(names)) }
        try addDependencies(scope, &rules)
        if let position = try child("propertyNames", scope) { rules.append(.propertyNames(position)) }
        try addProperties(scope, &rules)
    }

    private mutating func addDependencies(_ scope: KeywordScope, _ rules: inout [Rule]) throws(JSONSchemaError) {
        guard let value = scope.keywords["dependencies"] else { return }
        guard let dependencies = value.object else { throw scope.error("dependencies", "must be object") }
        for (name, dependency) in dependencies {
            if let names = dependency.array {
                rules.append(.requiredWith(name, names.compactMap(\.string)))
            } else {
                let path = "\(scope.path)/dependencies/\(JSONPointer.escaped(name))"
                rules.append(.dependency(name, try node(dependency, scope.base, path: path)))
            }
        }
    }

    private mutating func addProperties(_ scope: KeywordScope, _ rules: inout [Rule]) throws(JSONSchemaError) {
        let names = ["properties", "patternProperties", "additionalProperties"]
        guard names.contains(where: { scope.keywords[$0] != nil }) else { return }
        var properties = Rule.Properties()
        if let value = scope.keywords["properties"] {
            guard let members = value.object else { throw scope.error("properties", "must be object") }
            for (name, schema) in members {
                let path = "\(scope.path)/properties/\(JSONPointer.escaped(name))"
                let position = try node(schema, scope.base, path: path)
                properties.named.append((name, position))
                properties.positions[name] = position
            }
        }
        if let value = scope.keywords["patternProperties"] {
            guard let members = value.object else { throw scope.error("patternProperties", "must be object") }
            for (text, schema) in members {
                let path = "patternProperties/\(JSONPointer.escaped(text))"
                let pattern = try pattern(text, scope.error(path, ""))
                properties.patterns.append((pattern, try node(schema, scope.base, path: "\(scope.path)/\(path)")))
            }
        }
        properties.rest = try rest("additionalProperties", scope)
        rules.append(.properties(properties))
    }
}

// MARK: - Subschemas

extension SchemaCompiler {
    private mutating func child(_ keyword: String, _ scope: KeywordScope) throws(JSONSchemaError) -> Int? {
        guard let schema = scope.keywords[keyword] else { return nil }
        return try node(schema, scope.base, path: "\(scope.path)/\(keyword)")
    }

    private mutating func children(_ keyword: String, _ scope: KeywordScope) throws(JSONSchemaError) -> [Int]? {
        guard let value = scope.keywords[keyword] else { return nil }
        guard let schemas = value.array else { throw scope.error(keyword, "must be array") }
        var positions: [Int] = []
        for (index, schema) in schemas.enumerated() {
            positions.append(try node(schema, scope.base, path: "\(scope.path)/\(keyword)/\(index)"))
        }
        return positions
    }

    private mutating func rest(_ keyword: String, _ scope: KeywordScope) throws(JSONSchemaError) -> Rule.Rest {
        switch scope.keywords[keyword] {
        case nil, .bool(true)?: .anything
        case .bool(false)?: .nothing
        case let schema?: .schema(try node(schema, scope.base, path: "\(scope.path)/\(keyword)"))
        }
    }

    private mutating func position(of reference: String, _ scope: KeywordScope) -> Int {
        let reference = SchemaReference(reference, base: scope.base)
        if let position = positions[reference.absolute] { return position }
        let position = nodes.count
        nodes.append(Node())
        positions[reference.absolute] = position
        pending.append((reference, "\(scope.path)/$ref", position))
        return position
    }
}

/// JSON pointers, RFC 6901.
enum JSONPointer {
    static func escaped(_ name: String) -> String {
        guard name.utf8.contains(where: { $0 == 0x7E || $0 == 0x2F }) else { return name }
        return name.split(separator: "~", omittingEmptySubsequences: false).joined(separator: "~0")
            .split(separator: "/", omittingEmptySubsequences: false).joined(separator: "~1")
    }

    static func unescaped(_ token: some StringProtocol) -> String {
        var name = ""
        var rest = Substring(token)
        while let character = rest.popFirst() {
            if character == "~", let code = rest.first, code == "0" || code == "1" {
                rest.removeFirst()
                name.append(code == "0" ? "~" : "/")
            } else {
                name.append(character)
            }
        }
        return name
    }
}
