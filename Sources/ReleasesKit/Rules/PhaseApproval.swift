// SPDX-License-Identifier: MPL-2.0

import Schedules
import StepKit

/// Somebody who signs a phase.
struct Signer: Sendable, Hashable {
    let subject: String
    /// Their verified address in lower case.
    let email: String?
    let groups: Set<String>

    /// Whether a signature is theirs; addresses are compared as well as subjects.
    func hasMade(_ signature: PhaseSignature) -> Bool {
        signature.subject == subject || (email != nil && signature.email == email)
    }
}

/// A signature under a phase that nobody has taken back.
struct PhaseSignature: Sendable, Hashable {
    /// Its number, 0 before it is stored.
    var id = 0
    /// The slot it fills.
    let slot: String
    let subject: String
    let email: String?
    /// Of what was approved; nil if that is not known.
    let digest: [UInt8]?
    let created: Timestamp
    /// The number of the revocation that the person got since.
    var revocation: Int?
    /// When that was, if the phase had been called for before.
    var late: Timestamp?

    /// What the audit calls whoever signed.
    var name: String { email ?? subject }
}

/// What a product demands of those who sign its phases, beside their groups.
struct PhaseRules: Sendable, Hashable {
    /// Whether one person may fill all slots.
    var isLax = false
    /// Whether whoever asked for the release may not sign it.
    var forbidsRequester = false
    /// Subjects and addresses of people who may not sign, in lower case.
    var forbidden: Set<String> = []
    /// How old a release has to be, in seconds.
    var minimumDelay = 0
    /// How long ago a signer may have logged in, in seconds; nil leaves that to the service.
    var longestLogin: Int?
}

/// Who has to approve a phase, and who has: the rules, without any place where signatures are kept.
///
/// Each slot takes one signature of a member of its group. No two signatures are one person's, and all are bound to the
/// same thing: what the phase would carry out as it stands now.
struct PhaseApproval: Sendable {
    /// Why a signature counts no more.
    enum Flaw: Sendable, Hashable {
        /// The person was revoked, under this number.
        case revoked(Int)
        /// Something else would be carried out than what was signed.
        case changed
    }

    let slots: [Signoff]
    /// Of what would be carried out.
    let digest: [UInt8]
    let rules: PhaseRules
    private(set) var signatures: [PhaseSignature]

    init(_ slots: [Signoff], _ digest: [UInt8], _ rules: PhaseRules, _ signatures: [PhaseSignature]) {
        self.slots = slots
        self.digest = digest
        self.rules = rules
        self.signatures = signatures
    }

    private func flaw(_ signature: PhaseSignature) -> Flaw? {
        if let number = signature.revocation { return .revoked(number) }
        return signature.digest.map { $0 == digest } ?? true ? nil : .changed
    }

    /// Drops the signatures that count no more, and answers them.
    mutating func dropFlawed() -> [(signature: PhaseSignature, flaw: Flaw)] {
        let flawed = signatures.compactMap { signature in flaw(signature).map { (signature: signature, flaw: $0) } }
        signatures = signatures.filter { flaw($0) == nil }
        return flawed
    }

    /// Whether the phase may be carried out.
    var isGiven: Bool {
        let sound = signatures.filter { flaw($0) == nil }
        let filling = slots.compactMap { slot in sound.first { $0.slot == slot.uid } }
        guard filling.count == slots.count else { return false }
        if rules.isLax { return true }
        // Whatever was stored, one person is one person.
        let addresses = filling.compactMap(\.email)
        return Set(filling.map(\.subject)).count == filling.count && Set(addresses).count == addresses.count
    }

    /// Adds a signature for a slot whose members are the people of some groups.
    mutating func sign(
        _ uid: String,
        by signer: Signer,
        members: Set<String>,
        at now: Timestamp
    ) throws(StepProblem) -> PhaseSignature {
        guard let slot = slots.first(where: { $0.uid == uid }) else {
            throw StepProblem(404, "not_found", "The phase has no such signoff")
        }
        guard !signer.groups.isDisjoint(with: members) else {
            let name = signer.email ?? signer.subject
            throw StepProblem(401, "not_in_group", "User `\(name)` is not in the `\(slot.permissions)`")
        }
        let names = Set([signer.subject.lowercased()] + (signer.email.map { [$0] } ?? []))
        guard rules.forbidden.isDisjoint(with: names) else {
            throw StepProblem(401, "forbidden_signer", "The product forbids you to sign")
        }
        guard rules.isLax || !signatures.contains(where: { signer.hasMade($0) }) else {
            throw StepProblem.conflict("already_signed", "Already signed off by \(signer.email ?? signer.subject)")
        }
        guard !signatures.contains(where: { $0.slot == uid }) else {
            throw StepProblem.conflict("already_signed", "Already signed off")
        }
        let signature = PhaseSignature(
            slot: uid,
            subject: signer.subject,
            email: signer.email,
            digest: digest,
            created: now
        )
        signatures.append(signature)
        return signature
    }

    /// Takes a signature away that a condition picks.
    mutating func take(_ uid: String, _ isPicked: (PhaseSignature) -> Bool) -> PhaseSignature? {
        guard let index = signatures.firstIndex(where: { $0.slot == uid && isPicked($0) }) else { return nil }
        return signatures.remove(at: index)
    }

    /// The slots with what fills them.
    var signoffs: [Signoff] {
        slots.map { slot in
            var slot = slot
            slot.signature = signatures.first { $0.slot == slot.uid }
            return slot
        }
    }
}
