// SPDX-License-Identifier: MPL-2.0

public import JSON

/// What a request must hold: one scope, or all or any of several expressions.
public indirect enum ScopeExpression: Sendable, Hashable {
    /// This scope must be held.
    case scope(String)
    /// Every member must be satisfied; satisfied when empty.
    case allOf([ScopeExpression])
    /// At least one member must be satisfied; never satisfied when empty.
    case anyOf([ScopeExpression])

    /// Whether these scopes satisfy the expression.
    public func isSatisfied(by held: [String]) -> Bool {
        switch self {
        case .scope(let scope): Scope.satisfies(held, scope)
        case .allOf(let members): members.allSatisfy { $0.isSatisfied(by: held) }
        case .anyOf(let members): members.contains { $0.isSatisfied(by: held) }
        }
    }

    /// The part these scopes leave unsatisfied, simplified; nil when nothing is missing.
    public func missing(from held: [String]) -> ScopeExpression? {
        switch self {
        case .scope(let scope):
            return Scope.satisfies(held, scope) ? nil : self
        case .allOf(let members):
            let rest = members.compactMap { $0.missing(from: held) }
            guard let first = rest.first else { return nil }
            return rest.count == 1 ? first : .allOf(rest)
        case .anyOf(let members):
            let rest = members.compactMap { $0.missing(from: held) }
            guard rest.count == members.count else { return nil }
            return rest.count == 1 ? rest[0] : .anyOf(rest)
        }
    }

    /// The required scopes that were needed, from every satisfied branch; nil when the expression is not satisfied.
    public func satisfying(_ held: [String]) -> [String]? {
        switch self {
        case .scope(let scope):
            return Scope.satisfies(held, scope) ? [scope] : nil
        case .allOf(let members):
            var result: [String] = []
            for member in members {
                guard let scopes = member.satisfying(held) else { return nil }
                result += scopes
            }
            return result
        case .anyOf(let members):
            let branches = members.compactMap { $0.satisfying(held) }
            return branches.isEmpty ? nil : branches.flatMap(\.self)
        }
    }

    /// The wire form: a string, `{"AllOf": […]}` or `{"AnyOf": […]}`.
    public var json: JSONValue {
        switch self {
        case .scope(let scope): .string(scope)
        case .allOf(let members): ["AllOf": .array(members.map(\.json))]
        case .anyOf(let members): ["AnyOf": .array(members.map(\.json))]
        }
    }
}
