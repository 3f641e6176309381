// SPDX-License-Identifier: MPL-2.0

import Glibc
public import HTTPClient
import JSON
import Schedules
import TaskclusterClient

/// Uploads files as artifacts of a claimed run: declare, put, and begin again with the declaration when that went wrong.
public struct ArtifactUploader: Sendable {
    /// How uploads are done.
    public struct Options: Sendable {
        /// How many go on at once.
        public var concurrency = 8
        /// How long one attempt may take.
        public var timeout: Duration = .seconds(1200)
        /// The pauses between attempts.
        public var schedule = TransferSchedule.upload
        /// Suffixes whose content type differs from our table.
        public var contentTypes: [String: String] = [:]
        /// Files larger than this are sent as they are; 0 for no limit.
        public var compressionLimit = 0
        /// Whether to try even though the claim is lost.
        public var ignoresLoss = false
        /// Where compressed copies are kept, without a name.
        public var temporaryDirectory: String

        /// Creates the defaults.
        public init(temporaryDirectory: String) {
            self.temporaryDirectory = temporaryDirectory
        }
    }

    /// Why an artifact is not in the queue.
    public enum Failure: Error, Sendable, Hashable {
        /// The storage kept refusing it.
        case storage(String)
        /// The queue or the storage could not be reached, or had errors of its own, at every attempt.
        case unreachable(String)
        /// The queue does not want it.
        case refused(String)
        /// The file could not be read.
        case unreadable(String)
        /// The run is no longer ours, or there is no time left.
        case interrupted
    }

    private let keeper: ClaimKeeper
    private let transport: any HTTPTransport
    private let files: FileWork
    private let options: Options
    private let onProblem: @Sendable (String) -> Void

    /// Creates an uploader for one claim.
    public init(
        _ keeper: ClaimKeeper,
        transport: any HTTPTransport,
        files: FileWork,
        options: Options,
        onProblem: @escaping @Sendable (String) -> Void
    ) {
        self.keeper = keeper
        self.transport = transport
        self.files = files
        self.options = options
        self.onProblem = onProblem
    }

    /// Uploads all files, those of the first group before the others, and returns what went wrong by name.
    ///
    /// One failure does not keep the others from being tried. Cancelling stops everything that is going on.
    public func upload(_ found: [ArtifactWalk.Found], first: (String) -> Bool) async -> [String: Failure] {
        let ordered = found.filter { first($0.name) } + found.filter { !first($0.name) }
        return await withTaskGroup(of: (String, Failure?).self) { group in
            var waiting = ordered[...]
            var failures: [String: Failure] = [:]
            for _ in 0..<max(1, options.concurrency) {
                guard let file = waiting.popFirst() else { break }
                group.addTask { (file.name, await self.failure(uploading: file)) }
            }
            while let (name, failure) = await group.next() {
                if let failure { failures[name] = failure }
                guard let file = waiting.popFirst() else { continue }
                group.addTask { (file.name, await self.failure(uploading: file)) }
            }
            return failures
        }
    }

    /// Declares an artifact that leads to another one.
    public func link(_ name: String, to target: String, contentType: ContentType) async -> Failure? {
        let body: JSONValue = [
            "storageType": "link",
            "expires": keeper.claim.task["expires"] ?? nil,
            "contentType": .string(contentType.name),
            "artifact": .string(target),
        ]
        do {
            _ = try await keeper.client.call("queue", "POST", keeper.claim.path("artifacts", name), body: body)
            return nil
        } catch {
            return await declaringFailure(error)
        }
    }

    /// What is sent for a file.
    private struct Content: Sendable {
        let file: OpenFile
        let isCompressed: Bool
    }

    private func failure(uploading found: ArtifactWalk.Found) async -> Failure? {
        let type = ContentType(forName: found.name, overrides: options.contentTypes)
        let content: Content
        do {
            let directory = options.temporaryDirectory
            let limit = options.compressionLimit
            content = try await files.run {
                let file = try found.opened()
                guard type.isCompressed, limit == 0 || file.size <= limit else {
                    return Content(file: file, isCompressed: false)
                }
                do {
                    let compressed = try OpenFile.temporary(in: directory)
                    try Gzip.compress(file, to: compressed)
                    return Content(file: compressed, isCompressed: true)
                } catch let error as FileError where [ENOSPC, EDQUOT, EFBIG].contains(error.systemError) {
                    // Without room for a second copy the first one still can be sent.
                    return Content(file: file, isCompressed: false)
                }
            }
        } catch {
            onProblem("cannot upload \(found.name): \(error)")
            return .unreadable("\(error)")
        }
        return await failure(uploading: found.name, content, type)
    }

    private func failure(uploading name: String, _ content: Content, _ type: ContentType) async -> Failure? {
        var attempt = 1
        while true {
            guard !isInterrupted else { return .interrupted }
            let failure: Failure
            do throws(Failure) {
                try await uploadOnce(name, content, type)
                return nil
            } catch {
                failure = error
            }
            switch failure {
            case .refused, .unreadable, .interrupted: return failure
            case .storage, .unreachable: break
            }
            attempt += 1
            guard attempt <= options.schedule.attempts, !keeper.isDoubtful else { return failure }
            let pause = options.schedule.pause(before: attempt)
            onProblem("upload of \(name) failed (\(failure.text)); attempt \(attempt) follows in \(pause)")
            try? await Task.sleep(for: pause)
        }
    }

    private var isInterrupted: Bool { Task.isCancelled || (keeper.lost.value != nil && !options.ignoresLoss) }

    private func uploadOnce(_ name: String, _ content: Content, _ type: ContentType) async throws(Failure) {
        let size = content.file.size
        let body: JSONValue = [
            "storageType": "s3",
            "expires": keeper.claim.task["expires"] ?? nil,
            "contentType": .string(type.name),
            "contentLength": .init(size),
        ]
        let answer: JSONValue
        do {
            answer = try await keeper.client.call("queue", "POST", keeper.claim.path("artifacts", name), body: body)
        } catch {
            throw await declaringFailure(error)
        }
        guard let url = answer["putUrl"]?.string else { throw .refused("the queue offers no place to upload to") }
        var request = HTTPRequest(method: "PUT", url: url)
        request.headers = ["Content-Type": type.name]
        if content.isCompressed { request.headers["Content-Encoding"] = "gzip" }
        request.body = .file(path: content.file.path)
        request.timeout = options.timeout
        do {
            let response = try await transport.send(request)
            guard response.status == 200 || response.status == 204 else {
                throw Failure.storage("the storage answered \(response.status)")
            }
            if let announced = Self.digest(in: response.headers) {
                let file = content.file
                let sent = try await files.run { try FileDigest.digests(file, ["md5"])["md5"] }
                guard sent == announced else { throw Failure.storage("the storage holds other bytes than were sent") }
            }
        } catch let failure as Failure {
            throw failure
        } catch let error as FileError {
            throw .unreadable("\(error)")
        } catch {
            throw Task.isCancelled ? .interrupted : .unreachable("\(error)")
        }
    }

    /// The MD5 of what the storage has received, where its ETag is that: not with keys that the storage does not own.
    private static func digest(in headers: HTTPHeaders) -> String? {
        let isEncrypted =
            headers["x-amz-server-side-encryption"]?.hasPrefix("aws:kms") == true
            || headers["x-amz-server-side-encryption-customer-algorithm"] != nil
        guard !isEncrypted, let tag = headers["ETag"], tag.utf8.count == 34, tag.hasPrefix("\""), tag.hasSuffix("\"")
        else { return nil }
        let text = tag.dropFirst().dropLast().lowercased()
        return text.allSatisfy(\.isHexDigit) ? text : nil
    }

    private func declaringFailure(_ error: TaskclusterError) async -> Failure {
        if isInterrupted { return .interrupted }
        // The queue says the same when the run is over and when the artifact exists with other properties.
        if error.status == 409, !options.ignoresLoss, await !keeper.confirm() { return .interrupted }
        return switch error.status {
        case nil, 408, 429: .unreachable("\(error)")
        // Neither is an answer about the artifact: the one has failed, the other makes no sense.
        case .some(let status) where status >= 500 || status < 400: .unreachable("\(error)")
        case 409: .refused("it exists already with other properties: \(error)")
        default: .refused("\(error)")
        }
    }
}

extension ArtifactUploader.Failure {
    /// The words for a log.
    public var text: String {
        switch self {
        case .storage(let text), .unreachable(let text), .refused(let text), .unreadable(let text): text
        case .interrupted: "interrupted"
        }
    }
}
