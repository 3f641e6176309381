// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import Schedules
import StepKit

/// Something that is released, in phases that people or scripts call for.
struct Release: Sendable {
    /// How it stands.
    enum Status: String, Sendable, CaseIterable {
        case scheduled
        case shipped
        case aborted
    }

    /// One phase.
    struct Phase: Sendable {
        let name: String
        var wanted: Timestamp?
        var wantedBy: String?
        var isSkipped = false
        /// Of what was called for, if that is known.
        var digest: [UInt8]?
    }

    let id: Int
    let name: String
    let product: String
    let productKey: String?
    let branch: String
    let version: String
    let buildNumber: Int
    let revision: String
    let repository: String
    let releaseETA: String
    let decisionTask: String
    /// What the action of every phase is given, beside its own.
    var input: JSONObject
    var status: Status
    let created: Timestamp
    /// Who asked for it, as the audit names them, and as the issuer of tokens does.
    var createdBy = ""
    var createdSubject: String?
    /// The number of its pipeline, if that is known.
    var pipeline: Int?
    var completed: Timestamp?
    var phases: [Phase] = []
    let allowsSkipping: Bool
    /// What it is of, if it is of an extension.
    var `extension`: Extension?

    var project: String { branch.split(separator: "/").last.map(String.init) ?? "" }

    /// The release as its clients know it; nothing is null.
    func json(_ steps: [PipelineDoor.StepView]) -> JSONObject {
        [
            "name": .string(name), "product": .string(product), "branch": .string(branch),
            "project": .string(project), "version": .string(version), "revision": .string(revision),
            "build_number": JSONValue(buildNumber), "release_eta": .string(releaseETA),
            "status": .string(status.rawValue), "created": .string(created.iso8601),
            "completed": .string(completed?.iso8601 ?? ""),
            "phases": .array(phases.map { .object(json($0, steps)) }),
            "allow_phase_skipping": JSONValue(allowsSkipping),
        ]
    }

    /// A phase as its clients know it, and how its step stands.
    func json(_ phase: Phase, _ steps: [PipelineDoor.StepView]) -> JSONObject {
        let step = steps.first { $0.uid == phase.name }
        let task = phase.wanted == nil ? "" : step?.info["task_id"]?.string ?? ""
        let isOver = phase.wanted != nil && step?.isTerminal == true
        var state = step?.state ?? "unknown"
        if phase.wanted != nil, !phase.isSkipped, task.isEmpty, step?.isTerminal == false { state = "scheduling" }
        return [
            "name": .string(phase.name), "submitted": JSONValue(phase.isSkipped || !task.isEmpty || isOver),
            "actionTaskId": .string(task), "created": .string(created.iso8601),
            "scheduled_at": .string(phase.wanted?.iso8601 ?? ""), "skipped": JSONValue(phase.isSkipped),
            "state": .string(state), "message": .string(step?.message ?? ""),
        ]
    }
}

extension Release {
    /// What signatures of a phase are bound to: what would be carried out for it, and who has to agree.
    ///
    /// The tasks of earlier phases are not in it: they are made between the signatures and the call.
    func digest(of phase: String, _ slots: [Signoff]) -> [UInt8] {
        CanonicalJSON.digest([
            "name": .string(name), "product": .string(product), "branch": .string(branch),
            "version": .string(version), "build_number": JSONValue(buildNumber), "revision": .string(revision),
            "repo_url": .string(repository), "decision_task": .string(decisionTask), "phase": .string(phase),
            "input": .object(input),
            "signoffs": .array(slots.map { [.string($0.uid), .string($0.name), .string($0.permissions)] }),
        ])
    }
}

/// A signature that a phase needs, or has.
struct Signoff: Sendable, Hashable {
    let uid: String
    let phase: String
    let name: String
    let description: String
    /// The group of people who may give it.
    let permissions: String
    var signature: PhaseSignature?

    var json: JSONValue {
        var json: JSONObject = [
            "uid": .string(uid), "name": .string(name), "description": .string(description),
            "permissions": .string(permissions), "completed": .string(signature?.created.iso8601 ?? ""),
            "completed_by": .string(signature?.name ?? ""), "signed": JSONValue(signature != nil),
        ]
        // Too late to count: the phase had been called for.
        if let late = signature?.late { json["revoked"] = .string(late.iso8601) }
        return .object(json)
    }
}
