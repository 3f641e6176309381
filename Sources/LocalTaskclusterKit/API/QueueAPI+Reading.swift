// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Taskcluster

extension QueueAPI {
    /// Several small artifacts in one answer, for workers that verify what a task rests on.
    ///
    /// Not part of the published reference, like the creation of several tasks. It tells nothing but contents: whoever misses one asks for it by
    /// itself and learns why.
    var severalArtifactsEndpoint: Endpoint {
        Endpoint(
            .post,
            "/artifacts/read",
            name: "readArtifacts",
            input: "v1/read-artifacts-request.json",
            output: "v1/read-artifacts-response.json",
            category: "Artifacts",
            stability: .experimental,
            title: "Read several small artifacts",
            description: """
                Returns the contents of artifacts of last runs that are at most 64 KiB long and kept by this deployment \
                itself, as far as the caller holds `queue:get-artifact:<name>`; the others are left out.
                """,
            publish: false,
            handler: readSeveral
        )
    }

    @Sendable private func readSeveral(_ request: APIRequest) async throws -> APIResponse {
        try await request.authenticate()
        let names = (request.body["artifacts"]?.array ?? []).compactMap { item -> ArtifactName? in
            guard let taskID = item["taskId"]?.string, let name = item["name"]?.string,
                Scope.satisfies(request.scopes, "queue:get-artifact:\(name)")
            else { return nil }
            return ArtifactName(taskID: taskID, name: name)
        }
        let found = names.isEmpty ? [] : try await blobs.contents(of: names, longest: 64 << 10, now: now())
        var text = SplicedJSON()
        text.append("{\"artifacts\":")
        text.append(list: found) { text, artifact in
            text.append("{\"taskId\":")
            text.append(JSONValue(artifact.artifact.taskID))
            text.append(",\"name\":")
            text.append(JSONValue(artifact.artifact.name))
            if let encoding = artifact.encoding {
                text.append(",\"contentEncoding\":")
                text.append(JSONValue(encoding))
            }
            text.append(",\"content\":\"\(Base64.encoded(artifact.bytes))\"}")
        }
        text.append("}")
        return .rawJSON(text.bytes)
    }
}
