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
        /// The operator's rules do not allow to fetch it from there.
        case forbidden(String)
        /// It could not be stored here.
        case storage(String)
        /// The caller gave up.
        case interrupted

        /// The words for a log.
        public var description: String {
            switch self {
            case .absent(let text), .unreachable(let text), .mismatch(let text), .forbidden(let text),
                .storage(let text):
                text
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
    private let isAllowed: @Sendable (_ url: String, _ taskID: String) -> Bool
    private let onProblem: @Sendable (String) -> Void

    /// Creates a downloader that signs with the client's credentials where an artifact is not public.
    public init(
        client: TaskclusterClient,
        transport: any HTTPTransport,
        files: FileWork,
        timeout: Duration = .seconds(1200),
        stallTimeout: Duration = .seconds(60),
        schedule: TransferSchedule = .download,
        isAllowed: @escaping @Sendable (_ url: String, _ taskID: String) -> Bool = { _, _ in true },
        onProblem: @escaping @Sendable (String) -> Void
    ) {
        self.client = client
        self.transport = transport
        self.files = files
        self.timeout = timeout
        self.stallTimeout = stallTimeout
        self.schedule = schedule
        self.isAllowed = isAllowed
        self.onProblem = onProblem
    }

    /// Fetches the latest run's artifact to a path, replacing what is there; returns the SHA-256 of its content.
    ///
    /// With expected digests (by `sha256`, `sha512`) the file appears only if all of them match.
    @discardableResult
    public func download(
        _ name: String,
        of taskID: String,
        to path: String,
        digests expected: [String: String] = [:]
    ) async throws(Failure) -> String {
        var attempt = 1
        while true {
            do throws(Failure) {
                return try await downloadOnce(name, of: taskID, to: path, expected)
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
        _ expected: [String: String]
    ) async throws(Failure) -> String {
        let received = "\(path).part"
        let decoded = "\(path).decoded"
        unlink(received)
        defer {
            unlink(received)
            unlink(decoded)
        }
        let algorithms = Set(expected.keys).union(["sha256"])
        let url = try await location(name, of: taskID)
        let (encoding, hashed) = try await fetch(url, name, to: received, algorithms)
        let digests: [String: String]
        do {
            if encoding == "gzip" || encoding == "x-gzip" {
                digests = try await files.run {
                    let flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW
                    let target = try OpenFile(checking: open(decoded, flags, 0o644), "cannot create \(decoded)")
                    try Gzip.decompress(OpenFile.reading(received), to: target)
                    return try FileDigest.digests(target, algorithms)
                }
            } else {
                digests = hashed
            }
        } catch let error as FileError where error.systemError == EBADMSG {
            throw .unreachable("\(error)")
        } catch {
            throw .storage("\(error)")
        }
        for (algorithm, digest) in expected where digests[algorithm] != digest.lowercased() {
            throw .mismatch("\(name) of \(taskID) has the \(algorithm) \(digests[algorithm] ?? "?"), not \(digest)")
        }
        guard rename(access(decoded, F_OK) == 0 ? decoded : received, path) == 0 else {
            throw .storage("cannot move \(name) into place: \(String(cString: strerror(errno)))")
        }
        return digests["sha256"] ?? ""
    }

    /// Where the queue has the artifact; it answers with a redirect to its storage.
    private func location(_ name: String, of taskID: String) async throws(Failure) -> String {
        let path = ["task", taskID, "artifacts", name]
        let url = client.url("queue", path)
        guard isAllowed(url, taskID) else {
            throw .forbidden("no rule for artifacts allows \(url)")
        }
        return name.hasPrefix("public/") ? url : await client.signedURL("queue", path, lifetime: .seconds(900))
    }

    /// Streams a URL to a file; returns its content encoding, and the digests of what came.
    ///
    /// What takes longer than a moment is hashed while it comes in; for the rest a thread would cost more than it saves.
    private func fetch(
        _ url: String,
        _ name: String,
        to path: String,
        _ algorithms: Set<String>
    ) async throws(Failure) -> (String?, [String: String]) {
        var request = HTTPRequest(method: "GET", url: url)
        request.redirects = 10
        request.timeout = timeout
        request.stallTimeout = stallTimeout
        request.sink = .file(path: path)
        let hashing = Latch<GrowingFileDigest>()
        let response: Result<HTTPResponse, Failure>
        do {
            response = try await withThrowingTaskGroup(of: Result<HTTPResponse, Failure>?.self) { [request] group in
                group.addTask {
                    do throws(Failure) {
                        return .success(try await send(request))
                    } catch {
                        return .failure(error)
                    }
                }
                group.addTask {
                    try await Task.sleep(for: .milliseconds(50))
                    hashing.set(GrowingFileDigest(path, algorithms))
                    return nil
                }
                defer { group.cancelAll() }
                while let result = try await group.next() {
                    if let result { return result }
                }
                return .failure(.interrupted)
            }
        } catch {
            response = .failure(.interrupted)
        }
        let growing = hashing.value
        do throws(Failure) {
            let response = try response.get()
            guard response.status == 200 else {
                throw failure(response.status, name, String(decoding: response.body.prefix(300), as: UTF8.self))
            }
            let encoding = response.headers["Content-Encoding"]?.lowercased()
            return (encoding, try await digests(path, growing, algorithms))
        } catch {
            growing?.abandon()
            throw error
        }
    }

    private func digests(
        _ path: String,
        _ growing: GrowingFileDigest?,
        _ algorithms: Set<String>
    ) async throws(Failure) -> [String: String] {
        do {
            if let growing { return try await growing.digests() }
            // An artifact without a single byte need not have left a file.
            let flags = O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW
            let file = try OpenFile(checking: open(path, flags, 0o644), "cannot open \(path)")
            if file.size <= 1 << 20 { return try FileDigest.digests(file, algorithms) }
            return try await files.run { try FileDigest.digests(file, algorithms) }
        } catch is CancellationError {
            throw .interrupted
        } catch {
            throw .storage("\(error)")
        }
    }

    private func send(_ request: HTTPRequest) async throws(Failure) -> HTTPResponse {
        do {
            return try await transport.send(request)
        } catch {
            throw Task.isCancelled || error.code == .cancelled ? .interrupted : .unreachable("\(error)")
        }
    }

    private func failure(_ status: Int, _ name: String, _ text: String) -> Failure {
        switch status {
        case 400, 401, 403, 404, 410, 424: .absent("\(name): \(status) \(text)")
        default: .unreachable("\(name): \(status)")
        }
    }
}
