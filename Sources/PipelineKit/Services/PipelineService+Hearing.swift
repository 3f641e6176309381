// SPDX-License-Identifier: MPL-2.0

import JSON
import Logging
import Schedules
import StepKit
import Synchronization

/// What services tell of their steps without being asked.
extension PipelineService {
    /// How many steps that have ended are asked about at a time; messages of others must not wait behind them.
    private static let questions = 4

    /// Asks about a step of that name at once, wherever a running pipeline has one.
    ///
    /// A step that has ended already stays as it is; that its service says otherwise is written down.
    func heard(of remoteUID: String, _ message: JSONValue = [:]) async throws {
        if try await runs.hint(remoteUID, at: store.now()) {
            store.changes.workIsDue()
        } else if case .known(let state, _, _, _, let updated) = RemoteStatus(message, uid: remoteUID),
            !state.isTerminal
        {
            let service = message["base_url"]?.string ?? ""
            for ended in try await runs.ended(remoteUID, before: updated, at: service) {
                try await doubt(ended, remoteUID)
            }
        }
    }

    /// Asks the service of a step that has ended how the step is, and notes if it goes on; nothing else follows from it.
    private func doubt(_ ended: RunStore.Ended, _ remoteUID: String) async throws {
        guard ServiceAddress.problem(ended.apiURL, allowed: services) == nil,
            let pipeline = try await store.find(ended.pipeline), pipeline.id == ended.pipelineID
        else { return }
        guard doubts.begin(limit: Self.questions) else {
            Logger.current.info("a step is said to go on that had ended; nobody has the time to ask")
            return
        }
        defer { doubts.end() }
        let question = Effect(
            step: ended.step,
            attempt: ended.attempt,
            hints: 0,
            remoteUID: remoteUID,
            apiURL: ended.apiURL,
            kind: .poll
        )
        let answer = await client.perform(question, for: pipeline)
        guard case .status(.known(let state, _, _, _, _)) = answer.result, !state.isTerminal else { return }
        _ = try await store.change(pipeline.uid, actor: store.announcement.actor) { change in
            guard change.step.id == pipeline.id else { return }
            let before = try await runs.steps(pipeline.id, on: change.connection)
            var evaluation = Evaluation(try Self.parsed(change.step.definition), before, now: change.now)
            guard let run = evaluation.steps[ended.step], run.attempt == ended.attempt, run.state.isTerminal else {
                return
            }
            evaluation.regressed(answer.result, run)
            try await runs.write(evaluation.ordered, before: before, pipeline.id, on: change.connection)
            for note in evaluation.notes { change.record(note.kind, subject: note.step, note.data) }
        }
    }
}

/// A number that many change.
final class Tally: Sendable {
    private let number = Atomic(0)

    /// Counts one more, unless there are as many as allowed already.
    func begin(limit: Int) -> Bool {
        if number.add(1, ordering: .relaxed).newValue <= limit { return true }
        end()
        return false
    }

    func end() {
        number.subtract(1, ordering: .relaxed)
    }
}
