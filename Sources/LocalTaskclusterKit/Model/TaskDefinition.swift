// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules
import Taskcluster

/// A task as its author described it, with every default filled in.
///
/// The text keeps numbers as they were spelled and is what every reader of the task receives.
public struct TaskDefinition: Sendable {
    /// The task this defines.
    public let taskID: String
    /// The complete definition.
    public let json: JSONObject
    /// The same as text, as stored and sent.
    public let text: String
    /// Where the task waits for workers.
    public let taskQueueID: String
    /// Who schedules it.
    public let schedulerID: String
    /// The project it belongs to.
    public let projectID: String
    /// The group it belongs to.
    public let taskGroupID: String
    /// The tasks it waits for.
    public let dependencies: [String]
    /// Whether its dependencies must have completed, not just ended.
    public let requiresCompletion: Bool
    /// Extra routing keys of its messages.
    public let routes: [String]
    /// How urgent it is.
    public let priority: TaskPriority
    /// How many automatic retries it grants.
    public let retries: Int
    /// When its author says it was made.
    public let created: Timestamp
    /// When it must be resolved.
    public let deadline: Timestamp
    /// When it may be forgotten.
    public let expires: Timestamp
    /// What the task itself may do.
    public let scopes: [String]
    /// The tags, which travel with every message about the task.
    public let tags: JSONValue

    /// Completes a request that satisfies the schema.
    public init(taskID: String, request: JSONValue) throws(QueueProblem) {
        let queue = try Self.queueID(of: request)
        let created = try Self.time(request, "created")
        let deadline = try Self.time(request, "deadline")
        let expires = request["expires"] == nil ? deadline.oneYearLater : try Self.time(request, "expires")
        let priority = request["priority"]?.string ?? "lowest"
        guard let urgency = TaskPriority(name: priority) else {
            throw QueueProblem(.input, "`priority` \(priority) is not known.")
        }
        let groupID = request["taskGroupId"]?.string ?? taskID

        var json = JSONObject()
        json["provisionerId"] = JSONValue(queue.provisionerID)
        json["workerType"] = JSONValue(queue.workerType)
        json["taskQueueId"] = JSONValue("\(queue.provisionerID)/\(queue.workerType)")
        json["schedulerId"] = request["schedulerId"] ?? "-"
        json["projectId"] = request["projectId"] ?? "none"
        json["taskGroupId"] = JSONValue(groupID)
        json["dependencies"] = request["dependencies"] ?? []
        json["requires"] = request["requires"] ?? "all-completed"
        json["routes"] = request["routes"] ?? []
        json["priority"] = JSONValue(urgency.name)
        json["retries"] = request["retries"] ?? 5
        json["created"] = JSONValue(created.iso8601)
        json["deadline"] = JSONValue(deadline.iso8601)
        json["expires"] = JSONValue(expires.iso8601)
        json["scopes"] = request["scopes"] ?? []
        json["payload"] = request["payload"] ?? .object([:])
        json["metadata"] = request["metadata"] ?? .object([:])
        json["tags"] = request["tags"] ?? .object([:])
        json["extra"] = request["extra"] ?? .object([:])

        self.taskID = taskID
        self.json = json
        self.text = JSONValue.object(json).text()
        self.taskQueueID = "\(queue.provisionerID)/\(queue.workerType)"
        self.schedulerID = json["schedulerId"]?.string ?? "-"
        self.projectID = json["projectId"]?.string ?? "none"
        self.taskGroupID = groupID
        self.dependencies = Self.strings(json["dependencies"])
        self.requiresCompletion = json["requires"]?.string != "all-resolved"
        self.routes = Self.strings(json["routes"])
        self.priority = urgency
        self.retries = json["retries"]?.int ?? 5
        self.created = created
        self.deadline = deadline
        self.expires = expires
        self.scopes = Self.strings(json["scopes"])
        self.tags = json["tags"] ?? .object([:])
    }

    /// The status of the task before anything happened to it.
    public var initialStatus: TaskStatus {
        TaskStatus(
            taskID: taskID,
            taskQueueID: taskQueueID,
            schedulerID: schedulerID,
            projectID: projectID,
            taskGroupID: taskGroupID,
            priority: priority,
            deadline: deadline,
            expires: expires,
            retries: retries
        )
    }

    // MARK: - Reading the request

    private static func queueID(of request: JSONValue) throws(QueueProblem) -> TaskQueueID {
        let provisionerID = request["provisionerId"]?.string
        let workerType = request["workerType"]?.string
        let joined = request["taskQueueId"]?.string
        let pair: String? =
            if let provisionerID, let workerType { "\(provisionerID)/\(workerType)" } else { nil }
        if let joined {
            let parts = joined.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
            let fits =
                (provisionerID == nil || provisionerID == parts.first)
                && (workerType == nil || workerType == parts.last)
            guard fits else {
                throw QueueProblem(.input, "`taskQueueId` \(joined) contradicts `provisionerId` and `workerType`.")
            }
        }
        guard let text = joined ?? pair else {
            throw QueueProblem(.input, "Name the queue: give `taskQueueId`, or `provisionerId` and `workerType`.")
        }
        guard let queue = TaskQueueID(text) else {
            throw QueueProblem(.input, "`taskQueueId` \(text) is not of the form provisioner/worker-type.")
        }
        return queue
    }

    private static func time(_ request: JSONValue, _ key: String) throws(QueueProblem) -> Timestamp {
        guard let time = request[key]?.string.flatMap({ Timestamp($0) }) else {
            throw QueueProblem(.input, "`\(key)` is not a date and time.")
        }
        return time
    }

    private static func strings(_ value: JSONValue?) -> [String] {
        value?.array?.compactMap(\.string) ?? []
    }
}

extension Timestamp {
    /// The same moment of the next calendar year; 29 February becomes 1 March.
    var oneYearLater: Timestamp {
        let text = iso8601
        guard let dash = text.firstIndex(of: "-"), let year = Int(text[..<dash]) else {
            return self + .seconds(31_536_000)
        }
        let rest = text[dash...]
        let moved = rest.hasPrefix("-02-29") ? "-03-01" + rest.dropFirst(6) : String(rest)
        return Timestamp("\(year + 1)\(moved)") ?? self + .seconds(31_536_000)
    }
}
