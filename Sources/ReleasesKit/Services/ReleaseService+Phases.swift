// SPDX-License-Identifier: MPL-2.0

import JSON
import Logging
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
            guard let release = try await locked(name, door.change) else {
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
            let signing = try await signing(phase, of: release, &door)
            guard signing.approval.isGiven else {
                throw StepProblem(400, "pending_signoffs", "Pending signoffs")
            }
            try await want(signing, by: caller.name, &door)
        }
        return try await json(phase: phase, of: name)
    }

    func json(phase: String, of name: String) async throws -> JSONValue {
        let release = try await release(name)
        let steps = try await pipelines.steps(ofPipelines: [name])[name] ?? []
        return .object(release.json(try self.phase(phase, of: release), steps))
    }

    /// Notes that a phase is wanted, leaves out the earlier ones that are not, and calls for its step if that can be.
    func want(_ signing: Signing, by actor: String, _ door: inout PipelineDoor) async throws {
        let (release, phase, approval) = (signing.release, signing.phase.name, signing.approval)
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
        try await store.want(
            phase,
            of: release.id,
            by: actor,
            at: now,
            skipped: false,
            digest: approval.digest,
            on: connection
        )
        let data: JSONObject = [
            "digest": .string(Hexadecimal.encoded(approval.digest)), "revocations_seen": JSONValue(signing.seen),
            "signers": JSONValue(approval.signatures.map(\.subject)),
        ]
        door.change.record("phase_wanted", subject: phase, data, actor: actor)
        door.tell("release_phase", step: phase, "\(actor) called for \(phase) of \(release.name)", mark: now.iso8601)
        guard let changed = try await locked(release.name, door.change) else { return }
        try await callIfPossible(phase, of: changed, &door)
    }

    /// Calls for the step of a wanted phase, as soon as the tasks of the earlier ones are known.
    private func callIfPossible(_ phase: String, of release: Release, _ door: inout PipelineDoor) async throws {
        let steps = door.steps
        guard steps.first(where: { $0.uid == phase })?.isPending == true else {
            // Somebody has ended it, or the whole pipeline: there is nothing to wait for.
            return try await store.noteStarted(phase, of: release.id, on: door.change.connection)
        }
        guard try await isStillApproved(phase, of: release, &door) else { return }
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

    /// Whether what a phase would carry out is what it was called for; otherwise it has to be called for again.
    private func isStillApproved(
        _ name: String,
        of release: Release,
        _ door: inout PipelineDoor
    ) async throws -> Bool {
        let connection = door.change.connection
        let phase = try self.phase(name, of: release)
        let slots = try await signatures.load(release.id, name, on: connection).slots
        guard let digest = phase.digest, digest != release.digest(of: name, slots) else { return true }
        try await store.leave(name, of: release.id, on: connection)
        guard let left = try await locked(release.name, door.change) else { return false }
        door.change.record("phase_left", subject: name, ["reason": "what was approved has changed"])
        let text = "\(name) of \(release.name) has to be called for again: what was approved has changed"
        door.tell("release_phase", step: name, text, mark: door.change.now.iso8601)
        _ = try await signing(name, of: left, &door)
        return false
    }

    /// Calls for the steps of wanted phases that had to wait for the tasks of earlier ones.
    func callForWaiting() async throws {
        try await forEach(store.waiting()) { release, door in
            for phase in release.phases where phase.wanted != nil && !phase.isSkipped {
                try await callIfPossible(phase.name, of: release, &door)
            }
        }
    }

    /// Works on releases that go on, one after the other; one whose pipeline is gone holds up no other.
    func forEach(
        _ names: [String],
        _ body: (_ release: Release, inout PipelineDoor) async throws -> Void
    ) async throws {
        for name in names {
            do {
                try await pipelines.work(on: name, actor: Self.actor) { door in
                    guard let release = try await locked(name, door.change), release.status == .scheduled else {
                        return
                    }
                    try await body(release, &door)
                }
            } catch {
                try Self.goOn(after: error, name)
            }
        }
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
            guard let release = try await locked(name, door.change) else {
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
