// SPDX-License-Identifier: MPL-2.0
public import APIServer
public import Schedules

/// The addresses under which the bytes of artifacts come and go.
public struct BlobRoutes: Sendable {
    private let store: QueueStore
    private let blobs: BlobStore
    private let addresses: BlobAddresses
    private let now: @Sendable () -> Timestamp

    /// Puts the routes together.
    public init(
        store: QueueStore,
        blobs: BlobStore,
        addresses: BlobAddresses,
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.store = store
        self.blobs = blobs
        self.addresses = addresses
        self.now = now
    }

    /// Upload and download.
    public var routes: [RawRoute] {
        [
            RawRoute(.put, prefix: "/blobs/u/", name: "uploadBlob") { try await upload($0) },
            RawRoute(.get, prefix: "/blobs/d/", name: "downloadBlob") { try await download($0) },
        ]
    }

    private func upload(_ request: RawRequest) async throws -> RawResponse {
        let id = request.rest
        guard addresses.isValid(request.query("access_token"), "put", id, now: now()),
            let artifact = try await store.artifact(blobID: id)
        else { return Self.refusal(403, "This address is not valid or not valid any more.") }
        guard request.header("Content-Type") ?? "" == artifact.contentType else {
            return Self.refusal(403, "The content type is not the one the artifact was created with.")
        }
        var writer = try blobs.open()
        do {
            for try await piece in request.body { try writer.write(piece) }
        } catch {
            // Workers abandon uploads of files that still grow; what was there before stays.
            writer.discard()
            throw error
        }
        let file = writer.file
        let length = writer.length
        let sha256 = try writer.finish()
        let blob = Blob(
            id: id,
            file: file,
            contentType: artifact.contentType,
            contentEncoding: request.header("Content-Encoding"),
            length: length,
            sha256: sha256
        )
        if let replaced = try await store.storeBlob(blob, now: now()) { blobs.remove(replaced) }
        return RawResponse(status: 200, headers: [("ETag", "\"\(sha256)\"")])
    }

    private func download(_ request: RawRequest) async throws -> RawResponse {
        let id = request.rest
        let isSigned = addresses.isValid(request.query("access_token"), "get", id, now: now())
        guard let found = try await store.blob(id, now: now()) else {
            return Self.refusal(404, "There is nothing at this address.")
        }
        guard isSigned || found.artifact.hasPrefix("public/") else {
            return Self.refusal(403, "This address is not valid or not valid any more.")
        }
        var headers = [
            (name: "Content-Type", value: found.blob.contentType), (name: "ETag", value: "\"\(found.blob.sha256)\""),
            (name: "Accept-Ranges", value: "bytes"),
        ]
        if let encoding = found.blob.contentEncoding { headers.append((name: "Content-Encoding", value: encoding)) }
        if found.blob.contentType.hasPrefix("text/html") {
            headers.append((name: "Content-Disposition", value: "attachment"))
        }
        return RawResponse(status: 200, headers: headers, body: .file(path: blobs.path(found.blob.file)))
    }

    private static func refusal(_ status: Int, _ message: String) -> RawResponse {
        RawResponse(
            status: status,
            headers: [(name: "Content-Type", value: "text/plain; charset=utf-8")],
            body: .bytes(Array((message + "\n").utf8))
        )
    }
}
