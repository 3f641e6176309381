// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Schedules
import Taskcluster

extension QueueAPI {
    var workerEndpoints: [Endpoint] {
        taskQueueRecords + provisionerRecords + workerTypeRecords + workerRecords
    }

    private var taskQueueRecords: [Endpoint] {
        [
            endpoint(
                .get,
                "/task-queues",
                "listTaskQueues",
                scopes: .scope("queue:list-task-queues"),
                query: .paging,
                output: "list-taskqueues-response",
                category: "Worker metadata",
                "List task queues"
            ) { request in
                let page = request.page
                try await activity.flush()
                let rows = try await workers.queues(after: try page.string(0), limit: page.fetch, now: now())
                return .json(page.reply("taskQueues", rows, columns: { [JSONValue($0.taskQueueID)] }, json: \.json))
            },
            endpoint(
                .get,
                "/task-queues/<taskQueueId>",
                "getTaskQueue",
                scopes: .scope("queue:get-task-queue:<taskQueueId>"),
                output: "taskqueue-response",
                category: "Worker metadata",
                "Get a task queue"
            ) { request in
                try await activity.flush()
                let queue = try await workers.queue(request.parameter("taskQueueId"), now: now())
                return .json(try await withActions(queue.json, queue.provisionerID, "worker-type"))
            },
        ]
    }

    private var provisionerRecords: [Endpoint] {
        [
            endpoint(
                .get,
                "/provisioners",
                "listProvisioners",
                scopes: .scope("queue:list-provisioners"),
                query: .paging,
                output: "list-provisioners-response",
                category: "Worker metadata",
                "List provisioners"
            ) { request in
                let page = request.page
                try await activity.flush()
                let rows = try await workers.provisioners(after: try page.string(0), limit: page.fetch, now: now())
                return .json(
                    page.reply("provisioners", rows, columns: { [JSONValue($0.provisionerID)] }) { row in
                        var json = row.json
                        json["actions"] = row.actions(for: "provisioner")
                        return json
                    }
                )
            },
            endpoint(
                .get,
                "/provisioners/<provisionerId>",
                "getProvisioner",
                scopes: .scope("queue:get-provisioner:<provisionerId>"),
                output: "provisioner-response",
                category: "Worker metadata",
                "Get a provisioner"
            ) { request in
                try await activity.flush()
                return .json(try await workers.provisioner(request.parameter("provisionerId"), now: now()).json)
            },
            endpoint(
                .put,
                "/provisioners/<provisionerId>",
                "declareProvisioner",
                scopes: .allOf(
                    .each("property", in: "properties", scope: "queue:declare-provisioner:<provisionerId>#<property>")
                ),
                mode: .deferred,
                input: "update-provisioner-request",
                output: "provisioner-response",
                category: "Worker metadata",
                "Declare a provisioner and its actions"
            ) { request in
                try await request.authorize(["properties": Self.properties(request)])
                let provisionerID = request.parameter("provisionerId")
                try await workers.declare(provisioner: provisionerID, request.body, now: now())
                return .json(try await workers.provisioner(provisionerID, now: now()).json)
            },
        ]
    }

    private var workerTypeRecords: [Endpoint] {
        [
            endpoint(
                .get,
                "/provisioners/<provisionerId>/worker-types",
                "listWorkerTypes",
                scopes: .scope("queue:list-worker-types:<provisionerId>"),
                query: .paging,
                output: "list-workertypes-response",
                category: "Worker metadata",
                "List the worker types of a provisioner"
            ) { request in
                let page = request.page
                try await activity.flush()
                let rows = try await workers.queues(
                    of: request.parameter("provisionerId"),
                    after: try page.string(0),
                    limit: page.fetch,
                    now: now()
                )
                return .json(
                    page.reply("workerTypes", rows, columns: { [JSONValue($0.taskQueueID)] }, json: \.workerTypeJSON)
                )
            },
            endpoint(
                .get,
                "/provisioners/<provisionerId>/worker-types/<workerType>",
                "getWorkerType",
                scopes: .scope("queue:get-worker-type:<provisionerId>/<workerType>"),
                output: "workertype-response",
                category: "Worker metadata",
                "Get a worker type"
            ) { request in
                try await activity.flush()
                let queue = try await workers.queue(Self.queueID(request), now: now())
                return .json(try await withActions(queue.workerTypeJSON, queue.provisionerID, "worker-type"))
            },
            endpoint(
                .put,
                "/provisioners/<provisionerId>/worker-types/<workerType>",
                "declareWorkerType",
                scopes: .allOf(
                    .each(
                        "property",
                        in: "properties",
                        scope: "queue:declare-worker-type:<provisionerId>/<workerType>#<property>"
                    )
                ),
                mode: .deferred,
                input: "update-workertype-request",
                output: "workertype-response",
                stability: .deprecated,
                category: "Worker metadata",
                "Declare a worker type"
            ) { request in
                try await request.authorize(["properties": Self.properties(request)])
                let queueID = try Self.validQueueID(request)
                try await workers.declare(queue: queueID, request.body, now: now())
                let queue = try await workers.queue(queueID, now: now())
                return .json(try await withActions(queue.workerTypeJSON, queue.provisionerID, "worker-type"))
            },
        ]
    }

    private var workerRecords: [Endpoint] {
        let route = "/provisioners/<provisionerId>/worker-types/<workerType>"
        return [
            endpoint(
                .get,
                "\(route)/workers",
                "listWorkers",
                scopes: .scope("queue:list-workers:<provisionerId>/<workerType>"),
                query: ["continuationToken": .continuationToken, "limit": .limit, "quarantined": "^(true|false)$"],
                output: "list-workers-response",
                category: "Worker metadata",
                "List the workers of a queue",
                listWorkers
            ),
            endpoint(
                .get,
                "\(route)/workers/<workerGroup>/<workerId>",
                "getWorker",
                scopes: .scope("queue:get-worker:<provisionerId>/<workerType>/<workerGroup>/<workerId>"),
                output: "worker-response",
                category: "Worker metadata",
                "Get a worker"
            ) { request in
                try await activity.flush()
                return try await answer(
                    try await workers.worker(Self.queueID(request), Self.workerName(request), now: now())
                )
            },
            endpoint(
                .put,
                "\(route)/workers/<workerGroup>/<workerId>",
                "quarantineWorker",
                scopes: .scope("queue:quarantine-worker:<provisionerId>/<workerType>/<workerGroup>/<workerId>"),
                input: "quarantine-worker-request",
                output: "worker-response",
                category: "Worker metadata",
                "Keep a worker from getting work",
                quarantine
            ),
            endpoint(
                .put,
                "\(route)/<workerGroup>/<workerId>",
                "declareWorker",
                scopes: .allOf(
                    .each(
                        "property",
                        in: "properties",
                        scope:
                            "queue:declare-worker:<provisionerId>/<workerType>/<workerGroup>/<workerId>#<property>"
                    )
                ),
                mode: .deferred,
                input: "update-worker-request",
                output: "worker-response",
                category: "Worker metadata",
                "Declare a worker"
            ) { request in
                try await request.authorize(["properties": Self.properties(request)])
                let expires = request.body["expires"]?.string.flatMap { Timestamp($0) }
                let queueID = try Self.validQueueID(request)
                let name = Self.workerName(request)
                return try await answer(try await workers.declare(queueID, name, expires: expires, now: now()))
            },
        ]
    }

    private func listWorkers(_ request: APIRequest) async throws -> APIResponse {
        let page = request.page
        let last: WorkerName? =
            if let group = try page.string(0), let id = try page.string(1) { WorkerName(group: group, id: id) } else {
                nil
            }
        try await activity.flush()
        let moment = now()
        let rows = try await workers.workers(
            Self.queueID(request),
            quarantined: request.query["quarantined"].map { $0 == "true" },
            after: last,
            limit: page.fetch,
            now: moment
        )
        return .json(
            page.reply("workers", rows, columns: { [JSONValue($0.name.group), JSONValue($0.name.id)] }) {
                $0.listing(now: moment)
            }
        )
    }

    private func quarantine(_ request: APIRequest) async throws -> APIResponse {
        guard let until = request.body["quarantineUntil"]?.string.flatMap({ Timestamp($0) }) else {
            throw QueueProblem(.input, "`quarantineUntil` is not a date and time.")
        }
        // The worker may have shown up a moment ago.
        try await activity.flush()
        let record = try await workers.quarantine(
            Self.queueID(request),
            Self.workerName(request),
            until: until,
            why: request.body["quarantineInfo"]?.string,
            by: request.author,
            now: now()
        )
        return try await answer(record)
    }

    // MARK: - Parts

    private func answer(_ record: WorkerRecord) async throws -> APIResponse {
        let provisionerID = String(record.taskQueueID.prefix { $0 != "/" })
        return .json(record.json(actions: try await actions(of: provisionerID, "worker")))
    }

    private func withActions(_ json: JSONValue, _ provisionerID: String, _ context: String) async throws -> JSONValue {
        var json = json
        json["actions"] = try await actions(of: provisionerID, context)
        return json
    }

    /// What people may do to the machines of a provisioner; nothing if nobody declared it.
    private func actions(of provisionerID: String, _ context: String) async throws -> JSONValue {
        do {
            return try await workers.provisioner(provisionerID, now: now()).actions(for: context)
        } catch let problem as QueueProblem where problem.code == .notFound {
            return []
        }
    }

    private static func properties(_ request: APIRequest) -> JSONValue {
        JSONValue(request.body.object.map { Array($0.keys) } ?? [])
    }

    private static func queueID(_ request: APIRequest) -> String {
        "\(request.parameter("provisionerId"))/\(request.parameter("workerType"))"
    }

    /// The pattern of a worker type alone is laxer than that of one inside the name of a queue.
    private static func validQueueID(_ request: APIRequest) throws -> String {
        let id = queueID(request)
        guard TaskQueueID(id) != nil else { throw QueueProblem(.input, "\(id) is not the name of a task queue.") }
        return id
    }

    private static func workerName(_ request: APIRequest) -> WorkerName {
        WorkerName(group: request.parameter("workerGroup"), id: request.parameter("workerId"))
    }
}
