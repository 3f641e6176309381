// SPDX-License-Identifier: MPL-2.0
import JSON
import Postgres
import Schedules

extension RunEvent {
    /// What people may want to be told of it; an exception with a retry to follow is not the end of the task.
    func taskEvent(isFinal: Bool) -> TaskEvent? {
        switch self {
        case .pending: .pending
        case .running: .running
        case .completed: .completed
        case .failed: .failed
        case .exception: isFinal ? .exception : nil
        }
    }
}

extension QueueStore {
    /// Notes events that the routes of a task ask to be told of; nothing for most tasks.
    static func notices(of events: [TaskEvent], _ facts: TaskFacts) -> [SQL] {
        guard facts.routes.contains(where: { $0.hasPrefix(NotificationWish.prefix) }) else { return [] }
        return events.compactMap { event in
            guard !NotificationWish.fulfilled(by: event, routes: facts.routes).isEmpty else { return nil }
            let status = event == .defined ? facts.status.initialJSON : facts.status.json
            return """
                insert into tcl.notices (task_id, event, status)
                values (\(facts.status.taskID), \(event.rawValue), \(status)::json)
                """
        }
    }

    /// Whether somebody wants to be told as soon as a task exists or waits for a worker.
    static func isNoticed(_ task: TaskDefinition) -> Bool {
        task.routes.contains { $0.hasPrefix(NotificationWish.prefix) }
            && [.defined, .pending].contains {
                !NotificationWish.fulfilled(by: $0, routes: task.routes).isEmpty
            }
    }
}
