// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Logging
import Synchronization
import Taskcluster
import Testing

@Suite(.timeLimit(.minutes(5)))
struct AccessLogTests {
    private let base = "/api/tests/v1"

    @Test func `each request to an API is one line of its type`() async throws {
        let line = try await lines {
            let headers = [("x-taskcluster-trace-id", "trace-1")]
            _ = try await $0.send("GET", base + "/thing/a", as: TestServer.ruler, headers: headers)
        }.first
        #expect(line?["Type"] == "monitor.apiMethod")
        #expect(line?["severity"] == "NOTICE")
        #expect(line?["traceId"] == "trace-1")
        #expect(line?["requestId"]?.string?.count == 36)
        let fields = try #require(line?["Fields"])
        let expected: [String: JSONValue] = [
            "v": 2, "name": "getThing", "apiVersion": "v1", "clientId": "tests/ruler", "authenticated": true,
            "public": false, "sourceIp": "127.0.0.1", "satisfyingScopes": ["tests:read:a"], "method": "GET",
            "resource": .string(base + "/thing/a"), "statusCode": 404, "expires": "4000-02-01T00:00:00.000Z",
        ]
        for (key, value) in expected { #expect(fields[key] == value, "\(key)") }
        #expect(fields["duration"]?.double ?? -1 >= 0)
    }

    @Test func `a client that leaves its long poll is no failure of the server`() async throws {
        let entries = try await lines { server in
            let socket = try RawSocket(port: server.port)
            socket.send("GET \(base)/poll HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(try await server.events.wait(for: "poll began"))
            socket.close()
            #expect(try await server.events.wait(for: "poll cancelled"))
        }
        #expect(entries.map { $0["Type"] } == ["monitor.apiMethod"])
        #expect(entries.first?["Fields"]?["statusCode"] == 499)
    }

    @Test func `A38: neither signatures nor secret parameters nor payloads reach a line`() async throws {
        var bewit = ""
        let text = try await lines { server in
            let url = "http://127.0.0.1:\(server.port)\(base)/thing/a"
            let signed = Hawk.signedURL(url, credentials: TestServer.ruler, lifetime: .seconds(60), now: .now()) ?? ""
            bewit = try #require(signed.split(separator: "bewit=").last.map(String.init))
            #expect(try await server.send("GET", base + "/thing/a?bewit=" + bewit).status == 404)
            #expect(try await server.send("GET", base + "/secret/hunter2").status == 204)
            #expect(try await server.send("GET", base + "/secret/hunter2/").status == 204)
            #expect(try await server.send("GET", base + "/secret/hunter2?x=1").status == 400)
            let body = #"{"password":"hunter2"}"#
            #expect(try await server.send("PUT", base + "/thing/a", body, as: TestServer.ruler).status == 400)
            #expect(try await server.send("GET", base + "/wrong-output").status == 500)
        }
        .map { $0.text() }.joined(separator: "\n")
        #expect(!text.contains(bewit))
        #expect(!text.contains("hunter2"))
        #expect(!text.contains(TestServer.ruler.accessToken))
        #expect(text.contains(#""query":"bewit=...""#))
        #expect(text.contains(#""resource":"/api/tests/v1/secret/...""#))
        #expect(text.contains(#""incidentId":"#))
    }

    /// The lines about requests that a server writes during a body.
    private func lines(_ body: (TestServer) async throws -> Void) async throws -> [JSONValue] {
        let written = Mutex<[String]>([])
        let handler = LineLogHandler(service: "tests", level: .debug) { line in written.withLock { $0.append(line) } }
        try await TestServer.run(logger: Logger(label: "tests") { _ in handler }, body)
        return try written.withLock { $0 }.map { try JSONValue(parsing: $0) }.filter { $0["Fields"]?["name"] != nil }
    }
}
