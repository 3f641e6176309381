// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Postgres
public import Schedules
import Taskcluster

/// Purge-cache: which caches workers must drop before they use them again.
public struct PurgeCacheAPI: Sendable {
    private let pool: PostgresPool
    private let now: @Sendable () -> Timestamp

    /// Keeps requests in the tables of the schema `tcl`.
    public init(pool: PostgresPool, now: @escaping @Sendable () -> Timestamp) {
        self.pool = pool
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "purge-cache",
            title: "Purge Cache",
            description: "Tells workers which caches to drop.",
            schemas: schemas,
            endpoints: [
                endpoint(
                    .post,
                    "/purge-cache/<workerPoolId*>",
                    "purgeCache",
                    .scope("purge-cache:<workerPoolId>:<cacheName>"),
                    mode: .deferred,
                    input: "purge-cache-request",
                    "Have a cache dropped",
                    purge
                ),
                endpoint(
                    .get,
                    "/purge-cache/list",
                    "allPurgeRequests",
                    .scope("purge-cache:all-purge-requests"),
                    query: .paging,
                    output: "all-purge-cache-request-list",
                    "List all requests of the last day",
                    listAll
                ),
                endpoint(
                    .get,
                    "/purge-cache/<workerPoolId*>",
                    "purgeRequests",
                    .scope("purge-cache:purge-requests::<workerPoolId>"),
                    query: ["since": .any],
                    output: "purge-cache-request-list",
                    "List the requests for one pool",
                    list
                ),
            ]
        )
    }

    private func purge(_ request: APIRequest) async throws -> APIResponse {
        let cache = request.body["cacheName"]?.string ?? ""
        try await request.authorize(["cacheName": JSONValue(cache)])
        try await pool.execute(
            """
            insert into tcl.purges (worker_pool_id, cache_name, before)
            values (\(request.parameter("workerPoolId")), \(cache), \(now()))
            on conflict (worker_pool_id, cache_name) do update set before = excluded.before
            """
        )
        return .empty
    }

    private func list(_ request: APIRequest) async throws -> APIResponse {
        let yesterday = now() - .seconds(86_400)
        var since = yesterday
        if let text = request.query["since"] {
            guard let time = Timestamp(text) else { throw QueueProblem(.input, "`since` is not a date and time.") }
            since = max(time, yesterday)
        }
        let rows = try await pool.query(
            """
            select worker_pool_id, cache_name, before from tcl.purges
            where worker_pool_id = \(request.parameter("workerPoolId")) and before >= \(since) order by cache_name
            """
        )
        return .json(["requests": .array(try rows.map(Self.json))])
    }

    private func listAll(_ request: APIRequest) async throws -> APIResponse {
        let page = request.page
        let rows = try await pool.query(
            """
            select worker_pool_id, cache_name, before from tcl.purges
            where (worker_pool_id, cache_name) > (\(try page.string(0) ?? ""), \(try page.string(0) == nil ? "" : page.string(1) ?? ""))
                and before >= \(now() - .seconds(86_400))
            order by worker_pool_id, cache_name limit \(page.fetch)
            """
        )
        return .json(
            try page.reply(
                "requests",
                rows,
                columns: { [JSONValue(try $0.string("worker_pool_id")), JSONValue(try $0.string("cache_name"))] },
                json: Self.json
            )
        )
    }

    private static func json(_ row: PostgresRow) throws -> JSONValue {
        let parts = try row.string("worker_pool_id").split(separator: "/", maxSplits: 1).map(String.init)
        return [
            "provisionerId": JSONValue(parts.first ?? ""), "workerType": JSONValue(parts.last ?? ""),
            "cacheName": JSONValue(try row.string("cache_name")),
            "before": JSONValue(try row.timestamp("before").iso8601),
        ]
    }

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        _ scopes: ScopeTemplate,
        mode: Endpoint.Mode = .automatic,
        query: [String: QueryRule] = [:],
        input: String? = nil,
        output: String? = nil,
        _ title: String,
        _ handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) -> Endpoint {
        .answering(
            method,
            route,
            name,
            scopes: scopes,
            mode: mode,
            query: query,
            parameters: ["workerPoolId": ParameterRule(Patterns.taskQueueID.regularExpression)],
            input: input,
            output: output,
            category: "Purge cache",
            title,
            handler
        )
    }
}
