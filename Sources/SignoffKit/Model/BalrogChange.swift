// SPDX-License-Identifier: MPL-2.0

import JSON

/// A scheduled change of Balrog.
public struct BalrogChange: Sendable, Hashable {
    /// What can be changed.
    static let objects: Set<String> = [
        "rules", "releases", "permissions", "emergency_shutoff", "required_signoffs/product",
        "required_signoffs/permissions",
    ]

    /// What it changes.
    public let object: String
    /// Its number.
    public let id: Int

    var json: JSONValue { ["object": .string(object), "sc_id": JSONValue(id)] }
    var path: String { "scheduled_changes/\(object)/\(id)" }
}

/// What Balrog says about a change.
struct BalrogState: Sendable, Hashable {
    /// Whether it has been carried out.
    let isComplete: Bool
    /// Counts its editions; an edition drops the signatures of others.
    let version: Int?
    /// Who has signed, and in which role.
    let signoffs: [String: String]
    /// How many have to sign in each role.
    let required: [String: Int]

    /// Reads a change; nil for what is none, and for what does not say who has to sign.
    init?(_ json: JSONValue?) {
        guard let change = json?.object else { return nil }
        isComplete = change["complete"]?.bool ?? false
        version = change["sc_data_version"]?.int
        guard let required = change["required_signoffs"]?.object ?? (isComplete ? [:] : nil) else { return nil }
        var people: [String: String] = [:]
        for (name, role) in change["signoffs"]?.object ?? [:] { people[name] = role.string }
        var roles: [String: Int] = [:]
        for (role, count) in required {
            // A requirement that cannot be read must not count as none.
            guard let count = count.int else { return nil }
            roles[role] = count
        }
        signoffs = people
        self.required = roles
    }

    /// How many are missing in each role that lacks some.
    var missing: [String: Int] {
        var missing: [String: Int] = [:]
        for (role, count) in required {
            let left = count - signoffs.values.count { $0 == role }
            if left > 0 { missing[role] = left }
        }
        return missing
    }

    /// Whether nothing is missing: what is carried out needs nothing more.
    var isApproved: Bool { isComplete || missing.isEmpty }
}
