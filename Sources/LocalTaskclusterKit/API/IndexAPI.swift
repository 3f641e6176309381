// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Schedules
import Taskcluster

/// The index: names for tasks that outlive them being looked for.
public struct IndexAPI: Sendable {
    private let store: IndexStore
    private let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    public init(store: IndexStore, now: @escaping @Sendable () -> Timestamp) {
        self.store = store
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "index",
            title: "Index",
            description: "Finds tasks by name.",
            schemas: schemas,
            endpoints: [
                endpoint(.get, "/task/<indexPath>", "findTask", "index:find-task:<indexPath>", "Find a task") {
                    request in
                    let path = try Self.path(request, "indexPath")
                    guard let found = try await store.task(at: path, now: now()) else {
                        throw QueueProblem(.notFound, "There is no task at \(path.text).")
                    }
                    return .json(found.json)
                },
                endpoint(
                    .put,
                    "/task/<namespace>",
                    "insertTask",
                    "index:insert-task:<namespace>",
                    "Insert a task",
                    input: "v1/insert-task-request.json"
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
                    "/tasks/<namespace>",
                    "listTasks",
                    "index:list-tasks:<namespace>",
                    "List tasks",
                    query: .paging
                ) { request in
                    let page = request.page
                    let rows = try await store.tasks(
                        in: request.parameter("namespace"),
                        after: try page.string(0),
                        limit: page.fetch,
                        now: now()
                    )
                    return .json(page.reply("tasks", rows, columns: { [JSONValue($0.path.name)] }, json: \.json))
                },
                endpoint(
                    .get,
                    "/namespaces/<namespace>",
                    "listNamespaces",
                    "index:list-namespaces:<namespace>",
                    "List namespaces",
                    query: .paging
                ) { request in
                    let page = request.page
                    let parent = request.parameter("namespace")
                    let rows = try await store.namespaces(
                        in: parent,
                        after: try page.string(0),
                        limit: page.fetch,
                        now: now()
                    )
                    return .json(
                        page.reply("namespaces", rows, columns: { [JSONValue($0.name)] }) {
                            [
                                "namespace": JSONValue("\(parent).\($0.name)"), "name": JSONValue($0.name),
                                "expires": JSONValue($0.expires.iso8601),
                            ]
                        }
                    )
                },
            ]
        )
    }

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        _ scope: String,
        _ title: String,
        query: [String: QueryRule] = [:],
        input: String? = nil,
        _ handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) -> Endpoint {
        let parameter = route.hasSuffix("<indexPath>") ? "indexPath" : "namespace"
        return Endpoint(
            method,
            route,
            name: name,
            scopes: .scope(scope),
            query: query,
            parameters: [
                parameter: ParameterRule(pattern: Patterns.indexPath.regularExpression) {
                    Patterns.indexPath.matches($0)
                }
            ],
            input: input,
            category: "Index",
            title: title,
            description: title,
            handler: { try await answering(handler, $0) }
        )
    }

    private static func path(_ request: APIRequest, _ name: String) throws -> IndexPath {
        guard let path = IndexPath(request.parameter(name)) else {
            throw QueueProblem(.input, "\(request.parameter(name)) is not an index path.")
        }
        return path
    }
}
