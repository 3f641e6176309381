// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Synchronization
import Testing
import TestSupport

@testable import PipelineKit

/// Step services that others have written, and how they refuse, hesitate and let wait.
@Suite(.timeLimit(.minutes(15)))
struct ForeignTests {
    /// A service that answers a step's requests one after the other, the last answer again and again.
    private final class Foreign: Sendable {
        private let answers: Mutex<[String: [TestServer.Reaction]]>
        private let server = Mutex<TestServer?>(nil)

        /// Makes one of the reactions to requests such as `PUT a` and `GET a/status`.
        init(_ answers: [String: [TestServer.Reaction]]) {
            self.answers = Mutex(answers)
            let started = TestServer { [self] request in react(request) }
            server.withLock { $0 = started }
        }

        private func react(_ request: TestServer.Request) -> TestServer.Reaction {
            let parts = request.line.split(separator: " ")
            let path = parts[1].split(separator: "/").dropFirst().joined(separator: "/")
            return answers.withLock { answers in
                guard var list = answers["\(parts[0]) \(path)"], let next = list.first else {
                    return .answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                }
                if list.count > 1 { list.removeFirst() }
                answers["\(parts[0]) \(path)"] = list
                return next
            }
        }

        var url: String { server.withLock { $0?.url("/steps") ?? "" } }
        func close() { server.withLock { $0?.close() } }

        /// How often something was asked.
        func count(_ line: String) -> Int {
            let parts = line.split(separator: " ", maxSplits: 1)
            let wanted = "\(parts[0]) /steps/\(parts[1]) "
            return server.withLock { server in
                server?.requests.count { "\($0.line) ".hasPrefix(wanted) } ?? 0
            }
        }
    }

    private static func says(_ status: String, _ body: String, _ more: String = "") -> TestServer.Reaction {
        let head = "HTTP/1.1 \(status)\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)"
        return .answer("\(head)\r\n\(more)\r\n\(body)")
    }

    private static let running = says("200 OK", #"{"state": "running"}"#)
    private static let completed = says("200 OK", #"{"state": "completed"}"#)

    /// Lets pipelines of one step each, with these parameters, meet a service.
    private func meet(
        _ steps: [String],
        _ answers: [String: [TestServer.Reaction]],
        parameters: JSONValue = ["wanted": [1, 2], "deep": ["a": 1, "b": "x"]],
        _ body: @Sendable @escaping (PipelineWorld, @Sendable (String) -> Int) async throws -> Void
    ) async throws {
        let foreign = Foreign(answers)
        defer { foreign.close() }
        let url = foreign.url
        try await PipelineWorld.with(clock: TestClock(.now()), services: [url], timeout: .seconds(2)) { world in
            for step in steps {
                let members: JSONObject = ["api_url": .string(url), "parameters": parameters]
                try await world.create("p-\(step)", [world.step(step, [], members)])
            }
            try await body(world) { foreign.count($0) }
        }
    }

    @Test
    func `a step that a service has already is ours if it was asked for the same, wherever the service shows that`()
        async throws
    {
        let refusal = Self.says("409 Conflict", #"{"error_title": "Conflict", "error_message": "already exists"}"#)
        let same = Self.says(
            "200 OK",
            #"{"uid": "x", "deep": {"b": "x", "a": 1.0}, "wanted": [1, 2], "color": "added"}"#
        )
        let other = Self.says("200 OK", #"{"deep": {"b": "x", "a": 1}, "wanted": [2, 1]}"#)
        let away = Self.says("503 Service Unavailable", "{}")
        let gone = Self.says("302 Found", "", "Location: http://127.0.0.1:1/\r\n")
        // What each shows as its definition, and at the step itself, as the older services do.
        let shown: [String: [String: [TestServer.Reaction]]] = [
            "same": ["/definition": [same]], "old": ["": [same]], "later": ["/definition": [away, away, same]],
            "other": ["/definition": [other]], "old-other": ["": [other]],
            "html": ["/definition": [Self.says("200 OK", "<p>")]],
            "elsewhere": ["/definition": [gone]], "list": ["/definition": [Self.says("200 OK", "[]")]], "nothing": [:],
            "flood": ["/definition": [.stream(1 << 30)]],
        ]
        var answers: [String: [TestServer.Reaction]] = [:]
        for (name, pages) in shown {
            answers["PUT \(name)"] = [refusal]
            answers["GET \(name)/status"] = [Self.completed]
            for (path, list) in pages { answers["GET \(name)\(path)"] = list }
        }
        try await meet(shown.keys.sorted(), answers) { world, count in
            try await world.advance(20, every: .seconds(2))
            for name in shown.keys {
                let status = try await world.status("p-\(name)")
                if ["same", "old", "later"].contains(name) {
                    #expect(status["state"] == "completed", "\(name): \(status)")
                } else {
                    #expect(status["state"] == "exception", "\(name): \(status)")
                    #expect(status["message"]?.string?.contains("already exists") == true, "\(name)")
                    #expect(count("GET \(name)/status") == 0, "\(name)")
                }
            }
        }
    }

    @Test func `whoever asks for patience gets it, up to five minutes`() async throws {
        func later(_ value: String) -> TestServer.Reaction {
            Self.says("429 Too Many Requests", "{}", "Retry-After: \(value)\r\n")
        }
        let fine = Self.says("200 OK", "{}")
        let steps = ["short": "100", "long": "86400", "odd": "soon", "negative": "-5"]
        var answers: [String: [TestServer.Reaction]] = [:]
        for (name, value) in steps {
            answers["PUT \(name)"] = [later(value), fine]
            answers["GET \(name)/status"] = [Self.completed]
        }
        try await meet(steps.keys.sorted(), answers) { world, count in
            try await world.advance(90, every: .seconds(10))
            #expect(steps.keys.sorted().map { count("PUT \($0)") } == [1, 2, 2, 1])
            try await world.advance(30, every: .seconds(10))
            #expect(count("PUT short") == 2)
            try await world.advance(160, every: .seconds(10))
            #expect(count("PUT long") == 1)
            try await world.advance(60, every: .seconds(10))
            #expect(count("PUT long") == 2)
            for name in steps.keys { #expect(try await world.state("p-\(name)") == "completed", "\(name)") }
        }
    }

    @Test
    func `14: a refusal ends the step at once and is quoted, but not at any length; one of the moment ends nothing`()
        async throws
    {
        let passing = [401, 403, 408, 425, 429, 500, 502, 503, 599]
        let lasting = [400, 402, 404, 405, 406, 410, 413, 415, 418, 422, 451]
        let long = "why not: " + String(repeating: "long ", count: 20_000)
        var answers: [String: [TestServer.Reaction]] = [:]
        for status in passing + lasting { answers["PUT s\(status)"] = [Self.says("\(status) X", long)] }
        try await meet((passing + lasting).map { "s\($0)" }, answers) { world, count in
            try await world.advance(4)
            for status in passing {
                #expect(try await world.states("p-s\(status)") == ["starting"], "\(status)")
                #expect(count("PUT s\(status)") > 1, "\(status)")
            }
            for status in lasting {
                let found = try await world.status("p-s\(status)")
                #expect(found["state"] == "exception", "\(status)")
                let message = found["info"]?["steps"]?[0]?["message"]?.string ?? ""
                #expect(
                    message.contains("\(status)") && message.contains("why not"),
                    "\(status): \(message.prefix(80))"
                )
                #expect(message.utf8.count < 2200, "\(status)")
                #expect(count("PUT s\(status)") == 1, "\(status)")
            }
        }
    }

    @Test func `a pipeline is cancelled whatever its services say to that`() async throws {
        let fine = Self.says("200 OK", "{}")
        let cancels: [String: TestServer.Reaction] = [
            "obedient": Self.says("200 OK", #"{"state": "cancelled"}"#),
            "slow": Self.says("200 OK", #"{"state": "stopping"}"#),
            "garbage": Self.says("200 OK", "<html>"), "failing": Self.says("500 X", ""),
            "redirecting": Self.says("302 Found", "", "Location: http://127.0.0.1:1/\r\n"), "flood": .stream(1 << 30),
            "older": Self.says("404 Not Found", ""), "ended": Self.says("409 Conflict", "{}"),
        ]
        var answers: [String: [TestServer.Reaction]] = [:]
        for (name, reaction) in cancels {
            answers["PUT \(name)"] = [fine]
            answers["POST \(name)/cancel"] = [reaction]
            answers["GET \(name)/status"] = [Self.running]
        }
        answers["DELETE older"] = [fine]
        let cancelled = Self.says("200 OK", #"{"state": "cancelled"}"#)
        for name in ["slow", "garbage"] { answers["GET \(name)/status"] = [Self.running, Self.running, cancelled] }
        answers["GET ended/status"] = [Self.running, Self.completed]
        try await meet(cancels.keys.sorted(), answers) { world, count in
            try await world.advance(1)
            for name in cancels.keys {
                #expect(try await world.states("p-\(name)") == ["running"], "\(name)")
                #expect(try await world.call("POST", "/p-\(name)/cancel").status == 200)
            }
            for _ in 0..<40 {
                let left = try await world.call("GET", "/?status=in_progress").body["steps"]?.array ?? []
                if left.isEmpty { break }
                try await world.advance(10, every: .seconds(5))
            }
            for name in cancels.keys {
                #expect(try await world.state("p-\(name)") == "cancelled", "\(name)")
                #expect(count("POST \(name)/cancel") >= 1, "\(name)")
            }
            #expect(count("DELETE older") == 1)
            // What had ended has ended.
            #expect(try await world.states("p-ended") == ["completed"])
        }
    }
}
