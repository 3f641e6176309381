// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// Compares a task with what its parent's graph announced.
enum GraphMatch {
    /// What legitimately differs between an announcement and a task.
    static let ignoredKeys: Set<String> = [
        "created", "deadline", "dependencies", "expires", "projectId", "schedulerId", "taskQueueId", "priority",
    ]

    /// What the queue fills in when a definition is silent.
    private static let standardValues: [String: JSONValue] = [
        "requires": "all-completed", "routes": [], "retries": 5, "scopes": [], "tags": [:], "extra": [:],
    ]

    static func check(_ task: ChainTask, against graph: JSONValue, of parent: ChainTask, isStrict: Bool)
        throws(ChainProblem)
    {
        guard let announced = graph[task.taskID]?["task"], let keys = announced.object else {
            throw ChainProblem("\(task.label): not in the task graph of \(parent.label)")
        }
        var complaints = ChainComplaints()
        let allowed = Set(announced["dependencies"]?.array ?? []).union([.string(task.decisionID)])
        let surplus = (task.definition["dependencies"]?.array ?? []).filter { !allowed.contains($0) }
        if !surplus.isEmpty {
            complaints.add(
                "\(task.label): dependencies that the graph does not have: \(JSONValue.array(surplus).text())"
            )
        }
        for (key, value) in keys where !ignoredKeys.contains(key) {
            let expected = task.created.map { resolved(value, $0) } ?? value
            guard let found = task.definition[key] else {
                complaints.add("\(task.label): \(key) is missing, which the graph has")
                continue
            }
            if expected != found {
                let text = JSONDifference.text(expected: expected, found: found, at: key)
                complaints.add("\(task.label): \(key) differs from the graph of \(parent.label): \(text)")
            }
        }
        if isStrict { checkSurplus(task, keys, parent, &complaints) }
        try complaints.end()
    }

    private static func checkSurplus(
        _ task: ChainTask,
        _ announced: JSONObject,
        _ parent: ChainTask,
        _ complaints: inout ChainComplaints
    ) {
        for (key, value) in task.definition.object ?? [:] where announced[key] == nil && !ignoredKeys.contains(key) {
            let isExpected =
                switch key {
                case "taskGroupId": [parent.taskID, parent.decisionID].contains(value.string)
                // Both ways of naming the pool are in what the queue returns; the graph has either.
                case "provisionerId", "workerType": announced["taskQueueId"]?.string == task.pool
                default: standardValues[key] == value
                }
            if !isExpected {
                complaints.add("\(task.label): \(key) is \(value.text()), of which the graph knows nothing")
            }
        }
    }

    /// Replaces `{"relative-datestamp": "1 day"}` by the time it means for a task created then.
    static func resolved(_ value: JSONValue, _ created: Timestamp) -> JSONValue {
        switch value {
        case .object(let object):
            if object.count == 1, let text = object["relative-datestamp"]?.string {
                return offset(text).map { .string((created + $0).iso8601) } ?? value
            }
            return .object(JSONObject(object.map { (key: $0.key, value: resolved($0.value, created)) }))
        case .array(let list): return .array(list.map { resolved($0, created) })
        default: return value
        }
    }

    private static func offset(_ text: String) -> Duration? {
        let parts = text.split(whereSeparator: \.isWhitespace)
        var number = ""
        var unit = ""
        if parts.count == 2 {
            (number, unit) = (String(parts[0]), String(parts[1]))
        } else if parts.count == 1 {
            number = String(text.prefix { $0.isNumber || $0 == "-" })
            unit = String(text.dropFirst(number.count))
        }
        guard let count = Int(number) else { return nil }
        let day = 86_400
        let seconds: Int? =
            switch unit {
            case "s", "second", "seconds": 1
            case "min", "minute", "minutes": 60
            case "h", "hour", "hours": 3600
            case "d", "day", "days": day
            case "mo", "month", "months": 30 * day
            case "y", "year", "years": 365 * day
            default: nil
            }
        return seconds.map { .seconds(count * $0) }
    }
}
