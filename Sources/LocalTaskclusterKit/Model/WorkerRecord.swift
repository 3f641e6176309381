// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// A task queue that somebody has asked about.
public struct QueueRecord: Sendable, Hashable {
    /// The name, of the form provisioner/worker type.
    public let taskQueueID: String
    /// When it is forgotten unless it is seen again.
    public let expires: Timestamp
    /// When a worker last asked.
    public let lastDateActive: Timestamp
    /// What it is for.
    public let description: String
    /// How much one may rely on it.
    public let stability: String

    /// The first half of the name.
    public var provisionerID: String { String(taskQueueID.prefix { $0 != "/" }) }
    /// The second half of the name.
    public var workerType: String { String(taskQueueID.drop { $0 != "/" }.dropFirst()) }

    /// The queue as clients see it.
    public var json: JSONValue {
        [
            "taskQueueId": JSONValue(taskQueueID), "expires": JSONValue(expires.iso8601),
            "lastDateActive": JSONValue(lastDateActive.iso8601), "description": JSONValue(description),
            "stability": JSONValue(stability),
        ]
    }

    /// The queue as clients of the older names see it.
    public var workerTypeJSON: JSONValue {
        var object = json
        object["provisionerId"] = JSONValue(provisionerID)
        object["workerType"] = JSONValue(workerType)
        return object
    }
}

/// A provisioner: the first half of the names of some task queues.
public struct ProvisionerRecord: Sendable, Hashable {
    /// The name.
    public let provisionerID: String
    /// When the last of its queues is forgotten.
    public let expires: Timestamp
    /// When a worker of any of its queues last asked.
    public let lastDateActive: Timestamp
    /// What it is for.
    public let description: String
    /// How much one may rely on it.
    public let stability: String
    /// What people may do to its machines, as registration tools declared it.
    public let actions: JSONValue

    /// The provisioner as clients see it.
    public var json: JSONValue {
        [
            "provisionerId": JSONValue(provisionerID), "expires": JSONValue(expires.iso8601),
            "lastDateActive": JSONValue(lastDateActive.iso8601), "description": JSONValue(description),
            "stability": JSONValue(stability), "actions": actions,
        ]
    }

    /// Those of its actions that belong to one kind of thing.
    public func actions(for context: String) -> JSONValue {
        .array((actions.array ?? []).filter { $0["context"]?.string == context })
    }
}

/// A worker that has asked for work or was declared.
public struct WorkerRecord: Sendable, Hashable {
    /// The queue it serves.
    public let taskQueueID: String
    /// Its name.
    public let name: WorkerName
    /// When it was first seen.
    public let firstClaim: Timestamp
    /// When it was last seen.
    public let lastDateActive: Timestamp
    /// When it is forgotten unless it is seen again.
    public let expires: Timestamp
    /// Until when it gets no work.
    public let quarantineUntil: Timestamp?
    /// Who has quarantined it when and why.
    public let quarantineDetails: JSONValue
    /// Its last runs, oldest first.
    public let recentTasks: JSONValue

    /// The worker as listings show it.
    public func listing(now: Timestamp) -> JSONValue {
        var object: JSONValue = [
            "workerGroup": JSONValue(name.group), "workerId": JSONValue(name.id),
            "firstClaim": JSONValue(firstClaim.iso8601), "lastDateActive": JSONValue(lastDateActive.iso8601),
        ]
        if let latest = recentTasks.array?.last { object["latestTask"] = latest }
        if let quarantineUntil, quarantineUntil > now {
            object["quarantineUntil"] = JSONValue(quarantineUntil.iso8601)
        }
        return object
    }

    /// The worker with everything that is known about it.
    public func json(actions: JSONValue) -> JSONValue {
        let parts = taskQueueID.split(separator: "/", maxSplits: 1).map(String.init)
        var object: JSONValue = [
            "provisionerId": JSONValue(parts.first ?? ""), "workerType": JSONValue(parts.last ?? ""),
            "taskQueueId": JSONValue(taskQueueID), "workerGroup": JSONValue(name.group),
            "workerId": JSONValue(name.id), "recentTasks": recentTasks, "expires": JSONValue(expires.iso8601),
            "firstClaim": JSONValue(firstClaim.iso8601), "lastDateActive": JSONValue(lastDateActive.iso8601),
            "quarantineDetails": quarantineDetails, "actions": actions,
        ]
        // A worker that was never quarantined shows a moment long past, as clients expect.
        let until = quarantineUntil ?? Timestamp(milliseconds: 0)
        object["quarantineUntil"] = JSONValue(until.iso8601)
        return object
    }
}
