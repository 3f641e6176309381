// SPDX-License-Identifier: MPL-2.0

public import StepKit

/// What an operator is about to decide about a step.
public struct StepDecision: Sendable {
    /// What is decided.
    public enum Kind: String, Sendable {
        /// The step is called for, whoever else would have to do that.
        case start
        case skip
        case resolve
        /// The step gets other parameters.
        case parameters
    }

    /// What is decided.
    public let kind: Kind
    /// About which step.
    public let step: String
    /// Why, if that was said.
    public let reason: String?
}

/// Is asked before operators decide about steps that stand for more than themselves, such as phases of releases.
public protocol StepGuardian: Sendable {
    /// Refuses a decision by an error, in the transaction that carries it out.
    ///
    /// - Returns: What those are told who are told of overrides in the pipeline; nil if nothing is overridden.
    func consider(
        _ decision: StepDecision,
        by actor: StepActor,
        _ change: inout StepTransaction
    ) async throws -> String?
}

extension PipelineAPI {
    /// Asks the guardian about a decision, and lets people know if it overrides something.
    func consider(
        _ kind: StepDecision.Kind,
        _ step: String,
        _ reason: String?,
        _ actor: StepActor,
        _ change: inout StepTransaction
    ) async throws {
        let decision = StepDecision(kind: kind, step: step, reason: reason)
        guard let text = try await guardian?.consider(decision, by: actor, &change) else { return }
        let happening = PipelineNotices.Happening(.releaseOverridden, step: step, text, mark: change.now.iso8601)
        try await service.notices.tell([happening], PipelineService.parsed(change.step.definition), change)
    }
}
