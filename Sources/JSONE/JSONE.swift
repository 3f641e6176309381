// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Schedules

/// A JSON-e template, read once and rendered as often as needed.
///
/// Reading never fails for what a template says: a mistake in a part is reported when rendering reaches that part, exactly
/// as in the interpreting implementations.
public struct JSONETemplate: Sendable {
    private let program: Program
    private let root: Int32
    /// What every variable is unless the context says otherwise.
    private let builtins: [JSONValue?]

    /// Reads a template.
    public init(_ template: JSONValue) throws(JSONEError) {
        var compiler = TemplateCompiler()
        root = compiler.required(template)
        program = compiler.program
        builtins = program.symbols.names.map { Builtin.named($0)?.value }
    }

    /// A function that templates may call by name.
    public typealias Function = @Sendable ([JSONValue]) throws(JSONEError) -> JSONValue

    /// Renders the template with the variables of a context; without `now` among them, `now` is the instant given.
    ///
    /// A template that takes more than ten million steps, makes values of more than four million elements or nests a thousand
    /// deep is refused, however short it is. The functions are callable beside the built-in ones, unless a variable of the
    /// same name hides them.
    public func render(
        _ context: JSONObject,
        now: Timestamp,
        functions: [String: Function] = [:]
    ) throws(JSONEError) -> JSONValue {
        for (key, _) in context where !Identifier.isValid(key) {
            throw JSONEError(.template, "top level keys of context must follow /[a-zA-Z_][a-zA-Z0-9_]*/")
        }
        var renderer = Renderer(program, builtins: builtins, context: context, now: now)
        renderer.functions = functions
        let result = try renderer.render(root) ?? .null
        try renderer.budget.keep(result)
        if renderer.hasUsedFunctionAsValue, Builtin.occurs(in: result) { throw .uncalledFunctions }
        return result
    }
}

/// JSON-e in one call.
public enum JSONE {
    /// Reads and renders a template.
    public static func render(
        _ template: JSONValue,
        context: JSONObject,
        now: Timestamp
    ) throws(JSONEError) -> JSONValue {
        try JSONETemplate(template).render(context, now: now)
    }
}

/// Why rendering failed, and where.
public struct JSONEError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The part of the language that complains.
    public enum Kind: String, Sendable, Hashable {
        /// An expression cannot be read.
        case syntax = "SyntaxError"
        /// An expression cannot be evaluated.
        case interpreter = "InterpreterError"
        /// An operator was used wrongly.
        case template = "TemplateError"
        /// A built-in function was called wrongly.
        case builtin = "BuiltinError"
    }

    /// The part of the language that complains.
    public let kind: Kind
    /// The complaint.
    public let message: String
    /// The place, such as `template.a[0]`; empty at the top.
    public private(set) var location = ""

    static let uncalledFunctions = JSONEError(.template, "evaluated template contained uncalled functions")

    init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    /// Kind, place and complaint as the reference implementations print them.
    public var description: String {
        location.isEmpty ? "\(kind.rawValue): \(message)" : "\(kind.rawValue) at \(location): \(message)"
    }

    /// The same error seen from one level further out.
    func inside(_ step: String) -> JSONEError {
        var copy = self
        copy.location = "template" + step + location.dropFirst("template".count)
        return copy
    }
}
