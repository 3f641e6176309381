// SPDX-License-Identifier: MPL-2.0

public import JSON
import Postgres
import Schedules
public import StepKit

/// Steps that wait for people to approve something.
public struct SignoffService: StepService {
    /// `signoff`.
    public var name: String { "signoff" }
    /// The path of the original.
    public var alias: String? { "/step" }

    /// Whether deleting at the path of the original cancels what goes on.
    public var aliasDeletesAll = false

    let store: StepStore
    let signatures: SignatureStore
    let rules: SigningRules
    let directory: GroupDirectory?
    let balrog: Balrog?

    /// Opens the sign-offs of a store.
    ///
    /// Second factors and the age of logins, in seconds, are what policies get that do not mention them.
    public init(
        store: StepStore,
        requiresSecondFactor: Bool,
        longestLogin: Int,
        directory: GroupDirectory? = nil,
        balrog: Balrog? = nil
    ) {
        self.store = store
        self.balrog = balrog
        signatures = SignatureStore(pool: store.pool)
        rules = SigningRules(requiresSecondFactor: requiresSecondFactor, longestLogin: longestLogin)
        self.directory = directory
    }

    // MARK: - The contract

    /// A policy, and what is to be approved.
    public func definition(_ body: JSONObject, uid: String, origin: StepOrigin) async throws -> StepDefinition {
        try body.allowOnly(["uid", "policy", "parameters"])
        let parameters = body["parameters"] ?? [:]
        guard parameters.object != nil else { throw StepProblem.invalid("parameters has to be an object") }
        let policy = try checked(body["policy"])
        if let change = policy.balrog { try await checkExists(change, uid) }
        return StepDefinition(["uid": .string(uid), "policy": policy.json, "parameters": parameters])
    }

    /// A policy that this service can carry out.
    func checked(_ json: JSONValue?) throws(StepProblem) -> SignoffPolicy {
        let policy = try SignoffPolicy(json)
        var problems = directory?.problems(with: policy) ?? []
        if policy.balrog != nil, balrog == nil { problems.append("the method balrog is not available here") }
        if policy.revalidates, directory == nil {
            problems.append("revalidate needs a group directory, and there is none")
        }
        guard problems.isEmpty else {
            throw StepProblem(
                400,
                "invalid_policy",
                "The policy is not valid: " + problems.joined(separator: "; "),
                members: ["errors": JSONValue(problems)]
            )
        }
        return policy
    }

    /// The step waits from the beginning.
    public func begin(_ change: inout StepTransaction) async throws {
        let policy = try policy(of: change.step)
        change.step.nextCheck = policy.expires
        if policy.balrog != nil {
            change.step.nextCheck = change.now
            change.move(to: .running, message: "waiting for signatures at Balrog")
            return
        }
        change.move(to: .running, message: "waiting for signatures")
        describe(policy, [], &change)
    }

    /// Nobody else has to be asked, so the step ends at once.
    public func cancel(_ change: inout StepTransaction, reason: String?) async throws {
        change.move(to: .cancelled, message: reason ?? "cancelled")
    }

    func policy(of step: Step) throws -> SignoffPolicy {
        try SignoffPolicy(step.definition["policy"])
    }

    /// Says in the status who has signed and who is missing.
    private func describe(
        _ policy: SignoffPolicy,
        _ rows: [SignatureStore.Row],
        _ change: inout StepTransaction
    ) {
        let quorum = Quorum(policy, rows.map(\.signature))
        change.step.info = [
            "digest": .string(Hexadecimal.encoded(change.step.digest)),
            "signees": JSONValue(rows.map { $0.signature.email ?? $0.signature.subject }),
            "signatures": .array(
                rows.map { row in
                    [
                        "name": .string(row.signature.email ?? row.signature.subject),
                        "group": .string(row.claimedGroup), "created": .string(row.created.iso8601),
                    ]
                }
            ),
            "missing": .array(
                quorum.missing.map { missing in
                    .object(JSONObject(missing.map { (key: $0.key, value: JSONValue($0.count)) }))
                }
            ),
        ]
    }

    // MARK: - Signing

    /// What a person signs.
    struct Signing: Sendable {
        let group: String
        let digest: String?
        let origin: SignatureStore.Origin
    }

    /// Adds a person's signature, and completes the step if it was the last one that was missing.
    func sign(_ uid: String, _ signing: Signing, by person: Person) async throws -> Step {
        try await store.change(uid, actor: person.name) { change in
            let policy = try open(change)
            let earliest = change.step.created + .seconds(policy.minimumDelay)
            guard change.now >= earliest else {
                let wait = (earliest.milliseconds - change.now.milliseconds + 999) / 1000
                throw StepProblem(
                    409,
                    "too_early",
                    "The step can be signed from \(earliest.iso8601) on",
                    headers: ["Retry-After": String(wait)]
                )
            }
            let seen = try await revocations.hold(on: change.connection)
            try await revocations.check(person, on: change.connection)
            try rules.checkLogin(person, policy, now: change.now)
            let signature = try SigningRules.signature(
                of: person,
                for: signing.group,
                policy,
                isRequester: SigningRules.isRequester(person, of: change.step)
            )
            let digest = Hexadecimal.encoded(change.step.digest)
            if let named = signing.digest, named.lowercased() != digest {
                throw StepProblem.conflict(
                    "digest_differs",
                    "What is to be approved is \(digest), not what you have seen"
                )
            }
            if policy.requiresDigest, signing.digest == nil {
                throw StepProblem.invalid("The policy wants the digest of what you approve", code: "digest_required")
            }
            try await writeDown(&change)
            var live = try await signatures.live(change.step.id, on: change.connection)
            guard !live.contains(where: { Self.isSame($0.signature, signature) }) else {
                throw StepProblem.conflict("already_signed", "You have signed this step")
            }
            guard Quorum(policy, live.map(\.signature)).needs(signature) else {
                throw StepProblem.conflict("no_slot_left", "Your signature would make no difference any more")
            }
            try await signatures.add(
                signature,
                group: signing.group,
                of: person,
                from: signing.origin,
                seen: seen,
                change
            )
            change.record(
                "signed",
                subject: signing.group,
                [
                    "sub": .string(person.subject), "digest": .string(digest), "revocations_seen": JSONValue(seen),
                ]
            )
            live = try await signatures.live(change.step.id, on: change.connection)
            try await settle(policy, live, &change)
        }.step
    }

    /// Completes a step whose quorum is met, after a last look at the signers if the policy wants one.
    private func settle(
        _ policy: SignoffPolicy,
        _ rows: [SignatureStore.Row],
        _ change: inout StepTransaction
    ) async throws {
        var rows = rows
        if policy.revalidates, let directory, Quorum(policy, rows.map(\.signature)).isMet {
            let gone = rows.filter { !directory.stillHolds($0.signature) }
            if !gone.isEmpty {
                let reason = "no longer in the directory"
                try await signatures.revoke(gone.map(\.id), by: store.announcement.actor, reason: reason, change)
                for row in gone {
                    change.record(
                        "revoked",
                        subject: row.claimedGroup,
                        ["sub": .string(row.signature.subject), "reason": .string(reason)],
                        actor: store.announcement.actor
                    )
                }
                rows.removeAll { row in gone.contains { $0.id == row.id } }
            }
        }
        describe(policy, rows, &change)
        guard Quorum(policy, rows.map(\.signature)).isMet else { return }
        change.step.output = [
            "signees": JSONValue(rows.map { $0.signature.email ?? $0.signature.subject }),
            "digest": .string(Hexadecimal.encoded(change.step.digest)),
        ]
        change.move(to: .completed, message: "signed")
    }

    /// Takes a person's own signature back.
    func unsign(_ uid: String, group: String, by person: Person) async throws -> Step {
        try await store.change(uid, actor: person.name) { change in
            guard !change.step.state.isTerminal else {
                throw StepProblem.conflict(
                    "step_closed",
                    "The step is \(change.step.state.rawValue) and stays as it is"
                )
            }
            let policy = try policy(of: change.step)
            guard policy.mentions(group) || (person.email.map { policy.mentions($0) } ?? false) else {
                throw StepProblem(403, "not_in_policy", "The policy does not ask for the group \(group)")
            }
            _ = try await revocations.hold(on: change.connection)
            try await writeDown(&change)
            let live = try await signatures.live(change.step.id, on: change.connection)
            guard let own = live.first(where: { $0.signature.subject == person.subject && $0.claimedGroup == group })
            else {
                throw StepProblem.conflict("not_signed", "You have not signed this step for \(group)")
            }
            try await signatures.revoke([own.id], by: person.name, reason: nil, change)
            change.record("unsigned", subject: group, ["sub": .string(person.subject)])
            describe(policy, live.filter { $0.id != own.id }, &change)
        }.step
    }

    /// Ends a step because one of those who could sign it is against it.
    func reject(_ uid: String, group: String, reason: String, by person: Person) async throws -> Step {
        try await store.change(uid, actor: person.name) { change in
            let policy = try open(change)
            guard policy.allowsRejection else {
                throw StepProblem(403, "rejection_not_allowed", "The policy knows no rejection")
            }
            _ = try await revocations.hold(on: change.connection)
            try await revocations.check(person, on: change.connection)
            try rules.checkLogin(person, policy, now: change.now)
            _ = try SigningRules.signature(
                of: person,
                for: group,
                policy,
                isRequester: SigningRules.isRequester(person, of: change.step)
            )
            change.record("rejected", subject: group, ["sub": .string(person.subject), "reason": .string(reason)])
            change.move(to: .failed, message: "rejected by \(person.name): \(reason)")
        }.step
    }

    // MARK: - Administration

    /// Revokes the live signatures of a step that a condition picks; completed steps are refused.
    func revoke(
        _ uid: String,
        by actor: String,
        reason: String,
        where picks: @Sendable (SignatureStore.Row) -> Bool
    ) async throws -> Step {
        try await store.change(uid, actor: actor) { change in
            guard !change.step.state.isTerminal else {
                throw StepProblem.conflict(
                    "step_closed",
                    "The step is \(change.step.state.rawValue) and stays as it is"
                )
            }
            _ = try await revocations.hold(on: change.connection)
            try await writeDown(&change)
            let live = try await signatures.live(change.step.id, on: change.connection)
            let picked = live.filter(picks)
            guard !picked.isEmpty else { throw StepProblem(404, "not_found", "There is no such signature") }
            try await signatures.revoke(picked.map(\.id), by: actor, reason: reason, change)
            for row in picked {
                change.record(
                    "revoked",
                    subject: row.claimedGroup,
                    ["sub": .string(row.signature.subject), "reason": .string(reason)]
                )
            }
            let rest = live.filter { row in !picked.contains { $0.id == row.id } }
            describe(try policy(of: change.step), rest, &change)
        }.step
    }

    /// Writes down in a step that people who had signed it were revoked since; their signatures count no more already.
    private func writeDown(_ change: inout StepTransaction) async throws {
        for (row, revocation) in try await signatures.void(change.step.id, on: change.connection) {
            let reason = revocation.reason
            try await signatures.revoke([row.id], by: revocation.actor, reason: reason, change)
            change.record(
                "revoked",
                subject: row.claimedGroup,
                ["sub": .string(row.signature.subject), "reason": .string(reason)],
                actor: revocation.actor
            )
        }
    }

    /// Revokes a person: what they have signed that is still open counts no more, here and wherever else people sign.
    ///
    /// Answers the revocation, and of the steps here those that are open again and those that stay as they are.
    func revokeAll(
        subject: String?,
        email: String?,
        by actor: String,
        reason: String
    ) async throws -> (revocation: Revocation, revoked: [String], unchanged: [String]) {
        let before = try await signatures.steps(subject: subject, email: email)
        // From here on their signatures count no more, and their tokens from before sign nothing.
        let revocation = try await revocations.add(
            subject: subject,
            email: email,
            at: store.now(),
            by: actor,
            reason: reason
        )
        var revoked: [String] = []
        var unchanged: [String] = []
        let after = try await signatures.steps(subject: subject, email: email)
        // Whoever signs in the same moment has written it down there already.
        let known = Set(after.map(\.uid))
        revoked += before.filter { $0.isOpen && !known.contains($0.uid) }.map(\.uid)
        for step in after {
            guard step.isOpen else {
                unchanged.append(step.uid)
                continue
            }
            do {
                // It may have been completed in between.
                if try await writeDown(step.uid, actor) { revoked.append(step.uid) } else { unchanged.append(step.uid) }
            } catch let problem as StepProblem where problem.status == 404 {
                // It was deleted in between.
                continue
            }
        }
        return (revocation, revoked.sorted(), unchanged)
    }

    /// Writes down which signatures of a step count no more; answers whether the step is open.
    private func writeDown(_ uid: String, _ actor: String) async throws -> Bool {
        try await store.change(uid, actor: actor) { change in
            guard !change.step.state.isTerminal else { return false }
            try await writeDown(&change)
            let live = try await signatures.live(change.step.id, on: change.connection)
            describe(try policy(of: change.step), live, &change)
            return true
        }.result
    }

    /// The open steps that a person could still sign, newest first.
    func pending(for person: Person) async throws -> [Step] {
        var filter = StepFilter()
        filter.states = [.running]
        let steps = try await store.list(filter, after: nil, limit: 500, withDefinition: true)
        let live = try await signatures.live(steps.map(\.id))
        return try steps.filter { step in
            let policy = try policy(of: step)
            let own = live[step.id, default: []].map(\.signature)
            return person.groups.union(person.email.map { [$0] } ?? []).contains { key in
                let candidate = try? SigningRules.signature(
                    of: person,
                    for: key,
                    policy,
                    isRequester: SigningRules.isRequester(person, of: step)
                )
                guard let candidate else { return false }
                return !own.contains { Self.isSame($0, candidate) } && Quorum(policy, own).needs(candidate)
            }
        }
    }

    /// Gives up a step whose time is over.
    public func look(_ claim: StepClaim) async throws {
        let policy = try policy(of: claim.step)
        if let wanted = policy.balrog, !claim.step.state.isTerminal {
            let found = await ask(wanted)
            _ = try await claim.change { change in
                change.release()
                try apply(found, &change)
                try expire(policy, &change)
            }
            return
        }
        _ = try await claim.change { change in
            change.release()
            change.step.nextCheck = change.step.state.isTerminal ? nil : policy.expires
            try expire(policy, &change)
        }
    }

    private func expire(_ policy: SignoffPolicy, _ change: inout StepTransaction) throws {
        guard !change.step.state.isTerminal, let expires = policy.expires else { return }
        guard expires <= change.now else {
            change.step.nextCheck = min(change.step.nextCheck ?? expires, expires)
            return
        }
        change.record("expired")
        switch policy.onExpiry {
        case .failure: change.move(to: .failed, message: "expired without enough signatures")
        case .cancel: change.move(to: .cancelled, message: "expired without enough signatures")
        }
    }

    // MARK: - Parts

    private var revocations: Revocations { signatures.revocations }

    /// The policy of a step that can still be signed.
    private func open(_ change: StepTransaction) throws -> SignoffPolicy {
        let policy = try policy(of: change.step)
        guard policy.balrog == nil else { throw StepProblem.conflict("balrog", "Balrog decides about this step") }
        let isOver = policy.expires.map { $0 <= change.now } ?? false
        guard !change.step.state.isTerminal, !isOver else {
            let state = change.step.state.isTerminal ? change.step.state.rawValue : "expired"
            throw StepProblem.conflict("step_closed", "The step is \(state)")
        }
        return policy
    }

    /// Whether two signatures are one person's; addresses are compared as well as subjects.
    private static func isSame(_ first: Signature, _ second: Signature) -> Bool {
        first.subject == second.subject || (first.email != nil && first.email == second.email)
    }
}
