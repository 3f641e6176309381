// SPDX-License-Identifier: MPL-2.0
import Crypto
import Glibc
public import HTTPClient
public import Schedules
import Taskcluster

/// Bytes in a bucket of an S3-compatible server; clients talk to that server themselves, with signed addresses.
public struct S3BlobStore: BlobStore {
    /// Which bucket, and with which key.
    public struct Configuration: Sendable, Hashable {
        /// The base URL of the server, without the bucket.
        public var endpoint: String
        /// The bucket, which must exist.
        public var bucket: String
        /// The region the signatures name.
        public var region: String
        /// The name of the key.
        public var accessKeyID: String
        /// The key.
        public var secretKey: String

        /// Describes a bucket.
        public init(endpoint: String, bucket: String, region: String, accessKeyID: String, secretKey: String) {
            self.endpoint = endpoint.hasSuffix("/") ? String(endpoint.dropLast()) : endpoint
            self.bucket = bucket
            self.region = region
            self.accessKeyID = accessKeyID
            self.secretKey = secretKey
        }
    }

    private let configuration: Configuration
    private let signature: AWSSignature
    private let host: String
    private let transport: any HTTPTransport
    private let scratch: String
    private let now: @Sendable () -> Timestamp

    /// Uses a bucket, and a directory for files of a moment; nil if the endpoint is not an http or https URL of a host.
    public init?(
        _ configuration: Configuration,
        transport: any HTTPTransport,
        scratch: String,
        now: @escaping @Sendable () -> Timestamp
    ) {
        guard let host = Self.host(of: configuration.endpoint) else { return nil }
        self.configuration = configuration
        self.host = host
        self.transport = transport
        self.scratch = scratch
        self.now = now
        signature = AWSSignature(
            accessKeyID: configuration.accessKeyID,
            secretKey: configuration.secretKey,
            region: configuration.region
        )
    }

    /// Whether a text is an address of a server.
    public static func isServer(_ endpoint: String) -> Bool { host(of: endpoint) != nil }

    private static func host(of endpoint: String) -> String? {
        let text = endpoint.hasSuffix("/") ? endpoint.dropLast() : endpoint[...]
        for scheme in ["http://", "https://"] where text.hasPrefix(scheme) {
            let host = text.dropFirst(scheme.count)
            return host.isEmpty || host.contains("/") ? nil : String(host)
        }
        return nil
    }

    /// An address of the server; the uploader must send this content type.
    public func uploadURL(_ blobID: String, contentType: String, until expires: Timestamp) -> String {
        url("PUT", blobID, headers: ["content-type": contentType], until: expires)
    }

    /// An address of the server; pages are offered for download rather than shown.
    public func downloadURL(_ blobID: String, contentType: String, until expires: Timestamp) -> String {
        let isPage = contentType.hasPrefix("text/html")
        return url("GET", blobID, query: isPage ? ["response-content-disposition": "attachment"] : [:], until: expires)
    }

    /// Uploads bytes.
    public func put(_ bytes: [UInt8], blobID: String, contentType: String) async throws {
        let url = uploadURL(blobID, contentType: contentType, until: now() + .seconds(300))
        let request = HTTPRequest(
            method: "PUT",
            url: url,
            headers: ["Content-Type": contentType],
            body: .bytes(bytes),
            timeout: .seconds(60)
        )
        try await expect([200], of: request)
    }

    /// Asks the server; hashes cost reading the whole content.
    public func facts(_ blobID: String, hashing: Bool) async throws -> BlobFacts? {
        let head = HTTPRequest(method: "HEAD", url: url("HEAD", blobID, until: now() + .seconds(300)))
        let answer = try await transport.send(head)
        if answer.status == 404 { return nil }
        guard answer.status == 200, let length = answer.headers["Content-Length"].flatMap({ Int($0) }) else {
            throw BlobError(message: "the artifact store answered a question with \(answer.status)")
        }
        guard hashing else { return BlobFacts(length: length) }
        return try await hashed(blobID, length: length)
    }

    /// Removes one after the other.
    public func remove(_ blobIDs: [String]) async throws {
        for blobID in blobIDs {
            let url = url("DELETE", blobID, until: now() + .seconds(300))
            try await expect([200, 204, 404], of: HTTPRequest(method: "DELETE", url: url))
        }
    }

    private func hashed(_ blobID: String, length: Int) async throws -> BlobFacts {
        mkdir(scratch, 0o700)
        let path = "\(scratch)/\(Slugid.make())"
        defer { unlink(path) }
        var request = HTTPRequest(url: url("GET", blobID, until: now() + .seconds(300)), timeout: .seconds(600))
        request.sink = .file(path: path)
        try await expect([200], of: request)
        guard let file = fopen(path, "re") else { throw BlobError(message: "cannot read a downloaded blob") }
        defer { fclose(file) }
        var short = SHA256()
        var long = SHA512()
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            guard count > 0 else { break }
            short.update(data: buffer[..<count])
            long.update(data: buffer[..<count])
        }
        return BlobFacts(
            length: length,
            sha256: Hexadecimal.text(short.finalize()),
            sha512: Hexadecimal.text(long.finalize())
        )
    }

    private func expect(_ statuses: Set<Int>, of request: HTTPRequest) async throws {
        let answer = try await transport.send(request)
        guard statuses.contains(answer.status) else {
            throw BlobError(message: "the artifact store answered \(request.method) with \(answer.status)")
        }
    }

    private func url(
        _ method: String,
        _ blobID: String,
        query: [String: String] = [:],
        headers: [String: String] = [:],
        until expires: Timestamp
    ) -> String {
        let now = now()
        let path = "/\(configuration.bucket)/\(blobID)"
        let seconds = max(1, Int((expires.milliseconds - now.milliseconds) / 1000))
        let signed = signature.query(
            method,
            host: host,
            path: path,
            query: query,
            headers: headers,
            seconds: seconds,
            now: now
        )
        return "\(configuration.endpoint)\(path)?\(signed)"
    }
}
