// SPDX-License-Identifier: MPL-2.0

package import JSON

/// What the queue will ask the creator of a task for, read from the task's definition.
package enum RequiredScopes {
    /// The scopes that a hook's role must hold, each of them satisfied by an equal or wider one.
    ///
    /// The queue accepts the scope of any priority at or above the task's; the narrowest is listed.
    package static func of(task: JSONValue) -> [String] {
        func text(_ key: String, _ fallback: String) -> String {
            guard let text = task[key]?.string, !text.isEmpty else { return fallback }
            return text
        }
        var scopes: [String] = []
        if let queue = task["taskQueueId"]?.string ?? joined(task["provisionerId"], task["workerType"]) {
            scopes.append("queue:create-task:\(text("priority", "lowest")):\(queue)")
        }
        scopes.append("queue:create-task:project:\(text("projectId", "none"))")
        scopes.append("queue:scheduler-id:\(text("schedulerId", "-"))")
        for route in task["routes"]?.array?.compactMap(\.string) ?? [] { scopes.append("queue:route:\(route)") }
        scopes += task["scopes"]?.array?.compactMap(\.string) ?? []
        return scopes
    }

    private static func joined(_ provisioner: JSONValue?, _ workerType: JSONValue?) -> String? {
        guard let provisioner = provisioner?.string, let workerType = workerType?.string else { return nil }
        return "\(provisioner)/\(workerType)"
    }
}
