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
            output: "post-artifact-response",
            category: "Artifacts",
            "Create an artifact",
            createArtifact
        )
        let finish = endpoint(
            .put,
            "/task/<taskId>/runs/<runId>/artifacts/<name*>",
            "finishArtifact",
            scopes: .scope("queue:create-artifact:<taskId>/<runId>"),
            input: "finish-artifact-request",
            category: "Artifacts",
            "Make an artifact readable whose upload is finished"
        ) { request in
            try await store.finishArtifact(
                taskID: request.parameter("taskId"),
                run: request.runID,
                name: request.parameter("name"),
                uploadID: request.body["uploadId"]?.string ?? "",
                now: now()
            )
            return .empty
        }
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
                    output: "get-artifact-response",
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
                    output: "artifact-content-response",
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
                    output: "artifact-response",
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
                    output: "list-artifacts-response",
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
        return [create, finish, severalArtifactsEndpoint] + read
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
        let (artifact, status) = try await store.createArtifact(wish, now: now)
        switch artifact.content {
        case .blob:
            guard let blobID = artifact.blobID else { throw QueueProblem(.conflict, "The artifact has no content.") }
            let expires = now + .seconds(45 * 60)
            let url = blobs.uploadURL(blobID, contentType: artifact.contentType, until: expires + .seconds(10))
            return .json([
                "storageType": "s3", "putUrl": JSONValue(url), "expires": JSONValue(expires.iso8601),
                "contentType": JSONValue(artifact.contentType),
            ])
        case .object(let projectID, let uploadID):
            let worker = status.runs[artifact.runID].worker
            let run = "\(artifact.taskID)/\(artifact.runID)"
            return .json([
                "storageType": "object", "name": JSONValue(artifact.objectName), "projectId": JSONValue(projectID),
                "uploadId": JSONValue(uploadID), "expires": JSONValue(artifact.expires.iso8601),
                "credentials": try credentials(
                    "artifact-upload/\(run)/on/\(worker?.group ?? "")/\(worker?.id ?? "")",
                    scopes: ["object:upload:\(projectID):\(artifact.objectName)"],
                    until: min(artifact.expires, now + .seconds(86_400))
                ),
            ])
        case .reference, .link, .error:
            return .json(["storageType": JSONValue(artifact.content.storageType)])
        }
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
                let expires = now() + .seconds(30 * 60)
                let url = blobs.downloadURL(blobID, contentType: artifact.contentType, until: expires)
                return answer(type, url, redirects)
            case .object:
                return try await object(artifact, redirects)
            case .reference(let url):
                return answer(type, url, redirects)
            case .error(let reason, let message):
                let body: JSONValue = ["reason": JSONValue(reason), "message": JSONValue(message)]
                guard !redirects else { return .json(body, status: 424) }
                return .json(["storageType": "error", "reason": JSONValue(reason), "message": JSONValue(message)])
            }
        }
    }

    /// Leads to the bytes of an object, or lends credentials to fetch them with.
    private func object(_ artifact: Artifact, _ redirects: Bool) async throws -> APIResponse {
        guard let object = try await objects.object(artifact.objectName, now: now()), object.isFinished else {
            throw QueueProblem(.notFound, "The content of artifact \(artifact.name) is not there.")
        }
        guard !redirects else {
            let expires = now() + .seconds(30 * 60)
            let url = blobs.downloadURL(object.blobID, contentType: object.contentType, until: expires)
            return answer("object", url, true)
        }
        return .json([
            "storageType": "object", "name": JSONValue(object.name),
            "credentials": try credentials(
                "artifact-download/\(artifact.taskID)/\(artifact.runID)",
                scopes: ["object:download:\(object.name)"],
                until: now() + .seconds(3600)
            ),
        ])
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
