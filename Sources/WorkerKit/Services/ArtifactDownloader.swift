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
        /// It could not be reached, at every attempt; the server may have said when to ask again.
        case unreachable(String, after: Duration? = nil)
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
            case .absent(let text), .unreachable(let text, _), .mismatch(let text), .forbidden(let text),
                .storage(let text):
                text
            case .interrupted: "interrupted"
            }
        }
    }

    let client: TaskclusterClient
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
    /// With expected digests (by `sha256`, `sha512`) the file appears only if all of them match. Content that came with others needs no
    /// transfer of its own.
    @discardableResult
    public func download(
        _ name: String,
        of taskID: String,
        to path: String,
        digests expected: [String: String] = [:],
        among small: SmallArtifacts = .none
    ) async throws(Failure) -> String {
        if let content = small.contents[SmallArtifacts.Name(taskID, name)] {
            try check(client.url("queue", ["task", taskID, "artifacts", name]), taskID)
            let digests = try digests(nil, content.bytes, Set(expected.keys).union(["sha256"]))
            let arrival = ArrivedDownload(
                path: "\(path).part",
                bytes: content.bytes,
                digests: digests,
                isCompressed: content.isCompressed
            )
            return try await settle(arrival, name, of: taskID, at: path, expected)
        }
        var attempt = 1
        var partial = PartialDownload(path: "\(path).part")
        unlink(partial.path)
        defer { unlink(partial.path) }
        while true {
            do throws(Failure) {
                return try await downloadOnce(name, of: taskID, to: path, expected, &partial)
            } catch {
                guard case .unreachable(let text, let wish) = error else { throw error }
                attempt += 1
                guard attempt <= schedule.attempts else { throw error }
                let pause = min(wish ?? schedule.pause(before: attempt), .seconds(60))
                let kept = partial.size > 0 ? ", \(partial.size) bytes are kept" : ""
                onProblem(
                    "download of \(name) of \(taskID) failed (\(text))\(kept); attempt \(attempt) follows in \(pause)"
                )
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
        _ expected: [String: String],
        _ partial: inout PartialDownload
    ) async throws(Failure) -> String {
        let url = try await location(name, of: taskID)
        let arrival = try await fetch(url, name, Set(expected.keys).union(["sha256"]), &partial)
        return try await settle(arrival, name, of: taskID, at: path, expected)
    }

    /// Gives content its place if it is the one that was meant.
    private func settle(
        _ arrival: ArrivedDownload,
        _ name: String,
        of taskID: String,
        at path: String,
        _ expected: [String: String]
    ) async throws(Failure) -> String {
        let arrival = arrival.isCompressed ? try await unpacked(arrival, path) : arrival
        for (algorithm, digest) in expected where arrival.digests[algorithm] != digest.lowercased() {
            let found = arrival.digests[algorithm] ?? "?"
            throw .mismatch("\(name) of \(taskID) has the \(algorithm) \(found), not \(digest)")
        }
        try arrival.settle(at: path, name)
        return arrival.digests["sha256"] ?? ""
    }

    private func unpacked(_ arrival: ArrivedDownload, _ path: String) async throws(Failure) -> ArrivedDownload {
        let decoded = "\(path).decoded"
        do {
            return try await files.run {
                let flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW
                let target = try OpenFile(checking: open(decoded, flags, 0o644), "cannot create \(decoded)")
                try Gzip.decompress(arrival.opened(), to: target)
                let digests = try FileDigest.digests(target, Set(arrival.digests.keys))
                return ArrivedDownload(path: decoded, bytes: nil, digests: digests, isCompressed: false)
            }
        } catch {
            unlink(decoded)
            if let error = error as? FileError, error.systemError == EBADMSG { throw .unreachable("\(error)") }
            throw .storage("\(error)")
        }
    }

    /// Where the queue has the artifact; it answers with a redirect to its storage.
    private func location(_ name: String, of taskID: String) async throws(Failure) -> String {
        let path = ["task", taskID, "artifacts", name]
        let url = client.url("queue", path)
        try check(url, taskID)
        return name.hasPrefix("public/") ? url : await client.signedURL("queue", path, lifetime: .seconds(900))
    }

    private func check(_ url: String, _ taskID: String) throws(Failure) {
        guard isAllowed(url, taskID) else { throw .forbidden("no rule for artifacts allows \(url)") }
    }

    /// Fetches a URL; small content stays in memory, big content is hashed by a thread of its own while it comes in.
    private func fetch(
        _ url: String,
        _ name: String,
        _ algorithms: Set<String>,
        _ partial: inout PartialDownload
    ) async throws(Failure) -> ArrivedDownload {
        let path = partial.path
        var request = HTTPRequest(method: "GET", url: url)
        request.redirects = 10
        request.timeout = timeout
        request.stallTimeout = stallTimeout
        request.sink = .spool(path: path, memory: Self.memory, offset: partial.size)
        if let tag = partial.tag, partial.size > 0 {
            request.headers["Range"] = "bytes=\(partial.size)-"
            request.headers["If-Range"] = tag
        }
        let head = Latch<HTTPResponse>()
        let isInFile = Latch<Bool>()
        let hashing = Latch<ArrivingFileDigest>()
        request.onHead = { [tag = partial.tag] response in
            head.set(response)
            if response.status == 206, response.headers["ETag"] != tag {
                return HTTPClientError(.aborted, "the rest belongs to another content")
            }
            return Self.missingRoom(for: response, at: path)
        }
        request.onFile = { offset in
            isInFile.set(true)
            guard !Self.isCompressed(head.value) else { return nil }
            let digest = ArrivingFileDigest(path, from: offset, algorithms)
            hashing.set(digest)
            return { digest.observe($0) }
        }
        do throws(Failure) {
            let response = try await send(request)
            guard response.status == 200 || response.status == 206 else { throw failure(response, name) }
            return ArrivedDownload(
                path: path,
                bytes: isInFile.value == nil ? response.body : nil,
                digests: try digests(hashing.value, response.body, algorithms),
                isCompressed: Self.isCompressed(response)
            )
        } catch {
            partial.note(head.value)
            throw error
        }
    }

    private static func isCompressed(_ response: HTTPResponse?) -> Bool {
        ["gzip", "x-gzip"].contains(response?.headers["Content-Encoding"]?.lowercased())
    }

    private func digests(
        _ arriving: ArrivingFileDigest?,
        _ bytes: [UInt8],
        _ algorithms: Set<String>
    ) throws(Failure) -> [String: String] {
        guard let arriving else {
            var digester = Digester(algorithms)
            bytes.withUnsafeBytes { digester.update($0) }
            return digester.finish()
        }
        do {
            return try arriving.digests()
        } catch {
            throw .storage("\(error)")
        }
    }

    /// What does not fit need not be begun.
    private static func missingRoom(for response: HTTPResponse, at path: String) -> HTTPClientError? {
        guard let length = response.headers["Content-Length"].flatMap({ Int($0) }), length > memory else { return nil }
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        var info = statvfs()
        guard statvfs(directory, &info) == 0 else { return nil }
        let free = Int(info.f_bavail) * Int(info.f_frsize)
        guard length > free else { return nil }
        return HTTPClientError(.file, "\(length) bytes would arrive, but only \(free) are free")
    }

    private func send(_ request: HTTPRequest) async throws(Failure) -> HTTPResponse {
        do {
            return try await transport.send(request)
        } catch {
            if Task.isCancelled { throw .interrupted }
            switch error.code {
            case .cancelled: throw .interrupted
            case .file: throw .storage("\(error)")
            // Trying again would lead to the same place.
            case .redirect, .invalidURL: throw .forbidden("\(error)")
            default: throw .unreachable("\(error)")
            }
        }
    }

    private func failure(_ response: HTTPResponse, _ name: String) -> Failure {
        let text = String(decoding: response.body.prefix(300), as: UTF8.self)
        switch response.status {
        case 400, 401, 403, 404, 410, 424: return .absent("\(name): \(response.status) \(text)")
        default:
            let after = response.headers["Retry-After"].flatMap { Int($0) }.map { Duration.seconds(max(1, $0)) }
            return .unreachable("\(name): \(response.status)", after: after)
        }
    }

    /// What is kept in memory on its way to its place.
    private static let memory = 256 << 10
}
