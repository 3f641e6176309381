// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Schedules
import Taskcluster

extension QueueAPI {
    var artifactEndpoints: [Endpoint] {
        let create = endpoint(
            .post,
            "/task/<taskId>/runs/<runId>/artifacts/<name*>",
            "createArtifact",
            scopes: .scope("queue:create-artifact:<taskId>/<runId>"),
            input: "post-artifact-request",
            category: "Artifacts",
            "Create an artifact",
            createArtifact
        )
        let read = [("/task/<taskId>/runs/<runId>", "", true), ("/task/<taskId>", "Latest", false)].flatMap {
            path,
            word,
            hasRun in
            let listScope = hasRun ? "queue:list-artifacts:<taskId>:<runId>" : "queue:list-artifacts:<taskId>"
            return [
                endpoint(
                    .get,
                    "\(path)/artifacts/<name*>",
                    "get\(word)Artifact",
                    scopes: .allOf(.each("name", in: "names", scope: "queue:get-artifact:<name>")),
                    mode: .deferred,
                    category: "Artifacts",
                    "Get an artifact"
                ) {
                    try await content($0, run: hasRun ? $0.runID : nil, redirects: true)
                },
                endpoint(
                    .get,
                    "\(path)/artifact-content/<name*>",
                    hasRun ? "artifact" : "latestArtifact",
                    scopes: .allOf(.each("name", in: "names", scope: "queue:get-artifact:<name>")),
                    mode: .deferred,
                    category: "Artifacts",
                    "Get the content of an artifact"
                ) {
                    try await content($0, run: hasRun ? $0.runID : nil, redirects: false)
                },
                endpoint(
                    .get,
                    "\(path)/artifact-info/<name*>",
                    hasRun ? "artifactInfo" : "latestArtifactInfo",
                    scopes: .scope(listScope),
                    category: "Artifacts",
                    "Get facts about an artifact"
                ) { request in
                    let run = hasRun ? request.runID : nil
                    return .json(
                        try await store.artifact(
                            taskID: request.parameter("taskId"),
                            run: run,
                            name: request.parameter("name"),
                            now: now()
                        ).info
                    )
                },
                endpoint(
                    .get,
                    "\(path)/artifacts",
                    "list\(word)Artifacts",
                    scopes: .scope(listScope),
                    query: .paging,
                    category: "Artifacts",
                    "List artifacts"
                ) { request in
                    let page = request.page
                    let run = hasRun ? request.runID : nil
                    let rows = try await store.artifacts(
                        taskID: request.parameter("taskId"),
                        run: run,
                        after: try page.string(0),
                        limit: page.fetch,
                        now: now()
                    )
                    return .json(page.reply("artifacts", rows, columns: { [JSONValue($0.name)] }, json: \.json))
                },
            ]
        }
        return [create] + read
    }

    private func createArtifact(_ request: APIRequest) async throws -> APIResponse {
        let now = now()
        let wish = try ArtifactRules.artifact(
            taskID: request.parameter("taskId"),
            runID: request.runID,
            name: request.parameter("name"),
            request: request.body,
            now: now
        )
        let artifact = try await store.createArtifact(wish, now: now)
        guard let blobID = artifact.blobID, artifact.content == .blob else {
            return .json(["storageType": JSONValue(artifact.content.storageType)])
        }
        let expires = now + .seconds(45 * 60)
        return .json([
            "storageType": "s3", "putUrl": JSONValue(addresses.upload(blobID, until: expires + .seconds(10))),
            "expires": JSONValue(expires.iso8601), "contentType": JSONValue(artifact.contentType),
        ])
    }

    /// Follows links to the content, demanding the scope of every name on the way.
    private func content(_ request: APIRequest, run: Int?, redirects: Bool) async throws -> APIResponse {
        let taskID = request.parameter("taskId")
        var names = [request.parameter("name")]
        try await request.authorize(["names": JSONValue(names)])
        while true {
            let artifact = try await store.artifact(taskID: taskID, run: run, name: names[names.count - 1], now: now())
            let type = artifact.content.storageType
            switch artifact.content {
            case .link(let target):
                guard !names.contains(target) else {
                    throw QueueProblem(.input, "The links of artifact \(names[0]) lead back to \(target).")
                }
                names.append(target)
                try await request.authorize(["names": JSONValue(names)])
            case .blob:
                guard let blobID = artifact.blobID else {
                    throw QueueProblem(.notFound, "The artifact has no content.")
                }
                let url = addresses.download(blobID, until: now() + .seconds(30 * 60))
                return answer(type, url, redirects)
            case .reference(let url):
                return answer(type, url, redirects)
            case .error(let reason, let message):
                let body: JSONValue = ["reason": JSONValue(reason), "message": JSONValue(message)]
                guard !redirects else { return .json(body, status: 424) }
                return .json(["storageType": "error", "reason": JSONValue(reason), "message": JSONValue(message)])
            }
        }
    }

    private func answer(_ type: String, _ url: String, _ redirects: Bool) -> APIResponse {
        let body: JSONValue = ["storageType": JSONValue(type), "url": JSONValue(url)]
        guard redirects else { return .json(body) }
        return .json(
            body,
            status: 303,
            headers: ["Location": url, "x-taskcluster-artifact-storage-type": type]
        )
    }
}
