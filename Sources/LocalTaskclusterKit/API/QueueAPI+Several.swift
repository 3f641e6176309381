// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Taskcluster

extension QueueAPI {
    /// Several calls of `createTask` in one request, for the services of this deployment.
    ///
    /// Not part of the published reference: clients that do not know it lose nothing, and those that do must manage without.
    var severalTasksEndpoint: Endpoint {
        Endpoint(
            .post,
            "/tasks/create",
            name: "createTasks",
            input: "v1/create-tasks-request.json",
            output: "v1/create-tasks-response.json",
            category: "Tasks",
            stability: .experimental,
            title: "Create several tasks",
            description: """
                Creates tasks as so many calls of `createTask` would, each with the scopes it is limited to, and \
                tells for each what became of it.
                """,
            publish: false,
            payloadInErrors: { _ in .object([:]) },
            handler: createSeveral
        )
    }

    /// The scopes are those of `createTask`, compared for each task.
    @Sendable private func createSeveral(_ request: APIRequest) async throws -> APIResponse {
        try await request.authenticate()
        let calls = calls(of: request)
        // Together from the start: the first one to come shall not believe that it is alone.
        store.arriving.begin(calls.count)
        defer { store.arriving.end(calls.count) }
        let answers = try await withThrowingTaskGroup(of: (Int, PartAnswer).self) { group in
            for (index, call) in calls.enumerated() {
                group.addTask { (index, try await request.perform(call)) }
            }
            var answers: [Int: PartAnswer] = [:]
            for try await (index, answer) in group { answers[index] = answer }
            return answers
        }
        var text = SplicedJSON()
        text.append("{\"results\":")
        text.append(list: calls.indices) { text, index in
            let status = answers[index]?.status ?? 500
            text.append("{\"taskId\":")
            text.append(JSONValue(calls[index].parameters["taskId"] ?? ""))
            text.append(",\"statusCode\":\(status)")
            if status >= 300, let body = answers[index]?.body, !body.isEmpty {
                text.append(",\"error\":")
                text.append(json: body)
            }
            text.append("}")
        }
        text.append("}")
        return .rawJSON(text.bytes)
    }

    private func calls(of request: APIRequest) -> [RequestPart] {
        var expanded: [[String]: [String]] = [:]
        return (request.body["tasks"]?.array ?? []).map { item in
            var scopes = request.scopes
            var refusal: APIError?
            if let limit = item["authorizedScopes"]?.array?.compactMap(\.string) {
                if let known = expanded[limit] {
                    scopes = known
                } else if limit.allSatisfy(Scope.isValid), Scope.satisfies(request.scopes, all: limit) {
                    // Expansion comes after limiting, as with the scopes that a signature is limited to.
                    scopes = directory.expand(limit + ["assume:anonymous"])
                    expanded[limit] = scopes
                } else {
                    refusal = APIError(
                        .authenticationFailed,
                        "Supplied credentials do not satisfy authorizedScopes; credentials have fewer scopes than requested"
                    )
                }
            }
            return RequestPart(
                "createTask",
                parameters: ["taskId": item["taskId"]?.string ?? ""],
                payload: item["task"] ?? .null,
                scopes: scopes,
                refusal: refusal
            )
        }
    }
}
