// SPDX-License-Identifier: MPL-2.0

/// A live signature, as far as quorums are concerned.
public struct Signature: Sendable, Hashable {
    /// The person.
    public let subject: String
    /// Their verified address in lower case.
    public let email: String?
    /// The group they sign for; nil if they do not belong to the group they named.
    public let group: String?

    /// Describes a signature.
    public init(subject: String, email: String?, group: String?) {
        self.subject = subject
        self.email = email
        self.group = group
    }
}

/// How far signatures meet the conditions of a policy.
///
/// In a condition a signature fills one slot at most: that of the person if the condition names them, otherwise that of
/// the group they sign for. So there is nothing to choose, and counting is the best assignment there is. People who sign
/// twice count once.
public struct Quorum: Sendable {
    private let conditions: [[SignoffPolicy.Slot]]
    /// For each condition, how many signatures belong to each key.
    private let counts: [[String: Int]]

    /// Counts the signatures of different people.
    public init(_ policy: SignoffPolicy, _ signatures: [Signature]) {
        conditions = policy.conditions
        var seen: Set<String> = []
        let distinct = signatures.filter { seen.insert($0.subject).inserted }
        counts = policy.conditions.map { condition in
            distinct.reduce(into: [:]) { counts, signature in
                if let key = Self.slot(of: signature, in: condition) { counts[key, default: 0] += 1 }
            }
        }
    }

    /// The key of the slot a signature would fill in a condition; nil for none.
    public static func slot(of signature: Signature, in condition: [SignoffPolicy.Slot]) -> String? {
        if let email = signature.email, condition.contains(where: { $0.key == email }) { return email }
        guard let group = signature.group else { return nil }
        // A group that is spelled like an address stands for a person, and only they fill it.
        return condition.first { $0.key == group && !$0.isPerson }?.key
    }

    /// Whether one condition is met.
    public var isMet: Bool {
        conditions.indices.contains { index in
            !conditions[index].isEmpty && conditions[index].allSatisfy { remaining($0, index) == 0 }
        }
    }

    /// Whether another signature would fill a slot that is free.
    public func needs(_ signature: Signature) -> Bool {
        conditions.indices.contains { index in
            guard let key = Self.slot(of: signature, in: conditions[index]),
                let slot = conditions[index].first(where: { $0.key == key })
            else { return false }
            return remaining(slot, index) > 0
        }
    }

    /// For each condition, who is missing and how many.
    public var missing: [[(key: String, count: Int)]] {
        conditions.indices.map { index in
            conditions[index].compactMap { slot in
                let count = remaining(slot, index)
                return count > 0 ? (slot.key, count) : nil
            }
        }
    }

    private func remaining(_ slot: SignoffPolicy.Slot, _ index: Int) -> Int {
        max(0, slot.count - counts[index][slot.key, default: 0])
    }
}
