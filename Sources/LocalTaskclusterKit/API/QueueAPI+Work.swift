// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Logging
import Schedules
import Taskcluster

extension QueueAPI {
    var workEndpoints: [Endpoint] {
        [
            endpoint(
                .post,
                "/claim-work/<taskQueueId*>",
                "claimWork",
                scopes: .allOf(
                    .scope("queue:claim-work:<taskQueueId>"),
                    .scope("queue:worker-id:<workerGroup>/<workerId>")
                ),
                mode: .deferred,
                input: "claim-work-request",
                output: "claim-work-response",
                category: "Work",
                "Claim work",
                claimWork
            ),
            endpoint(
                .post,
                "/task/<taskId>/runs/<runId>/claim",
                "claimTask",
                scopes: .allOf(
                    .scope("queue:claim-task:<taskQueueId>"),
                    .scope("queue:worker-id:<workerGroup>/<workerId>")
                ),
                mode: .deferred,
                input: "task-claim-request",
                output: "task-claim-response",
                stability: .deprecated,
                category: "Work",
                "Claim one run",
                claimTask
            ),
            endpoint(
                .post,
                "/task/<taskId>/runs/<runId>/reclaim",
                "reclaimTask",
                scopes: .scope("queue:reclaim-task:<taskId>/<runId>"),
                output: "task-reclaim-response",
                category: "Work",
                "Extend a claim"
            ) { request in
                let claim = try await store.reclaim(taskID: request.parameter("taskId"), run: request.runID, now: now())
                activity.note(claim.status.taskQueueID, claim.worker, runs: [], now: now())
                var text = SplicedJSON()
                try append(claim, withTask: false, to: &text)
                return .rawJSON(text.bytes)
            },
            endpoint(
                .post,
                "/task/<taskId>/runs/<runId>/completed",
                "reportCompleted",
                scopes: .scope("queue:resolve-task:<taskId>/<runId>"),
                output: "task-status-response",
                category: "Work",
                "Report success"
            ) { request in
                // The oldest workers say here that they have failed.
                let isSuccess = (try? JSONValue(parsing: request.rawBody))?["success"]?.bool ?? true
                return try await report(request, isSuccess ? .completed : .failed)
            },
            endpoint(
                .post,
                "/task/<taskId>/runs/<runId>/failed",
                "reportFailed",
                scopes: .scope("queue:resolve-task:<taskId>/<runId>"),
                output: "task-status-response",
                category: "Work",
                "Report failure"
            ) { request in
                try await report(request, .failed)
            },
            endpoint(
                .post,
                "/task/<taskId>/runs/<runId>/exception",
                "reportException",
                scopes: .scope("queue:resolve-task:<taskId>/<runId>"),
                input: "task-exception-request",
                output: "task-status-response",
                category: "Work",
                "Report an exception"
            ) { request in
                let reason = request.body["reason"]?.string ?? ""
                guard let resolution = RunResolution(rawValue: reason) else {
                    throw QueueProblem(.input, "`reason` \(reason) is not known.")
                }
                return try await report(request, resolution)
            },
        ]
    }

    private func report(_ request: APIRequest, _ resolution: RunResolution) async throws -> APIResponse {
        let taskID = request.parameter("taskId")
        return .status(try await store.complete(taskID: taskID, run: request.runID, as: resolution, now: now()))
    }

    private func claimWork(_ request: APIRequest) async throws -> APIResponse {
        let queue = request.parameter("taskQueueId")
        let worker = try await apart { try await self.worker(of: request, queue: queue) }
        let count = request.body["tasks"]?.int ?? 1
        activity.note(queue, worker, runs: [], now: now())
        let claims = try await request.withDisconnect {
            try await claim(from: queue, by: worker, count)
        }
        activity.note(queue, worker, runs: claims.map { ($0.status.taskID, $0.runID) }, now: now())
        QueueMetrics.claims.increment(by: claims.count)
        if !claims.isEmpty { request.onUndelivered { await handBack(claims) } }
        var text = SplicedJSON()
        text.append("{\"tasks\":")
        var failure: (any Error)?
        text.append(list: claims) { text, claim in
            do { try append(claim, withTask: true, to: &text) } catch { failure = error }
        }
        if let failure { throw failure }
        text.append("}")
        return .rawJSON(text.bytes)
    }

    /// Waits for work; a worker in quarantine waits as long as others do and gets none.
    private func claim(from queue: String, by worker: WorkerName, _ count: Int) async throws -> [TaskClaim] {
        let end = ContinuousClock.now + claimWorkTimeout
        do {
            return try await dispatch.claim(from: queue, within: claimWorkTimeout) {
                let claims = try await undisturbed(by: queue, worker, count)
                // It must leave the line, or it would use up the wake-ups of those behind it.
                if claims.isEmpty, try await workers.isQuarantined(queue, worker, now: now()) { throw Quarantined() }
                return claims
            }
        } catch is Quarantined {
            return try await dispatch.claim(from: "quarantine", within: end - ContinuousClock.now) { [] }
        }
    }

    /// Claims without being interrupted halfway; if the worker has gone meanwhile, the claims are handed back.
    private func undisturbed(by queue: String, _ worker: WorkerName, _ count: Int) async throws -> [TaskClaim] {
        // A bridge out of the request's cancellation: a commit that nobody waits for would leave runs without a worker.
        let attempt = Task { [store, now] in
            try await store.claim(from: queue, by: worker, count: count, now: now())
        }
        let claims = try await attempt.value
        guard Task.isCancelled, !claims.isEmpty else { return claims }
        await handBack(claims)
        throw CancellationError()
    }

    /// Gives back what nobody will work on, whether or not the request was cancelled meanwhile.
    private func handBack(_ claims: [TaskClaim]) async {
        // A bridge out of the request's cancellation: what cannot be given back waits for the end of its claim.
        let back = Task { [store, now] in
            for claim in claims { try await store.handBack(claim, now: now()) }
            QueueMetrics.returned.increment(by: claims.count)
        }
        do {
            try await back.value
        } catch {
            Logger.current.warning("claims were not handed back", metadata: ["error": "\(error)"])
        }
    }

    private func claimTask(_ request: APIRequest) async throws -> APIResponse {
        let taskID = request.parameter("taskId")
        let status = try await store.status(taskID)
        let worker = try await self.worker(of: request, queue: status.taskQueueID)
        let claim = try await store.claim(taskID: taskID, run: request.runID, by: worker, now: now())
        activity.note(status.taskQueueID, worker, runs: [(taskID, request.runID)], now: now())
        var text = SplicedJSON()
        try append(claim, withTask: true, to: &text)
        return .rawJSON(text.bytes)
    }

    /// Reads who asks, and compares scopes with it.
    private func worker(of request: APIRequest, queue: String) async throws -> WorkerName {
        let worker = WorkerName(
            group: request.body["workerGroup"]?.string ?? "",
            id: request.body["workerId"]?.string ?? ""
        )
        try await request.authorize([
            "workerGroup": JSONValue(worker.group), "workerId": JSONValue(worker.id), "taskQueueId": JSONValue(queue),
        ])
        return worker
    }

    /// A claim as workers read it, with credentials that act for the run.
    private func append(_ claim: TaskClaim, withTask: Bool, to text: inout SplicedJSON) throws {
        let run = "\(claim.status.taskID)/\(claim.runID)"
        let seconds = Double(claim.takenUntil.milliseconds) / 1000
        let credentials = try credentials(
            "task-client/\(run)/on/\(claim.worker.group)/\(claim.worker.id)/until/\(seconds)",
            scopes: ["queue:reclaim-task:\(run)", "queue:resolve-task:\(run)", "queue:create-artifact:\(run)"]
                + claim.scopes,
            until: claim.takenUntil
        )
        text.append("{\"status\":")
        text.append(claim.status.json)
        text.append(",\"runId\":\(claim.runID),\"workerGroup\":")
        text.append(JSONValue(claim.worker.group))
        text.append(",\"workerId\":")
        text.append(JSONValue(claim.worker.id))
        text.append(",\"takenUntil\":")
        text.append(JSONValue(claim.takenUntil.iso8601))
        if withTask {
            text.append(",\"task\":")
            text.append(claim.definition)
        }
        text.append(",\"credentials\":")
        text.append(credentials)
        text.append("}")
    }
}

/// Leaves the line of waiting workers.
private struct Quarantined: Error {}
