// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Schedules
import Synchronization
import TestSupport
import Testing

@testable import BridgesKit

struct GitHubDeliveryLogTests {
    private static let now = Timestamp(milliseconds: 1_792_670_400_000)

    private func attempt(_ number: Int, _ id: String, _ age: Duration, event: String = "push")
        -> GitHubDeliveryLog.Attempt
    {
        GitHubDeliveryLog.Attempt(number: number, deliveryID: id, event: event, moment: Self.now - age)
    }

    @Test func `what should have arrived is neither old nor a ping nor on its way`() {
        let attempts = [
            attempt(5, "fresh", .seconds(5)), attempt(4, "again", .seconds(5)), attempt(3, "again", .seconds(300)),
            attempt(2, "good", .seconds(300)), attempt(1, "old", .seconds(900)),
            attempt(6, "ping", .seconds(300), event: "ping"),
        ]
        let expected = GitHubDeliveryLog.expected(attempts, since: Self.now - .seconds(600), now: Self.now)
        #expect(expected == ["good"])
    }

    @Test func `missing deliveries are asked for once a look, by their newest attempt, and given up in the end`() {
        let attempts = [
            attempt(9, "b", .seconds(100)), attempt(8, "a", .seconds(200)), attempt(7, "a", .seconds(300)),
            attempt(6, "c", .seconds(400)), attempt(5, "d", .seconds(400)), attempt(4, "known", .seconds(400)),
        ]
        let (again, givenUp) = GitHubDeliveryLog.decide(
            attempts,
            missing: ["a", "b", "c", "d"],
            asked: ["a": 2, "c": 3, "d": 4]
        )
        #expect(again.map(\.number) == [8, 9])
        // It is said once; the count beyond remembers that.
        #expect(givenUp == ["c"])
    }

    @Test(arguments: [
        (#"<https://h/x?cursor=1>; rel="next""#, "https://h/x?cursor=1"),
        (#"<https://h/a>; rel="prev", <https://h/b>; rel="next""#, "https://h/b"),
        (#"<https://h/a>; rel="last""#, nil),
        ("", nil), (#"https://h/a; rel="next""#, nil), (nil, nil),
    ])
    func `the next page is named in the Link header`(_ header: String?, _ url: String?) {
        #expect(GitHubDeliveryLog.nextPage(header) == url)
    }

    @Test func `lists of another form are refused`() {
        for page: JSONValue in [[:], ["message": "Bad credentials"], [1], [["id": 1, "guid": "x", "event": "push"]]] {
            #expect(throws: GitHubDeliveryLog.Problem.self) { try GitHubDeliveryLog.attempts(page) }
        }
    }
}

/// GitHub as far as it lists deliveries, in pages of two, and makes further attempts.
private final class GitHub: Sendable {
    struct State {
        var attempts: [(number: Int, id: String, event: String, moment: Timestamp)] = []
        var requested: [String] = []
        var tokens: Set<String> = []
        var status = 200
    }

    let state = Mutex(State())
    /// Delivers to the receiver.
    let deliver: @Sendable (_ id: String) async throws -> Void

    init(deliver: @escaping @Sendable (_ id: String) async throws -> Void) {
        self.deliver = deliver
    }

    var requested: [String] { state.withLock { $0.requested } }

    func note(_ id: String, event: String = "push", age: Duration = .seconds(120)) {
        state.withLock { state in
            state.attempts.insert((state.attempts.count + 1, id, event, .now() - age), at: 0)
        }
    }

    var routes: [RawRoute] {
        [
            RawRoute(.get, prefix: "/hooks/1/deliveries", name: "list") { request in
                let start = Int(request.query("cursor") ?? "0") ?? 0
                return self.state.withLock { state in
                    state.tokens.insert(request.header("Authorization") ?? "")
                    guard state.status == 200 else { return RawResponse(status: state.status) }
                    let page = state.attempts.dropFirst(start).prefix(2).map { attempt in
                        [
                            "id": JSONValue(attempt.number), "guid": .string(attempt.id),
                            "event": .string(attempt.event),
                            "delivered_at": .string(attempt.moment.iso8601), "status_code": 502,
                        ] as JSONValue
                    }
                    var headers: [(name: String, value: String)] = []
                    if start + 2 < state.attempts.count, let host = request.header("Host") {
                        let next = "<http://\(host)/hooks/1/deliveries?cursor=\(start + 2)>; rel=\"next\""
                        headers.append((name: "Link", value: next))
                    }
                    return RawResponse(headers: headers, body: .bytes(JSONValue.array(page).bytes()))
                }
            },
            RawRoute(.post, prefix: "/hooks/1/deliveries/", name: "attempt") { request in
                let number = Int(request.rest.prefix { $0 != "/" }) ?? 0
                let id = self.state.withLock { state -> String? in
                    guard let attempt = state.attempts.first(where: { $0.number == number }) else { return nil }
                    state.requested.append(attempt.id)
                    return attempt.id
                }
                guard let id, request.rest.hasSuffix("/attempts") else { return RawResponse(status: 404) }
                try await self.deliver(id)
                return RawResponse(status: 202)
            },
        ]
    }
}

@Suite(.timeLimit(.minutes(5)))
struct RecoveryTests {
    private func with(
        delivers: Bool = true,
        _ body: @Sendable @escaping (BridgesWorld, GitHub, GitHubRecovery) async throws -> Void
    ) async throws {
        try await BridgesWorld.with { world in
            let gitHub = GitHub { id in
                if delivers { _ = try await world.post(["id": .string(id)], id: id) }
            }
            let server = HTTPServer(
                configuration: HTTPServerConfiguration(),
                name: "github",
                rootURL: nil,
                apis: [],
                authenticator: nil,
                health: HealthRegistry(),
                raw: gitHub.routes
            )
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await server.run() }
                defer { group.cancelAll() }
                let hook = "http://127.0.0.1:\(await server.waitUntilListening())/hooks/1"
                let recovery = GitHubRecovery(
                    source: "github",
                    settings: .init(hooks: [hook], token: Secret("a-token"), interval: .zero),
                    store: RecoveryStore(pool: world.pool),
                    transport: world.curl,
                    retention: .seconds(86_400)
                )
                try await recovery.store.register([hook], source: "github")
                try await world.pool.execute("update bridges.recoveries set since = now() - interval '1 hour'")
                try await body(world, gitHub, recovery)
            }
        }
    }

    private func look(_ recovery: GitHubRecovery) async throws -> Int {
        try await recovery.look(recovery.settings.hooks[0])
    }

    @Test func `deliveries that never arrived are asked for and arrive once`() async throws {
        try await with { world, gitHub, recovery in
            for index in 1...7 {
                let id = "d-\(index)"
                gitHub.note(id)
                if index % 2 == 1 { _ = try await world.post(["id": .string(id)], id: id) }
            }
            gitHub.note("ping", event: "ping")
            gitHub.note("underway", age: .seconds(1))
            #expect(try await look(recovery) == 3)
            #expect(gitHub.requested == ["d-2", "d-4", "d-6"])
            #expect(try await look(recovery) == 0)
            #expect(try await world.count("deliveries") == 7)
            #expect(try await world.relay() == 7)
            #expect(gitHub.state.withLock { $0.tokens } == ["Bearer a-token"])
        }
    }

    @Test func `a delivery that is refused every time is given up`() async throws {
        try await with(delivers: false) { world, gitHub, recovery in
            gitHub.note("d-1")
            for _ in 0..<6 { _ = try await look(recovery) }
            #expect(gitHub.requested == ["d-1", "d-1", "d-1"])
        }
    }

    @Test func `what was sent before the first look is left alone`() async throws {
        try await with { world, gitHub, recovery in
            gitHub.note("old", age: .seconds(7200))
            let count = try await look(recovery)
            #expect(count == 0)
            #expect(gitHub.requested.isEmpty)
        }
    }

    @Test func `a list that cannot be read is looked at again later`() async throws {
        try await with { world, gitHub, recovery in
            gitHub.note("d-1")
            gitHub.state.withLock { $0.status = 401 }
            #expect(try await look(recovery) == 0)
            let row = try #require(try await world.pool.query("select failures, error from bridges.recoveries").first)
            #expect(try row.int("failures") == 1)
            #expect(try row.string("error") == "status 401")
            gitHub.state.withLock { $0.status = 200 }
            try await world.pool.execute("update bridges.recoveries set next_look = now()")
            #expect(try await look(recovery) == 1)
        }
    }
}
