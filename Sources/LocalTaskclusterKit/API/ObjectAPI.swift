// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Schedules
import Taskcluster

/// The object service: immutable content under names, uploaded and downloaded by a method both sides know.
public struct ObjectAPI: Sendable {
    private let store: ObjectStore
    private let blobs: any BlobStore
    private let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    public init(store: ObjectStore, blobs: any BlobStore, now: @escaping @Sendable () -> Timestamp) {
        self.store = store
        self.blobs = blobs
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "object",
            title: "Object",
            description: "Keeps immutable content.",
            schemas: schemas,
            endpoints: [
                endpoint(
                    .put,
                    "/upload/<name*>",
                    "createUpload",
                    .scope("object:upload:<projectId>:<name>"),
                    mode: .deferred,
                    input: "create-upload-request",
                    output: "create-upload-response",
                    "Begin an upload",
                    createUpload
                ),
                endpoint(
                    .post,
                    "/finish-upload/<name*>",
                    "finishUpload",
                    .scope("object:upload:<projectId>:<name>"),
                    mode: .deferred,
                    input: "finish-upload-request",
                    "End an upload",
                    finishUpload
                ),
                endpoint(
                    .put,
                    "/start-download/<name*>",
                    "startDownload",
                    .scope("object:download:<name>"),
                    input: "download-object-request",
                    output: "download-object-response",
                    "Begin a download",
                    startDownload
                ),
                endpoint(
                    .get,
                    "/metadata/<name*>",
                    "object",
                    .scope("object:download:<name>"),
                    output: "get-object-response",
                    "Get facts about an object"
                ) { request in
                    let object = try await finished(request)
                    return .json([
                        "projectId": JSONValue(object.reservation.projectID),
                        "expires": JSONValue(object.reservation.expires.iso8601), "hashes": object.hashes.json,
                    ])
                },
                endpoint(
                    .get,
                    "/download/<name*>",
                    "download",
                    .scope("object:download:<name>"),
                    "Get the content of an object"
                ) { request in
                    let url = url(of: try await finished(request), for: .seconds(30 * 60)).url
                    return .json(["url": JSONValue(url)], status: 303, headers: ["Location": url])
                },
            ]
        )
    }

    private func createUpload(_ request: APIRequest) async throws -> APIResponse {
        let body = request.body
        let name = request.parameter("name")
        let projectID = body["projectId"]?.string ?? ""
        try await request.authorize(["projectId": JSONValue(projectID)])
        guard let expires = body["expires"]?.string.flatMap({ Timestamp($0) }), expires > now() else {
            throw QueueProblem(.input, "`expires` must be a moment in the future.")
        }
        let methods = body["proposedUploadMethods"]
        let chosen = methods?["dataInline"] ?? methods?["putUrl"]
        let object = try await store.begin(
            ObjectReservation(
                name: name,
                projectID: projectID,
                uploadID: body["uploadId"]?.string ?? "",
                expires: expires
            ),
            contentType: chosen?["contentType"]?.string,
            hashes: ObjectHashes(json: body["hashes"]),
            now: now()
        )
        var method: JSONValue = [:]
        if let inline = methods?["dataInline"] {
            guard let bytes = Base64.decoded(inline["objectData"]?.string ?? "") else {
                throw QueueProblem(.input, "`objectData` is not base64.")
            }
            if !object.isFinished {
                try await blobs.put(bytes, blobID: object.blobID, contentType: object.contentType)
            }
            method = ["dataInline": true]
        } else if let put = methods?["putUrl"] {
            let expires = now() + .seconds(45 * 60)
            let length = put["contentLength"]?.int ?? 0
            method = [
                "putUrl": [
                    "url": JSONValue(
                        blobs.uploadURL(object.blobID, contentType: object.contentType, until: expires)
                    ),
                    "expires": JSONValue(expires.iso8601),
                    "headers": [
                        "Content-Type": JSONValue(object.contentType), "Content-Length": JSONValue(String(length)),
                        "Content-Encoding": "identity",
                    ],
                ]
            ]
        }
        return .json([
            "projectId": JSONValue(projectID), "uploadId": JSONValue(object.reservation.uploadID),
            "expires": JSONValue(expires.iso8601), "uploadMethod": method,
        ])
    }

    private func finishUpload(_ request: APIRequest) async throws -> APIResponse {
        let projectID = request.body["projectId"]?.string ?? ""
        try await request.authorize(["projectId": JSONValue(projectID)])
        try await store.finish(
            request.parameter("name"),
            projectID: projectID,
            uploadID: request.body["uploadId"]?.string ?? "",
            stated: ObjectHashes(json: request.body["hashes"]),
            now: now()
        ) { blobID, hashing in
            try await blobs.facts(blobID, hashing: hashing)
        }
        return .json(.object([:]))
    }

    private func startDownload(_ request: APIRequest) async throws -> APIResponse {
        let object = try await finished(request)
        let accepted = request.body["acceptDownloadMethods"]
        if accepted?["getUrl"]?.bool == true {
            let (url, expires) = url(of: object, for: .seconds(60))
            return .json([
                "method": "getUrl", "url": JSONValue(url), "expires": JSONValue(expires.iso8601),
                "hashes": object.hashes.json,
            ])
        }
        guard accepted?["simple"]?.bool == true else {
            throw QueueProblem(.unacceptable, "Of the download methods getUrl and simple the caller accepts none.")
        }
        return .json(["method": "simple", "url": JSONValue(url(of: object, for: .seconds(30 * 60)).url)])
    }

    private func finished(_ request: APIRequest) async throws -> StoredObject {
        let name = request.parameter("name")
        guard let object = try await store.object(name, now: now()), object.isFinished else {
            throw QueueProblem(.notFound, "There is no object \(name), or its upload is not finished.")
        }
        return object
    }

    private func url(of object: StoredObject, for time: Duration) -> (url: String, expires: Timestamp) {
        let expires = now() + time
        return (blobs.downloadURL(object.blobID, contentType: object.contentType, until: expires), expires)
    }

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        _ scopes: ScopeTemplate,
        mode: Endpoint.Mode = .automatic,
        input: String? = nil,
        output: String? = nil,
        _ title: String,
        _ handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) -> Endpoint {
        // Inline data may be as secret as the object.
        .answering(
            method,
            route,
            name,
            scopes: scopes,
            mode: mode,
            parameters: [
                "name": ParameterRule(pattern: Patterns.artifactName.regularExpression) {
                    Patterns.artifactName.matches($0)
                }
            ],
            input: input,
            output: output,
            category: "Objects",
            showsPayload: false,
            title,
            handler
        )
    }
}
