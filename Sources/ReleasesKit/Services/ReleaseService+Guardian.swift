// SPDX-License-Identifier: MPL-2.0

import JSON
public import PipelineKit
public import StepKit
import Taskcluster

/// What operators of pipelines may decide about phases of releases, beside those who sign and call for them.
extension ReleaseService: StepGuardian {
    /// Lets no step of a phase begin but by its release; whoever ends one that is not signed says why, and is told of.
    public func consider(
        _ decision: StepDecision,
        by actor: StepActor,
        _ change: inout StepTransaction
    ) async throws -> String? {
        let name = change.step.uid
        guard let release = try await store.lock(name, on: change.connection),
            release.pipeline ?? change.step.id == change.step.id,
            let phase = release.phases.first(where: { $0.name == decision.step })
        else { return nil }
        switch decision.kind {
        case .start, .parameters:
            throw StepProblem.conflict(
                "release_phase",
                "\(phase.name) is a phase: it is signed and called for as one, and begins with what was signed"
            )
        case .skip, .resolve: break
        }
        guard let reason = decision.reason else { throw StepProblem.invalid("reason has to say why") }
        _ = try await revocations.hold(on: change.connection)
        var missing: [Signoff] = []
        if phase.wanted == nil {
            var approval = try await approval(phase.name, of: release, on: change.connection)
            _ = approval.dropFlawed()
            missing = approval.signoffs.filter { $0.signature == nil }
            guard missing.isEmpty || Scope.satisfies(actor.scopes, Caller.permission("admin", "")) else {
                throw StepProblem(
                    403,
                    "insufficient_scopes",
                    "\(phase.name) is not signed, so this takes \(Caller.permission("admin", ""))"
                )
            }
            // It is over, so nobody signs or calls for it any more, and the next phase may come.
            let isSkipped = decision.kind == .skip
            try await store.want(
                phase.name,
                of: release.id,
                by: actor.name,
                at: change.now,
                skipped: isSkipped,
                on: change.connection
            )
            try await store.noteStarted(phase.name, of: release.id, on: change.connection)
        }
        let data: JSONObject = [
            "decision": .string(decision.kind.rawValue), "reason": .string(reason),
            "missing": JSONValue(missing.map(\.name)),
        ]
        change.record("override", subject: phase.name, data)
        let unsigned = missing.isEmpty ? "" : " without \(missing.map(\.name).joined(separator: ", "))"
        let did = decision.kind == .skip ? "skipped" : "resolved"
        return "\(actor.name) \(did) \(phase.name) of \(name)\(unsigned): \(reason)"
    }
}
