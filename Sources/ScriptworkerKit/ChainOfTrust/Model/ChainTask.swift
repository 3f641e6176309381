// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Taskcluster

/// The kind of worker that ran a task, told from the task alone.
enum WorkerImplementation: String, Sendable, Hashable, CaseIterable {
    case dockerWorker = "docker-worker"
    case genericWorker = "generic-worker"
    case scriptworker
}

/// A task of a chain: the one to be run, or one that it rests on.
struct ChainTask: Sendable {
    /// How it was reached: types from the task to be run to this one, joined with colons.
    let name: String
    let taskID: String
    let definition: JSONValue
    let kind: TaskKind
    let implementation: WorkerImplementation
    let decisionID: String
    let parentID: String

    /// Classifies a task; throws when it fits nothing, or several things.
    init(name: String, taskID: String, definition: JSONValue, policy: ChainPolicy) throws(ChainProblem) {
        let label = "\(name) \(taskID)"
        guard definition["payload"]?.object != nil else { throw ChainProblem("\(label): the task has no payload") }
        guard definition["extra"]?.object != nil else { throw ChainProblem("\(label): the task has no extra") }
        guard let decision = definition["taskGroupId"]?.string, Slugid.isValid(decision) else {
            throw ChainProblem("\(label): taskGroupId is not a task's id")
        }
        let parent = definition["extra"]?["parent"].flatMap { $0.isNull ? nil : $0 } ?? .string(decision)
        guard let parent = parent.string, Slugid.isValid(parent) else {
            throw ChainProblem("\(label): extra.parent is not a task's id")
        }
        self.name = name
        self.taskID = taskID
        self.definition = definition
        decisionID = decision
        parentID = parent
        var type = name.split(separator: ":").last.map(String.init) ?? name
        if type == "parent" { type = Self.isAction(definition) ? "action" : "decision" }
        guard let kind = policy.kinds[type] else {
            throw ChainProblem("\(label): \(type) is not a valid task type")
        }
        self.kind = kind
        implementation = try Self.implementation(of: definition, label, policy)
    }

    var label: String { "\(name) \(taskID)" }
    var isParent: Bool { kind.checks == .parent }
    var pool: String {
        "\(definition["provisionerId"]?.string ?? "")/\(definition["workerType"]?.string ?? "")"
    }
    var scopes: [String] { (definition["scopes"]?.array ?? []).compactMap(\.string) }
    var created: Timestamp? { definition["created"]?.string.flatMap { Timestamp($0) } }
    var source: String? { definition["metadata"]?["source"]?.string }
    var tasksFor: String? { definition["extra"]?["tasks_for"]?.string }

    /// A variable of the task's environment.
    func environment(_ name: String) -> String? {
        let value = definition["payload"]?["env"]?[name]
        return value?.string ?? value?.int.map { "\($0)" }
    }

    /// What this task directly rests on: its parent first, the rest sorted.
    func dependencies() throws(ChainProblem) -> [(name: String, taskID: String)] {
        var found: [(name: String, taskID: String)] = []
        for (type, value) in definition["extra"]?["chainOfTrust"]?["inputs"]?.object ?? [:] {
            found.append(("\(name):\(type)", try id(value, "extra.chainOfTrust.inputs")))
        }
        for entry in definition["payload"]?["upstreamArtifacts"]?.array ?? [] {
            guard let type = entry["taskType"]?.string else {
                throw ChainProblem("\(label): an upstream artifact has no taskType")
            }
            found.append(("\(name):\(type)", try id(entry["taskId"] ?? .null, "payload.upstreamArtifacts")))
        }
        found.sort { "\($0.name)_\($0.taskID)" < "\($1.name)_\($1.taskID)" }
        return [("\(name):parent", parentID)] + found
    }

    private func id(_ value: JSONValue, _ place: String) throws(ChainProblem) -> String {
        guard let text = value.string, Slugid.isValid(text) else {
            throw ChainProblem("\(label): \(place) names something that is not a task's id")
        }
        return text
    }

    static func isAction(_ definition: JSONValue) -> Bool {
        let callback = definition["payload"]?["env"]?["ACTION_CALLBACK"]
        if let callback, !callback.isNull, callback.string != "" { return true }
        return !(definition["extra"]?["action"]?.isNull ?? true)
    }

    private static func implementation(
        of definition: JSONValue,
        _ label: String,
        _ policy: ChainPolicy
    ) throws(ChainProblem) -> WorkerImplementation {
        var found: Set<String> = []
        let payload = definition["payload"] ?? .null
        if let image = payload["image"], isTruthy(image) { found.insert("docker-worker") }
        for scope in definition["scopes"]?.array ?? [] where scope.string?.hasPrefix("docker-worker:") ?? false {
            found.insert("docker-worker")
        }
        if policy.scriptworkerProvisioners.contains(definition["provisionerId"]?.string ?? "") {
            found.insert("scriptworker")
        }
        for key in ["mounts", "osGroups"] where !(payload[key]?.isNull ?? true) { found.insert("generic-worker") }
        if let tag = definition["tags"]?["worker-implementation"]?.string, !tag.isEmpty { found.insert(tag) }
        guard found.count < 2 else {
            throw ChainProblem("\(label): it looks like several worker implementations: \(found.sorted())")
        }
        guard let name = found.first else {
            throw ChainProblem("\(label): nothing tells the worker implementation; a tag worker-implementation would")
        }
        guard let implementation = WorkerImplementation(rawValue: name) else {
            throw ChainProblem("\(label): \(name) is not a known worker implementation")
        }
        return implementation
    }

    /// Whether a value counts as given, the way Python asks.
    static func isTruthy(_ value: JSONValue?) -> Bool {
        switch value {
        case nil, .null: false
        case .bool(let value): value
        case .string(let text): !text.isEmpty
        case .number(let number): number.double != 0
        case .array(let list): !list.isEmpty
        case .object(let object): !object.isEmpty
        }
    }
}

/// A task to be run and everything it rests on.
struct Chain: Sendable {
    /// The task to be run, or to be looked at.
    let head: ChainTask
    /// What it rests on; the head too when it is itself looked at as a finished task.
    var links: [ChainTask] = []
    /// What the workers of the links state, by task.
    var statements: [String: ChainStatement] = [:]

    func link(_ taskID: String) throws(ChainProblem) -> ChainTask {
        guard let link = links.first(where: { $0.taskID == taskID }) else {
            throw ChainProblem("no link of the chain is the task \(taskID)")
        }
        return link
    }

    /// Every task once.
    var all: [ChainTask] { links.contains { $0.taskID == head.taskID } ? links : [head] + links }
}
