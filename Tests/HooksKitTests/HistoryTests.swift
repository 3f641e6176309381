// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Postgres
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct HistoryTests {
    private func fire(_ world: HooksWorld, times: Int = 1) async throws -> [String] {
        var ids: [String] = []
        for _ in 0..<times {
            ids.append(try await world.call("POST", "/hooks/g/h/trigger", [:]).body["taskId"]?.string ?? "")
        }
        return ids
    }

    @Test func `H63: pages go from the newest fire to the oldest, and the last has no token`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let ids = try await fire(world, times: 3)
            var seen: [String] = []
            var query: String? = "?limit=1"
            while let options = query {
                let page = try await world.call("GET", "/hooks/g/h/last-fires" + options).body
                seen += page["lastFires"]?.array?.compactMap { $0["taskId"]?.string } ?? []
                query = page["continuationToken"]?.string.map { "?limit=1&continuationToken=\($0)" }
            }
            #expect(seen == ids.reversed())
        }
    }

    @Test func `H64: a hook that never fired has no history, a page past the end is empty`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            #expect(try await world.call("GET", "/hooks/g/h/last-fires").status == 404)
            try await world.create()
            let never = try await world.call("GET", "/hooks/g/h/last-fires")
            #expect(never.status == 404)
            #expect(never.body["message"]?.string?.hasPrefix("No such hook or never fired") == true)
            let ids = try await fire(world, times: 2)
            try await world.allEnded()
            let page = try await world.call("GET", "/hooks/g/h/last-fires?limit=1").body
            let token = try #require(page["continuationToken"]?.string)
            _ = try await world.pool.execute("delete from hooks.last_fires where task_id = \(ids[0])")
            let past = try await world.call("GET", "/hooks/g/h/last-fires?limit=1&continuationToken=\(token)")
            #expect(past.status == 200)
            #expect(past.body == ["lastFires": []])
        }
    }

    @Test func `H65: the state of the task is the queue's of this moment`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let id = try await fire(world)[0]
            for state in ["unscheduled", "pending", "running", "completed", "failed", "exception"] {
                world.queue.state.withLock { $0.states[id] = state }
                #expect(try await world.history().first?["taskState"]?.string == state)
            }
            world.queue.state.withLock { $0.tasks.removeAll() }
            #expect(try await world.history().first?["taskState"] == "unknown")
        }
    }

    @Test func `H66: history and status ask for their scopes`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            _ = try await fire(world)
            for (path, scope) in [("last-fires", "hooks:list-last-fires:g/h"), ("status", "hooks:status:g/h")] {
                #expect(try await world.call("GET", "/hooks/g/h/\(path)", scopes: nil).status == 403)
                #expect(try await world.call("GET", "/hooks/g/h/\(path)", scopes: scope).status == 200)
                #expect(try await world.call("GET", "/hooks/g/h/\(path)", scopes: scope + "x").status == 403)
            }
        }
    }

    @Test func `H67: a very long error is cut, and still shown as an object`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            world.queue.state.withLock { $0.reason = String(repeating: "e", count: 300_000) }
            world.queue.refuse(400, "InputError")
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).status == 400)
            let error = try await world.history().first?["error"]?.string ?? ""
            #expect(error.utf16.count == 131_072)
            let shown = try await world.call("GET", "/hooks/g/h/status").body["lastFire"]?["error"]
            #expect(shown == ["message": JSONValue(error)])
        }
    }

    @Test(arguments: ["7", "[1]", "\"text\"", "plain"])
    func `H67: stored errors that are no objects are wrapped`(error: String) async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            _ = try await fire(world)
            try await world.allEnded()
            _ = try await world.pool.execute("update hooks.last_fires set result = 'error', error = \(error)")
            let shown = try await world.call("GET", "/hooks/g/h/status").body["lastFire"]?["error"]
            #expect(shown == ["message": JSONValue(error)])
        }
    }

    @Test func `H68: fires older than a year are forgotten`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let ids = try await fire(world, times: 2)
            try await world.allEnded()
            for (id, age) in zip(ids, ["366 days", "364 days"]) {
                _ = try await world.pool.execute(
                    """
                    update hooks.last_fires set task_create_time = now() - \(age)::text::interval
                    where task_id = \(id)
                    """
                )
            }
            try await HistoryStore(pool: world.pool).expire()
            #expect(try await world.history().map { $0["taskId"]?.string } == [ids[1]])
        }
    }
}
