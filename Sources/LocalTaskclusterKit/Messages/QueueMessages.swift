// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// A message on its way to the outbox.
public struct QueueMessage: Sendable, Hashable {
    /// The full name of the exchange.
    public let exchange: String
    /// The routing key.
    public let routingKey: String
    /// Further routing keys.
    public let cc: [String]
    /// The JSON text.
    public let body: String
}

/// The messages of the queue: exchanges, routing keys and payloads.
public struct QueueMessages: Sendable, Hashable {
    /// The part of the exchange names before their last word.
    public let prefix: String

    /// The exchanges to declare at start, without prefix.
    public static let exchanges = [
        "task-defined", "task-pending", "task-running", "task-completed", "task-failed", "task-exception",
        "artifact-created", "task-group-resolved", "task-group-sealed", "task-priority-changed",
        "task-group-priority-changed",
    ]

    /// Uses exchanges below this prefix.
    public init(prefix: String = "exchange/taskcluster-queue/v1/") {
        self.prefix = prefix
    }

    /// Announces that a task exists; it is always shown without runs.
    public func defined(_ facts: TaskFacts) -> QueueMessage {
        message(
            "task-defined",
            facts,
            run: nil,
            worker: nil,
            withRun: false,
            ["status": facts.status.initialJSON, "task": facts.task]
        )
    }

    /// Announces what happened to a run.
    public func message(_ event: RunEvent, _ facts: TaskFacts) -> QueueMessage {
        switch event {
        case .pending(let run): runMessage("task-pending", facts, run, withWorker: false)
        case .running(let run): runMessage("task-running", facts, run, withWorker: true)
        case .completed(let run): runMessage("task-completed", facts, run, withWorker: true)
        case .failed(let run): runMessage("task-failed", facts, run, withWorker: true)
        case .exception(let run, let withWorker): runMessage("task-exception", facts, run, withWorker: withWorker)
        }
    }

    /// Announces an artifact that needs no upload.
    public func artifactCreated(_ artifact: JSONValue, run: Int, _ facts: TaskFacts) -> QueueMessage {
        let worker = facts.status.runs.indices.contains(run) ? facts.status.runs[run].worker : nil
        var payload: JSONObject = ["status": facts.status.json, "runId": JSONValue(run)]
        if let worker {
            payload["workerGroup"] = JSONValue(worker.group)
            payload["workerId"] = JSONValue(worker.id)
        }
        payload["artifact"] = artifact
        return message("artifact-created", facts, run: run, worker: worker, withRun: true, payload)
    }

    /// Announces that every task of a group has been resolved.
    public func groupResolved(_ group: TaskGroup) -> QueueMessage {
        groupMessage("task-group-resolved", group.json, group)
    }

    /// Announces that a group takes no more tasks.
    public func groupSealed(_ group: TaskGroup) -> QueueMessage {
        groupMessage("task-group-sealed", group.json, group)
    }

    /// Announces that a task has become more or less urgent.
    public func priorityChanged(from old: TaskPriority, _ facts: TaskFacts) -> QueueMessage {
        message(
            "task-priority-changed",
            facts,
            run: nil,
            worker: nil,
            withRun: false,
            [
                "status": facts.status.json, "oldPriority": JSONValue(old.name),
                "newPriority": JSONValue(facts.status.priority.name),
            ]
        )
    }

    /// Announces that the open tasks of a group have become more or less urgent.
    public func groupPriorityChanged(_ group: TaskGroup, to priority: TaskPriority, affected: Int) -> QueueMessage {
        groupMessage(
            "task-group-priority-changed",
            [
                "taskGroupId": JSONValue(group.taskGroupID), "schedulerId": JSONValue(group.schedulerID),
                "newPriority": JSONValue(priority.name), "tasksAffected": JSONValue(affected),
            ],
            group
        )
    }

    private func runMessage(_ name: String, _ facts: TaskFacts, _ run: Int, withWorker: Bool) -> QueueMessage {
        let details = facts.status.runs[run]
        let worker = withWorker ? details.worker : nil
        var payload: JSONObject = ["status": facts.status.json, "runId": JSONValue(run)]
        if let worker {
            payload["workerGroup"] = JSONValue(worker.group)
            payload["workerId"] = JSONValue(worker.id)
        }
        if name == "task-running", let takenUntil = details.takenUntil {
            payload["takenUntil"] = JSONValue(takenUntil.iso8601)
        }
        payload["task"] = facts.task
        return message(name, facts, run: run, worker: worker, withRun: true, payload)
    }

    private func message(
        _ name: String,
        _ facts: TaskFacts,
        run: Int?,
        worker: WorkerName?,
        withRun: Bool,
        _ payload: JSONObject
    ) -> QueueMessage {
        let status = facts.status
        let words = [
            "primary", status.taskID, run.map { String($0) } ?? "_", worker?.group ?? "_", worker?.id ?? "_",
            status.provisionerID, status.workerType, status.schedulerID, status.taskGroupID, "_",
        ]
        return QueueMessage(
            exchange: prefix + name,
            routingKey: words.joined(separator: "."),
            cc: facts.routes.map { "route.\($0)" },
            body: Self.body(payload)
        )
    }

    private func groupMessage(_ name: String, _ payload: JSONObject, _ group: TaskGroup) -> QueueMessage {
        QueueMessage(
            exchange: prefix + name,
            routingKey: "primary.\(group.taskGroupID).\(group.schedulerID)._",
            cc: [],
            body: Self.body(payload)
        )
    }

    private static func body(_ payload: JSONObject) -> String {
        var complete: JSONObject = ["version": 1]
        for (key, value) in payload { complete[key] = value }
        return JSONValue.object(complete).text()
    }
}

/// What every message about a task needs to know.
public struct TaskFacts: Sendable {
    /// The status to show.
    public var status: TaskStatus
    /// The task's routes.
    public let routes: [String]
    /// The task's tags.
    public let tags: JSONValue

    /// Collects what messages need.
    public init(status: TaskStatus, routes: [String], tags: JSONValue) {
        self.status = status
        self.routes = routes
        self.tags = tags
    }

    /// The excerpt of the definition that messages carry.
    var task: JSONValue { .object(["tags": tags]) }
}

/// Tasks that belong together.
public struct TaskGroup: Sendable, Hashable {
    /// The name of the group.
    public let taskGroupID: String
    /// The one scheduler that may add tasks.
    public let schedulerID: String
    /// One hour after the last of its tasks expires.
    public let expires: Timestamp
    /// When it stopped taking tasks.
    public var sealed: Timestamp?

    /// The group as clients see it.
    public var json: JSONObject {
        var object: JSONObject = [
            "taskGroupId": JSONValue(taskGroupID), "schedulerId": JSONValue(schedulerID),
            "expires": JSONValue(expires.iso8601),
        ]
        if let sealed { object["sealed"] = JSONValue(sealed.iso8601) }
        return object
    }
}
