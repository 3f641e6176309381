// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Schedules
import Taskcluster

/// The little of worker-manager that matters where workers are started by hand.
public struct WorkerManagerAPI: Sendable {
    private let store: QueueStore
    private let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    public init(store: QueueStore, now: @escaping @Sendable () -> Timestamp) {
        self.store = store
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        let rule = ParameterRule(Patterns.taskQueueID.regularExpression)
        let worker: [String: ParameterRule] = [
            "workerPoolId": rule, "workerGroup": "^[a-zA-Z0-9-_]{1,38}$", "workerId": "^[a-zA-Z0-9-_]{1,38}$",
        ]
        return API(
            service: "worker-manager",
            title: "Worker Manager",
            description: "Manages no worker pools, and says so.",
            schemas: schemas,
            endpoints: [
                Endpoint(
                    .get,
                    "/workers/<workerPoolId>/<workerGroup>/<workerId>/should-terminate",
                    name: "shouldWorkerTerminate",
                    scopes: .scope("worker-manager:should-worker-terminate:<workerPoolId>/<workerGroup>/<workerId>"),
                    parameters: worker,
                    output: "v1/should-worker-terminate-response.json",
                    category: "Workers",
                    stability: .experimental,
                    title: "Ask whether a worker should go",
                    description: "Workers started by hand stay until somebody stops them.",
                    handler: { _ in .json(["terminate": false, "reason": "local"]) }
                ),
                Endpoint(
                    .get,
                    "/worker-pools",
                    name: "listWorkerPools",
                    scopes: .scope("worker-manager:list-worker-pools"),
                    query: .paging,
                    output: "v1/worker-pool-list.json",
                    category: "Worker pools",
                    title: "List worker pools",
                    description: "There are none.",
                    handler: { _ in .json(["workerPools": []]) }
                ),
                Endpoint(
                    .delete,
                    "/workers/<workerPoolId>/<workerGroup>/<workerId>",
                    name: "removeWorker",
                    scopes: .scope("worker-manager:remove-worker:<workerPoolId>/<workerGroup>/<workerId>"),
                    parameters: worker,
                    category: "Workers",
                    title: "Give up on a worker",
                    description: "What it was running ends as `worker-shutdown` at once and is tried again elsewhere.",
                    handler: remove
                ),
            ]
        )
    }

    private func remove(_ request: APIRequest) async throws -> APIResponse {
        let name = WorkerName(group: request.parameter("workerGroup"), id: request.parameter("workerId"))
        while try await store.abandon(worker: name, of: request.parameter("workerPoolId"), now: now()) == 32 {}
        return .empty
    }
}
