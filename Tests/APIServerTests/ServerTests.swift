// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import Glibc
import HTTPClient
import JSON
import Logging
import Schedules
import ServiceLifecycle
import Taskcluster
import Testing

@Suite(.timeLimit(.minutes(5)))
struct ServerTests {
    private let base = "/api/tests/v1"

    @Test func `A30: malformed signatures are refused whatever is wrong with them`() async throws {
        try await TestServer.run { (server) async throws in
            let path = base + "/thing/a"
            let good = Hawk.authorization(
                for: "GET",
                url: Hawk.Target(host: "127.0.0.1", port: server.port, resource: path),
                credentials: TestServer.ruler,
                now: .now()
            )
            let attributes = good.dropFirst("Hawk ".count).split(separator: ", ")
            let reversed = "Hawk " + attributes.reversed().joined(separator: ", ")
            let cases = [
                (good, 404), (reversed, 404), (good + ", foo=\"x\"", 401), (good + ", id=\"tests/ruler\"", 401),
                (good + ", ext=\"" + String(repeating: "a", count: 4097) + "\"", 401), ("Bearer x", 401),
            ]
            for (header, status) in cases {
                let reply = try await server.send("GET", path, headers: [("Authorization", header)])
                #expect(reply.status == status, "\(header.prefix(80))")
            }
        }
    }

    @Test func `every answer carries the common fields`() async throws {
        try await TestServer.run { (server) async throws in
            let reply = try await server.send("GET", base + "/nothing", headers: [("x-taskcluster-trace-id", "t-1")])
            #expect(reply.headers["Cache-Control"] == "no-store, no-cache, must-revalidate")
            #expect(reply.headers["X-Content-Type-Options"] == "nosniff")
            #expect(reply.headers["x-for-trace-id"] == "t-1")
            #expect(reply.headers["x-for-request-id"]?.count == 36)
            #expect(reply.headers["Access-Control-Max-Age"] == "900")
            #expect(reply.headers["Date"]?.hasSuffix(" GMT") == true)
            #expect(reply.text == "{\n  \"error\": \"Not found\"\n}")
        }
    }

    @Test func `paths are taken as they were sent`() async throws {
        try await TestServer.run { (server) async throws in
            for (path, name) in [("a/b", "a/b"), ("a%2Fb", "a/b"), ("a//b/../c", "a//b/../c"), ("a+b%20c", "a+b c")] {
                let reply = try await server.send("GET", base + "/path/" + path)
                #expect(reply.value["name"]?.string == name)
                #expect(reply.value["resource"]?.string == base + "/path/" + path)
            }
            let counts = try await server.send("GET", base + "/queues/p/w/counts").value
            #expect(counts == ["queue": "p/w"])
            let broken = try await server.send("GET", base + "/path/%zz")
            #expect(broken.status == 400)
            #expect(broken.code == "InvalidRequestArguments")
        }
    }

    @Test func `a handler that forgets to authorise answers 500`() async throws {
        try await TestServer.run { (server) async throws in
            let forgot = try await server.send("POST", base + "/deferred", as: TestServer.ruler)
            #expect(forgot.status == 500)
            let did = try await server.send(
                "POST",
                base + "/deferred",
                as: TestServer.ruler,
                headers: [("x-kind", "k")]
            )
            #expect(did.value == ["clientId": "tests/ruler"])
            let poor = try await server.send(
                "POST",
                base + "/deferred",
                as: TestServer.pauper,
                headers: [("x-kind", "k")]
            )
            #expect(poor.status == 403)
            #expect(poor.message.contains("tests:deferred:k"))
        }
    }

    @Test func `an answer against its schema is not shown`() async throws {
        try await TestServer.run { (server) async throws in
            let reply = try await server.send("GET", base + "/wrong-output")
            #expect(reply.status == 500)
            #expect(!reply.text.contains("leak"))
        }
    }

    @Test func `references and schemas are served with absolute addresses`() async throws {
        try await TestServer.run { (server) async throws in
            let root = "https://tc.example.com"
            let manifest = try await server.send("GET", "/references/manifest.json").value
            #expect(
                manifest["references"] == [
                    .string(root + "/references/tests/v1/api.json"),
                    .string(root + "/references/tests/v1/exchanges.json"),
                ]
            )
            let api = try await server.send("GET", "/references/tests/v1/api.json").value
            let entry = try #require(api["entries"]?.array?.first)
            #expect(entry["name"] == "putThing")
            #expect(entry["route"] == "/thing/<name>")
            #expect(entry["args"] == ["name"])
            #expect(entry["input"] == "v1/thing.json#")
            #expect(entry["scopes"] == "tests:write:<name>")
            let names = try #require(api["entries"]?.array).compactMap { $0["name"]?.string }
            #expect(names.suffix(4) == ["ping", "lbheartbeat", "version", "heartbeat"])
            let exchanges = try await server.send("GET", "/references/tests/v1/exchanges.json").value
            #expect(exchanges["exchangePrefix"] == "exchange/taskcluster-tests/v1/")
            #expect(exchanges["entries"]?[0]?["routingKey"]?[0]?["constant"] == "primary")
            let schema = try await server.send("GET", "/schemas/tests/v1/thing.json").value
            #expect(schema["$id"]?.string == root + "/schemas/tests/v1/thing.json#")
            let everything = try await server.send("GET", "/references/references.json").value
            #expect(everything.array?.count == 4)
            for path in ["/schemas/tests/v1/../v1/thing.json", "/schemas/none/v1/x.json", "/references/x"] {
                #expect(try await server.send("GET", path).status == 404)
            }
        }
    }

    @Test func `the server's own paths answer`() async throws {
        try await TestServer.run { (server) async throws in
            for path in ["/__version__", "/__heartbeat__", "/__lbheartbeat__", "/robots.txt", "/metrics"] {
                #expect(try await server.send("GET", path).status == 200)
            }
            let version = try await server.send("GET", "/__version__").value
            #expect(version["version"]?.string == Release.version)
            let head = try await server.send("HEAD", "/robots.txt")
            #expect(head.status == 200)
            #expect(head.body.isEmpty)
        }
    }

    @Test func `blobs go up and down in pieces`() async throws {
        let path = "/tmp/slipway-api-blob-\(getpid())-\(UInt64.random(in: 0...(.max)))"
        defer { unlink(path) }
        let up = RawRoute(.put, prefix: "/blobs/u/", name: "putBlob") { request in
            let descriptor = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0o644)
            defer { close(descriptor) }
            var count = 0
            for try await piece in request.body {
                count += write(descriptor, piece, piece.count)
            }
            let tag = "\"\(request.rest)-\(request.query("access_token") ?? "")-\(count)\""
            return RawResponse(headers: [("ETag", tag)])
        }
        let down = RawRoute(.get, prefix: "/blobs/d/", name: "getBlob") { _ in
            RawResponse(headers: [("Content-Type", "text/plain")], body: .file(path: path))
        }
        try await TestServer.run(raw: [up, down]) { (server) async throws in
            let body = String(repeating: "0123456789", count: 2_000_000)
            let put = try await server.send("PUT", "/blobs/u/x?access_token=y", body)
            #expect(put.status == 200)
            #expect(put.headers["ETag"] == "\"x-y-20000000\"")
            let get = try await server.send("GET", "/blobs/d/x")
            #expect(get.body == Array(body.utf8))
            #expect(get.headers["Content-Length"] == "20000000")
            let head = try await server.send("HEAD", "/blobs/d/x")
            #expect(head.headers["Content-Length"] == "20000000")
            let part = try await server.send("GET", "/blobs/d/x", headers: [("Range", "bytes=5-14")])
            #expect(part.status == 206)
            #expect(part.text == "5678901234")
            #expect(part.headers["Content-Range"] == "bytes 5-14/20000000")
            let beyond = try await server.send("GET", "/blobs/d/x", headers: [("Range", "bytes=20000000-")])
            #expect(beyond.status == 416)
            let tag = try #require(get.headers["ETag"])
            #expect(try await server.send("GET", "/blobs/d/x", headers: [("If-None-Match", tag)]).status == 304)
        }
    }

    @Test func `a proxied neighbour sees what the client sent`() async throws {
        try await TestServer.run { (neighbour) async throws in
            let upstream = "http://127.0.0.1:\(neighbour.port)"
            try await TestServer.run(proxies: [("/api/tests/", upstream)]) { (server) async throws in
                let reply = try await server.send("GET", base + "/path/a%2Fb//c")
                #expect(reply.value["resource"]?.string == base + "/path/a%2Fb//c")
                let signed = try await server.send("PUT", base + "/thing/a", "{}", as: TestServer.ruler)
                #expect(signed.value == ["size": 7])
                let head = try await server.send("HEAD", base + "/ping")
                #expect(head.status == 200)
                #expect(head.headers["x-for-request-id"] != nil)
            }
        }
    }

    @Test func `the references of a proxied neighbour are listed with one's own`() async throws {
        try await TestServer.run { (neighbour) async throws in
            let own = try await neighbour.send("GET", "/references/references.json").value.array?.count
            #expect(own == 4)
            let upstream = "http://127.0.0.1:\(neighbour.port)"
            try await TestServer.run(proxies: [("/references/next/", upstream)], service: "front") { server in
                let manifest = try await server.send("GET", "/references/manifest.json").value["references"]
                #expect(manifest?.array?.contains("https://tc.example.com/references/next/v1/api.json") == true)
                let everything = try await server.send("GET", "/references/references.json").value.array ?? []
                let names = everything.compactMap { $0["filename"]?.string }
                #expect(names == names.sorted() && Set(names).count == names.count)
                #expect(names.contains("references/front/v1/api.json"))
                #expect(names.contains("references/tests/v1/api.json"))
            }
        }
        try await TestServer.run(proxies: [("/references/next/", "http://127.0.0.1:1")]) { server in
            let references = try await server.send("GET", "/references/references.json").value
            #expect(references.array?.count == 4)
        }
    }

    @Test func `a neighbour that is down is a bad gateway with its name`() async throws {
        try await TestServer.run(proxies: [("/api/hooks/", "http://127.0.0.1:1")]) { (server) async throws in
            let reply = try await server.send("GET", "/api/hooks/v1/ping")
            #expect(reply.status == 502)
            #expect(reply.value["service"] == "hooks")
            #expect(reply.message.contains("hooks"))
        }
    }

    @Test func `a long poll is cancelled when its client leaves`() async throws {
        try await TestServer.run { (server) async throws in
            let socket = try RawSocket(port: server.port)
            socket.send("GET \(base)/poll HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(try await server.events.wait(for: "poll began"))
            socket.close()
            #expect(try await server.events.wait(for: "poll cancelled"))
        }
    }

    @Test func `A37: a request that began is finished before the server ends`() async throws {
        let transport = CurlTransport()
        let events = Events()
        let (server, group, logger) = try TestServer.bare("drain", events)
        async let running: Void = withLogger(logger) { _ in try await group.run() }
        let port = await server.waitUntilListening()
        async let reply = transport.send(
            HTTPRequest(method: "GET", url: "http://127.0.0.1:\(port)\(base)/slow")
        )
        #expect(try await events.wait(for: "slow began"))
        await group.triggerGracefulShutdown()
        #expect(try await reply.status == 200)
        try await running
        await #expect(throws: HTTPClientError.self) {
            try await transport.send(HTTPRequest(method: "GET", url: "http://127.0.0.1:\(port)\(base)/ping"))
        }
        transport.shutdown()
    }

    @Test func `headers of sixty-four kilobytes fit and bodies wait for a go-ahead`() async throws {
        try await TestServer.run { (server) async throws in
            let long = String(repeating: "h", count: 70_000)
            #expect(try await server.send("GET", base + "/ping", headers: [("X-Long", long)]).status == 200)
            let body = #"{"tags":[""# + String(repeating: "b", count: 2 << 20) + #""]}"#
            let reply = try await server.send(
                "PUT",
                base + "/thing/a",
                body,
                as: TestServer.ruler,
                headers: [("Expect", "100-continue")]
            )
            #expect(reply.status == 200)
        }
    }
}
