// SPDX-License-Identifier: MPL-2.0

import JSON
import StepKit
import Taskcluster

/// What a step does with Taskcluster, and how its tasks decide about it.
struct TaskclusterDefinition: Sendable, Hashable {
    /// Where the tasks come from.
    enum Work: Sendable, Hashable {
        /// A group that exists or will; with a task that has to be completed first.
        case track(group: String, task: String?)
        /// A hook that is triggered.
        case hook(group: String, id: String, payload: JSONValue)
        /// An action that the decision task of a group offers.
        case action(group: String, name: String, input: JSONValue)
        /// A task that is created.
        case task(JSONValue, id: String?)

        /// The word for it.
        var mode: String {
            switch self {
            case .track: "track"
            case .hook: "hook"
            case .action: "action"
            case .task: "task"
            }
        }

        /// Whether the step itself makes tasks.
        var creates: Bool { mode != "track" }
    }

    var work: Work
    /// Whether the first task that does not succeed decides.
    var failsFast = false
    /// Labels and kinds, with `*`, of tasks whose failure is of no importance.
    var ignored: [String] = []
    /// Whether a group has to be sealed to be complete.
    var requiresSealed = false
    /// Whether a cancelled step takes its tasks with it.
    var cancels: Bool
    /// Whether no other step may follow the same group.
    var isUnique = true
    /// The states in which a task counts as a success.
    var successes: Set<String> = ["completed"]
    /// How long to wait for a group to exist, in seconds.
    var appearTimeout = 600
    /// How long a failure is watched for tasks that are run again, in seconds.
    var reopenWindow = 0
}

extension TaskclusterDefinition {
    private static let options: Set<String> = [
        "uid", "fail_fast", "ignore_tasks", "require_sealed", "cancel_on_delete", "group_unique", "success_states",
        "appear_timeout_s", "reopen_window_s",
    ]

    /// Reads a definition; everything that is wrong with it is told at once.
    init(_ body: JSONObject) throws(StepProblem) {
        var reader = DefinitionReader(body)
        let work = reader.work()
        reader.allowOnly(Self.options.union(reader.used))
        self.work = work ?? .track(group: "", task: nil)
        cancels = reader.bool("cancel_on_delete") ?? self.work.creates
        failsFast = reader.bool("fail_fast") ?? false
        requiresSealed = reader.bool("require_sealed") ?? false
        isUnique = reader.bool("group_unique") ?? true
        ignored = reader.strings("ignore_tasks") ?? []
        if let states = reader.strings("success_states") {
            successes = Set(states)
            if states.isEmpty || !successes.isSubset(of: ["completed", "failed", "exception"]) {
                reader.fail("success_states has to name some of completed, failed and exception")
            }
        }
        appearTimeout = reader.int("appear_timeout_s", in: 1...604_800) ?? 600
        reopenWindow = reader.int("reopen_window_s", in: 0...604_800) ?? 0
        guard reader.problems.isEmpty else {
            throw StepProblem(
                400,
                "invalid_definition",
                "The definition is not valid: " + reader.problems.joined(separator: "; "),
                members: ["errors": JSONValue(reader.problems)]
            )
        }
    }

    /// The definition in its one stored form, without what is left at its default.
    func json(uid: String) -> JSONValue {
        var json: JSONObject = ["uid": .string(uid)]
        switch work {
        case .track(let group, let task):
            json["taskGroupId"] = .string(group)
            json["taskId"] = task.map { .string($0) }
        case .hook(let group, let id, let payload):
            json["hook"] = ["hookGroupId": .string(group), "hookId": .string(id), "payload": payload]
        case .action(let group, let name, let input):
            json["action"] = ["taskGroupId": .string(group), "name": .string(name), "input": input]
        case .task(let definition, let id):
            json["task"] = definition
            json["taskId"] = id.map { .string($0) }
        }
        if failsFast { json["fail_fast"] = true }
        if !ignored.isEmpty { json["ignore_tasks"] = JSONValue(ignored) }
        if requiresSealed { json["require_sealed"] = true }
        if cancels != work.creates { json["cancel_on_delete"] = JSONValue(cancels) }
        if !isUnique { json["group_unique"] = false }
        if successes != ["completed"] { json["success_states"] = JSONValue(successes.sorted()) }
        if appearTimeout != 600 { json["appear_timeout_s"] = JSONValue(appearTimeout) }
        if reopenWindow != 0 { json["reopen_window_s"] = JSONValue(reopenWindow) }
        return .object(json)
    }
}

/// Reads the members of a definition and collects what is wrong.
private struct DefinitionReader {
    private let body: JSONObject
    private(set) var problems: [String] = []
    /// The members that say where the tasks come from.
    private(set) var used: Set<String> = []

    init(_ body: JSONObject) {
        self.body = body
    }

    mutating func fail(_ problem: String) {
        problems.append(problem)
    }

    mutating func allowOnly(_ names: Set<String>) {
        for key in body.keys where !names.contains(key) { fail("\(key) is not known") }
    }

    /// Where the tasks come from: exactly one of four.
    mutating func work() -> TaskclusterDefinition.Work? {
        let modes = ["taskGroupId", "hook", "action", "task"].filter { body.contains($0) }
        guard modes.count == 1, let mode = modes.first else {
            fail("exactly one of taskGroupId, hook, action and task has to be there")
            used = Set(modes).union(["schedulerAPI", "taskId"])
            return nil
        }
        used = [mode]
        switch mode {
        case "taskGroupId": return track()
        case "hook": return hook()
        case "action": return action()
        default: return task()
        }
    }

    private mutating func track() -> TaskclusterDefinition.Work? {
        used.formUnion(["schedulerAPI", "taskId"])
        if let scheduler = body["schedulerAPI"], scheduler != false {
            fail("schedulerAPI can only be false: that scheduler exists no more")
        }
        guard let group = slugid(body["taskGroupId"], "taskGroupId") else { return nil }
        return .track(group: group, task: body["taskId"].flatMap { slugid($0, "taskId") })
    }

    private mutating func hook() -> TaskclusterDefinition.Work? {
        guard let hook = object("hook", ["hookGroupId", "hookId", "payload"]) else { return nil }
        let group = text(hook["hookGroupId"], "hook.hookGroupId")
        let id = text(hook["hookId"], "hook.hookId")
        let payload = hook["payload"] ?? [:]
        if payload.object == nil { fail("hook.payload has to be an object") }
        guard let group, let id else { return nil }
        return .hook(group: group, id: id, payload: payload)
    }

    private mutating func action() -> TaskclusterDefinition.Work? {
        guard let action = object("action", ["taskGroupId", "name", "input"]) else { return nil }
        let group = slugid(action["taskGroupId"], "action.taskGroupId")
        let name = text(action["name"], "action.name")
        guard let group, let name else { return nil }
        return .action(group: group, name: name, input: action["input"] ?? [:])
    }

    private mutating func task() -> TaskclusterDefinition.Work? {
        used.insert("taskId")
        let id = body["taskId"].flatMap { slugid($0, "taskId") }
        guard let task = body["task"], task.object != nil else {
            fail("task has to be a definition of a task")
            return nil
        }
        if task["taskQueueId"]?.string == nil, task["provisionerId"]?.string == nil {
            fail("task.taskQueueId is missing")
        }
        return .task(task, id: id)
    }

    private mutating func object(_ name: String, _ members: Set<String>) -> JSONObject? {
        guard let object = body[name]?.object else {
            fail("\(name) has to be an object")
            return nil
        }
        for key in object.keys where !members.contains(key) { fail("\(name).\(key) is not known") }
        return object
    }

    private mutating func text(_ value: JSONValue?, _ name: String) -> String? {
        guard let text = value?.string, (1...1000).contains(text.utf8.count) else {
            fail("\(name) has to be a name")
            return nil
        }
        return text
    }

    private mutating func slugid(_ value: JSONValue?, _ name: String) -> String? {
        guard let text = value?.string, Slugid.isValid(text) else {
            fail("\(name) has to be the id of a task")
            return nil
        }
        return text
    }

    mutating func bool(_ name: String) -> Bool? {
        guard let value = body[name] else { return nil }
        if value.bool == nil { fail("\(name) has to be true or false") }
        return value.bool
    }

    mutating func int(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let value = body[name] else { return nil }
        guard let number = value.int, range.contains(number) else {
            fail("\(name) has to be \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return number
    }

    mutating func strings(_ name: String) -> [String]? {
        guard let value = body[name] else { return nil }
        guard let list = value.array, list.count <= 100, list.allSatisfy({ ($0.string?.utf8.count ?? 999) <= 255 })
        else {
            fail("\(name) has to be a list of up to 100 names")
            return nil
        }
        return list.compactMap(\.string)
    }
}
