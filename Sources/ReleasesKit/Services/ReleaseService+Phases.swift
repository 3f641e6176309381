// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import Schedules
import StepKit

/// How long whoever has called for a phase may call again, without being told that it was called for before.
private let patience = Duration.seconds(120)

extension ReleaseService {
    // MARK: - Calling for phases

    /// Calls for a phase; whoever has just done so gets the same answer again.
    func schedule(_ phase: String, of name: String, by caller: Caller) async throws -> JSONValue {
        let known = try await release(name)
        _ = try self.phase(phase, of: known)
        try await pipelines.work(on: name, actor: caller.name) { door in
            guard let release = try await store.lock(name, on: door.change.connection) else {
                throw StepProblem(404, "not_found", "Release \(name) not found")
            }
            let now = door.change.now
            let current = try self.phase(phase, of: release)
            if let wanted = current.wanted {
                guard current.wantedBy == caller.name, !current.isSkipped, now - wanted <= patience else {
                    throw StepProblem.conflict("already_submitted", "Already submitted!")
                }
                return
            }
            let slots = try await store.signoffs(release.id, phase, on: door.change.connection)
            guard slots.allSatisfy({ $0.signed != nil }) else {
                throw StepProblem(400, "pending_signoffs", "Pending signoffs")
            }
            try await want(phase, of: release, by: caller.name, &door)
        }
        return try await json(phase: phase, of: name)
    }

    func json(phase: String, of name: String) async throws -> JSONValue {
        let release = try await release(name)
        let steps = try await pipelines.steps(ofPipelines: [name])[name] ?? []
        return .object(release.json(try self.phase(phase, of: release), steps))
    }

    /// Notes that a phase is wanted, leaves out the earlier ones that are not, and calls for its step if that can be.
    private func want(
        _ phase: String,
        of release: Release,
        by actor: String,
        _ door: inout PipelineDoor
    ) async throws {
        guard release.status == .scheduled else {
            throw StepProblem.conflict("release_closed", "\(release.name) is \(release.status.rawValue)")
        }
        let connection = door.change.connection
        let now = door.change.now
        for earlier in release.phases.prefix(while: { $0.name != phase }) where earlier.wanted == nil {
            guard release.allowsSkipping else {
                throw StepProblem.conflict("phase_order", "\(earlier.name) comes before \(phase)")
            }
            try await store.want(earlier.name, of: release.id, by: actor, at: now, skipped: true, on: connection)
            try door.skip(earlier.name)
        }
        try await store.want(phase, of: release.id, by: actor, at: now, skipped: false, on: connection)
        door.change.record("phase_wanted", subject: phase, actor: actor)
        door.tell("release_phase", step: phase, "\(actor) called for \(phase) of \(release.name)", mark: "wanted")
        guard let changed = try await store.lock(release.name, on: connection) else { return }
        try await callIfPossible(phase, of: changed, &door)
    }

    /// Calls for the step of a wanted phase, as soon as the tasks of the earlier ones are known.
    private func callIfPossible(_ phase: String, of release: Release, _ door: inout PipelineDoor) async throws {
        let steps = door.steps
        guard steps.first(where: { $0.uid == phase })?.isPending == true else { return }
        var graphs = [release.decisionTask]
        for earlier in release.phases.prefix(while: { $0.name != phase }) where !earlier.isSkipped {
            guard let step = steps.first(where: { $0.uid == earlier.name }) else { continue }
            if let task = step.info["task_id"]?.string {
                graphs.append(task)
            } else if !step.isTerminal {
                return
            }
        }
        var input = release.input
        input["release_promotion_flavor"] = .string(phase)
        input["previous_graph_ids"] = JSONValue(graphs)
        let action: JSONObject = [
            "taskGroupId": .string(release.decisionTask), "name": "release-promotion", "input": .object(input),
        ]
        try door.call(for: phase, parameters: ["action": .object(action)])
        try await store.noteStarted(phase, of: release.id, on: door.change.connection)
    }

    /// Calls for the steps of wanted phases that had to wait for the tasks of earlier ones.
    func callForWaiting() async throws {
        for name in try await store.waiting() {
            try await pipelines.work(on: name, actor: "shipit-releases") { door in
                guard let release = try await store.lock(name, on: door.change.connection) else { return }
                for phase in release.phases where phase.wanted != nil && !phase.isSkipped {
                    try await callIfPossible(phase.name, of: release, &door)
                }
            }
        }
    }

    // MARK: - Signing

    /// Adds a person's signature to a phase, and calls for the phase if it was the last one that was missing.
    func sign(_ uid: String, phase: String, of name: String, by person: Person) async throws -> [Signoff] {
        let known = try await release(name)
        _ = try self.phase(phase, of: known)
        try login.check(person, now: now())
        let offered = try await store.signoffs(known.id, phase)
        guard offered.contains(where: { $0.uid == uid }) else { throw Self.noSignoff(phase, name) }
        let product = catalogue.product(known.productKey ?? known.product, version: ReleaseVersion(known.version))
        try Caller.person(person).require(
            "phase_signoff",
            "\(known.product)/\(phase)",
            groups: offered.reduce(into: product?.groups ?? []) { $0.formUnion(catalogue.members(of: $1.permissions)) }
        )
        return try await pipelines.work(on: name, actor: person.name) { door in
            let connection = door.change.connection
            guard let release = try await store.lock(name, on: connection) else {
                throw StepProblem(404, "not_found", "Release \(name) not found")
            }
            guard release.status == .scheduled else {
                throw StepProblem.conflict("release_closed", "\(name) is \(release.status.rawValue)")
            }
            let slots = try await store.signoffs(release.id, phase, on: connection)
            guard let slot = slots.first(where: { $0.uid == uid }) else { throw Self.noSignoff(phase, name) }
            guard slot.signed == nil else { throw StepProblem.conflict("already_signed", "Already signed off") }
            let isKnown = slots.contains { $0.subject == person.subject || $0.signedBy == person.name }
            guard product?.isLax == true || !isKnown else {
                throw StepProblem.conflict("already_signed", "Already signed off by \(person.name)")
            }
            guard !person.groups.isDisjoint(with: catalogue.members(of: slot.permissions)) else {
                throw StepProblem(401, "not_in_group", "User `\(person.name)` is not in the `\(slot.permissions)`")
            }
            let now = door.change.now
            try await store.sign(uid, subject: person.subject, by: person.name, at: now, on: connection)
            door.change.record("signed", subject: phase, ["sub": .string(person.subject), "name": .string(slot.name)])
            door.tell("release_signed", step: phase, "\(person.name) signed \(phase) of \(name)", mark: uid)
            let signed = try await store.signoffs(release.id, phase, on: connection)
            if signed.allSatisfy({ $0.signed != nil }) {
                try await want(phase, of: release, by: person.name, &door)
            }
            return signed
        }
    }

    private static func noSignoff(_ phase: String, _ name: String) -> StepProblem {
        StepProblem(404, "not_found", "\(phase) of \(name) has no such signoff")
    }

    // MARK: - Ending

    /// Gives a release up: what goes on is cancelled.
    func abandon(_ name: String, by caller: Caller) async throws -> JSONValue {
        try await end(name, .aborted, by: caller, mayRevive: false)
    }

    /// Says how a release stands.
    ///
    /// Only an administrator says of an aborted release that it was shipped.
    func setStatus(_ status: Release.Status, _ name: String, by caller: Caller) async throws -> JSONValue {
        try await end(name, status, by: caller, mayRevive: caller.may("admin", "", groups: []))
    }

    private func end(
        _ name: String,
        _ status: Release.Status,
        by caller: Caller,
        mayRevive: Bool
    ) async throws -> JSONValue {
        _ = try await release(name)
        try await pipelines.work(on: name, actor: caller.name) { door in
            let connection = door.change.connection
            guard let release = try await store.lock(name, on: connection) else {
                throw StepProblem(404, "not_found", "Release \(name) not found")
            }
            guard release.status != status else { return }
            if release.status == .aborted || (release.status == .shipped && status != .shipped), !mayRevive {
                throw StepProblem.conflict("release_closed", "\(name) is \(release.status.rawValue)")
            }
            let now = door.change.now
            let completed = status == .shipped ? now : nil
            try await store.setStatus(status, release.id, completed: completed, on: connection)
            door.change.record("release_status", ["status": .string(status.rawValue)])
            switch status {
            case .aborted:
                door.cancel("\(name) was abandoned by \(caller.name)")
                door.tell("release_aborted", "\(caller.name) abandoned \(name)", mark: now.iso8601)
            case .shipped:
                for step in door.steps where step.isPending && !step.isCalledFor { try door.skip(step.uid) }
                door.tell("release_shipped", "\(name) is shipped", mark: now.iso8601)
                try await rebuildDetails([:], on: connection)
            case .scheduled:
                break
            }
        }
        pipelines.pipelineStore.outbox.wake()
        return try await json(release(name))
    }
}
