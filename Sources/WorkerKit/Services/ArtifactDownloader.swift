// SPDX-License-Identifier: MPL-2.0

import Glibc
public import HTTPClient
import JSON
public import TaskclusterClient

/// Fetches artifacts of other tasks into files, so that a file is at its place only when it is complete and the one that was meant.
public struct ArtifactDownloader: Sendable {
    /// Why an artifact could not be fetched.
    public enum Failure: Error, Sendable, Hashable, CustomStringConvertible {
        /// There is no such artifact, or it must not be read.
        case absent(String)
        /// It could not be reached, at every attempt.
        case unreachable(String)
        /// Its content is not the one that was announced.
        case mismatch(String)
        /// It could not be stored here.
        case storage(String)
        /// The caller gave up.
        case interrupted

        /// The words for a log.
        public var description: String {
            switch self {
            case .absent(let text), .unreachable(let text), .mismatch(let text), .storage(let text): text
            case .interrupted: "interrupted"
            }
        }
    }

    private let client: TaskclusterClient
    private let transport: any HTTPTransport
    private let files: FileWork
    private let timeout: Duration
    private let stallTimeout: Duration
    private let schedule: TransferSchedule
    private let onProblem: @Sendable (String) -> Void

    /// Creates a downloader that signs with the client's credentials where an artifact is not public.
    public init(
        client: TaskclusterClient,
        transport: any HTTPTransport,
        files: FileWork,
        timeout: Duration = .seconds(1200),
        stallTimeout: Duration = .seconds(60),
        schedule: TransferSchedule = .download,
        onProblem: @escaping @Sendable (String) -> Void
    ) {
        self.client = client
        self.transport = transport
        self.files = files
        self.timeout = timeout
        self.stallTimeout = stallTimeout
        self.schedule = schedule
        self.onProblem = onProblem
    }

    /// Fetches the latest run's artifact to a path, replacing what is there; returns the SHA-256 of its content.
    ///
    /// With an expected digest the file appears only if it matches.
    @discardableResult
    public func download(
        _ name: String,
        of taskID: String,
        to path: String,
        sha256 expected: String? = nil
    ) async throws(Failure) -> String {
        var attempt = 1
        while true {
            do throws(Failure) {
                return try await downloadOnce(name, of: taskID, to: path, sha256: expected)
            } catch {
                guard case .unreachable(let text) = error else { throw error }
                attempt += 1
                guard attempt <= schedule.attempts else { throw error }
                let pause = schedule.pause(before: attempt)
                onProblem("download of \(name) of \(taskID) failed (\(text)); attempt \(attempt) follows in \(pause)")
                do { try await Task.sleep(for: pause) } catch { throw .interrupted }
            }
        }
    }

    /// The names of all artifacts of a task's latest run.
    public func names(of taskID: String) async throws(Failure) -> [String] {
        var names: [String] = []
        var query: [(String, String)] = []
        repeat {
            let page: JSONValue
            do {
                page = try await client.call("queue", "GET", ["task", taskID, "artifacts"], query: query)
            } catch {
                let isFinal = error.status.map { (400..<500).contains($0) } ?? false
                throw isFinal ? .absent("\(error)") : .unreachable("\(error)")
            }
            names += (page["artifacts"]?.array ?? []).compactMap { $0["name"]?.string }
            query = page["continuationToken"]?.string.map { [("continuationToken", $0)] } ?? []
        } while !query.isEmpty
        return names
    }

    private func downloadOnce(
        _ name: String,
        of taskID: String,
        to path: String,
        sha256 expected: String?
    ) async throws(Failure) -> String {
        let received = "\(path).part"
        let decoded = "\(path).decoded"
        defer {
            unlink(received)
            unlink(decoded)
        }
        let encoding = try await fetch(try await location(name, of: taskID), to: received)
        let digest: String
        do {
            digest = try await files.run {
                var source = try OpenFile.reading(received)
                if encoding == "gzip" || encoding == "x-gzip" {
                    let flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW
                    let target = try OpenFile(checking: open(decoded, flags, 0o644), "cannot create \(decoded)")
                    try Gzip.decompress(source, to: target)
                    source = target
                }
                return try FileDigest.sha256(source)
            }
        } catch let error as FileError where error.systemError == EBADMSG {
            throw .unreachable("\(error)")
        } catch {
            throw .storage("\(error)")
        }
        if let expected, digest != expected.lowercased() {
            throw .mismatch("\(name) of \(taskID) has the SHA-256 \(digest), not \(expected)")
        }
        guard rename(access(decoded, F_OK) == 0 ? decoded : received, path) == 0 else {
            throw .storage("cannot move \(name) into place: \(String(cString: strerror(errno)))")
        }
        return digest
    }

    /// Asks the queue where the artifact is; it answers with a redirect to its storage.
    private func location(_ name: String, of taskID: String) async throws(Failure) -> String {
        let path = ["task", taskID, "artifacts", name]
        let url =
            name.hasPrefix("public/")
            ? client.url("queue", path)
            : await client.signedURL("queue", path, lifetime: .seconds(900))
        let response = try await send(HTTPRequest(method: "GET", url: url), for: name)
        if (301...308).contains(response.status), let location = response.headers["Location"] { return location }
        // Other deployments may answer with the content at once; then the same request is simply made again.
        if response.status == 200 { return url }
        throw failure(response.status, name, String(decoding: response.body.prefix(300), as: UTF8.self))
    }

    /// Streams a URL to a file and returns its content encoding.
    private func fetch(_ url: String, to path: String) async throws(Failure) -> String? {
        guard url.hasPrefix("http://") || url.hasPrefix("https://") else {
            throw .absent("the queue sends us to an address that is neither http nor https")
        }
        var request = HTTPRequest(method: "GET", url: url)
        request.redirects = 9
        request.timeout = timeout
        request.stallTimeout = stallTimeout
        request.sink = .file(path: path)
        let response = try await send(request, for: path)
        guard response.status == 200 else { throw failure(response.status, path, "") }
        return response.headers["Content-Encoding"]?.lowercased()
    }

    private func send(_ request: HTTPRequest, for name: String) async throws(Failure) -> HTTPResponse {
        do {
            return try await transport.send(request)
        } catch {
            throw Task.isCancelled ? .interrupted : .unreachable("\(error)")
        }
    }

    private func failure(_ status: Int, _ name: String, _ text: String) -> Failure {
        switch status {
        case 400, 401, 403, 404, 410, 424: .absent("\(name): \(status) \(text)")
        default: .unreachable("\(name): \(status)")
        }
    }
}
