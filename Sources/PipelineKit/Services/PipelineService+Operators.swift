// SPDX-License-Identifier: MPL-2.0

import StepKit

/// What operators do with a pipeline.
extension PipelineService {
    /// Lets an operator change a pipeline that goes on, and looks at it at once.
    func operate(
        _ uid: String,
        actor: String,
        match: EntityTags?,
        key: StepStore.RequestKey?,
        reopens: Bool = false,
        _ body: (inout Evaluation, inout StepTransaction) async throws -> Void
    ) async throws -> Step {
        let (step, _) = try await store.change(uid, actor: actor, match: match, key: key) { change in
            if change.step.state.isTerminal, !reopens {
                let hint = change.step.state == .completed ? "" : "; a retry makes it go on"
                throw StepProblem.conflict("step_closed", "The pipeline is \(change.step.state.rawValue)\(hint)")
            }
            let id = change.step.id
            let run = try await runs.run(id, on: change.connection)
            let before = try await runs.steps(id, on: change.connection)
            var evaluation = Evaluation(try Self.parsed(change.step.definition), before, now: change.now)
            evaluation.isPaused = run.isPaused
            evaluation.isCancelled = run.isCancelled && !reopens
            try await body(&evaluation, &change)
            if change.step.state.isTerminal {
                try await checkKey(evaluation.definition, change)
                try await runs.setCancelled(false, id, on: change.connection)
                change.step.attempt += 1
                change.reopen(to: .running, message: "")
            }
            try await runs.write(evaluation.ordered, before: before, id, on: change.connection)
            try await notices.forgetReminders(evaluation, before, change)
            for note in evaluation.notes { change.record(note.kind, subject: note.step, note.data) }
            describe(evaluation, &change)
            change.step.nextCheck = change.now
        }
        return step
    }

    /// Refuses to let a pipeline go on again beside another one of its key.
    private func checkKey(_ definition: PipelineDefinition, _ change: StepTransaction) async throws {
        guard let key = definition.concurrencyKey else { return }
        let others = try await runs.rivals(key, of: change.step.id, on: change.connection, locking: true)
        guard let other = others.first else { return }
        throw StepProblem.conflict(
            "concurrency_key_busy",
            "The pipeline \(other.uid) of the key \(key) goes on; try again when it has ended"
        )
    }

    /// Lets no further step start, or lets them start again.
    func setPaused(_ isPaused: Bool, _ uid: String, actor: String, match: EntityTags?, key: StepStore.RequestKey?)
        async throws -> Step
    {
        try await operate(uid, actor: actor, match: match, key: key) { evaluation, change in
            try await pause(&evaluation, &change, isPaused)
        }
    }

    /// Pauses a pipeline that is being changed, or lets it go on.
    func pause(_ evaluation: inout Evaluation, _ change: inout StepTransaction, _ isPaused: Bool = true) async throws {
        guard evaluation.isPaused != isPaused else { return }
        evaluation.isPaused = isPaused
        try await runs.setPaused(isPaused, change.step.id, on: change.connection)
        change.record(isPaused ? "paused" : "resumed")
    }
}
