// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// What the queue knows about a task apart from its definition.
///
/// ```
/// unscheduled ──schedule──► pending ──claim──► running ──report──► completed | failed | exception
///      │                      ▲  │                │
///      │                      │  └─cancel,────────┤ claim expired, worker-shutdown, intermittent-task
///      │                      │    deadline       ▼
///      └─cancel, deadline─────┼────────────► exception ──retries left──► (a new pending run)
///                             └──────────rerun────┘
/// ```
///
/// The transitions are in `TaskStatus+Transitions.swift`; they are the only code that changes runs.
public struct TaskStatus: Sendable, Hashable {
    /// The task.
    public let taskID: String
    /// Where its runs wait for workers.
    public let taskQueueID: String
    /// Who schedules it.
    public let schedulerID: String
    /// The project it belongs to.
    public let projectID: String
    /// The group it belongs to.
    public let taskGroupID: String
    /// How urgent it is.
    public var priority: TaskPriority
    /// When it must be resolved.
    public let deadline: Timestamp
    /// When it may be forgotten.
    public let expires: Timestamp
    /// How many automatic retries its definition grants.
    public let retries: Int
    /// How many of them are left.
    public internal(set) var retriesLeft: Int
    /// Its runs, oldest first.
    public internal(set) var runs: [TaskRun]

    /// Makes the status of a task.
    public init(
        taskID: String,
        taskQueueID: String,
        schedulerID: String,
        projectID: String,
        taskGroupID: String,
        priority: TaskPriority,
        deadline: Timestamp,
        expires: Timestamp,
        retries: Int,
        retriesLeft: Int? = nil,
        runs: [TaskRun] = []
    ) {
        self.taskID = taskID
        self.taskQueueID = taskQueueID
        self.schedulerID = schedulerID
        self.projectID = projectID
        self.taskGroupID = taskGroupID
        self.priority = priority
        self.deadline = deadline
        self.expires = expires
        self.retries = retries
        self.retriesLeft = retriesLeft ?? retries
        self.runs = runs
    }

    /// The state of the last run; nil while the task is unscheduled.
    public var runState: RunState? { runs.last?.state }

    /// The state as clients see it.
    public var state: String { runState?.rawValue ?? "unscheduled" }

    /// Whether the last run has ended.
    public var isResolved: Bool { runState?.isResolved ?? false }

    /// The part of the queue's name before the slash.
    public var provisionerID: String { String(taskQueueID[..<slash]) }

    /// The part of the queue's name after the slash.
    public var workerType: String { String(taskQueueID[slash...].dropFirst()) }

    private var slash: String.Index { taskQueueID.utf8.firstIndex(of: UInt8(ascii: "/")) ?? taskQueueID.endIndex }

    /// The status as clients see it.
    public var json: JSONValue { .object(object(runs: runs, retriesLeft: retriesLeft)) }

    /// The status the task had when it was defined, which is what its definition is announced with.
    public var initialJSON: JSONValue { .object(object(runs: [], retriesLeft: retries)) }

    /// The runs as they are stored.
    public var runsText: String { JSONValue.array(runs.map(\.json)).text() }

    private func object(runs: [TaskRun], retriesLeft: Int) -> JSONObject {
        var object = JSONObject()
        object["taskId"] = JSONValue(taskID)
        object["provisionerId"] = JSONValue(provisionerID)
        object["workerType"] = JSONValue(workerType)
        object["taskQueueId"] = JSONValue(taskQueueID)
        object["schedulerId"] = JSONValue(schedulerID)
        object["projectId"] = JSONValue(projectID)
        object["taskGroupId"] = JSONValue(taskGroupID)
        object["priority"] = JSONValue(priority.name)
        object["deadline"] = JSONValue(deadline.iso8601)
        object["expires"] = JSONValue(expires.iso8601)
        object["retriesLeft"] = JSONValue(retriesLeft)
        object["state"] = JSONValue(runs.last?.state.rawValue ?? "unscheduled")
        object["runs"] = .array(runs.map(\.json))
        return object
    }
}
