// SPDX-License-Identifier: MPL-2.0
public import Taskcluster

/// The rules for clients and roles that need no look at a request.
public enum DirectoryRules {
    /// Refuses scopes that nobody may be granted.
    public static func check(scopes: [String]) throws(QueueProblem) {
        if let bad = scopes.first(where: { !Scope.isGrantable($0) }) {
            throw QueueProblem(.input, "Scope `\(bad)` must be printable ASCII and must not end with `**`.")
        }
    }

    /// Refuses changes to clients that come from the configuration.
    public static func checkChangeable(_ clientID: String) throws(QueueProblem) {
        guard !ClientRecord.isStatic(clientID) else {
            throw QueueProblem(.input, "Client \(clientID) is static: it can only be changed in the configuration.")
        }
    }

    /// Refuses a role that is wrong by itself or makes roles depend on each other in a circle.
    public static func check(_ role: Role, among roles: [Role]) throws(QueueProblem) {
        if let problem = RoleSet.validate(role) { throw QueueProblem(.input, "\(problem).") }
        let all = roles.filter { $0.id != role.id } + [role]
        guard let cycle = RoleSet(all).cycle() else { return }
        throw QueueProblem(.input, "These roles would depend on each other: \(cycle.joined(separator: " -> ")).")
    }

    /// The scopes of a changed role that its author must hold: those the old one did not imply.
    public static func added(_ scopes: [String], to old: [String]) -> [String] {
        scopes.filter { !Scope.satisfies(old, $0) }
    }
}
