// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Schedules
import Taskcluster

/// The index: names for tasks that outlive them being looked for.
public struct IndexAPI: Sendable {
    private let store: IndexStore
    private let directory: DirectoryStore
    private let rootURL: String
    private let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    public init(
        store: IndexStore,
        directory: DirectoryStore,
        rootURL: String,
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.store = store
        self.directory = directory
        self.rootURL = rootURL.hasSuffix("/") ? String(rootURL.dropLast()) : rootURL
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "index",
            title: "Index",
            description: "Finds tasks by name.",
            schemas: schemas,
            endpoints: taskEndpoints + listEndpoints
        )
    }

    private var taskEndpoints: [Endpoint] {
        [
            endpoint(
                .get,
                "/task/<indexPath>",
                "findTask",
                "index:find-task:<indexPath>",
                "Find a task",
                output: "indexed-task-response"
            ) { request in
                .json(try await find(request).json)
            },
            endpoint(
                .put,
                "/task/<namespace>",
                "insertTask",
                "index:insert-task:<namespace>",
                "Insert a task",
                input: "insert-task-request",
                output: "indexed-task-response"
            ) { request in
                let entry = IndexedTask(
                    path: try Self.path(request, "namespace"),
                    taskID: request.body["taskId"]?.string ?? "",
                    rank: request.body["rank"]?.double ?? 0,
                    data: request.body["data"] ?? .object([:]),
                    expires: request.body["expires"]?.string.flatMap { Timestamp($0) } ?? now()
                )
                return .json(try await store.insert(entry).json)
            },
            endpoint(.delete, "/task/<namespace>", "deleteTask", "index:delete-task:<namespace>", "Remove a task") {
                request in
                try await store.remove(try Self.path(request, "namespace"))
                return .json(.object([:]))
            },
            endpoint(
                .get,
                "/task/<indexPath>/artifacts/<name*>",
                "findArtifactFromTask",
                "queue:get-artifact:<name>",
                "Find an artifact of a task",
                findArtifact
            ),
            Endpoint(
                .post,
                "/tasks/indexes",
                name: "findTasksAtIndex",
                scopes: .allOf(.each("indexPath", in: "indexes", scope: "index:find-task:<indexPath>")),
                authorization: .deferred,
                query: .paging,
                input: "v1/list-tasks-at-index.json",
                output: "v1/list-tasks-response.json",
                category: "Index",
                stability: .experimental,
                title: "Find tasks at several paths",
                description: "Find tasks at several paths",
                handler: { try await answering(findSeveral, $0) }
            ),
        ]
    }

    private var listEndpoints: [Endpoint] {
        [true, false].flatMap { isRoot in
            [
                endpoint(
                    .get,
                    isRoot ? "/tasks" : "/tasks/<namespace>",
                    "listTasks",
                    isRoot ? "index:list-tasks:" : "index:list-tasks:<namespace>",
                    "List the tasks directly in a namespace",
                    query: .paging,
                    output: "list-tasks-response",
                    publish: !isRoot
                ) { request in
                    let page = request.page
                    let rows = try await store.tasks(
                        in: isRoot ? "" : request.parameter("namespace"),
                        after: try page.string(0),
                        limit: page.fetch,
                        now: now()
                    )
                    return .json(page.reply("tasks", rows, columns: { [JSONValue($0.path.name)] }, json: \.json))
                },
                endpoint(
                    .get,
                    isRoot ? "/namespaces" : "/namespaces/<namespace>",
                    "listNamespaces",
                    isRoot ? "index:list-namespaces:" : "index:list-namespaces:<namespace>",
                    "List the namespaces directly in a namespace",
                    query: .paging,
                    output: "list-namespaces-response",
                    publish: !isRoot
                ) { request in
                    try await listNamespaces(in: isRoot ? "" : request.parameter("namespace"), request.page)
                },
            ]
        }
    }

    // MARK: - Handlers

    private func find(_ request: APIRequest) async throws -> IndexedTask {
        let path = try Self.path(request, "indexPath")
        guard let found = try await store.task(at: path, now: now()) else {
            throw QueueProblem(.notFound, "There is no task at \(path.text).")
        }
        return found
    }

    private func findSeveral(_ request: APIRequest) async throws -> APIResponse {
        let texts = request.strings("indexes")
        try await request.authorize(["indexes": JSONValue(texts)])
        let paths = try texts.map { text throws(QueueProblem) in
            guard let path = IndexPath(text) else { throw QueueProblem(.input, "\(text) is not an index path.") }
            return path
        }
        let page = request.page
        let start = min(max(try page.int(0) ?? 0, 0), paths.count)
        let end = min(start + page.limit, paths.count)
        var answer: JSONValue = [
            "tasks": .array(try await store.tasks(at: Array(paths[start..<end]), now: now()).map(\.json))
        ]
        if end < paths.count { answer["continuationToken"] = JSONValue(Continuation.encode([JSONValue(end)])) }
        return .json(answer)
    }

    /// Leads to the artifact of the task's last run; to a private one with a signature that is good for this alone.
    private func findArtifact(_ request: APIRequest) async throws -> APIResponse {
        let task = try await find(request)
        let name = request.parameter("name")
        let plain = "\(rootURL)/api/queue/v1/task/\(task.taskID)/artifacts/\(PathSegment.encoded(name))"
        var url = plain
        if !name.hasPrefix("public/") {
            guard let issuer = directory.issuer else {
                throw APIError(.internalServerError, "The index is still starting.")
            }
            let signed = Hawk.signedURL(
                plain,
                credentials: issuer,
                authorizedScopes: ["queue:get-artifact:\(name)"],
                now: now()
            )
            url = signed ?? plain
        }
        return .json(["url": JSONValue(url)], status: 303, headers: ["Location": url])
    }

    private func listNamespaces(in parent: String, _ page: PageRequest) async throws -> APIResponse {
        let rows = try await store.namespaces(in: parent, after: try page.string(0), limit: page.fetch, now: now())
        return .json(
            page.reply("namespaces", rows, columns: { [JSONValue($0.name)] }) {
                [
                    "namespace": JSONValue(parent.isEmpty ? $0.name : "\(parent).\($0.name)"),
                    "name": JSONValue($0.name), "expires": JSONValue($0.expires.iso8601),
                ]
            }
        )
    }

    // MARK: - Parts

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        _ scope: String,
        _ title: String,
        query: [String: QueryRule] = [:],
        input: String? = nil,
        output: String? = nil,
        publish: Bool = true,
        _ handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) -> Endpoint {
        let path = ParameterRule(pattern: Patterns.indexPath.regularExpression) { Patterns.indexPath.matches($0) }
        return .answering(
            method,
            route,
            name,
            scopes: .scope(scope),
            query: query,
            parameters: ["indexPath": path, "namespace": path],
            input: input,
            output: output,
            category: "Index",
            publish: publish,
            title,
            handler
        )
    }

    private static func path(_ request: APIRequest, _ name: String) throws -> IndexPath {
        guard let path = IndexPath(request.parameter(name)) else {
            throw QueueProblem(.input, "\(request.parameter(name)) is not an index path.")
        }
        return path
    }
}
