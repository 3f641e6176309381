// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Taskcluster

extension QueueAPI {
    var groupEndpoints: [Endpoint] {
        [
            endpoint(
                .get,
                "/task-group/<taskGroupId>",
                "getTaskGroup",
                scopes: .scope("queue:list-task-group:<taskGroupId>"),
                output: "task-group-response",
                category: "Task groups",
                "Get a task group"
            ) {
                .json(.object(try await store.group($0.parameter("taskGroupId")).json))
            },
            endpoint(
                .get,
                "/task-group/<taskGroupId>/list",
                "listTaskGroup",
                scopes: .scope("queue:list-task-group:<taskGroupId>"),
                query: .paging,
                output: "list-task-group-response",
                category: "Task groups",
                "List the tasks of a group"
            ) { request in
                let group = try await store.group(request.parameter("taskGroupId"))
                let page = request.page
                let rows = try await store.tasks(
                    inGroup: group.taskGroupID,
                    after: try page.string(0),
                    limit: page.fetch
                )
                return listing(rows, page, group.json)
            },
            endpoint(
                .post,
                "/task-group/<taskGroupId>/seal",
                "sealTaskGroup",
                scopes: .scope("queue:seal-task-group:<schedulerId>/<taskGroupId>"),
                mode: .deferred,
                output: "task-group-response",
                stability: .experimental,
                category: "Task groups",
                "Seal a task group"
            ) { request in
                let group = try await store.group(request.parameter("taskGroupId"))
                try await request.authorize(["schedulerId": JSONValue(group.schedulerID)])
                return .json(.object(try await store.sealGroup(group.taskGroupID, now: now()).json))
            },
            endpoint(
                .post,
                "/task-group/<taskGroupId>/cancel",
                "cancelTaskGroup",
                scopes: .scope("queue:cancel-task-group:<schedulerId>/<taskGroupId>"),
                mode: .deferred,
                output: "cancel-task-group-response",
                stability: .experimental,
                category: "Task groups",
                "Cancel a sealed task group",
                cancelGroup
            ),
            endpoint(
                .post,
                "/task-group/<taskGroupId>/priority",
                "changeTaskGroupPriority",
                scopes: .scope("queue:change-task-group-priority:<schedulerId>/<taskGroupId>"),
                mode: .deferred,
                input: "change-task-priority-request",
                output: "task-group-priority-change-response",
                stability: .experimental,
                category: "Task groups",
                "Change the priority of a group's open tasks",
                changeGroupPriority
            ),
        ]
    }

    // MARK: - Handlers

    private func cancelGroup(_ request: APIRequest) async throws -> APIResponse {
        let group = try await store.group(request.parameter("taskGroupId"))
        try await request.authorize(["schedulerId": JSONValue(group.schedulerID)])
        guard group.sealed != nil else {
            throw QueueProblem(.conflict, "Task group \(group.taskGroupID) must be sealed before it is cancelled.")
        }
        var open = try await store.unresolvedTasks(inGroup: group.taskGroupID)[...]
        var cancelled: [String] = []
        while !open.isEmpty {
            cancelled += try await store.cancelTasks(Array(open.prefix(200)), now: now())
            open = open.dropFirst(200)
        }
        return .json([
            "taskGroupId": JSONValue(group.taskGroupID),
            "taskGroupSize": JSONValue(try await store.groupSize(group.taskGroupID)),
            "cancelledCount": JSONValue(cancelled.count), "taskIds": JSONValue(cancelled),
        ])
    }

    private func changeGroupPriority(_ request: APIRequest) async throws -> APIResponse {
        let group = try await store.group(request.parameter("taskGroupId"))
        try await request.authorize(["schedulerId": JSONValue(group.schedulerID)])
        guard let priority = TaskPriority(name: request.body["newPriority"]?.string ?? "") else {
            throw QueueProblem(.input, "`newPriority` is not known.")
        }
        var changed: [String] = []
        var last = ""
        while true {
            let ids = try await store.unresolvedTasks(inGroup: group.taskGroupID, after: last, limit: 200)
            guard let end = ids.last else { break }
            changed += try await store.changePriorities(of: ids, to: priority, now: now())
            last = end
        }
        try await store.announcePriority(priority, of: group, affected: changed.count)
        return .json([
            "taskGroupId": JSONValue(group.taskGroupID), "schedulerId": JSONValue(group.schedulerID),
            "newPriority": JSONValue(priority.name), "tasksAffected": JSONValue(changed.count),
            "taskIds": JSONValue(changed),
        ])
    }
}
