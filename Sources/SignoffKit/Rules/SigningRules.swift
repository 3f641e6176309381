// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

/// Who may sign, as far as that can be told from the person and the policy.
struct SigningRules: Sendable {
    /// Whether a second factor is demanded where a policy is silent.
    var requiresSecondFactor: Bool
    /// How long ago a signer may have logged in where a policy is silent, in seconds.
    var longestLogin: Int

    /// Refuses people whose login is not good enough for a policy.
    func checkLogin(_ person: Person, _ policy: SignoffPolicy, now: Timestamp) throws(StepProblem) {
        let demandsFactor = policy.requiresSecondFactor ?? requiresSecondFactor
        let rules = LoginRules(
            requiresSecondFactor: demandsFactor,
            // Where no second factor is asked for, the login may be old unless the policy itself says how old.
            longestLogin: policy.longestLogin ?? (demandsFactor ? longestLogin : nil)
        )
        try rules.check(person, now: now)
    }

    /// The signature a person would make for a group; a refusal if they may not.
    static func signature(
        of person: Person,
        for group: String,
        _ policy: SignoffPolicy,
        isRequester: Bool
    ) throws(StepProblem) -> Signature {
        let isNamed = person.email.map { policy.mentions($0) } ?? false
        let isMember = person.groups.contains(group)
        guard isMember || isNamed else {
            throw StepProblem(403, "not_in_group", "You do not belong to the group \(group)")
        }
        guard isNamed || policy.mentions(group) else {
            throw StepProblem(403, "not_in_policy", "The policy asks neither for the group \(group) nor for you")
        }
        let names = [person.subject.lowercased()] + (person.email.map { [$0] } ?? [])
        guard policy.forbidden.isDisjoint(with: names) else {
            throw StepProblem(403, "forbidden_signer", "The policy forbids you to sign")
        }
        if policy.forbidsRequester, isRequester {
            throw StepProblem(403, "self_signoff", "Whoever asked for a step may not sign it")
        }
        return Signature(subject: person.subject, email: person.email, group: isMember ? group : nil)
    }

    /// Whether a person asked for a step, by the client that created it or by the requester its parameters name.
    static func isRequester(_ person: Person, of step: Step) -> Bool {
        let named = step.definition["parameters"]?["requester"]?.string
        return person.isAmong([step.createdBy, step.requester, named])
    }
}
