// SPDX-License-Identifier: MPL-2.0
public import APIServer
import Core
public import Postgres
public import Schedules

/// Bytes in files below one directory, which all instances of a deployment share.
public struct FileBlobStore: BlobStore {
    private let pool: PostgresPool
    private let files: BlobFiles
    private let addresses: BlobAddresses
    private let now: @Sendable () -> Timestamp
    /// How many bytes of short files are read for one answer.
    private static let longestAnswer = 2 << 20

    /// Uses a directory, the table `tcl.blobs`, and addresses of our own server.
    public init(
        pool: PostgresPool,
        directory: String,
        addresses: BlobAddresses,
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.pool = pool
        self.files = BlobFiles(directory: directory)
        self.addresses = addresses
        self.now = now
    }

    /// An address below `/blobs/u/`.
    public func uploadURL(_ blobID: String, contentType: String, until expires: Timestamp) -> String {
        addresses.upload(blobID, until: expires)
    }

    /// An address below `/blobs/d/`.
    public func downloadURL(_ blobID: String, contentType: String, until expires: Timestamp) -> String {
        addresses.download(blobID, until: expires)
    }

    /// Writes a file.
    public func put(_ bytes: [UInt8], blobID: String, contentType: String) async throws {
        var writer = try files.open(withSHA512: true)
        do {
            try writer.write(bytes)
        } catch {
            writer.discard()
            throw error
        }
        let file = writer.file
        try await record(blobID, file, try writer.finish(), contentType: contentType, encoding: nil)
    }

    /// What the table says.
    public func facts(_ blobID: String, hashing: Bool) async throws -> BlobFacts? {
        try await pool.query("select length, sha256, sha512 from tcl.blobs where blob_id = \(blobID)").first.map {
            BlobFacts(
                length: try $0.int("length"),
                sha256: try $0.string("sha256"),
                sha512: try $0.optionalString("sha512")
            )
        }
    }

    /// Removes files, then what the table says about them.
    public func remove(_ blobIDs: [String]) async throws {
        let rows = try await pool.query("select file from tcl.blobs where blob_id = any(\(blobIDs)::text[])")
        for row in rows { files.remove(try row.string("file")) }
        try await pool.execute("delete from tcl.blobs where blob_id = any(\(blobIDs)::text[])")
    }

    /// Reads files that are short.
    public func contents(of artifacts: [ArtifactName], longest: Int, now: Timestamp) async throws -> [ArtifactBytes] {
        let rows = try await pool.query(
            """
            select a.task_id, a.name, b.file, b.length, b.content_encoding
            from unnest(\(artifacts.map(\.taskID))::text[], \(artifacts.map(\.name))::text[]) as x (task_id, name)
            join tcl.task_status s on s.task_id = x.task_id
            join tcl.artifacts a on a.task_id = x.task_id and a.run_id = json_array_length(s.runs) - 1
                and a.name = x.name and a.storage_type = 's3' and a.present and a.expires > \(now)
            join tcl.blobs b on b.blob_id = a.blob_id and b.length <= \(longest)
            """
        )
        var found: [(artifact: ArtifactName, path: String, length: Int, encoding: String?)] = []
        var room = Self.longestAnswer
        for row in rows {
            room -= try row.int("length")
            guard room >= 0 else { break }
            let artifact = ArtifactName(taskID: try row.string("task_id"), name: try row.string("name"))
            let path = files.path(try row.string("file"))
            found.append((artifact, path, try row.int("length"), try row.optionalString("content_encoding")))
        }
        // Disks can be slow, and the threads of tasks are few.
        return await withCheckedContinuation { [found] continuation in
            startThread(named: "blobs") {
                continuation.resume(
                    returning: found.compactMap { file in
                        guard let bytes = BlobFiles.read(file.path, length: file.length) else { return nil }
                        return ArtifactBytes(artifact: file.artifact, bytes: bytes, encoding: file.encoding)
                    }
                )
            }
        }
    }

    /// Removes what cut-off uploads of earlier days left behind.
    public func removeRemains() {
        files.removeRemains()
    }

    // MARK: - Our own addresses

    /// Upload and download.
    public var routes: [RawRoute] {
        [
            RawRoute(.put, prefix: "/blobs/u/", name: "uploadBlob") { try await upload($0) },
            RawRoute(.get, prefix: "/blobs/d/", name: "downloadBlob") { try await download($0) },
        ]
    }

    private func upload(_ request: RawRequest) async throws -> RawResponse {
        let blobID = request.rest
        guard addresses.isValid(request.query("access_token"), "put", blobID, now: now()),
            let target = try await target(blobID)
        else { return Self.refusal(403, "This address is not valid or not valid any more.") }
        guard request.header("Content-Type") ?? "" == target.contentType else {
            return Self.refusal(403, "The content type is not the one the upload was announced with.")
        }
        var writer = try files.open(withSHA512: target.isObject)
        do {
            for try await piece in request.body { try writer.write(piece) }
        } catch {
            // Workers abandon uploads of files that still grow; what was there before stays.
            writer.discard()
            throw error
        }
        let file = writer.file
        let facts = try writer.finish()
        let encoding = request.header("Content-Encoding").flatMap { $0.lowercased() == "identity" ? nil : $0 }
        try await record(blobID, file, facts, contentType: target.contentType, encoding: encoding)
        return RawResponse(status: 200, headers: [(name: "ETag", value: "\"\(facts.sha256 ?? "")\"")])
    }

    private func download(_ request: RawRequest) async throws -> RawResponse {
        let blobID = request.rest
        let isSigned = addresses.isValid(request.query("access_token"), "get", blobID, now: now())
        let rows = try await pool.query(
            """
            select b.file, b.content_type, b.content_encoding, b.sha256, x.name from tcl.blobs b join (
                select blob_id, name, expires from tcl.artifacts where blob_id = \(blobID)
                union all select blob_id, '' as name, expires from tcl.objects where blob_id = \(blobID) and finished
            ) x on x.blob_id = b.blob_id
            where b.blob_id = \(blobID) and x.expires > \(now())
            """
        )
        guard let row = rows.first else { return Self.refusal(404, "There is nothing at this address.") }
        guard try isSigned || row.string("name").hasPrefix("public/") else {
            return Self.refusal(403, "This address is not valid or not valid any more.")
        }
        let contentType = try row.string("content_type")
        var headers = [
            (name: "Content-Type", value: contentType), (name: "ETag", value: "\"\(try row.string("sha256"))\""),
            (name: "Accept-Ranges", value: "bytes"),
        ]
        if let encoding = try row.optionalString("content_encoding") {
            headers.append((name: "Content-Encoding", value: encoding))
        }
        if contentType.hasPrefix("text/html") {
            headers.append((name: "Content-Disposition", value: "attachment"))
        }
        return RawResponse(status: 200, headers: headers, body: .file(path: files.path(try row.string("file"))))
    }

    /// What an upload is for; nil if it is for nothing that takes bytes any more.
    private func target(_ blobID: String) async throws -> (contentType: String, isObject: Bool)? {
        try await pool.query(
            """
            select content_type, false as is_object from tcl.artifacts where blob_id = \(blobID)
            union all
            select content_type, true from tcl.objects where blob_id = \(blobID) and not finished
            """
        ).first.map { (try $0.string("content_type"), try $0.bool("is_object")) }
    }

    /// Notes a complete file in place of the one that was there.
    private func record(
        _ blobID: String,
        _ file: String,
        _ facts: BlobFacts,
        contentType: String,
        encoding: String?
    ) async throws {
        let old = try await pool.query(
            """
            with old as (select file from tcl.blobs where blob_id = \(blobID) for update),
            stored as (
                insert into tcl.blobs (blob_id, file, content_type, content_encoding, length, sha256, sha512, stored)
                values (\(blobID), \(file), \(contentType), \(encoding), \(facts.length), \(facts.sha256 ?? ""),
                    \(facts.sha512), \(now()))
                on conflict (blob_id) do update set file = excluded.file, content_type = excluded.content_type,
                    content_encoding = excluded.content_encoding, length = excluded.length,
                    sha256 = excluded.sha256, sha512 = excluded.sha512, stored = excluded.stored
            )
            select file from old
            """
        )
        for row in old { files.remove(try row.string("file")) }
    }

    private static func refusal(_ status: Int, _ message: String) -> RawResponse {
        RawResponse(
            status: status,
            headers: [(name: "Content-Type", value: "text/plain; charset=utf-8")],
            body: .bytes(Array((message + "\n").utf8))
        )
    }
}
