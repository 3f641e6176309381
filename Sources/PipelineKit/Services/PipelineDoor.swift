// SPDX-License-Identifier: MPL-2.0

package import JSON
import Schedules
package import StepKit

/// How other kits work with pipelines of their own: in the transaction that holds the pipeline's row.
package struct PipelineDoor {
    /// One step as those kits see it.
    package struct StepView: Sendable {
        package let uid: String
        /// The state's word.
        package let state: String
        package let isPending: Bool
        package let isTerminal: Bool
        package let isCalledFor: Bool
        package let message: String
        /// What its service tells of it.
        package let info: JSONObject

        init(_ run: StepRun) {
            uid = run.uid
            state = run.state.rawValue
            isPending = run.state == .pending
            isTerminal = run.state.isTerminal
            isCalledFor = run.isCalledFor
            message = run.message
            info = run.remoteInfo
        }
    }

    var evaluation: Evaluation
    var cancelReason: String?
    var happenings: [PipelineNotices.Happening] = []
    /// The pipeline, and the connection with the open transaction.
    package var change: StepTransaction

    /// The steps in the order of the definition.
    package var steps: [StepView] { evaluation.ordered.map(StepView.init) }

    /// Calls for a step, with parameters that are known only now.
    package mutating func call(for step: String, parameters: JSONObject) throws(StepProblem) {
        try evaluation.setParameters(step, parameters)
        try evaluation.call(for: step)
        change.record("call", subject: step)
    }

    /// Skips a step that has not been started.
    package mutating func skip(_ step: String) throws(StepProblem) {
        try evaluation.skip(step)
        change.record("skip", subject: step)
    }

    /// Cancels the pipeline, unless it has ended.
    package mutating func cancel(_ reason: String) {
        cancelReason = reason
    }

    /// Lets those who asked for it know what has happened.
    package mutating func tell(_ event: String, step: String? = nil, _ text: String, mark: String) {
        guard let event = NotifyRule.Event(rawValue: event) else { return }
        happenings.append(PipelineNotices.Happening(event, step: step, text, mark: mark))
    }
}

extension PipelineService {
    /// Makes a pipeline, and in the same transaction what belongs to it.
    package func create(
        _ body: JSONObject,
        uid: String,
        origin: StepOrigin,
        _ more: (inout StepTransaction) async throws -> Void
    ) async throws -> Step {
        let definition = try checked(body, uid: uid)
        return try await create(definition, origin: origin) { change in
            try await more(&change)
            let happening = PipelineNotices.Happening(.releaseCreated)
            try await notices.tell([happening], definition, change)
        }
    }

    /// Works on a pipeline under the lock of its row.
    package func work<R: Sendable>(
        on uid: String,
        actor: String,
        _ body: (inout PipelineDoor) async throws -> R
    ) async throws -> R {
        try await store.change(uid, actor: actor) { change in
            let id = change.step.id
            let run = try await runs.run(id, on: change.connection)
            let before = try await runs.steps(id, on: change.connection)
            let definition = try Self.parsed(change.step.definition)
            var evaluation = Evaluation(definition, before, now: change.now)
            evaluation.isPaused = run.isPaused
            evaluation.isCancelled = run.isCancelled
            var door = PipelineDoor(evaluation: evaluation, change: change)
            let result = try await body(&door)
            change = door.change
            evaluation = door.evaluation
            try await runs.write(evaluation.ordered, before: before, id, on: change.connection)
            for note in evaluation.notes { change.record(note.kind, subject: note.step, note.data) }
            try await notices.tell(door.happenings, definition, change)
            guard !change.step.state.isTerminal else { return result }
            describe(evaluation, &change)
            change.step.nextCheck = change.now
            if let reason = door.cancelReason, change.step.state != .stopping {
                change.record("cancel", ["reason": .string(reason)])
                try await cancel(&change, reason: reason)
            }
            return result
        }.result
    }

    /// The steps of pipelines by the names of those.
    package func steps(ofPipelines names: [String]) async throws -> [String: [PipelineDoor.StepView]] {
        guard !names.isEmpty else { return [:] }
        return try await runs.steps(ofPipelines: names).mapValues { $0.map(PipelineDoor.StepView.init) }
    }

    /// The pipelines' store.
    package var pipelineStore: StepStore { store }
}
