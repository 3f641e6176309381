// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Taskcluster

extension QueueAPI {
    var taskEndpoints: [Endpoint] {
        [
            severalTasksEndpoint,
            endpoint(
                .get,
                "/task/<taskId>",
                "task",
                scopes: .scope("queue:get-task:<taskId>"),
                output: "task",
                category: "Tasks",
                "Get a task's definition"
            ) {
                .rawJSON(Array(try await store.definition($0.parameter("taskId")).utf8))
            },
            endpoint(
                .get,
                "/task/<taskId>/status",
                "status",
                scopes: .scope("queue:status:<taskId>"),
                output: "task-status-response",
                category: "Tasks",
                "Get a task's status"
            ) {
                .status(try await store.status($0.parameter("taskId")))
            },
            endpoint(
                .post,
                "/tasks/status",
                "statuses",
                scopes: .allOf(.each("taskId", in: "taskIds", scope: "queue:status:<taskId>")),
                query: .paging,
                input: "tasks-request",
                output: "tasks-statuses-response",
                stability: .experimental,
                category: "Tasks",
                "Get the status of several tasks"
            ) { request in
                try await several(request, "statuses", "status") { $0.append($1.status.json) }
            },
            endpoint(
                .post,
                "/tasks",
                "tasks",
                scopes: .allOf(.each("taskId", in: "taskIds", scope: "queue:get-task:<taskId>")),
                query: .paging,
                input: "tasks-request",
                output: "tasks-response",
                stability: .experimental,
                category: "Tasks",
                "Get the definition of several tasks"
            ) { request in
                try await several(request, "tasks", "task") { $0.append($1.definition) }
            },
            endpoint(
                .put,
                "/task/<taskId>",
                "createTask",
                scopes: Self.creationScopes,
                mode: .deferred,
                input: "create-task-request",
                output: "task-status-response",
                category: "Tasks",
                "Create a task",
                create
            ),
            endpoint(
                .post,
                "/task/<taskId>/schedule",
                "scheduleTask",
                scopes: Self.scopes(for: "schedule"),
                mode: .deferred,
                output: "task-status-response",
                category: "Tasks",
                "Schedule a task"
            ) {
                try await change($0) { try await store.scheduleTask($0, now: now()) }
            },
            endpoint(
                .post,
                "/task/<taskId>/rerun",
                "rerunTask",
                scopes: Self.scopes(for: "rerun"),
                mode: .deferred,
                output: "task-status-response",
                category: "Tasks",
                "Run a task again"
            ) {
                try await change($0) { try await store.rerunTask($0, now: now()) }
            },
            endpoint(
                .post,
                "/task/<taskId>/cancel",
                "cancelTask",
                scopes: Self.scopes(for: "cancel"),
                mode: .deferred,
                output: "task-status-response",
                category: "Tasks",
                "Cancel a task"
            ) {
                try await change($0) { try await store.cancelTask($0, now: now()) }
            },
            endpoint(
                .post,
                "/task/<taskId>/priority",
                "changeTaskPriority",
                scopes: .anyOf(
                    .scope("queue:change-task-priority:<taskId>"),
                    .scope("queue:change-task-priority-in-queue:<taskQueueId>")
                ),
                mode: .deferred,
                input: "change-task-priority-request",
                output: "task-status-response",
                stability: .experimental,
                category: "Tasks",
                "Change a task's priority"
            ) { request in
                let priority = TaskPriority(name: request.body["newPriority"]?.string ?? "") ?? .lowest
                return try await change(request) { try await store.changePriority(of: $0, to: priority, now: now()) }
            },
            endpoint(
                .get,
                "/task/<taskId>/dependents",
                "listDependentTasks",
                scopes: .scope("queue:list-dependent-tasks:<taskId>"),
                query: .paging,
                output: "list-dependent-tasks-response",
                category: "Tasks",
                "List the tasks that depend on one"
            ) { request in
                let taskID = request.parameter("taskId")
                _ = try await store.status(taskID)
                let page = request.page
                let rows = try await store.tasks(dependingOn: taskID, after: try page.string(0), limit: page.fetch)
                return listing(rows, page, ["taskId": JSONValue(taskID)])
            },
        ]
    }

    // MARK: - Handlers

    private static let creationScopes: ScopeTemplate = .allOf(
        .each("scope", in: "scopes", scope: "<scope>"),
        .each("route", in: "routes", scope: "queue:route:<route>"),
        .scope("queue:create-task:project:<projectId>"),
        .scope("queue:scheduler-id:<schedulerId>"),
        .anyOf(.each("priority", in: "priorities", scope: "queue:create-task:<priority>:<taskQueueId>"))
    )

    private static func scopes(for verb: String) -> ScopeTemplate {
        .anyOf(
            .scope("queue:\(verb)-task:<schedulerId>/<taskGroupId>/<taskId>"),
            .scope("queue:\(verb)-task-in-project:<projectId>"),
            .allOf(.scope("queue:\(verb)-task"), .scope("assume:scheduler-id:<schedulerId>/<taskGroupId>"))
        )
    }

    private func create(_ request: APIRequest) async throws -> APIResponse {
        let task = try TaskDefinition(taskID: request.parameter("taskId"), request: request.body)
        try limits.checkSize(task)
        try await request.authorize([
            "scopes": JSONValue(task.scopes), "routes": JSONValue(task.routes), "projectId": JSONValue(task.projectID),
            "schedulerId": JSONValue(task.schedulerID), "taskQueueId": JSONValue(task.taskQueueID),
            "priorities": JSONValue(task.priority.sufficient.map(\.name)),
        ])
        let now = now()
        try limits.check(task, now: now)
        return .status(try await store.createTask(task, now: now))
    }

    /// Looks a task up, compares scopes with it, and changes it.
    private func change(
        _ request: APIRequest,
        _ body: (String) async throws -> TaskStatus
    ) async throws -> APIResponse {
        let status = try await store.status(request.parameter("taskId"))
        try await request.authorize([
            "schedulerId": JSONValue(status.schedulerID), "taskGroupId": JSONValue(status.taskGroupID),
            "projectId": JSONValue(status.projectID), "taskQueueId": JSONValue(status.taskQueueID),
        ])
        return .status(try await body(status.taskID))
    }

    /// Something about each of the named tasks that exist; sent as text, because definitions are text already.
    private func several(
        _ request: APIRequest,
        _ list: String,
        _ member: String,
        _ value: (inout SplicedJSON, TaskListing) -> Void
    ) async throws -> APIResponse {
        let ids = request.body["taskIds"]?.array?.compactMap(\.string) ?? []
        try await request.authorize(["taskIds": JSONValue(ids)])
        let page = request.page
        let start = min(max(try page.int(0) ?? 0, 0), ids.count)
        let end = min(start + page.limit, ids.count)
        let rows = try await store.tasks(Array(ids[start..<end]))
        var text = SplicedJSON()
        text.append("{\"\(list)\":")
        text.append(list: rows) { text, row in
            text.append("{\"taskId\":")
            text.append(JSONValue(row.status.taskID))
            text.append(",\"\(member)\":")
            value(&text, row)
            text.append("}")
        }
        // There is another page if there are more names, however many of these tasks exist.
        if end < ids.count {
            text.append(",\"continuationToken\":")
            text.append(JSONValue(Continuation.encode([JSONValue(end)])))
        }
        text.append("}")
        return .rawJSON(text.bytes)
    }

    /// `head` and the tasks of a page.
    func listing(_ rows: [TaskListing], _ page: PageRequest, _ head: JSONObject) -> APIResponse {
        let shown = rows.prefix(page.limit)
        var text = SplicedJSON()
        text.append("{")
        for (key, value) in head {
            text.append(JSONValue(key))
            text.append(":")
            text.append(value)
            text.append(",")
        }
        if rows.count > page.limit, let last = shown.last {
            text.append("\"continuationToken\":")
            text.append(JSONValue(Continuation.encode([JSONValue(last.status.taskID)])))
            text.append(",")
        }
        text.append("\"tasks\":")
        text.append(list: shown) { $0.append($1) }
        text.append("}")
        return .rawJSON(text.bytes)
    }
}

extension APIResponse {
    /// The usual answer of the queue.
    ///
    /// Sent as text: a status is made by one function only, and checking it against its schema would cost more than the
    /// transaction that it reports.
    static func status(_ status: TaskStatus) -> APIResponse {
        .rawJSON(JSONValue.object(["status": status.json]).bytes())
    }
}
