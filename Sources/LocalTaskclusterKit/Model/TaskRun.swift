// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// The state of one run, and of a task that has runs.
public enum RunState: String, Sendable, Hashable, CaseIterable {
    case pending, running, completed, failed, exception

    /// Whether nothing more happens to a run in this state.
    public var isResolved: Bool { self == .completed || self == .failed || self == .exception }
}

/// Why a run was made.
public enum RunCreation: String, Sendable, Hashable, CaseIterable {
    case scheduled, retry, rerun, exception
    case taskRetry = "task-retry"
}

/// How a run ended.
public enum RunResolution: String, Sendable, Hashable, CaseIterable {
    case completed, failed, canceled, superseded
    case deadlineExceeded = "deadline-exceeded"
    case claimExpired = "claim-expired"
    case workerShutdown = "worker-shutdown"
    case malformedPayload = "malformed-payload"
    case resourceUnavailable = "resource-unavailable"
    case internalError = "internal-error"
    case intermittentTask = "intermittent-task"
}

/// The worker that took a run.
public struct WorkerName: Sendable, Hashable {
    /// The group the worker belongs to.
    public var group: String
    /// The name of the worker inside its group.
    public var id: String

    /// Names a worker.
    public init(group: String, id: String) {
        self.group = group
        self.id = id
    }
}

/// One attempt at a task.
public struct TaskRun: Sendable, Hashable {
    /// The position of the run in its task.
    public var runID: Int
    /// What the run is doing.
    public var state: RunState
    /// Why it exists.
    public var reasonCreated: RunCreation
    /// How it ended, once it has.
    public var reasonResolved: RunResolution?
    /// Who took it, once somebody did.
    public var worker: WorkerName?
    /// The end of the latest claim; kept after the run ended.
    public var takenUntil: Timestamp?
    /// When it became pending.
    public var scheduled: Timestamp
    /// When it was claimed.
    public var started: Timestamp?
    /// When it ended.
    public var resolved: Timestamp?

    /// Makes a run that waits for a worker.
    public init(runID: Int, reasonCreated: RunCreation, scheduled: Timestamp) {
        self.runID = runID
        self.state = .pending
        self.reasonCreated = reasonCreated
        self.scheduled = scheduled
    }

    /// The run as clients see it.
    public var json: JSONValue {
        var object = JSONObject()
        object["runId"] = JSONValue(runID)
        object["state"] = JSONValue(state.rawValue)
        object["reasonCreated"] = JSONValue(reasonCreated.rawValue)
        if let reasonResolved { object["reasonResolved"] = JSONValue(reasonResolved.rawValue) }
        if let worker {
            object["workerGroup"] = JSONValue(worker.group)
            object["workerId"] = JSONValue(worker.id)
        }
        if let takenUntil { object["takenUntil"] = JSONValue(takenUntil.iso8601) }
        object["scheduled"] = JSONValue(scheduled.iso8601)
        if let started { object["started"] = JSONValue(started.iso8601) }
        if let resolved { object["resolved"] = JSONValue(resolved.iso8601) }
        return .object(object)
    }

    /// Reads a run back from its wire form; nil if it is not one.
    public init?(json: JSONValue) {
        guard let runID = json["runId"]?.int,
            let state = json["state"]?.string.flatMap(RunState.init(rawValue:)),
            let reasonCreated = json["reasonCreated"]?.string.flatMap(RunCreation.init(rawValue:)),
            let scheduled = json["scheduled"]?.string.flatMap({ Timestamp($0) })
        else { return nil }
        self.init(runID: runID, reasonCreated: reasonCreated, scheduled: scheduled)
        self.state = state
        reasonResolved = json["reasonResolved"]?.string.flatMap(RunResolution.init(rawValue:))
        if let group = json["workerGroup"]?.string, let id = json["workerId"]?.string {
            worker = WorkerName(group: group, id: id)
        }
        takenUntil = json["takenUntil"]?.string.flatMap { Timestamp($0) }
        started = json["started"]?.string.flatMap { Timestamp($0) }
        resolved = json["resolved"]?.string.flatMap { Timestamp($0) }
    }
}
