// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Logging
import Schedules
import ServiceLifecycle
import Synchronization
import Taskcluster
import Testing

@Suite(.timeLimit(.minutes(5)))
struct ConnectionTests {
    private let base = "/api/tests/v1"

    @Test func `an idle connection is closed after the configured time`() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.keepAlive = .seconds(1)
        try await TestServer.run(configuration: configuration) { (server) async throws in
            let socket = try RawSocket(port: server.port)
            defer { socket.close() }
            socket.send("GET \(base)/ping HTTP/1.1\r\nHost: x\r\n\r\n")
            let received = try #require(await socket.receiveAll())
            #expect(received.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(received.contains("\"alive\": true"))
        }
    }

    @Test func `a request that takes longer than the idle time is not cut`() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.keepAlive = .seconds(1)
        try await TestServer.run(configuration: configuration) { (server) async throws in
            let socket = try RawSocket(port: server.port)
            defer { socket.close() }
            socket.send("GET \(base)/slow HTTP/1.1\r\nHost: x\r\n\r\n")
            let received = try #require(await socket.receiveAll())
            #expect(received.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(received.hasSuffix("{}"))
        }
    }

    @Test func `an answer that could not leave is undone, whenever its client goes`() async throws {
        try await TestServer.run { (server) async throws in
            // The moment decides whether the answer is not written yet, queued, or half sent.
            for round in 0..<15 {
                let name = "parcel-\(round)"
                let socket = try RawSocket(port: server.port, window: 4096)
                socket.send("GET \(base)/parcel/\(name) HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(try await server.events.wait(for: "\(name) is ready"))
                try await Task.sleep(for: .milliseconds(round * 4))
                socket.reset()
                #expect(try await server.events.wait(for: "\(name) came back"), "round \(round)")
            }
        }
    }

    @Test func `an answer that left is not undone`() async throws {
        try await TestServer.run { (server) async throws in
            for _ in 0..<3 {
                #expect(try await server.send("GET", base + "/parcel/whole").body.count > 10_000_000)
            }
            #expect(Set(server.events.all) == ["whole is ready"])
        }
    }

    @Test func `the idle time is ninety seconds unless configured`() {
        #expect(HTTPServerConfiguration(settings: Settings(environment: [:])).keepAlive == .seconds(90))
        let settings = Settings(environment: ["KEEP_ALIVE_TIMEOUT_SECONDS": "120"])
        #expect(HTTPServerConfiguration(settings: settings).keepAlive == .seconds(120))
    }

    @Test func `the caller's address is the proxy's word only if the proxy is trusted`() async throws {
        for isTrusted in [false, true] {
            var configuration = HTTPServerConfiguration()
            configuration.trust = isTrusted ? .anybody : .nobody
            let recorder = RecordingAuthenticator()
            try await TestServer.run(authenticator: recorder, configuration: configuration) { (server) async throws in
                let forwarded = [("X-Forwarded-For", "203.0.113.7, 10.0.0.1")]
                #expect(try await server.send("GET", base + "/thing/a", headers: forwarded).status == 404)
                #expect(recorder.addresses == [isTrusted ? "203.0.113.7" : "127.0.0.1"])
            }
        }
    }

    @Test func `a proxied neighbour is told whose request it is`() async throws {
        var trusting = HTTPServerConfiguration()
        trusting.trust = .anybody
        let recorder = RecordingAuthenticator()
        try await TestServer.run(authenticator: recorder, configuration: trusting) { (neighbour) async throws in
            let upstream = "http://127.0.0.1:\(neighbour.port)"
            try await TestServer.run(proxies: [("/api/tests/", upstream)]) { server in
                _ = try await server.send("GET", base + "/thing/a")
                _ = try await server.send("GET", base + "/thing/a", headers: [("X-Forwarded-For", "203.0.113.7")])
            }
        }
        #expect(recorder.addresses == ["127.0.0.1", "203.0.113.7"])
    }

    @Test func `with TLS forced, plain requests are redirected and secured ones say for how long`() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.forcesTLS = true
        configuration.trust = .anybody
        try await TestServer.run(configuration: configuration) { (server) async throws in
            let plain = try await server.send("GET", base + "/ping?x=1", headers: [("Host", "tc.example.com")])
            #expect(plain.status == 308)
            #expect(plain.headers["Location"] == "https://tc.example.com\(base)/ping?x=1")
            let secured = try await server.send("GET", base + "/ping", headers: [("X-Forwarded-Proto", "https")])
            #expect(secured.status == 200)
            #expect(secured.headers["Strict-Transport-Security"] == "max-age=7776000")
            #expect(try await server.send("GET", "/__lbheartbeat__").status == 200)
        }
    }

    @Test func `forcing TLS without a trusted proxy is a mistake`() {
        let settings = Settings(environment: ["FORCE_SSL": "true"])
        _ = HTTPServerConfiguration(settings: settings)
        let error = #expect(throws: ConfigurationError.self) { try settings.check() }
        #expect(error?.problems.first?.hasPrefix("FORCE_SSL needs TRUSTED_PROXIES or TRUST_PROXY=true") == true)
    }

    @Test func `A31: the extension may be URL-safe and without padding, and garbage in it is refused`() async throws {
        try await TestServer.run { (server) async throws in
            let path = base + "/thing/a"
            func status(_ ext: String) async throws -> Int {
                let now = String(Timestamp.now().milliseconds / 1000)
                let target = Hawk.Target(host: "127.0.0.1", port: server.port, resource: path)
                let artifacts = Hawk.Artifacts(
                    timestamp: now,
                    nonce: "abc123",
                    method: "GET",
                    target: target,
                    ext: ext
                )
                let mac = Hawk.mac(.header, artifacts, key: TestServer.ruler.accessToken)
                let header = Hawk.Header(
                    id: TestServer.ruler.clientID,
                    timestamp: now,
                    nonce: "abc123",
                    mac: mac,
                    ext: ext
                )
                return try await server.send("GET", path, headers: [("Authorization", header.text)]).status
            }
            // {} and {"x":"???>>>"}: the latter has both letters that the two alphabets spell differently.
            for good in ["e30=", "e30", "eyJ4IjoiPz8/Pj4+In0=", "eyJ4IjoiPz8_Pj4-In0=", "eyJ4IjoiPz8_Pj4-In0"] {
                #expect(try await status(good) == 404, "\(good)")
            }
            for bad in ["@@", "e3", "W10=", "eA=="] {
                #expect(try await status(bad) == 401, "\(bad)")
            }
        }
    }

    @Test func `A37: no request is cut when the server stops under load`() async throws {
        let events = Events()
        let (server, group, logger) = try TestServer.bare("drain-load", events)
        async let running: Void = withLogger(logger) { _ in try await group.run() }
        let port = await server.waitUntilListening()
        let ends = await withTaskGroup(of: String.self) { clients in
            for index in 0..<16 {
                clients.addTask { [base] in
                    let transport = CurlTransport()
                    defer { transport.shutdown() }
                    // Some requests are short and many, some are under way for a while.
                    let path = index % 4 == 0 ? "/slow" : "/list"
                    let request = HTTPRequest(url: "http://127.0.0.1:\(port)\(base)\(path)")
                    while true {
                        do throws(HTTPClientError) {
                            let reply = try await transport.send(request)
                            guard reply.status == 200, (try? reply.json()) != nil else { return "bad answer" }
                            events.note("answered")
                        } catch {
                            return error.code.name
                        }
                    }
                }
            }
            while events.all.count(where: { $0 == "answered" }) < 50 || !events.has("slow began") {
                try? await Task.sleep(for: .milliseconds(5))
            }
            await group.triggerGracefulShutdown()
            return await clients.reduce(into: [String]()) { $0.append($1) }
        }
        try await running
        // Every client got whole answers until nobody listened any more.
        #expect(ends == [String](repeating: "connect", count: 16))
    }

    @Test func `a cancelled server stops to accept and ends, whoever just connects`() async throws {
        for _ in 0..<20 {
            let server = HTTPServer(
                configuration: HTTPServerConfiguration(),
                name: "cancelled",
                rootURL: nil,
                apis: [],
                authenticator: nil,
                health: HealthRegistry()
            )
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await server.run() }
                let port = await server.waitUntilListening()
                group.cancelAll()
                for _ in 0..<50 {
                    guard let socket = try? RawSocket(port: port) else { break }
                    socket.close()
                }
                try await group.waitForAll()
            }
        }
    }

    @Test func `A19: a body of unannounced length is refused as soon as it is too long`() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.bodyLimit = 1000
        try await TestServer.run(configuration: configuration) { (server) async throws in
            let socket = try RawSocket(port: server.port)
            defer { socket.close() }
            socket.send(
                "PUT \(base)/thing/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                    + "Content-Type: application/json\r\n\r\n"
            )
            for _ in 0..<20 { socket.send("100\r\n\(String(repeating: " ", count: 256))\r\n") }
            socket.send("0\r\n\r\nGET \(base)/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            let received = try #require(await socket.receiveAll())
            #expect(received.hasPrefix("HTTP/1.1 413 "))
            #expect(received.contains("\"code\": \"InputTooLarge\""))
            #expect(received.lowercased().contains("connection: close"))
        }
    }

    @Test func `a port that is taken is told in one line that says what to do`() async throws {
        try await TestServer.run { (first) async throws in
            let second = HTTPServer(
                configuration: HTTPServerConfiguration(port: first.port),
                name: "second",
                rootURL: nil,
                apis: [],
                authenticator: nil,
                health: HealthRegistry()
            )
            do {
                try await second.run()
                Issue.record("two servers listen on one port")
            } catch {
                #expect(
                    "\(error)" == "cannot listen on 127.0.0.1:\(first.port): another process listens there; "
                        + "stop it or choose another HTTP_PORT"
                )
            }
            #expect(await second.waitUntilListening() == 0)
        }
    }
}

/// An authenticator that lets everybody read and remembers from where they asked.
final class RecordingAuthenticator: RequestAuthenticator {
    private let seen = Mutex<[String]>([])

    var addresses: [String] { seen.withLock { $0 } }

    func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        seen.withLock { $0.append(request.sourceIP ?? "") }
        return .none(scopes: ["tests:read:*"], expires: .farFuture)
    }
}
