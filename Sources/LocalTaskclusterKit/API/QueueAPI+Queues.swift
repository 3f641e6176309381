// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Schedules
import Taskcluster

extension QueueAPI {
    var queueEndpoints: [Endpoint] {
        [
            endpoint(
                .get,
                "/pending/<taskQueueId*>",
                "pendingTasks",
                scopes: .scope("queue:pending-count:<taskQueueId>"),
                output: "pending-tasks-response",
                stability: .deprecated,
                category: "Task queues",
                "Count pending tasks"
            ) { request in
                .json(try await counts(request.parameter("taskQueueId"), withClaimed: false))
            },
            endpoint(
                .get,
                "/task-queues/<taskQueueId*>/counts",
                "taskQueueCounts",
                scopes: .allOf(
                    .scope("queue:pending-count:<taskQueueId>"),
                    .scope("queue:claimed-count:<taskQueueId>")
                ),
                output: "task-queue-counts-response",
                category: "Task queues",
                "Count pending and claimed tasks"
            ) { request in
                .json(try await counts(request.parameter("taskQueueId"), withClaimed: true))
            },
            endpoint(
                .post,
                "/task-queues/counts",
                "taskQueueCountsBatch",
                scopes: .allOf(
                    .each("taskQueueId", in: "taskQueueIds", scope: "queue:pending-count:<taskQueueId>"),
                    .each("taskQueueId", in: "taskQueueIds", scope: "queue:claimed-count:<taskQueueId>")
                ),
                mode: .deferred,
                input: "task-queue-counts-request",
                output: "task-queue-counts-list-response",
                stability: .experimental,
                category: "Task queues",
                "Count pending and claimed tasks of several queues"
            ) { request in
                let ids = request.strings("taskQueueIds")
                try await request.authorize(["taskQueueIds": JSONValue(ids)])
                let counts = try await store.counts(ids, now: now())
                return .json(["taskQueueCounts": .array(counts.map { Self.json($0, withClaimed: true) })])
            },
            endpoint(
                .get,
                "/task-queues/<taskQueueId*>/pending",
                "listPendingTasks",
                scopes: .scope("queue:pending-list:<taskQueueId>"),
                query: .paging,
                output: "list-pending-tasks-response",
                stability: .experimental,
                category: "Task queues",
                "List pending tasks"
            ) { request in
                let page = request.page
                let rows = try await store.pending(
                    request.parameter("taskQueueId"),
                    after: try page.int(0),
                    limit: page.fetch,
                    now: now()
                )
                return .json(
                    try page.reply("tasks", rows, columns: \.position) { row in
                        [
                            "taskId": JSONValue(row.taskID), "runId": JSONValue(row.runID),
                            "task": try JSONValue(parsing: row.definition), "inserted": JSONValue(row.since.iso8601),
                        ]
                    }
                )
            },
            endpoint(
                .get,
                "/task-queues/<taskQueueId*>/claimed",
                "listClaimedTasks",
                scopes: .scope("queue:claimed-list:<taskQueueId>"),
                query: .paging,
                output: "list-claimed-tasks-response",
                stability: .experimental,
                category: "Task queues",
                "List claimed tasks"
            ) { request in
                let page = request.page
                let last: (claimed: String, taskID: String)? =
                    if let time = try page.string(0), let id = try page.string(1) { (time, id) } else { nil }
                let rows = try await store.claimed(request.parameter("taskQueueId"), after: last, limit: page.fetch)
                return .json(
                    try page.reply("tasks", rows, columns: \.position) { row in
                        [
                            "taskId": JSONValue(row.taskID), "runId": JSONValue(row.runID),
                            "workerGroup": JSONValue(row.worker?.group ?? ""),
                            "workerId": JSONValue(row.worker?.id ?? ""),
                            "claimed": JSONValue(row.since.iso8601), "task": try JSONValue(parsing: row.definition),
                        ]
                    }
                )
            },
        ]
    }

    private func counts(_ taskQueueID: String, withClaimed: Bool) async throws -> JSONValue {
        guard let counts = try await store.counts([taskQueueID], now: now()).first else {
            throw QueueProblem(.notFound, "There are no counts of \(taskQueueID).")
        }
        return Self.json(counts, withClaimed: withClaimed)
    }

    private static func json(_ counts: QueueCounts, withClaimed: Bool) -> JSONValue {
        let parts = counts.taskQueueID.split(separator: "/").map(String.init)
        var answer: JSONValue = [
            "provisionerId": JSONValue(parts.first ?? ""), "workerType": JSONValue(parts.last ?? ""),
            "taskQueueId": JSONValue(counts.taskQueueID), "pendingTasks": JSONValue(counts.pending),
        ]
        if withClaimed { answer["claimedTasks"] = JSONValue(counts.claimed) }
        return answer
    }
}
