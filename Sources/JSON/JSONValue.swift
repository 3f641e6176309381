// SPDX-License-Identifier: MPL-2.0

/// A JSON document or a part of one.
///
/// Numbers follow JavaScript (see ``JSONNumber``), objects keep the order of their members (see ``JSONObject``) and
/// strings are compared code point by code point, never by Unicode equivalence.
public enum JSONValue: Sendable {
    /// The value `null`.
    case null
    /// The values `true` and `false`.
    case bool(Bool)
    /// A number.
    case number(JSONNumber)
    /// A string.
    case string(String)
    /// An ordered list of values.
    case array([JSONValue])
    /// Named members.
    case object(JSONObject)
}

extension JSONValue: Hashable {
    /// Tells whether two documents mean the same: order of members is ignored, numbers are compared by value.
    public static func == (first: JSONValue, second: JSONValue) -> Bool {
        switch (first, second) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        case (.number(let a), .number(let b)): a == b
        case (.string(let a), .string(let b)): hasSameBytes(a, b)
        case (.array(let a), .array(let b)): a == b
        case (.object(let a), .object(let b)): a == b
        default: false
        }
    }

    /// Feeds the meaning of the value, consistent with `==`.
    public func hash(into hasher: inout Hasher) {
        switch self {
        case .null: hasher.combine(0 as UInt8)
        case .bool(let value): hasher.combine(value ? 2 as UInt8 : 1)
        case .number(let number): number.hash(into: &hasher)
        case .string(let text): combineBytes(of: text, into: &hasher)
        case .array(let elements): elements.hash(into: &hasher)
        case .object(let object): object.hash(into: &hasher)
        }
    }
}

// MARK: - Reading

extension JSONValue {
    /// The text of a string, or nil for anything else.
    public var string: String? {
        if case .string(let text) = self { text } else { nil }
    }

    /// The value of a number, or nil for anything else.
    public var double: Double? {
        if case .number(let number) = self { number.double } else { nil }
    }

    /// The value of a number without a fraction that fits an `Int`, or nil for anything else.
    public var int: Int? {
        if case .number(let number) = self { number.int } else { nil }
    }

    /// The value of a boolean, or nil for anything else.
    public var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }

    /// The elements of an array, or nil for anything else.
    public var array: [JSONValue]? {
        if case .array(let elements) = self { elements } else { nil }
    }

    /// The members of an object, or nil for anything else.
    public var object: JSONObject? {
        if case .object(let members) = self { members } else { nil }
    }

    /// Whether this is `null`.
    public var isNull: Bool {
        if case .null = self { true } else { false }
    }

    /// The member with a name; nil when there is none or when this is not an object.
    ///
    /// Assigning to a member of `null` makes an object of it; assigning to a member of any other non-object does nothing.
    public subscript(_ key: String) -> JSONValue? {
        get {
            if case .object(let members) = self { members[key] } else { nil }
        }
        set {
            switch self {
            case .object(var members):
                self = .null
                members[key] = newValue
                self = .object(members)
            case .null where newValue != nil:
                var members = JSONObject()
                members[key] = newValue
                self = .object(members)
            default:
                break
            }
        }
    }

    /// The element at a position; nil when there is none or when this is not an array.
    public subscript(_ index: Int) -> JSONValue? {
        guard case .array(let elements) = self, elements.indices.contains(index) else { return nil }
        return elements[index]
    }
}

// MARK: - Making

extension JSONValue {
    /// Makes a string.
    public init(_ text: String) { self = .string(text) }

    /// Makes a number.
    public init(_ value: Int) { self = .number(JSONNumber(value)) }

    /// Makes a number.
    public init(_ value: Double) { self = .number(JSONNumber(value)) }

    /// Makes a boolean.
    public init(_ value: Bool) { self = .bool(value) }

    /// Makes an array of strings.
    public init(_ strings: [String]) { self = .array(strings.map(JSONValue.string)) }
}

extension JSONValue: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByStringInterpolation, ExpressibleByArrayLiteral,
    ExpressibleByDictionaryLiteral
{
    /// Makes `null`.
    public init(nilLiteral: ()) { self = .null }

    /// Makes a boolean.
    public init(booleanLiteral value: Bool) { self = .bool(value) }

    /// Makes a number.
    public init(integerLiteral value: Int) { self = .number(JSONNumber(value)) }

    /// Makes a number.
    public init(floatLiteral value: Double) { self = .number(JSONNumber(value)) }

    /// Makes a string.
    public init(stringLiteral value: String) { self = .string(value) }

    /// Makes an array.
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }

    /// Makes an object; when a name occurs twice, the last one wins.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        var members = JSONObject()
        for (key, value) in elements { members[key] = value }
        self = .object(members)
    }
}

extension JSONValue: CustomStringConvertible {
    /// The compact text.
    public var description: String { text() }
}
