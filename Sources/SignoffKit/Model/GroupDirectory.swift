// SPDX-License-Identifier: MPL-2.0

public import JSON

/// Who belongs to which group, where that is known here and not only to the issuer of tokens.
public struct GroupDirectory: Sendable, Hashable {
    /// The addresses of the members of each group, in lower case.
    public let members: [String: Set<String>]

    /// Reads an object of groups with the lists of their members' addresses; nil if it is none.
    public init?(_ json: JSONValue) {
        guard let object = json.object else { return nil }
        var members: [String: Set<String>] = [:]
        for (group, list) in object {
            guard let list = list.array, list.allSatisfy({ $0.string != nil }) else { return nil }
            members[group] = Set(list.compactMap { $0.string?.lowercased() })
        }
        self.members = members
    }

    /// What a policy asks for and the groups cannot give.
    func problems(with policy: SignoffPolicy) -> [String] {
        policy.conditions.joined().filter { !$0.isPerson }.compactMap { slot in
            let count = members[slot.key]?.count ?? 0
            return slot.count > count ? "\(slot.key) has \(count) members and \(slot.count) are asked for" : nil
        }
    }

    /// Whether a signature could still be made.
    func stillHolds(_ signature: Signature) -> Bool {
        guard let email = signature.email else { return false }
        guard let group = signature.group else { return members.values.contains { $0.contains(email) } }
        return members[group]?.contains(email) ?? false
    }
}
