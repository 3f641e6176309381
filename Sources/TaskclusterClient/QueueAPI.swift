// SPDX-License-Identifier: MPL-2.0

public import Core
public import JSON

/// The queue: tasks, claims and artifacts.
public struct QueueAPI: Sendable {
    private let client: TaskclusterClient

    init(client: TaskclusterClient) { self.client = client }

    /// Creates a task and answers its status; repeating the same definition is harmless.
    public func createTask(
        _ taskID: String,
        _ definition: JSONValue,
        authorizedScopes: [String]? = nil,
        retry: RetryPolicy? = nil
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call(
            "queue",
            "PUT",
            ["task", taskID],
            body: definition,
            authorizedScopes: authorizedScopes,
            retry: retry
        )
    }

    /// The definition of a task.
    public func task(_ taskID: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "GET", ["task", taskID])
    }

    /// The status of a task: `{"status": …}`.
    public func status(_ taskID: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "GET", ["task", taskID, "status"])
    }

    /// Cancels a task that is not resolved yet.
    public func cancelTask(_ taskID: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "POST", ["task", taskID, "cancel"])
    }

    /// Makes a resolved task run again.
    public func rerunTask(_ taskID: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "POST", ["task", taskID, "rerun"])
    }

    /// Schedules a task in spite of its dependencies.
    public func scheduleTask(_ taskID: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "POST", ["task", taskID, "schedule"])
    }

    /// One page of a group: `{"taskGroupId", "tasks", "continuationToken"?}`.
    public func listTaskGroup(
        _ groupID: String,
        continuation: String? = nil,
        limit: Int? = nil
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "GET", ["task-group", groupID, "list"], query: page(continuation, limit))
    }

    /// Every task of a group, all pages.
    public func allTasks(ofGroup groupID: String) async throws(TaskclusterError) -> [JSONValue] {
        try await client.allPages("tasks") { (token) async throws(TaskclusterError) in
            try await listTaskGroup(groupID, continuation: token)
        }
    }

    /// Forbids further tasks in a group.
    public func sealTaskGroup(_ groupID: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "POST", ["task-group", groupID, "seal"])
    }

    /// Waits up to 20 seconds for work; never repeated by itself, because a claim made is a claim held.
    public func claimWork(
        _ queueID: String,
        workerGroup: String,
        workerID: String,
        tasks: Int = 1
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call(
            "queue",
            "POST",
            ["claim-work", queueID],
            body: [
                "workerGroup": .string(workerGroup), "workerId": .string(workerID), "tasks": JSONValue(tasks),
            ],
            retry: RetryPolicy(attempts: 1, base: .zero, maximum: .zero),
            timeout: .seconds(60)
        )
    }

    /// Prolongs a claim; the answer has new credentials and `takenUntil`.
    public func reclaimTask(_ taskID: String, run: Int) async throws(TaskclusterError) -> JSONValue {
        try await report(taskID, run, "reclaim")
    }

    /// Resolves a run as completed.
    public func reportCompleted(_ taskID: String, run: Int) async throws(TaskclusterError) -> JSONValue {
        try await report(taskID, run, "completed")
    }

    /// Resolves a run as failed.
    public func reportFailed(_ taskID: String, run: Int) async throws(TaskclusterError) -> JSONValue {
        try await report(taskID, run, "failed")
    }

    /// Resolves a run as an exception with a reason.
    public func reportException(
        _ taskID: String,
        run: Int,
        reason: String
    ) async throws(TaskclusterError) -> JSONValue {
        try await report(taskID, run, "exception", body: ["reason": .string(reason)])
    }

    /// Announces an artifact; the answer says where to put it.
    public func createArtifact(
        _ taskID: String,
        run: Int,
        name: String,
        _ request: JSONValue
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call(
            "queue",
            "POST",
            ["task", taskID, "runs", String(run), "artifacts", name],
            body: request
        )
    }

    /// One page of the artifacts of the last run.
    public func listLatestArtifacts(
        _ taskID: String,
        continuation: String? = nil
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "GET", ["task", taskID, "artifacts"], query: page(continuation, nil))
    }

    /// One page of the artifacts of a run.
    public func listArtifacts(
        _ taskID: String,
        run: Int,
        continuation: String? = nil
    ) async throws(TaskclusterError) -> JSONValue {
        let path = ["task", taskID, "runs", String(run), "artifacts"]
        return try await client.call("queue", "GET", path, query: page(continuation, nil))
    }

    /// Every artifact of the last run, or of a given one, all pages.
    public func allArtifacts(_ taskID: String, run: Int? = nil) async throws(TaskclusterError) -> [JSONValue] {
        try await client.allPages("artifacts") { (token) async throws(TaskclusterError) in
            if let run { return try await listArtifacts(taskID, run: run, continuation: token) }
            return try await listLatestArtifacts(taskID, continuation: token)
        }
    }

    /// The URL of an artifact of the last run, or of a given one; signed unless the artifact is public.
    public func artifactURL(
        _ taskID: String,
        run: Int? = nil,
        name: String,
        lifetime: Duration = .seconds(15 * 60)
    ) async -> String {
        let path = ["task", taskID] + (run.map { ["runs", String($0)] } ?? []) + ["artifacts", name]
        if name.hasPrefix("public/") { return client.url("queue", path) }
        return await client.signedURL("queue", path, lifetime: lifetime)
    }

    private func report(
        _ taskID: String,
        _ run: Int,
        _ verb: String,
        body: JSONValue? = nil
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call("queue", "POST", ["task", taskID, "runs", String(run), verb], body: body)
    }

    private func page(_ continuation: String?, _ limit: Int?) -> [(String, String)] {
        var query: [(String, String)] = []
        if let continuation { query.append(("continuationToken", continuation)) }
        if let limit { query.append(("limit", String(limit))) }
        return query
    }
}

extension TaskclusterClient {
    /// The queue's methods.
    public var queue: QueueAPI { QueueAPI(client: self) }

    /// The members of a list in every page.
    func allPages(
        _ member: String,
        _ page: (String?) async throws(TaskclusterError) -> JSONValue
    ) async throws(TaskclusterError) -> [JSONValue] {
        var result: [JSONValue] = []
        var token: String?
        repeat {
            let json = try await page(token)
            result += json[member]?.array ?? []
            token = json["continuationToken"]?.string.flatMap { $0.isEmpty ? nil : $0 }
        } while token != nil
        return result
    }
}
