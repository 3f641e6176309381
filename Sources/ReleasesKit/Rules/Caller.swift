// SPDX-License-Identifier: MPL-2.0

import StepKit
import Taskcluster

/// Whoever asks, and what they may do.
enum Caller: Sendable {
    /// A client with Taskcluster's credentials.
    case client(name: String, scopes: [String])
    case person(Person)

    /// What permissions and scopes begin with.
    static let prefix = "project:releng:services/shipit_api"
    /// The group whose people may do everything that people may.
    static let everywhere = "releng"

    var name: String {
        switch self {
        case .client(let name, _): name
        case .person(let person): person.name
        }
    }

    /// The issuer's name for a person; nil for clients.
    var subject: String? {
        switch self {
        case .client: nil
        case .person(let person): person.subject
        }
    }

    var isClient: Bool {
        switch self {
        case .client: true
        case .person: false
        }
    }

    /// Whether the caller may do what a verb says, to a product where one is concerned.
    func may(_ verb: String, _ path: String, groups: Set<String>) -> Bool {
        switch self {
        case .client(_, let scopes):
            return Scope.satisfies(scopes, Self.permission(verb, path))
        case .person(let person):
            // Only the scripts that do the work say that it is done.
            guard verb != "mark_merge_automation_completed" else { return false }
            return !person.groups.isDisjoint(with: groups.union([Self.everywhere]))
        }
    }

    /// Refuses a caller who may not; as the clients of the original expect, by 401.
    func require(_ verb: String, _ path: String = "", groups: Set<String> = []) throws(StepProblem) {
        guard may(verb, path, groups: groups) else {
            throw StepProblem(
                401,
                "insufficient_scopes",
                "required permission: \(Self.permission(verb, path)), user permissions: \(permissions)"
            )
        }
    }

    static func permission(_ verb: String, _ path: String) -> String {
        path.isEmpty ? "\(prefix)/\(verb)" : "\(prefix)/\(verb)/\(path)"
    }

    /// What the caller has, in words.
    var permissions: String {
        switch self {
        case .client(_, let scopes): scopes.sorted().joined(separator: ", ")
        case .person(let person): person.groups.sorted().joined(separator: ", ")
        }
    }
}
