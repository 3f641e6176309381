// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPClient
import JSON
import Schedules
import Synchronization
import Taskcluster
import TaskclusterClient
import Testing
import WorkerKit

/// A queue and its storage that answer as a test wants.
private final class Answers: HTTPTransport {
    let seen = Mutex<[String]>([])
    private let answer: @Sendable (HTTPRequest, Int) throws(HTTPClientError) -> HTTPResponse

    init(_ answer: @escaping @Sendable (HTTPRequest, Int) throws(HTTPClientError) -> HTTPResponse) {
        self.answer = answer
    }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let count = seen.withLock { seen in
            seen.append("\(request.method) \(request.url)")
            return seen.count { $0.hasPrefix(request.method) }
        }
        return try answer(request, count)
    }

    func count(_ method: String) -> Int { seen.withLock { $0.count { $0.hasPrefix(method) } } }
}

@Suite(.timeLimit(.minutes(5))) struct ArtifactUploaderTests {
    private static let declared = HTTPResponse(
        status: 200,
        body: (["storageType": "s3", "putUrl": "https://storage.example.com/x"] as JSONValue).bytes()
    )

    /// Uploads one small file and returns what went wrong.
    private func upload(_ transport: Answers) async throws -> ArtifactUploader.Failure? {
        let folder = "/tmp/slipway-upload-\(UInt64.random(in: 0 ... .max))"
        mkdir(folder, 0o755)
        mkdir("\(folder)/art", 0o755)
        let descriptor = open("\(folder)/art/a.bin", O_CREAT | O_WRONLY | O_CLOEXEC, 0o644)
        _ = write(descriptor, "content", 7)
        close(descriptor)
        defer {
            unlink("\(folder)/art/a.bin")
            rmdir("\(folder)/art")
            rmdir(folder)
        }
        let until = (Timestamp.now() + .seconds(1200)).iso8601
        let json: JSONValue = [
            "status": ["taskId": .string(Slugid.make())], "runId": 0, "workerGroup": "g", "workerId": "w",
            "takenUntil": .string(until), "task": ["expires": .string(until)],
            "credentials": ["clientId": "c", "accessToken": "t"],
        ]
        let claim = try #require(Claim(json))
        let keeper = ClaimKeeper(
            claim,
            interval: .seconds(300),
            makeClient: {
                TaskclusterClient(
                    rootURL: "https://tc.example.com",
                    credentials: $0,
                    transport: transport,
                    retry: .once
                )
            },
            onCredentials: { _ in },
            onProblem: { _ in }
        )
        var options = ArtifactUploader.Options(temporaryDirectory: folder)
        options.schedule = TransferSchedule(attempts: 5, base: .milliseconds(1), maximum: .milliseconds(1))
        let uploader = ArtifactUploader(
            keeper,
            transport: transport,
            files: FileWork(),
            options: options,
            onProblem: { _ in }
        )
        return await uploader.upload(try ArtifactWalk("\(folder)/art").files) { _ in false }["a.bin"]
    }

    @Test func `S48: an upload that breaks off is declared again before it is tried again`() async throws {
        let transport = Answers { (request, count) throws(HTTPClientError) in
            if request.method == "POST" { return Self.declared }
            if count < 3 { throw HTTPClientError(.aborted, "cut") }
            return HTTPResponse(status: 200)
        }
        #expect(try await upload(transport) == nil)
        #expect(transport.count("POST") == 3)
        #expect(transport.count("PUT") == 3)
    }

    @Test func `S49: a storage that keeps refusing is given up after five attempts`() async throws {
        let transport = Answers { (request, _) throws(HTTPClientError) in
            request.method == "POST" ? Self.declared : HTTPResponse(status: 500)
        }
        guard case .storage = try await upload(transport) else {
            Issue.record("the storage must be to blame")
            return
        }
        #expect(transport.count("PUT") == 5)
    }

    @Test(
        arguments: [
            // The MD5 of "content", and of nothing.
            ("\"9a0364b9e99bb480dd25e1f0284c8555\"", [:], 1), ("\"d41d8cd98f00b204e9800998ecf8427e\"", [:], 5),
            ("\"d41d8cd98f00b204e9800998ecf8427e\"", ["x-amz-server-side-encryption": "aws:kms"], 1),
            ("\"d41d8cd98f00b204e9800998ecf8427e-3\"", [:], 1), ("W/\"x\"", [:], 1),
        ] as [(String, [String: String], Int)]
    )
    func `an upload counts only when the storage's digest is ours, where it tells one`(
        _ tag: String,
        _ more: [String: String],
        _ puts: Int
    ) async throws {
        let transport = Answers { (request, _) throws(HTTPClientError) in
            if request.method == "POST" { return Self.declared }
            var headers: HTTPHeaders = ["ETag": tag]
            for (name, value) in more { headers[name] = value }
            return HTTPResponse(status: 200, headers: headers)
        }
        let failure = try await upload(transport)
        #expect(transport.count("PUT") == puts)
        #expect((failure == nil) == (puts == 1))
    }

    @Test func `S52: nothing but the configured limit ends an upload`() async throws {
        let limits = Mutex<[Duration]>([])
        let transport = Answers { (request, _) throws(HTTPClientError) in
            if request.method == "POST" { return Self.declared }
            limits.withLock { $0.append(request.timeout) }
            #expect(request.stallTimeout == nil)
            return HTTPResponse(status: 204)
        }
        #expect(try await upload(transport) == nil)
        #expect(limits.withLock { $0 } == [.seconds(1200)])
    }

    @Test(arguments: [500, 0])
    func `S50: a queue that is away is asked five times`(_ status: Int) async throws {
        let transport = Answers { (_, _) throws(HTTPClientError) in
            if status == 0 { throw HTTPClientError(.connect, "reset") }
            return HTTPResponse(status: status, body: Array("{}".utf8))
        }
        guard case .unreachable = try await upload(transport) else {
            Issue.record("the queue must count as unreachable")
            return
        }
        #expect(transport.count("POST") == 5)
    }

    @Test func `S50: a queue that refuses is asked once`() async throws {
        let transport = Answers { (_, _) throws(HTTPClientError) in HTTPResponse(status: 403, body: Array("{}".utf8)) }
        guard case .refused = try await upload(transport) else {
            Issue.record("the refusal must be final")
            return
        }
        #expect(transport.count("POST") == 1)
    }

    @Test func `S39: a conflict makes the worker ask whether the run is still its own`() async throws {
        let transport = Answers { (_, _) throws(HTTPClientError) in HTTPResponse(status: 409, body: Array("{}".utf8)) }
        #expect(try await upload(transport) == .interrupted)
        #expect(transport.seen.withLock { $0.last?.contains("/reclaim") } == true)
    }
}
