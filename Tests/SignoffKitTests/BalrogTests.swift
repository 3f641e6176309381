// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Logging
import StepKit
import StepTestSupport
import Synchronization
import Testing
import TestSupport

@testable import SignoffKit

/// A Balrog server that says what tests want.
final class BalrogDouble: HTTPTransport {
    struct State: Sendable {
        var changes: [String: JSONObject] = [:]
        var users: [String: [String]] = [:]
        var status: Int?
        /// Whether it is one of the old ones, which know lists alone.
        var isOld = false
        var asked: [String] = []
    }

    let state = Mutex(State())

    func set(_ id: Int, _ change: JSONObject?) {
        state.withLock { $0.changes["rules/\(id)"] = change }
    }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let path = String(request.url.dropFirst("https://balrog.example.com/api/".count))
        let (status, body): (Int, JSONValue) = state.withLock { state in
            state.asked.append("\(request.method) \(path)")
            if let status = state.status { return (status, [:]) }
            if path.hasPrefix("users/") {
                let name = path.dropFirst("users/".count).split(separator: "%40").joined(separator: "@")
                guard let roles = state.users[name] else { return (404, [:]) }
                return (200, ["roles": .object(JSONObject(roles.map { (key: $0, value: ["data_version": 1]) }))])
            }
            if path == "scheduled_changes/rules?all=1" {
                let list = state.changes.map { name, change -> JSONValue in
                    var change = change
                    change["sc_id"] = name.split(separator: "/").last.flatMap { Int($0) }.map { JSONValue($0) }
                    return .object(change)
                }
                return (200, ["count": JSONValue(list.count), "scheduled_changes": .array(list)])
            }
            let name = path.split(separator: "/").dropFirst().joined(separator: "/")
            guard !state.isOld, let change = state.changes[name] else { return (404, [:]) }
            return (200, ["scheduled_change": .object(change)])
        }
        return HTTPResponse(status: status, body: body.bytes())
    }
}

/// Steps that Balrog decides about.
@Suite(.timeLimit(.minutes(15)))
struct BalrogTests {
    private static let root = "https://balrog.example.com/api"

    private func change(_ signoffs: JSONObject, required: JSONObject = ["releng": 1, "relman": 1]) -> JSONObject {
        [
            "complete": false, "sc_data_version": 1, "signoffs": .object(signoffs),
            "required_signoffs": .object(required),
        ]
    }

    private func with(_ body: @Sendable @escaping (SignoffWorld, BalrogDouble) async throws -> Void) async throws {
        let server = BalrogDouble()
        try await SignoffWorld.with(balrog: Balrog(root: Self.root, transport: server)) { world in
            try await body(world, server)
        }
    }

    private func create(_ world: SignoffWorld, _ uid: String, _ id: Int) async throws -> Answer {
        let policy: JSONValue = ["method": "BALROG", "definition": ["object": "rules", "sc_id": JSONValue(id)]]
        return try await world.call("PUT", "/\(uid)", ["policy": policy, "parameters": [:]])
    }

    /// Looks at what is due after some time.
    private func advance(_ world: SignoffWorld, _ seconds: Int) async throws {
        world.clock.advance(by: .seconds(seconds))
        let runner = StepRunner(store: world.store, owner: "tests", look: world.service.look)
        _ = try await withLogger(StepServers.quiet) { _ in try await runner.runOnce() }
    }

    @Test(arguments: [false, true])
    func `59: what is signed at Balrog completes the step within a minute, also after a restart`(_ isOld: Bool)
        async throws
    {
        try await with { world, server in
            server.state.withLock { $0.isOld = isOld }
            server.set(7, change([:]))
            #expect(try await create(world, "s", 8).status == 400)
            #expect(try await create(world, "s", 7).status == 200)
            try await advance(world, 1)
            let open = try await world.call("GET", "/s/status").body
            #expect(open["state"] == "running")
            #expect(open["info"]?["missing"] == [["relman": 1, "releng": 1]])
            server.set(7, change(["a@example.com": "releng"]))
            try await advance(world, 60)
            #expect(try await world.call("GET", "/s/status").body["info"]?["missing"] == [["relman": 1]])
            server.set(7, change(["a@example.com": "releng", "b@example.com": "relman"]))
            // Nobody asks for the status: the service finds out by itself, and it is stored.
            try await advance(world, 60)
            let row = try await world.pool.query("select state from shipit_signoff.steps where uid = 's'").first
            #expect(try row?.string("state") == "completed")
            server.state.withLock { $0.status = 500 }
            #expect(try await world.state("s") == "completed")
            // What exists is the same step, whatever Balrog says by now.
            #expect(try await create(world, "s", 7).status == 200)
        }
    }

    @Test func `59: a Balrog that is away changes nothing but a mark, one that forgets ends the step`() async throws {
        try await with { world, server in
            server.set(7, change(["a@example.com": "releng"]))
            #expect(try await create(world, "s", 7).status == 200)
            try await advance(world, 1)
            server.state.withLock { $0.status = 500 }
            try await advance(world, 60)
            try await advance(world, 60)
            let away = try await world.call("GET", "/s/status").body
            #expect(away["state"] == "running")
            #expect(away["info"]?["stale_since"]?.string != nil)
            #expect(away["info"]?["signees"] == ["a@example.com"])
            #expect(try await create(world, "other", 9).status == 503)
            server.state.withLock { $0.status = nil }
            server.set(7, nil)
            try await advance(world, 60)
            #expect(try await world.state("s") == "exception")
        }
    }

    @Test func `59: whoever asks gets what is at most five seconds old, and editions are in the audit`() async throws {
        try await with { world, server in
            server.set(7, change([:]))
            #expect(try await create(world, "s", 7).status == 200)
            try await advance(world, 1)
            let before = server.state.withLock { $0.asked.count }
            _ = try await world.state("s")
            #expect(server.state.withLock { $0.asked.count } == before)
            var edited = change(["a@example.com": "releng", "b@example.com": "relman"])
            edited["sc_data_version"] = 2
            server.set(7, edited)
            world.clock.advance(by: .seconds(6))
            #expect(try await world.state("s") == "completed")
            let kinds = try await world.call("GET", "/s/events").body["events"]?.array?.compactMap {
                $0["kind"]?.string
            }
            #expect(kinds?.contains("balrog_changed") == true)
        }
    }

    @Test func `59: what is carried out or needs nobody is complete`() throws {
        let done = BalrogState(["complete": true, "signoffs": [:], "required_signoffs": ["releng": 2]])
        #expect(done?.isApproved == true)
        #expect(BalrogState(["complete": false, "signoffs": [:], "required_signoffs": [:]])?.isApproved == true)
        // Somebody with another role does not count, and neither does nonsense.
        let other = BalrogState(["complete": false, "signoffs": ["a": "relman"], "required_signoffs": ["releng": 1]])
        #expect(other?.missing == ["releng": 1])
        // A requirement that is not there or cannot be read is no approval.
        #expect(BalrogState(["complete": false, "signoffs": [:]]) == nil)
        #expect(BalrogState(["complete": false, "required_signoffs": ["releng": "2"]]) == nil)
        #expect(BalrogState(["complete": true])?.isApproved == true)
        #expect(BalrogState([:]) == nil)
        #expect(BalrogState([]) == nil)
    }

    @Test func `60: signers are led to Balrog if they themselves hold the role`() async throws {
        try await with { world, server in
            server.set(7, change([:]))
            server.state.withLock { $0.users["releng1@example.com"] = ["releng"] }
            #expect(try await create(world, "s", 7).status == 200)
            let member = try world.bearer("releng1")
            for method in ["PUT", "DELETE"] {
                for path in ["/s/sign", "/step/s/sign"] {
                    let answer = try await world.call(method, path, ["group": "releng"], as: member)
                    #expect(answer.status == 307)
                    #expect(answer.headers["Location"] == "\(Self.root)/scheduled_changes/rules/7/signoffs")
                }
            }
            #expect(try await world.call("PUT", "/s/sign", ["group": "relman"], as: member).code == "not_in_group")
            // In the group by the token, but not at Balrog.
            #expect(
                try await world.call("PUT", "/s/sign", ["group": "releng"], as: try world.bearer("releng2")).status
                    == 403
            )
            #expect(try await world.call("PUT", "/s/sign", ["group": "releng"]).status == 401)
            // Nothing is signed for anybody, and nothing is stored here.
            #expect(server.state.withLock { $0.asked.allSatisfy { $0.hasPrefix("GET ") } })
            #expect(try await world.call("GET", "/s/signatures").body["signatures"] == [])
        }
    }

    @Test func `policies that Balrog cannot decide about are refused`() async throws {
        try await with { world, _ in
            for definition in [
                ["object": "rules"], ["object": "users", "sc_id": 1], ["object": "rules", "sc_id": 0], [],
            ]
                as [JSONValue]
            {
                let policy: JSONValue = ["method": "balrog", "definition": definition]
                let answer = try await world.call("PUT", "/s", ["policy": policy])
                #expect(answer.status == 400)
            }
        }
        try await SignoffWorld.with { world in
            let answer = try await create(world, "s", 1)
            #expect(answer.status == 400)
        }
    }
}
