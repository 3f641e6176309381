// SPDX-License-Identifier: MPL-2.0

import Logging
import Metrics
import Schedules
import Synchronization

/// The line and the counters that every fire leaves.
enum FiringLog {
    /// Notes the end of a fire, or of one attempt that will be followed by another.
    static func fired(_ name: HookName, _ firedBy: FiredBy, taskID: String, result: String) {
        Logger.current.info(
            "hook-fire",
            metadata: [
                "hookGroupId": "\(name.group)", "hookId": "\(name.hook)", "firedBy": "\(firedBy.rawValue)",
                "taskId": "\(taskID)", "result": "\(result)",
            ]
        )
        counters.counter(firedBy, result).increment()
    }

    /// Notes the drafts that ended before anybody asked the queue.
    static func settled(_ drafts: [FireDraft]) {
        for draft in drafts {
            switch draft.rendering {
            case .task: continue
            case .declined: fired(draft.name, draft.firedBy, taskID: draft.taskID, result: "declined")
            case .failed: fired(draft.name, draft.firedBy, taskID: draft.taskID, result: "failure")
            }
        }
    }

    /// Notes how late schedules fired.
    static func scheduled(_ drafts: [FireDraft]) {
        for draft in drafts where draft.origin == .schedule {
            guard let due = draft.due else { continue }
            lateness.recordMilliseconds(max(0, (draft.started - due) / .milliseconds(1)))
        }
    }

    private static let counters = Counters()
    private static let lateness = Timer(label: "hooks_schedule_lateness_seconds")

    /// The counters of fires, made once: to look one up by its labels costs more than to increment it.
    private final class Counters: Sendable {
        private struct Key: Hashable {
            let firedBy: FiredBy
            let result: String
        }

        private let known = Mutex<[Key: Counter]>([:])

        func counter(_ firedBy: FiredBy, _ result: String) -> Counter {
            known.withLock { known in
                let key = Key(firedBy: firedBy, result: result)
                if let counter = known[key] { return counter }
                let counter = Counter(
                    label: "hooks_fires_total",
                    dimensions: [("fired_by", firedBy.rawValue), ("result", result)]
                )
                known[key] = counter
                return counter
            }
        }
    }
}
