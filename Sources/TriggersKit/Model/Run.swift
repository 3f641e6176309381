// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Schedules

/// A sighting that was written down, taken by whoever deals with it now.
struct Run: Sendable {
    let id: Int
    let trigger: String
    let subject: String
    let hook: HookName
    let facts: JSONValue
    /// Whether its fire is written down and the task not seen yet.
    let isFiring: Bool
    /// How often it was looked for in vain.
    let looks: Int
    let failures: Int
    /// How many fires it had.
    let firings: Int
    /// The fencing number.
    let lease: Int

    /// What no other fire has: the same sighting fires again under another key only when its last fire came to nothing.
    func key(firing: Int) -> String { "trigger \(trigger) \(subject) \(firing)" }
}

/// A run as people see it.
struct RunEntry: Sendable {
    let id: Int
    let trigger: String
    let subject: String
    let hook: HookName
    let origin: String
    let state: String
    let failures: Int
    let reason: String?
    let taskID: String?
    let taskState: String?
    let created: Timestamp
    let due: Timestamp
    let settled: Timestamp?

    var json: JSONValue {
        var json: JSONObject = [
            "runId": .string(String(id)),
            "trigger": .string(trigger),
            "subject": .string(subject),
            "hookGroupId": .string(hook.group),
            "hookId": .string(hook.hook),
            "origin": .string(origin),
            "state": .string(state),
            "failures": JSONValue(failures),
            "created": .string(created.iso8601),
        ]
        if let reason { json["reason"] = .string(reason) }
        if let taskID { json["taskId"] = .string(taskID) }
        if let taskState { json["taskState"] = .string(taskState) }
        if let settled { json["settled"] = .string(settled.iso8601) } else { json["due"] = .string(due.iso8601) }
        return .object(json)
    }
}
