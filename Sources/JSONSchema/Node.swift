// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON

/// A compiled subschema.
struct Node: Sendable {
    /// The permitted types; empty when all are.
    var types: [SchemaType] = []
    /// The rules in the order in which they are reported.
    var rules: [Rule] = []
    /// The value for a missing member or element.
    var defaultValue: JSONValue?
}

/// The names of `type`.
enum SchemaType: String, Sendable {
    case null, boolean, number, integer, string, array, object

    func includes(_ value: JSONValue) -> Bool {
        switch (self, value) {
        case (.null, .null), (.boolean, .bool), (.number, .number), (.string, .string), (.array, .array),
            (.object, .object):
            true
        case (.integer, .number(let number)):
            number.double.isFinite && number.double == number.double.rounded()
        default:
            false
        }
    }
}

/// One rule of a subschema; integers are positions of other subschemas.
enum Rule: Sendable {
    case never
    case minimum(JSONNumber, isExclusive: Bool)
    case maximum(JSONNumber, isExclusive: Bool)
    case multipleOf(JSONNumber)
    case minLength(Int)
    case maxLength(Int)
    case pattern(RegularExpression)
    case format(Format)
    case reference(Int)
    case enumeration([JSONValue])
    case constant(JSONValue)
    case not(Int)
    case anyOf([Int])
    case oneOf([Int])
    case allOf([Int])
    case conditional(condition: Int, then: Int?, otherwise: Int?)
    case minItems(Int)
    case maxItems(Int)
    case uniqueItems
    case items(Int)
    case tuple([Int], rest: Rest)
    case contains(Int)
    case minProperties(Int)
    case maxProperties(Int)
    case required([String])
    case requiredWith(String, [String])
    case dependency(String, Int)
    case propertyNames(Int)
    case properties(Properties)

    /// What is demanded of elements or members that no other keyword names.
    enum Rest: Sendable {
        case anything
        case nothing
        case schema(Int)
    }

    /// The three keywords about members, which depend on each other.
    struct Properties: Sendable {
        var named: [(name: String, node: Int)] = []
        var positions: [String: Int] = [:]
        var patterns: [(pattern: RegularExpression, node: Int)] = []
        var rest = Rest.anything
    }
}
