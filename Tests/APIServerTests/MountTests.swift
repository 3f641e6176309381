// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Synchronization
import Testing

/// An API at the server's root that speaks in problem documents.
@Suite(.timeLimit(.minutes(1)))
struct MountTests {
    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        query: [String: QueryRule] = [:],
        _ handler: @escaping Endpoint.Handler
    ) -> Endpoint {
        Endpoint(
            method,
            route,
            name: "thing",
            query: query,
            category: "Things",
            title: "Thing",
            description: "A thing.",
            handler: handler
        )
    }

    private func serve(_ body: @Sendable @escaping (String, CurlTransport) async throws -> Void) async throws {
        let api = API(
            service: "steps",
            title: "Steps",
            description: "Steps.",
            schemas: SchemaStore(directory: "/nowhere"),
            endpoints: [
                endpoint(.get, "/", query: .paging) { _ in .json(["steps": []]) },
                endpoint(.get, "/<uid>") { .json(["uid": .string($0.parameter("uid"))], headers: ["ETag": "\"1\""]) },
                endpoint(.put, "/<uid>") { _ in throw APIError(.requestConflict, "It differs") },
                endpoint(.get, "/<uid>/status") { _ in .bodyless(304, headers: ["ETag": "\"1\""]) },
                endpoint(.get, "/<uid>/events") { _ in
                    let left = Mutex(3)
                    return .stream(contentType: "text/event-stream") {
                        let number = left.withLock { left in
                            left -= 1
                            return left
                        }
                        return number < 0 ? nil : Array("data: \(number)\n\n".utf8)
                    }
                },
            ],
            mount: .root,
            errors: .problem
        )
        let server = HTTPServer(
            configuration: HTTPServerConfiguration(),
            name: "mount-tests",
            rootURL: nil,
            apis: [api],
            authenticator: nil,
            health: HealthRegistry()
        )
        let curl = CurlTransport()
        defer { curl.shutdown() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            defer { group.cancelAll() }
            try await body("http://127.0.0.1:\(await server.waitUntilListening())", curl)
        }
    }

    @Test func `paths begin at the root, behind those that every server has`() async throws {
        try await serve { url, curl in
            #expect(try await curl.send(HTTPRequest(url: url + "/")).json() == ["steps": []])
            let one = try await curl.send(HTTPRequest(url: url + "/a~b"))
            #expect(try one.json() == ["uid": "a~b"])
            #expect(one.headers["ETag"] == "\"1\"")
            #expect(try await curl.send(HTTPRequest(url: url + "/__lbheartbeat__")).json() == [:])
            let same = try await curl.send(HTTPRequest(url: url + "/a/status"))
            #expect(same.status == 304)
            #expect(same.body.isEmpty)
        }
    }

    @Test func `refusals are problem documents`() async throws {
        try await serve { url, curl in
            let conflict = try await curl.send(HTTPRequest(method: "PUT", url: url + "/a"))
            #expect(conflict.status == 409)
            #expect(conflict.headers["Content-Type"] == "application/problem+json")
            let body = try conflict.json()
            #expect(body["code"] == "request_conflict")
            #expect(body["title"] == "Conflict")
            #expect(body["detail"] == "It differs")
            #expect(body["error_message"] == "It differs")
            let unknown = try await curl.send(HTTPRequest(url: url + "/?colour=red"))
            #expect(unknown.status == 400)
            #expect(try unknown.json()["code"] == "invalid_request_arguments")
            let nothing = try await curl.send(HTTPRequest(url: url + "/a/b/c"))
            #expect(nothing.status == 404)
            #expect(try nothing.json()["status"] == 404)
            let method = try await curl.send(HTTPRequest(method: "DELETE", url: url + "/a"))
            #expect(method.status == 405)
            #expect(method.headers["Allow"] == "GET,HEAD,OPTIONS,PUT")
        }
    }

    @Test func `a stream is sent piece by piece until it ends`() async throws {
        try await serve { url, curl in
            let response = try await curl.send(HTTPRequest(url: url + "/a/events"))
            #expect(response.headers["Content-Type"] == "text/event-stream")
            #expect(String(decoding: response.body, as: UTF8.self) == "data: 2\n\ndata: 1\n\ndata: 0\n\n")
        }
    }
}
