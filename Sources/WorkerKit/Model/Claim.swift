// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Schedules
public import Taskcluster

/// One run of one task that the queue has given to this worker.
public struct Claim: Sendable {
    /// The task.
    public let taskID: String
    /// The run of the task that is ours.
    public let runID: Int
    /// The group this worker claimed under.
    public let workerGroup: String
    /// The name this worker claimed under.
    public let workerID: String
    /// Until when the run is ours unless the claim is renewed.
    public let takenUntil: Timestamp
    /// The task's definition, exactly as it came.
    public let task: JSONValue
    /// What the run may do; valid until ``takenUntil``.
    public let credentials: Hawk.Credentials

    /// Reads one element of a claim answer; nil if a member is missing or of the wrong kind.
    public init?(_ json: JSONValue) {
        guard
            let taskID = json["status"]?["taskId"]?.string, Slugid.isValid(taskID),
            let runID = json["runId"]?.int,
            let workerGroup = json["workerGroup"]?.string,
            let workerID = json["workerId"]?.string,
            let takenUntil = json["takenUntil"]?.string.flatMap({ Timestamp($0) }),
            let task = json["task"], task.object != nil,
            let credentials = json["credentials"].flatMap({ Hawk.Credentials(claim: $0) })
        else { return nil }
        self.taskID = taskID
        self.runID = runID
        self.workerGroup = workerGroup
        self.workerID = workerID
        self.takenUntil = takenUntil
        self.task = task
        self.credentials = credentials
    }

    /// The path of this run in the queue's API, followed by more segments.
    public func path(_ more: String...) -> [String] {
        ["task", taskID, "runs", "\(runID)"] + more
    }
}

extension Hawk.Credentials {
    /// Reads the `credentials` member of a claim, or of a file in the same form.
    public init?(claim json: JSONValue) {
        guard let clientID = json["clientId"]?.string, let accessToken = json["accessToken"]?.string else { return nil }
        // Some tools write the certificate as the object it is rather than as text.
        let certificate = json["certificate"].flatMap { $0.object == nil ? $0.string : $0.text() }
        self.init(clientID: clientID, accessToken: accessToken, certificate: certificate == "" ? nil : certificate)
    }
}
