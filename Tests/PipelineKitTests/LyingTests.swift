// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Synchronization
import Testing
import TestSupport

@testable import PipelineKit

/// Step services that lie, talk nonsense, flood or dry up.
@Suite(.timeLimit(.minutes(15)))
struct LyingTests {
    @Test func `13: whatever nonsense a service talks changes nothing, and it is believed when it makes sense again`()
        async throws
    {
        let clock = TestClock(.now())
        let liar = Liar()
        defer { liar.close() }
        try await PipelineWorld.with(clock: clock, services: [liar.url], timeout: .seconds(1)) { world in
            let lies = Liar.lies.keys.sorted()
            for lie in lies {
                try await world.create("p-\(lie)", [world.step(lie, [], ["api_url": .string(liar.url)])])
            }
            try await world.create("honest", [world.step("x"), world.step("y", ["x"])])
            try await world.advance(20, every: .seconds(2))
            #expect(try await world.state("honest") == "completed")
            for lie in lies {
                let step = try await world.status("p-\(lie)")["info"]?["steps"]?[0]
                #expect(step?["state"] == (lie.hasPrefix("put-") ? "starting" : "running"), "\(lie): \(step ?? nil)")
                #expect(step?["poll_failures"]?.int ?? 0 > 1, "\(lie)")
                #expect(step?["waiting_for"]?["kind"] == "unreachable", "\(lie)")
                #expect(step?["output"] == [:])
            }
            liar.repent()
            for lie in lies {
                for _ in 0..<60 where try await world.state("p-\(lie)") != "completed" {
                    try await world.advance(20, every: .seconds(10))
                }
                #expect(try await world.states("p-\(lie)") == ["completed"], "\(lie)")
                // The same request again and again, and no other.
                #expect(liar.bodies(lie) == 1, "\(lie)")
            }
        }
    }

    @Test func `15: whoever sends questions elsewhere ends the step, and nobody is asked there`() async throws {
        let clock = TestClock(.now())
        let elsewhere = TestServer { _ in ok(#"{"state": "completed"}"#) }
        let server = TestServer { request in
            guard request.line.hasPrefix("GET") else { return ok("{}") }
            let target = elsewhere.url("/steps/a/status")
            return .answer("HTTP/1.1 302 Found\r\nLocation: \(target)\r\nContent-Length: 0\r\n\r\n")
        }
        defer {
            server.close()
            elsewhere.close()
        }
        let url = server.url("/steps")
        try await PipelineWorld.with(clock: clock, services: [url]) { world in
            try await world.create("p", [world.step("a", [], ["api_url": .string(url)])])
            try await world.advance(10)
            #expect(try await world.states("p") == ["exception"])
            #expect(try await world.status("p")["message"]?.string?.contains("redirect") == true)
            #expect(elsewhere.requests.isEmpty)
        }
    }

    @Test func `a step whose address is not allowed any more is asked for when it is again, and never in between`()
        async throws
    {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock, lease: .milliseconds(1)) { world in
            try await world.create("p", [world.step("a")])
            let store = world.replicas[0].store
            // Another process with another list of services takes the pipeline first.
            let strict = PipelineService(
                store: store,
                client: StepClient(transport: world.curl, credentials: nil),
                services: ["https://elsewhere.example"]
            )
            let claim = try #require(
                try await store.claim(limit: 1, owner: "strict", lease: .seconds(30)).first
            )
            try await strict.look(claim)
            #expect(try await world.states("p") == ["starting"])
            let step = try await world.status("p")["info"]?["steps"]?[0]
            #expect(step?["message"]?.string?.contains("allowed") == true)
            #expect(world.lab.puts("a") == 0)
            try await world.advance(10)
            #expect(try await world.state("p") == "completed")
        }
    }
}

/// A step service that lies about its steps, each in the way its name says, until it repents.
private final class Liar: Sendable {
    private static func head(_ status: String, _ length: Int) -> String {
        "HTTP/1.1 \(status)\r\nContent-Type: application/json\r\nContent-Length: \(length)\r\n\r\n"
    }

    private static func text(_ status: String, _ body: String) -> TestServer.Reaction {
        .answer(head(status, body.utf8.count) + body)
    }

    /// What each of them answers: to `PUT` where the name says so, otherwise to questions.
    static let lies: [String: TestServer.Reaction] = [
        "wrong-status": text("418 I'm a teapot", #"{"state": "completed"}"#),
        "not-changed": text("400 Bad Request", #"{"state": "completed"}"#),
        "failing": text("500 Internal Server Error", "<html>"),
        "flood": .stream(1 << 30),
        "cut": .hangUp(head("200 OK", 100) + #"{"state": "compl"#),
        "broken": text("200 OK", #"{"state": "completed""#),
        "deep": text("200 OK", String(repeating: "[", count: 200_000)),
        "number": text("200 OK", "1e999999"),
        "another": text("200 OK", #"{"uid": "somebody", "state": "completed"}"#),
        "two-words": text("200 OK", #"{"state": "completed", "status": "in_progress"}"#),
        "no-word": text("200 OK", #"{"uid": "no-word", "message": "all is well"}"#),
        "no-text": text("200 OK", #"{"state": ["completed"]}"#),
        "silent": .hang(head("200 OK", 100)),
        "drip": .drip(head("200 OK", 1 << 20)),
        "endless": .drip("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"state\": \"completed\"}"),
        "other-tongue": .hangUp("SSH-2.0-OpenSSH_9.2\r\n"),
        "put-flood": .stream(1 << 30),
        "put-drip": .drip(head("200 OK", 1 << 20)),
        "put-cut": .hangUp(head("200 OK", 100) + "{"),
        "put-cut-line": .hangUp("HTTP/1.1 200 OK"),
        "put-cut-field": .hangUp("HTTP/1.1 200 OK\r\nContent-Le"),
        "put-cut-head": .hangUp("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"),
        "cut-head": .hangUp("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"),
        "put-later": text("503 Service Unavailable", "later"),
    ]

    /// What is known of the past.
    private final class Mind: Sendable {
        let isHonest = Atomic<Bool>(false)
        let begun = Mutex<[String: Set<String>]>([:])

        func answer(_ request: TestServer.Request) -> TestServer.Reaction {
            let parts = request.line.split(separator: " ")
            let uid = parts[1].split(separator: "/").dropFirst().first.map(String.init) ?? ""
            let isPut = parts[0] == "PUT"
            let body = String(decoding: request.body, as: UTF8.self)
            if isPut { begun.withLock { _ = $0[uid, default: []].insert(body) } }
            let lie = Liar.lies[uid]
            if !isHonest.load(ordering: .acquiring), isPut == uid.hasPrefix("put-"), let lie { return lie }
            return isPut ? ok("{}") : ok(#"{"uid": "\#(uid)", "state": "completed"}"#)
        }
    }

    private let mind = Mind()
    private let server: TestServer

    init() {
        server = TestServer { [mind] request in mind.answer(request) }
    }

    var url: String { server.url("/steps") }
    func repent() { mind.isHonest.store(true, ordering: .releasing) }
    func close() { server.close() }
    /// How many different bodies a step was asked for with.
    func bodies(_ uid: String) -> Int { mind.begun.withLock { $0[uid]?.count ?? 0 } }
}
