// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Schedules
import Synchronization
import Taskcluster
import TestSupport
import Testing

@testable import DaemonCommand

/// Settings that are kept as a secret in Taskcluster.
@Suite(.timeLimit(.minutes(5)))
struct TaskclusterSecretTests {
    private static let credentials = Hawk.Credentials(clientID: "daemons/one", accessToken: "c2VjcmV0IG9mIGRhZW1vbnMh")

    private static let environment = [
        "TASKCLUSTER_SECRET": "project/releng/one", "TASKCLUSTER_CLIENT_ID": credentials.clientID,
        "TASKCLUSTER_ACCESS_TOKEN": credentials.accessToken,
    ]

    /// A service that answers a document to whoever signs as it should.
    private static func service(failures: Int = 0, _ answer: @escaping @Sendable () -> TestServer.Reaction)
        -> TestServer
    {
        let left = Countdown(failures)
        let directory = CredentialDirectory(
            clients: [
                credentials.clientID: Client(
                    id: credentials.clientID,
                    accessToken: credentials.accessToken,
                    scopes: [],
                    expires: .farFuture,
                    disabled: false
                )
            ],
            roles: RoleSet([])
        )
        return TestServer { request in
            if left.next() { return .answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") }
            let fields = request.head.split(separator: "\r\n").dropFirst()
            func field(_ name: String) -> String? {
                fields.first { $0.lowercased().hasPrefix(name + ":") }.map { String($0.dropFirst(name.count + 2)) }
            }
            let words = request.line.split(separator: " ").map(String.init)
            let host = (field("host") ?? "").split(separator: ":").map(String.init)
            let verdict = directory.authenticate(
                AuthenticationRequest(
                    method: words[0].lowercased(),
                    resource: words[1],
                    host: host.first ?? "",
                    port: host.last.flatMap { Int($0) } ?? 80,
                    authorization: field("authorization")
                ),
                now: .now()
            )
            guard case .success = verdict else {
                return .answer("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            }
            return answer()
        }
    }

    private static func document(_ secret: JSONValue) -> TestServer.Reaction {
        let text = (["secret": secret, "expires": "2100-01-01T00:00:00.000Z"] as JSONValue).text()
        return ok(text, "Content-Type: application/json\r\n")
    }

    /// The problems of reading the secret into settings.
    private func problems(_ settings: Settings, _ attempts: Int = 3) async throws -> [String] {
        let secret = TaskclusterSecret(
            retry: RetryPolicy(attempts: attempts, base: .milliseconds(1), maximum: .milliseconds(5))
        )
        do {
            try await secret.add(to: settings, of: "shipit-one")
            try settings.check()
            return []
        } catch let error as ConfigurationError {
            return error.problems
        }
    }

    @Test func `what a process is told counts before its part of the secret, and that before the common part`()
        async throws
    {
        let server = Self.service(failures: 2) {
            Self.document([
                "common": [
                    "A": "common", "B": "common", "C": "common", "lower": "x", "D": nil, "TASKCLUSTER_SECRET": "x",
                ],
                "shipit-one": ["B": "own", "C": "own", "PORT_NUMBER": 80, "IS_ON": true, "GROUPS": ["a": ["b"]]],
                "shipit-two": ["A": "other"],
            ])
        }
        defer { server.close() }
        let environment = Self.environment.merging(["C": "told", "TASKCLUSTER_ROOT_URL": server.url("")]) { $1 }
        let settings = Settings(environment: environment)
        #expect(try await problems(settings) == [])
        #expect(server.requests.count == 3)
        #expect(server.requests.last?.line == "GET /api/secrets/v1/secret/project%2Freleng%2Fone HTTP/1.1")
        #expect(settings.optional("a", "a test") == "common")
        #expect(settings.optional("b", "a test") == "own")
        #expect(settings.optional("c", "a test") == "told")
        #expect(settings.optional("d", "a test") == nil)
        #expect(settings.optional("lower", "a test") == nil)
        #expect(settings.int("port.number", default: 1, in: 1...99, "a test") == 80)
        #expect(settings.bool("is.on", default: false, "a test"))
        #expect(settings.optional("groups", "a test") == #"{"a":["b"]}"#)
        let shown = Dictionary(settings.summary.map { ($0.name, $0.value) }) { first, _ in first }
        #expect(shown["A"] == "..." && shown["B"] == "..." && shown["C"] == "told")
        #expect(shown["TASKCLUSTER_SECRET"] == "project/releng/one")
    }

    @Test func `another part may be named`() async throws {
        let server = Self.service { Self.document(["shipit-two": ["A": "two"]]) }
        defer { server.close() }
        let settings = Settings(
            environment: Self.environment.merging(
                ["TASKCLUSTER_ROOT_URL": server.url(""), "TASKCLUSTER_SECRET_PROJECT": "shipit-two"]
            ) { $1 }
        )
        #expect(try await problems(settings) == [])
        #expect(settings.optional("a", "a test") == "two")
    }

    @Test func `a problem with a value from the secret does not show the value`() async throws {
        let server = Self.service {
            Self.document(["common": ["LEVELS": "first,hunter2 last", "HTTP_PORT": "hunter2"]])
        }
        defer { server.close() }
        let settings = Settings(
            environment: Self.environment.merging(["TASKCLUSTER_ROOT_URL": server.url("")]) { $1 }
        )
        #expect(try await problems(settings) == [])
        settings.fail("levels", "names hunter2, which is no level")
        _ = settings.int("http.port", default: 1, in: 1...99, "the port")
        let problems = try await problems(settings)
        #expect(
            problems == [
                "LEVELS names ..., which is no level",
                "HTTP_PORT must be a whole number from 1 to 99; it is the port",
            ]
        )
    }

    @Test(
        arguments: [
            ("HTTP/1.1 404 Not Found", "there is no secret project/releng/one", 1),
            ("HTTP/1.1 403 Forbidden", "daemons/one needs the scope secrets:get:project/releng/one", 1),
            ("HTTP/1.1 503 Service Unavailable", "answered 503", 3),
        ]
    )
    func `a secret that cannot be read is told by its variable, after a few attempts at most`(
        _ status: String,
        _ reason: String,
        _ attempts: Int
    ) async throws {
        let server = Self.service { .answer("\(status)\r\nContent-Length: 0\r\n\r\n") }
        defer { server.close() }
        let settings = Settings(
            environment: Self.environment.merging(["TASKCLUSTER_ROOT_URL": server.url("")]) { $1 }
        )
        let problems = try await problems(settings)
        #expect(problems.count == 1)
        #expect(problems.first?.hasPrefix("TASKCLUSTER_SECRET cannot be read: ") == true)
        #expect(problems.first?.contains(reason) == true, "\(problems)")
        #expect(server.requests.count == attempts)
    }

    @Test func `without credentials, without the right ones, and without a service there is no secret`() async throws {
        let server = Self.service { Self.document(["common": [:]]) }
        defer { server.close() }
        let bare = Settings(
            environment: ["TASKCLUSTER_SECRET": "a", "TASKCLUSTER_ROOT_URL": server.url("")]
        )
        let missing = try await problems(bare).map { String($0.prefix { $0 != " " }) }
        #expect(missing == ["TASKCLUSTER_CLIENT_ID", "TASKCLUSTER_ACCESS_TOKEN"])
        #expect(server.requests.isEmpty)
        let wrong = Settings(
            environment: Self.environment.merging(
                ["TASKCLUSTER_ACCESS_TOKEN": "wrong", "TASKCLUSTER_ROOT_URL": server.url("")]
            ) { $1 }
        )
        #expect(try await problems(wrong).first?.contains("does not accept the credentials") == true)
        let nowhere = Settings(
            environment: Self.environment.merging(["TASKCLUSTER_ROOT_URL": "http://127.0.0.1:1"]) { $1 }
        )
        #expect(try await problems(nowhere).first?.contains("gives no answer") == true)
        #expect(try await problems(Settings(environment: [:])) == [])
    }

    @Test(
        arguments: [
            ["other": [:]], [:], ["common": "text"], ["common": [:], "one": [1]], [1], nil,
        ] as [JSONValue]
    )
    func `a secret that is no document of settings is refused`(_ secret: JSONValue) {
        #expect(throws: TaskclusterSecret.Unusable.self) { try TaskclusterSecret.values(secret, "name", "one") }
    }
}

/// Counts down to nothing.
private final class Countdown: Sendable {
    private let left: Atomic<Int>

    init(_ count: Int) { left = Atomic(count) }

    /// Whether there was something left.
    func next() -> Bool { left.subtract(1, ordering: .relaxed).oldValue > 0 }
}
