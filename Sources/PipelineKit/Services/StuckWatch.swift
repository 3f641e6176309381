// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit
import Synchronization

/// Tells of pipelines that nobody looks at although they are due, or whose looks fail again and again.
final class StuckWatch: Sendable {
    /// How long a pipeline may be due without anybody coming round to it: three of the longest polling intervals.
    static let patience = Duration.seconds(90)
    /// How many looks in a row may fail.
    static let failures = 3

    private let service: PipelineService
    /// Those that were found the last time: after an outage of everything, replicas get a chance first.
    private let suspects = Mutex<Set<String>>([])

    init(_ service: PipelineService) {
        self.service = service
    }

    /// Tells of those that are found for the second time in a row, and of each once: again only if something has happened
    /// to it since.
    func tell() async throws {
        let store = service.store
        let found = try await service.runs.overdue(since: store.now() - Self.patience, failures: Self.failures)
        let known = suspects.withLock { suspects in
            defer { suspects = Set(found) }
            return suspects
        }
        for uid in found where known.contains(uid) {
            try await store.changeIfThere(uid, actor: store.announcement.actor) { change in
                try await tell(change.step, &change)
            }
        }
    }

    private func tell(_ step: Step, _ change: inout StepTransaction) async throws {
        guard !step.state.isTerminal, let due = step.nextCheck else { return }
        let hasFailed = step.checkFailures >= Self.failures
        guard hasFailed || due <= change.now - Self.patience else { return }
        guard try await service.runs.lastEvent(step.id, on: change.connection) != "stuck" else { return }
        let reason =
            hasFailed
            ? "looking at it has failed \(step.checkFailures) times" : "nobody has looked at it since \(due.iso8601)"
        change.record("stuck", ["reason": .string(reason)])
        let happening = PipelineNotices.Happening(.pipelineStuck, reason, mark: String(step.version))
        try await service.notices.tell([happening], PipelineService.parsed(step.definition), change)
    }
}

extension StepStore {
    /// Changes the step of a name unless it is gone.
    func changeIfThere(
        _ uid: String,
        actor: String,
        _ body: (inout StepTransaction) async throws -> Void
    ) async throws {
        do {
            _ = try await change(uid, actor: actor, body)
        } catch let problem as StepProblem where problem.status == 404 {
            return
        }
    }
}
