// SPDX-License-Identifier: MPL-2.0

public import JSON

/// A scope expression with holes, as endpoint declarations spell it.
///
/// Forms: `"queue:get-task:<taskId>"`, `{"AllOf": […]}`, `{"AnyOf": […]}`, `{"for": "x", "in": "xs", "each": "…<x>"}` inside
/// a group, and `{"if": "flag", "then": …, "else": …}`. JSON null asks for nothing.
public struct ScopeTemplate: Sendable, Hashable {
    /// The declaration as it was written; references publish it verbatim.
    public let json: JSONValue
    private let root: Node?

    /// Reads a declaration.
    public init(_ json: JSONValue) throws(ScopeError) {
        self.json = json
        root = json.isNull ? nil : try Node(json, inGroup: false)
    }

    private init(json: JSONValue, root: Node?) {
        self.json = json
        self.root = root
    }

    /// One scope; `<name>` in it is replaced by the parameter of that name.
    public static func scope(_ text: String) -> ScopeTemplate {
        ScopeTemplate(json: .string(text), root: .scope(Pieces(text)))
    }

    /// Every one of the templates.
    public static func allOf(_ templates: ScopeTemplate...) -> ScopeTemplate {
        ScopeTemplate(json: ["AllOf": .array(templates.map(\.json))], root: .allOf(templates.compactMap(\.root)))
    }

    /// Any one of the templates.
    public static func anyOf(_ templates: ScopeTemplate...) -> ScopeTemplate {
        ScopeTemplate(json: ["AnyOf": .array(templates.map(\.json))], root: .anyOf(templates.compactMap(\.root)))
    }

    /// For a group: one scope for each member of an array parameter.
    public static func each(_ variable: String, in array: String, scope: String) -> ScopeTemplate {
        ScopeTemplate(
            json: ["for": .string(variable), "in": .string(array), "each": .string(scope)],
            root: .each(variable, array, Pieces(scope))
        )
    }

    /// A template that counts only when a boolean parameter is true.
    public static func when(
        _ flag: String,
        then consequence: ScopeTemplate,
        else alternative: ScopeTemplate? = nil
    ) -> ScopeTemplate {
        var json: JSONValue = ["if": .string(flag), "then": consequence.json]
        if let alternative { json["else"] = alternative.json }
        return ScopeTemplate(json: json, root: .when(flag, consequence.root, alternative?.root))
    }

    /// The names of the parameters a rendering may need.
    public var parameters: Set<String> { root?.parameters ?? [] }

    /// The expression for these parameters; nil when nothing is required.
    public func rendered(_ parameters: [String: JSONValue]) throws(ScopeError) -> ScopeExpression? {
        guard let root else { return nil }
        let expressions = try root.rendered(parameters)
        return expressions.first
    }
}

/// A text cut at its holes.
private struct Pieces: Sendable, Hashable {
    enum Piece: Sendable, Hashable {
        case text(String)
        case parameter(String)
    }

    let pieces: [Piece]

    init(_ text: String) {
        var pieces: [Piece] = []
        var literal: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let character = rest.first {
            if character == UInt8(ascii: "<"), let name = Self.name(after: rest.dropFirst()) {
                if !literal.isEmpty { pieces.append(.text(String(decoding: literal, as: UTF8.self))) }
                literal = []
                pieces.append(.parameter(name))
                rest = rest.dropFirst(name.utf8.count + 2)
            } else {
                literal.append(character)
                rest = rest.dropFirst()
            }
        }
        if !literal.isEmpty { pieces.append(.text(String(decoding: literal, as: UTF8.self))) }
        self.pieces = pieces
    }

    var parameters: Set<String> {
        Set(pieces.compactMap { if case .parameter(let name) = $0 { name } else { nil } })
    }

    func rendered(_ parameters: [String: JSONValue]) throws(ScopeError) -> String {
        var result = ""
        for piece in pieces {
            switch piece {
            case .text(let text): result += text
            case .parameter(let name): result += try Self.text(of: parameters[name], name)
            }
        }
        return result
    }

    private static func text(of value: JSONValue?, _ name: String) throws(ScopeError) -> String {
        switch value {
        case .string(let text): return text
        case .number(let number): return number.javascriptText
        case nil: throw ScopeError(.badParameter, "scope parameter \(name) is missing")
        default: throw ScopeError(.badParameter, "scope parameter \(name) must be a string or a number")
        }
    }

    private static func name(after rest: ArraySlice<UInt8>) -> String? {
        let name = rest.prefix { $0.isAlphanumeric || $0 == UInt8(ascii: "_") }
        guard let first = name.first, first.isLetter, rest.dropFirst(name.count).first == UInt8(ascii: ">") else {
            return nil
        }
        return String(decoding: name, as: UTF8.self)
    }
}

private indirect enum Node: Sendable, Hashable {
    case scope(Pieces)
    case allOf([Node])
    case anyOf([Node])
    case each(String, String, Pieces)
    case when(String, Node?, Node?)

    init(_ json: JSONValue, inGroup: Bool) throws(ScopeError) {
        if let text = json.string {
            self = .scope(Pieces(text))
            return
        }
        guard let object = json.object else {
            throw ScopeError(.invalidTemplate, "a scope template is a string or an object")
        }
        let keys = Set(object.keys)
        if keys == ["AllOf"], let members = json["AllOf"]?.array {
            self = .allOf(try Self.members(members))
        } else if keys == ["AnyOf"], let members = json["AnyOf"]?.array {
            self = .anyOf(try Self.members(members))
        } else if keys == ["for", "in", "each"], inGroup, let variable = json["for"]?.string,
            let array = json["in"]?.string, let each = json["each"]?.string
        {
            self = .each(variable, array, Pieces(each))
        } else if keys.subtracting(["else"]) == ["if", "then"], let flag = json["if"]?.string, let then = json["then"] {
            var alternative: Node?
            if let json = json["else"], !json.isNull { alternative = try Node(json, inGroup: inGroup) }
            self = .when(flag, then.isNull ? nil : try Node(then, inGroup: inGroup), alternative)
        } else {
            throw ScopeError(.invalidTemplate, "not a scope template: an object with keys \(keys.sorted())")
        }
    }

    private static func members(_ members: [JSONValue]) throws(ScopeError) -> [Node] {
        var nodes: [Node] = []
        for member in members { nodes.append(try Node(member, inGroup: true)) }
        return nodes
    }

    var parameters: Set<String> {
        switch self {
        case .scope(let pieces): pieces.parameters
        case .allOf(let members), .anyOf(let members): members.reduce(into: []) { $0.formUnion($1.parameters) }
        case .each(let variable, let array, let pieces): pieces.parameters.subtracting([variable]).union([array])
        case .when(let flag, let then, let otherwise):
            Set([flag]).union(then?.parameters ?? []).union(otherwise?.parameters ?? [])
        }
    }

    /// Zero or one expression for most forms; a loop gives one for each member of its array.
    func rendered(_ parameters: [String: JSONValue]) throws(ScopeError) -> [ScopeExpression] {
        switch self {
        case .scope(let pieces): return [.scope(try pieces.rendered(parameters))]
        case .allOf(let members): return [.allOf(try Self.rendered(members, parameters))]
        case .anyOf(let members): return [.anyOf(try Self.rendered(members, parameters))]
        case .each(let variable, let array, let pieces):
            guard let values = parameters[array]?.array else {
                throw ScopeError(.badParameter, "scope parameter \(array) must be an array")
            }
            var result: [ScopeExpression] = []
            var scoped = parameters
            for value in values {
                scoped[variable] = value
                result.append(.scope(try pieces.rendered(scoped)))
            }
            return result
        case .when(let flag, let then, let otherwise):
            guard let value = parameters[flag]?.bool else {
                throw ScopeError(.badParameter, "scope parameter \(flag) must be true or false")
            }
            return try (value ? then : otherwise)?.rendered(parameters) ?? []
        }
    }

    private static func rendered(
        _ members: [Node],
        _ parameters: [String: JSONValue]
    ) throws(ScopeError) -> [ScopeExpression] {
        var result: [ScopeExpression] = []
        for member in members { result += try member.rendered(parameters) }
        return result
    }
}
