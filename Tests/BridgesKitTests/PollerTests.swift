// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Synchronization
import TestSupport
import Testing

@testable import BridgesKit

/// A repository whose pushlog is served over HTTP in the documented form.
final class PushlogServer: Sendable {
    struct State {
        var pushes: [Int: JSONValue] = [:]
        var last = 0
        /// What to answer next instead: a status and a body.
        var refusals: [(status: Int, body: String)] = []
        var requests: [String] = []
    }

    let state = Mutex(State())

    var requests: [String] { state.withLock { $0.requests } }

    func push(_ count: Int = 1) {
        state.withLock { state in
            for _ in 0..<count {
                state.last += 1
                let id = state.last
                state.pushes[id] = [
                    "changesets": [.string("a\(id)"), .string("b\(id)")], "date": JSONValue(1_700_000_000 + id),
                    "user": "dev@example.com",
                ]
            }
        }
    }

    func refuse(_ status: Int, _ body: String = "", times: Int = 1) {
        state.withLock { $0.refusals += Array(repeating: (status, body), count: times) }
    }

    func recreate(pushes: Int) {
        state.withLock { $0 = State() }
        push(pushes)
    }

    var route: RawRoute {
        RawRoute(.get, prefix: "/repo/", name: "pushlog") { request in
            self.state.withLock { state in
                state.requests.append(request.resource)
                if !state.refusals.isEmpty {
                    let (status, body) = state.refusals.removeFirst()
                    return RawResponse(status: status, body: .bytes(Array(body.utf8)))
                }
                guard request.rest == "json-pushes", request.query("version") == "2" else {
                    return RawResponse(status: 404)
                }
                let start = request.query("startID").flatMap { Int($0) } ?? max(0, state.last - 10)
                let end = request.query("endID").flatMap { Int($0) } ?? state.last
                let found = state.pushes.filter { $0.key > start && $0.key <= end }
                let pushes = JSONObject(found.map { (key: String($0.key), value: $0.value) })
                let answer: JSONValue = ["lastpushid": JSONValue(state.last), "pushes": .object(pushes)]
                return RawResponse(status: 200, body: .bytes(answer.bytes()))
            }
        }
    }

    /// Serves the repository while a body runs, which gets its address.
    func serve(_ body: (String) async throws -> Void) async throws {
        let server = HTTPServer(
            configuration: HTTPServerConfiguration(),
            name: "pushlog",
            rootURL: nil,
            apis: [],
            authenticator: nil,
            health: HealthRegistry(),
            raw: [route]
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            defer { group.cancelAll() }
            try await body("http://127.0.0.1:\(await server.waitUntilListening())/repo")
        }
    }
}

@Suite(.timeLimit(.minutes(5)))
struct PollerTests {
    private func poller(_ world: BridgesWorld, _ url: String, full: Bool = false) -> PushlogPoller {
        PushlogPoller(
            repositories: [HgRepository(name: "integration/app.x", url: url, isFull: full)],
            store: RepositoryStore(pool: world.pool, outbox: world.outbox),
            transport: world.curl,
            exchange: BridgeExchange.name("hg", namespace: world.namespace),
            interval: .milliseconds(20)
        )
    }

    private func with(_ body: @Sendable @escaping (BridgesWorld, PushlogServer, String) async throws -> Void)
        async throws
    {
        try await BridgesWorld.with([], servers: 0, exchanges: ["hg"]) { world in
            let server = PushlogServer()
            try await server.serve { url in try await body(world, server, url) }
        }
    }

    /// Looks once, whether or not the time has come.
    private func look(_ world: BridgesWorld, _ poller: PushlogPoller) async throws {
        try await poller.store.register(poller.repositories)
        try await world.pool.execute("update bridges.repositories set next_poll = now()")
        #expect(try await poller.pollDue() == 1)
    }

    private func row(_ world: BridgesWorld) async throws -> RepositoryStore.Row {
        try #require(try await RepositoryStore(pool: world.pool, outbox: world.outbox).list().first)
    }

    @Test func `the first look begins at the tip, then every push is announced once`() async throws {
        try await with { world, server, url in
            server.push(40)
            let poller = poller(world, url)
            try await look(world, poller)
            #expect(try await row(world).cursor == 40)
            #expect(try await world.count("outbox") == 0)
            server.push(2)
            try await look(world, poller)
            try await look(world, poller)
            #expect(try await world.relay() == 2)
            let messages = try await world.received(2)
            #expect(messages.map(\.routingKey) == ["push.integration/app%x", "push.integration/app%x"])
            let payload = try messages[0].json()
            #expect(payload["push"]?["id"] == 41)
            #expect(payload["push"]?["changesets"] == ["a41", "b41"])
            #expect(payload["repository"] == "integration/app.x")
            let data = payload["payload"]?["data"]
            #expect(payload["payload"]?["type"] == "changegroup.1")
            #expect(data?["repo_url"] == .string(url))
            #expect(data?["heads"] == ["b41"])
            #expect(data?["pushlog_pushes"]?[0]?["pushid"] == 41)
            #expect(data?["pushlog_pushes"]?[0]?["time"] == JSONValue(1_700_000_041))
            #expect(data?["pushlog_pushes"]?[0]?["user"] == "dev@example.com")
            #expect(server.requests.contains("/repo/json-pushes?version=2&startID=40&endID=140"))
        }
    }

    @Test func `a backlog comes in batches, in order, by any number of processes`() async throws {
        try await with { world, server, url in
            try await look(world, poller(world, url))
            server.push(330)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<3 {
                    let poller = poller(world, url)
                    group.addTask { try await poller.run() }
                }
                try await eventually { try await row(world).cursor == 330 }
                server.push(5)
                try await eventually { try await row(world).cursor == 335 }
                group.cancelAll()
                try await group.waitForAll()
            }
            #expect(try await world.relay() == 335)
            let ids = try await world.received(335).map { try $0.json()["push"]?["id"]?.int ?? 0 }
            #expect(ids == Array(1...335))
        }
    }

    @Test func `two processes that saw the same push announce it once`() async throws {
        try await with { world, server, url in
            let poller = poller(world, url)
            try await look(world, poller)
            let store = poller.store
            let due = RepositoryStore.Due(name: "integration/app.x", cursor: 0, behind: 0, failures: 0)
            let push = Pushlog.Push(id: 1, user: "u", date: .now(), changesets: ["a"])
            let message = PushMessages.push(push, of: poller.repositories[0], exchange: poller.exchange)
            #expect(try await store.advance(due, to: 1, messages: [message], pause: .zero))
            #expect(try await !store.advance(due, to: 1, messages: [message], pause: .zero))
            #expect(try await world.count("outbox") == 1)
        }
    }

    @Test func `errors are noted and looked at again ever later`() async throws {
        try await with { world, server, url in
            let poller = poller(world, url)
            try await look(world, poller)
            server.push()
            server.refuse(503)
            server.refuse(200, "<html>")
            server.refuse(200, "{}")
            for failures in 1...3 {
                try await look(world, poller)
                let row = try await row(world)
                #expect(row.failures == failures)
                #expect(row.error?.isEmpty == false)
                #expect(row.cursor == 0)
                #expect(row.nextPoll > row.polled ?? row.nextPoll)
            }
            try await look(world, poller)
            #expect(try await row(world).failures == 0)
            #expect(try await row(world).error == nil)
            #expect(try await row(world).cursor == 1)
            #expect(try await world.count("outbox") == 1)
        }
    }

    @Test func `a mirror that lags moves nothing, a repository made anew is reported and watched from its tip`()
        async throws
    {
        try await with { world, server, url in
            server.push(9)
            let poller = poller(world, url)
            try await look(world, poller)
            for _ in 0..<2 { server.refuse(200, #"{"lastpushid": 8, "pushes": {}}"#) }
            try await look(world, poller)
            try await look(world, poller)
            #expect(try await row(world).cursor == 9)
            #expect(try await row(world).behind == 2)
            try await look(world, poller)
            #expect(try await row(world).behind == 0)
            #expect(try await world.count("outbox") == 0)

            server.recreate(pushes: 4)
            for _ in 0..<3 { try await look(world, poller) }
            #expect(try await row(world).cursor == 4)
            server.push()
            try await look(world, poller)
            #expect(try await world.relay() == 2)
            let messages = try await world.received(2)
            #expect(messages.map(\.routingKey) == ["reset.integration/app%x", "push.integration/app%x"])
            let reset = try messages[0].json()
            #expect(reset["lastPushId"] == 4)
            #expect(reset["previousPushId"] == 9)
        }
    }

    @Test func `descriptions of changesets are asked for where they are wanted`() async throws {
        try await with { world, server, url in
            let poller = poller(world, url, full: true)
            try await look(world, poller)
            try await look(world, poller)
            #expect(server.requests.last == "/repo/json-pushes?version=2&startID=0&endID=100&full=1")
        }
    }

    @Test func `a process that dies while it looks leaves its work to another one`() async throws {
        try await with { world, server, url in
            let poller = poller(world, url)
            try await poller.store.register(poller.repositories)
            let names = poller.repositories.map(\.name)
            #expect(try await poller.store.take(names, limit: 4, lease: .seconds(4)).count == 1)
            #expect(try await poller.store.take(names, limit: 4, lease: .seconds(4)).isEmpty)
            try await eventually { try await poller.store.take(names, limit: 4, lease: .seconds(4)).count == 1 }
        }
    }
}
