// SPDX-License-Identifier: MPL-2.0

import Expressions

/// What a route parameter must look like.
public struct ParameterRule: Sendable, ExpressibleByStringLiteral {
    /// The pattern that refused callers are shown.
    public let pattern: String
    private let accepts: @Sendable (String) -> Bool

    /// Makes a rule from an ECMAScript regular expression, which must be valid.
    public init(_ pattern: String) {
        self.init(pattern: pattern, matches: Self.matcher(pattern))
    }

    /// Makes a rule from a pattern to show and a function that decides.
    public init(pattern: String, matches: @escaping @Sendable (String) -> Bool) {
        self.pattern = pattern
        self.accepts = matches
    }

    /// Makes a rule from a literal pattern.
    public init(stringLiteral value: String) {
        self.init(value)
    }

    /// Tells whether the rule accepts a decoded value.
    public func matches(_ value: String) -> Bool {
        accepts(value)
    }

    static func matcher(_ pattern: String) -> @Sendable (String) -> Bool {
        guard let expression = try? RegularExpression(pattern, as: .ecmaScript) else {
            preconditionFailure("a parameter pattern is not a valid regular expression: \(pattern)")
        }
        // What takes too long to tell is not accepted.
        return { (try? expression.matches($0)) == true }
    }
}

/// What the value of a query option must look like.
public struct QueryRule: Sendable, ExpressibleByStringLiteral {
    /// The pattern that refused callers are shown.
    public let pattern: String
    /// Whether the option may be given several times; the values are joined by commas.
    public let mayRepeat: Bool
    private let accepts: @Sendable (String) -> Bool

    /// Makes a rule from an ECMAScript regular expression, which must be valid.
    public init(_ pattern: String) {
        self.init(pattern: pattern, matches: ParameterRule.matcher(pattern))
    }

    /// Makes a rule from a pattern to show and a function that decides.
    public init(pattern: String, mayRepeat: Bool = false, matches: @escaping @Sendable (String) -> Bool) {
        self.pattern = pattern
        self.mayRepeat = mayRepeat
        self.accepts = matches
    }

    /// Makes a rule from a literal pattern.
    public init(stringLiteral value: String) {
        self.init(value)
    }

    /// Tells whether the rule accepts a decoded value.
    public func matches(_ value: String) -> Bool {
        accepts(value)
    }

    /// Any text.
    public static let any = QueryRule(pattern: "^.*$") { _ in true }
    /// Words with commas between them, or the option several times.
    public static let words = QueryRule(pattern: "^[A-Za-z_,-]+$", mayRepeat: true) { text in
        !text.isEmpty
            && text.utf8.allSatisfy { (65...90).contains($0) || (97...122).contains($0) || "_,-".utf8.contains($0) }
    }
    /// A number of rows.
    public static let limit = QueryRule(pattern: "^[0-9]+$") { text in
        !text.isEmpty && text.utf8.allSatisfy { (48...57).contains($0) }
    }
    /// A token from an earlier page.
    public static let continuationToken = QueryRule(pattern: "^.+$") { !$0.isEmpty }
    /// A truth value in one of its four spellings.
    public static let bool = QueryRule(pattern: "^(true|false|1|0)$") { ["true", "false", "1", "0"].contains($0) }
}

extension [String: QueryRule] {
    /// The two options of every list that comes in pages.
    public static var paging: [String: QueryRule] {
        ["continuationToken": .continuationToken, "limit": .limit]
    }
}
