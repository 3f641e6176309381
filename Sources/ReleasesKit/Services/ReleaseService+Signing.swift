// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import Postgres
import Schedules
import StepKit

/// Signing phases: what is decided is decided under the locks of the release, with revocations held off.
extension ReleaseService {
    /// A phase whose signatures somebody works on.
    struct Signing {
        let release: Release
        let phase: Release.Phase
        let product: Product?
        /// The number of the last revocation; there is no other until the transaction ends.
        let seen: Int
        var approval: PhaseApproval
    }

    /// The product that says who signs a release.
    private func product(of release: Release) -> Product? {
        catalogue.product(release.productKey ?? release.product, version: ReleaseVersion(release.version))
    }

    func approval(
        _ phase: String,
        of release: Release,
        on connection: PostgresConnection? = nil
    ) async throws -> PhaseApproval {
        let (slots, signatures) = try await signatures.load(release.id, phase, on: connection)
        let rules = product(of: release)?.rules ?? PhaseRules()
        return PhaseApproval(slots, release.digest(of: phase, slots), rules, signatures)
    }

    /// The slots of a phase, and who has signed for them so that it counts; with the digest of what they sign.
    func signoffs(_ phase: String, of name: String) async throws -> (signoffs: [Signoff], digest: [UInt8]) {
        let release = try await release(name)
        let known = try self.phase(phase, of: release)
        var approval = try await approval(phase, of: release)
        if known.wanted == nil { _ = approval.dropFlawed() }
        return (approval.signoffs, approval.digest)
    }

    /// Reads the signatures of a phase under the lock of its release, after what counts no more was written down.
    func signing(_ phase: String, of release: Release, _ door: inout PipelineDoor) async throws -> Signing {
        let current = try self.phase(phase, of: release)
        let connection = door.change.connection
        let seen = try await revocations.hold(on: connection)
        var approval = try await approval(phase, of: release, on: connection)
        if current.wanted == nil {
            let flawed = approval.dropFlawed()
            try await writeDown(flawed, phase, of: release, &door)
        }
        return Signing(
            release: release,
            phase: current,
            product: product(of: release),
            seen: seen,
            approval: approval
        )
    }

    private func writeDown(
        _ flawed: [(signature: PhaseSignature, flaw: PhaseApproval.Flaw)],
        _ phase: String,
        of release: Release,
        _ door: inout PipelineDoor
    ) async throws {
        let numbers = flawed.compactMap { if case .revoked(let number) = $0.flaw { number } else { nil } }
        let known = try await revocations.find(numbers, on: door.change.connection)
        for (signature, flaw) in flawed {
            switch flaw {
            case .revoked(let number):
                guard let revocation = known[number] else { continue }
                try await void(signature, phase, of: release, by: revocation.actor, revocation.reason, &door)
            case .changed:
                let reason = "what was approved has changed"
                try await void(signature, phase, of: release, by: Self.actor, reason, &door)
            }
        }
    }

    /// Takes a signature out of its slot and says so to the audit and to people.
    private func void(
        _ signature: PhaseSignature,
        _ phase: String,
        of release: Release,
        by actor: String,
        _ reason: String,
        kind: String = "revoked",
        _ door: inout PipelineDoor
    ) async throws {
        let now = door.change.now
        try await signatures.revoke(signature, by: actor, reason: reason, at: now, on: door.change.connection)
        let data: JSONObject = [
            "sub": .string(signature.subject), "slot": .string(signature.slot), "reason": .string(reason),
        ]
        door.change.record(kind, subject: phase, data, actor: actor)
        let text = "the signature of \(signature.name) for \(phase) of \(release.name) counts no more: \(reason)"
        door.tell("release_unsigned", step: phase, text, mark: "\(signature.slot) \(now.iso8601)")
    }

    /// A release under its lock that still goes on.
    private func open(_ name: String, _ door: PipelineDoor) async throws -> Release {
        guard let release = try await locked(name, door.change) else {
            throw StepProblem(404, "not_found", "Release \(name) not found")
        }
        guard release.status == .scheduled else {
            throw StepProblem.conflict("release_closed", "\(name) is \(release.status.rawValue)")
        }
        return release
    }

    // MARK: - People

    /// Adds a person's signature to a phase, and calls for the phase if it was the last one that was missing.
    ///
    /// Whoever names a digest signs that and nothing else.
    func sign(
        _ uid: String,
        phase: String,
        of name: String,
        by person: Person,
        match: EntityTags? = nil,
        from origin: PhaseSignatureStore.Origin = .init()
    ) async throws -> [Signoff] {
        try await mustHave(uid, phase, name)
        return try await pipelines.work(on: name, actor: person.name) { door in
            let release = try await open(name, door)
            var signing = try await signing(phase, of: release, &door)
            try checkTime(signing, at: door.change.now)
            try await revocations.check(person, on: door.change.connection)
            try check(person, signing, at: door.change.now)
            if let match, !match.contains(Self.tag(signing.approval.digest)) {
                throw StepProblem(412, "digest_differs", "What is to be approved is not what you have seen")
            }
            guard let slot = signing.approval.slots.first(where: { $0.uid == uid }) else {
                throw Self.noSignoff(phase, name)
            }
            let signature = try signing.approval.sign(
                uid,
                by: Signer(subject: person.subject, email: person.email, groups: person.groups),
                members: catalogue.members(of: slot.permissions),
                at: door.change.now
            )
            try await signatures.add(
                signature,
                person,
                of: release.id,
                phase,
                isLax: signing.approval.rules.isLax,
                seen: signing.seen,
                from: origin,
                on: door.change.connection
            )
            let data: JSONObject = [
                "sub": .string(person.subject), "name": .string(slot.name), "slot": .string(uid),
                "digest": .string(Hexadecimal.encoded(signing.approval.digest)),
                "revocations_seen": JSONValue(signing.seen),
            ]
            door.change.record("signed", subject: phase, data)
            let mark = "\(uid) \(door.change.now.iso8601)"
            door.tell("release_signed", step: phase, "\(person.name) signed \(phase) of \(name)", mark: mark)
            if signing.approval.isGiven { try await want(signing, by: person.name, &door) }
            return signing.approval.signoffs
        }
    }

    /// Takes a person's own signature back, as long as nobody has called for the phase.
    func unsign(_ uid: String, phase: String, of name: String, by person: Person) async throws -> [Signoff] {
        try await mustHave(uid, phase, name)
        return try await pipelines.work(on: name, actor: person.name) { door in
            var signing = try await signing(phase, of: open(name, door), &door)
            try Self.checkOpen(signing)
            try await revocations.check(person, on: door.change.connection)
            guard let own = signing.approval.take(uid, { $0.subject == person.subject }) else {
                throw StepProblem.conflict("not_signed", "You have not signed this")
            }
            let reason = "taken back"
            try await void(own, phase, of: signing.release, by: person.name, reason, kind: "unsigned", &door)
            return signing.approval.signoffs
        }
    }

    /// Takes somebody's signature out of a slot, as long as nobody has called for the phase.
    func revoke(_ uid: String, phase: String, of name: String, by actor: String, reason: String) async throws
        -> [Signoff]
    {
        try await mustHave(uid, phase, name)
        return try await pipelines.work(on: name, actor: actor) { door in
            var signing = try await signing(phase, of: open(name, door), &door)
            try Self.checkOpen(signing)
            guard let found = signing.approval.take(uid, { _ in true }) else {
                throw StepProblem.conflict("not_signed", "Nobody has signed this")
            }
            try await void(found, phase, of: signing.release, by: actor, reason, &door)
            return signing.approval.signoffs
        }
    }

    private func mustHave(_ uid: String, _ phase: String, _ name: String) async throws {
        let offered = try await signoffs(phase, of: name).signoffs
        guard offered.contains(where: { $0.uid == uid }) else { throw Self.noSignoff(phase, name) }
    }

    private static func noSignoff(_ phase: String, _ name: String) -> StepProblem {
        StepProblem(404, "not_found", "\(phase) of \(name) has no such signoff")
    }

    /// The entity tag of what is to be signed.
    static func tag(_ digest: [UInt8]) -> String { "\"\(Hexadecimal.encoded(digest))\"" }

    private static func checkOpen(_ signing: Signing) throws(StepProblem) {
        guard signing.phase.wanted == nil else {
            let what = signing.phase.isSkipped ? "left out" : "called for"
            throw StepProblem.conflict("step_closed", "\(signing.phase.name) was \(what)")
        }
    }

    private func checkTime(_ signing: Signing, at now: Timestamp) throws(StepProblem) {
        try Self.checkOpen(signing)
        let earliest = signing.release.created + .seconds(signing.approval.rules.minimumDelay)
        guard now < earliest else { return }
        let wait = (earliest.milliseconds - now.milliseconds + 999) / 1000
        throw StepProblem(
            409,
            "too_early",
            "The release can be signed from \(earliest.iso8601) on",
            headers: ["Retry-After": String(wait)]
        )
    }

    /// Refuses people whose login is not good enough, or who may not sign this release at all.
    private func check(_ person: Person, _ signing: Signing, at now: Timestamp) throws(StepProblem) {
        let rules = signing.approval.rules
        var login = login
        login.longestLogin = rules.longestLogin ?? login.longestLogin
        try login.check(person, now: now)
        try Caller.person(person).require(
            "phase_signoff",
            "\(signing.release.product)/\(signing.phase.name)",
            groups: signing.approval.slots.reduce(into: signing.product?.groups ?? []) { groups, slot in
                groups.formUnion(catalogue.members(of: slot.permissions))
            }
        )
        let release = signing.release
        if rules.forbidsRequester, person.isAmong([release.createdBy, release.createdSubject]) {
            throw StepProblem(401, "self_signoff", "Whoever asked for a release may not sign it")
        }
    }

    // MARK: - Revocations

    /// Writes down what revocations have done to the phases of releases that go on.
    ///
    /// Open phases lose the signatures, which count no more already; those that were called for keep them.
    func writeDownRevocations() async throws {
        try await forEach(signatures.flawed()) { release, door in
            for phase in release.phases {
                let signing = try await signing(phase.name, of: release, &door)
                guard phase.wanted != nil else { continue }
                try await noteLate(signing, &door)
            }
        }
    }

    private func noteLate(_ signing: Signing, _ door: inout PipelineDoor) async throws {
        let late = signing.approval.signatures.filter { $0.revocation != nil && $0.late == nil }
        let known = try await revocations.find(late.compactMap(\.revocation), on: door.change.connection)
        let phase = signing.phase.name
        for signature in late {
            guard let revocation = signature.revocation.flatMap({ known[$0] }) else { continue }
            try await signatures.noteLate(signature, at: revocation.at, on: door.change.connection)
            let data: JSONObject = [
                "sub": .string(signature.subject), "slot": .string(signature.slot),
                "reason": .string(revocation.reason),
            ]
            door.change.record("revoked_late", subject: phase, data, actor: revocation.actor)
            let text = """
                \(signature.name), who had signed \(phase) of \(signing.release.name), was revoked after it was called \
                for: \(revocation.reason)
                """
            door.tell("release_unsigned", step: phase, text, mark: "\(signature.slot) \(revocation.sequence)")
        }
    }
}
