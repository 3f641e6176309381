// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Schedules

/// What a template says to one occasion of firing.
package enum Rendering: Sendable {
    /// A task with all times filled in.
    case task(JSONValue)
    /// No task this time.
    case declined
    /// The template is wrong, or does not fit its context.
    case failed(FireFailure)
}

/// The occasion a template is rendered for.
package struct FiringContext: Sendable {
    package let firedBy: FiredBy
    package let taskID: String
    /// The instant of the fire: all relative times of one rendering share it.
    package let created: Timestamp
    /// What the occasion brings along: payload, clientId, exchange, routingKey.
    package let extras: JSONObject

    package init(firedBy: FiredBy, taskID: String, created: Timestamp, extras: JSONObject) {
        self.firedBy = firedBy
        self.taskID = taskID
        self.created = created
        self.extras = extras
    }

    /// The names a template can use.
    ///
    /// `now` is text, not the date object of the original, with which no template could do anything useful.
    var names: JSONObject {
        var names = extras
        names["firedBy"] = JSONValue(firedBy.rawValue)
        if names["taskId"] == nil { names["taskId"] = JSONValue(taskID) }
        if names["now"] == nil { names["now"] = JSONValue(created.iso8601) }
        return names
    }

    /// Renders a template and completes the task it yields.
    package func render(_ template: HookTemplate) -> Rendering {
        do {
            let value = try template.render(names, seed: taskID, now: created)
            guard isTruthy(value) else { return .declined }
            guard case .object(let task) = value else {
                return .failed(
                    FireFailure(template: "the template must yield a task or nothing, not \(kind(of: value))")
                )
            }
            return .task(.object(completed(task)))
        } catch {
            return .failed(error)
        }
    }

    /// Fills in what the template left open of the four members that depend on the occasion.
    ///
    /// Everything else is left to the defaults of the queue.
    func completed(_ task: JSONObject) -> JSONObject {
        var task = task
        func fill(_ key: String, _ value: String) {
            if isTruthy(task[key] ?? .null) { return }
            task[key] = JSONValue(value)
        }
        fill("created", created.iso8601)
        fill("deadline", (created + .seconds(24 * 3600)).iso8601)
        fill("expires", (created + .seconds(30 * 24 * 3600)).iso8601)
        fill("taskGroupId", taskID)
        return task
    }
}

/// Truth as JavaScript sees it: empty lists and objects are true.
private func isTruthy(_ value: JSONValue) -> Bool {
    switch value {
    case .null: false
    case .bool(let bool): bool
    case .number(let number): number.double != 0 && !number.double.isNaN
    case .string(let text): !text.isEmpty
    case .array, .object: true
    }
}

private func kind(of value: JSONValue) -> String {
    switch value {
    case .null: "null"
    case .bool: "a truth value"
    case .number: "a number"
    case .string: "a string"
    case .array: "an array"
    case .object: "an object"
    }
}
