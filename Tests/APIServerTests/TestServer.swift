// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import Glibc
import HTTPClient
import JSON
import Logging
import Schedules
import ServiceLifecycle
import Synchronization
import Taskcluster

/// A real server on a port of its own with an API made for tests, and a client that signs.
struct TestServer: Sendable {
    static let ruler = Hawk.Credentials(clientID: "tests/ruler", accessToken: "cnVsZXItYWNjZXNzLXRva2VuLTEyMzQ1Njc4")
    static let pauper = Hawk.Credentials(clientID: "tests/pauper", accessToken: "cGF1cGVyLWFjY2Vzcy10b2tlbi0xMjM0NTY3")

    let port: Int
    let transport: CurlTransport
    let events: Events

    /// Runs a test against a server that ends with it.
    static func run(
        authenticator: (any RequestAuthenticator)? = nil,
        proxies: [(prefix: String, upstream: String)] = [],
        raw: [RawRoute] = [],
        configuration: HTTPServerConfiguration = HTTPServerConfiguration(),
        service: String = "tests",
        logger given: Logger? = nil,
        _ body: (TestServer) async throws -> Void
    ) async throws {
        let transport = CurlTransport()
        let events = Events()
        let folder = try TestSchemas.write(service)
        let server = HTTPServer(
            configuration: configuration,
            name: "api-server-tests",
            rootURL: "https://tc.example.com",
            apis: [TestAPI.make(SchemaStore(directory: folder), events, service: service)],
            authenticator: authenticator ?? DirectoryAuthenticator(),
            health: HealthRegistry(),
            raw: raw,
            proxies: proxies.map {
                ProxyRoute(
                    prefix: $0.prefix,
                    upstream: $0.upstream,
                    transport: transport,
                    references: $0.prefix == "/references/next/" ? ["next/v1/api.json"] : []
                )
            }
        )
        var logger = given ?? Logger(label: "tests")
        if given == nil { logger.logLevel = .error }
        let group = ServiceGroup(services: [server], logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { [logger] in try await withLogger(logger) { _ in try await group.run() } }
            let port = await server.waitUntilListening()
            var failure: (any Error)?
            do {
                try await body(TestServer(port: port, transport: transport, events: events))
            } catch {
                failure = error
            }
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
            if let failure { throw failure }
        }
        transport.shutdown()
    }

    /// A server for tests of its end, and the group in which it runs.
    static func bare(_ name: String, _ events: Events) throws -> (HTTPServer, ServiceGroup, Logger) {
        let server = HTTPServer(
            configuration: HTTPServerConfiguration(),
            name: name,
            rootURL: nil,
            apis: [TestAPI.make(SchemaStore(directory: try TestSchemas.write()), events)],
            authenticator: DirectoryAuthenticator(),
            health: HealthRegistry()
        )
        var logger = Logger(label: "tests")
        logger.logLevel = .error
        return (server, ServiceGroup(services: [server], logger: logger), logger)
    }

    /// Sends a request, signed if credentials are given.
    func send(
        _ method: String,
        _ path: String,
        _ body: String? = nil,
        bytes: [UInt8]? = nil,
        type: String? = "application/json",
        as credentials: Hawk.Credentials? = nil,
        signing: (inout Signing) -> Void = { _ in },
        headers: [(String, String)] = []
    ) async throws -> HTTPResponse {
        var fields = HTTPHeaders()
        let bytes = bytes ?? body.map { Array($0.utf8) }
        if bytes != nil, let type { fields.add("Content-Type", type) }
        if let credentials {
            var options = Signing(
                target: Hawk.Target(host: "127.0.0.1", port: port, resource: path),
                now: .now(),
                payload: nil
            )
            signing(&options)
            fields.add(
                "Authorization",
                Hawk.authorization(
                    for: method,
                    url: options.target,
                    credentials: credentials,
                    authorizedScopes: options.authorizedScopes,
                    payload: options.payload,
                    now: options.now
                )
            )
        }
        for (name, value) in headers {
            fields.add(name, value)
        }
        return try await transport.send(
            HTTPRequest(
                method: method,
                url: "http://127.0.0.1:\(port)\(path)",
                headers: fields,
                body: bytes.map { .bytes($0) } ?? .none
            )
        )
    }

    struct Signing {
        var target: Hawk.Target
        var now: Timestamp
        var payload: (contentType: String, body: [UInt8])?
        var authorizedScopes: [String]?
    }
}

/// Facts that handlers leave for tests.
final class Events: Sendable {
    private let facts = Mutex<[String]>([])

    func note(_ fact: String) {
        facts.withLock { $0.append(fact) }
    }

    var all: [String] { facts.withLock { $0 } }

    func has(_ fact: String) -> Bool { all.contains(fact) }

    /// Waits until a fact was noted; false after a minute without it.
    func wait(for fact: String) async throws -> Bool {
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            if facts.withLock({ $0.contains(fact) }) { return true }
            try await Task.sleep(for: .milliseconds(5))
        }
        return false
    }
}

/// The authenticator of a single process: a directory of a few clients.
struct DirectoryAuthenticator: RequestAuthenticator {
    static let directory: CredentialDirectory = {
        func client(_ credentials: Hawk.Credentials, _ scopes: [String]) -> Client {
            Client(id: credentials.clientID, accessToken: credentials.accessToken, scopes: scopes, expires: .farFuture)
        }
        var disabled = client(TestServer.ruler, ["*"])
        disabled.id = "tests/disabled"
        disabled.disabled = true
        var expired = client(TestServer.ruler, ["*"])
        expired.id = "tests/expired"
        expired.expires = Timestamp(seconds: 1_500_000_000)
        let clients = [
            client(TestServer.ruler, ["*"]), client(TestServer.pauper, ["tests:read:poor/thing"]), disabled, expired,
        ]
        return CredentialDirectory(
            clients: Dictionary(uniqueKeysWithValues: clients.map { ($0.id, $0) }),
            roles: RoleSet([])
        )
    }()

    func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        Self.directory.authenticate(request, now: .now())
    }
}

/// An authenticator whose service is down.
struct BrokenAuthenticator: RequestAuthenticator {
    struct Down: Error {}
    func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult { throw Down() }
}

extension HTTPResponse {
    /// The body as JSON; null if it is none.
    var value: JSONValue { (try? json()) ?? .null }
    var code: String { value["code"]?.string ?? "" }
    var message: String { value["message"]?.string ?? "" }
    var text: String { String(decoding: body, as: UTF8.self) }
}
