// SPDX-License-Identifier: MPL-2.0

public import JSON

/// A compiled JSON schema of draft 4, 6 or 7.
///
/// Messages, their order and the filling of defaults follow the validator of the original services, because clients
/// print and match them. Patterns are those of ECMA-262, see `RegularExpression.Dialect.ecmaScript`; a value for which a pattern would take
/// too long is not valid.
public struct JSONSchema: Sendable {
    /// What happens to keywords that the validator does not know.
    public enum UnknownKeywords: Sendable {
        /// They are an error, for our own schemas.
        case reject
        /// They are skipped, for schemas written by users.
        case ignore
    }

    /// All subschemas, the whole first.
    ///
    /// References are positions, so that recursive schemas stay values.
    let nodes: [Node]

    /// Compiles a schema.
    ///
    /// References reach into the document itself and, through `resolving`, into documents named by their absolute address.
    public init(
        _ schema: JSONValue,
        id: String? = nil,
        unknownKeywords: UnknownKeywords = .reject,
        resolving: (String) -> JSONValue? = { _ in nil }
    ) throws(JSONSchemaError) {
        var compiler = SchemaCompiler(unknownKeywords: unknownKeywords)
        nodes = try compiler.compile(schema, id: id, resolving: resolving)
    }

    /// Finds everything that is wrong with a value; nothing when it is valid.
    public func validate(_ value: JSONValue) -> [JSONSchemaProblem] {
        var validator = Validator(nodes: nodes)
        validator.check(value, 0)
        return validator.problems + validator.undecided
    }

    /// Fills in `default`s of missing members and tuple elements, outside of `anyOf`, `oneOf`, `not` and `if`.
    public func applyingDefaults(_ value: JSONValue) -> JSONValue {
        var copy = value
        var defaults = Defaults(nodes: nodes)
        defaults.fill(&copy, 0)
        return copy
    }

    /// Finds everything that is wrong with a schema itself.
    ///
    /// Drafts 4, 6 and 7 are known; a schema without `$schema` is taken for draft 7.
    public static func problems(inSchema schema: JSONValue) -> [JSONSchemaProblem] {
        let meta: JSONSchema?
        switch schema["$schema"] {
        case nil: meta = MetaSchema.draft7
        case .string(let uri): meta = MetaSchema.named(uri)
        default: return [JSONSchemaProblem(path: "/$schema", message: "must be string")]
        }
        guard let meta else {
            return [
                JSONSchemaProblem(
                    path: "/$schema",
                    message: "must be a known meta-schema: no schema with key or ref \(schema["$schema"] ?? nil)"
                )
            ]
        }
        let problems = meta.validate(schema)
        guard problems.isEmpty else { return problems }
        do throws(JSONSchemaError) {
            _ = try JSONSchema(schema, unknownKeywords: .ignore)
            return []
        } catch {
            return [JSONSchemaProblem(path: error.path, message: error.message)]
        }
    }
}

/// One violation of a schema.
public struct JSONSchemaProblem: Sendable, Hashable {
    /// The JSON pointer of the offending value, empty for the whole.
    public let path: String
    /// The rule, such as `must be array`.
    public let message: String

    /// Makes a problem.
    public init(path: String, message: String) {
        self.path = path
        self.message = message
    }

    /// The problem with a name for the whole in front: `data/a must be array`.
    public func described(root: String = "data") -> String {
        "\(root)\(path) \(message)"
    }
}

/// Why a schema cannot be compiled.
public struct JSONSchemaError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The JSON pointer of the offending part of the schema.
    public let path: String
    /// The reason.
    public let message: String

    /// One line with place and reason.
    public var description: String { "schema\(path) \(message)" }
}
