// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Pulse
import Schedules
import TestSupport
import Testing

@testable import HooksKit

/// The ledger, pauses and backfills, through the API.
@Suite(.timeLimit(.minutes(8)))
struct LedgerTests {
    private let template: JSONValue = ["payload": ["due": "${scheduledFor}"]]
    private let minutely: JSONObject = ["schedule": ["0 * * * * *"]]

    private func settled(_ world: HooksWorld) async throws {
        try await world.allEnded()
    }

    private func ledger(_ world: HooksWorld, _ query: String = "") async throws -> [JSONValue] {
        try await world.call("GET", "/hooks/g/h/ledger" + query).body["entries"]?.array ?? []
    }

    private func next(_ world: HooksWorld) async throws -> Timestamp {
        let text = try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string ?? ""
        return try #require(Timestamp(text))
    }

    private func backfill(_ world: HooksWorld, _ from: Timestamp, _ to: Timestamp, _ more: JSONObject = [:])
        async throws
        -> (status: Int, body: JSONValue)
    {
        var body: JSONObject = ["from": JSONValue(from.iso8601), "to": JSONValue(to.iso8601), "perSecond": 100]
        for (key, value) in more { body[key] = value }
        return try await world.call("POST", "/hooks/g/h/backfill", .object(body))
    }

    // MARK: - Ledger

    @Test func `the ledger tells every kind of event, what became of it and how long it took`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = [
                "$switch": [
                    "firedBy == \"triggerHook\"": ["payload": [:]], "firedBy == \"pulseMessage\"": ["$eval": "nothing"],
                ]
            ]
            try await world.create(template, ["schedule": ["0 * * * * *"], "triggerSchema": ["type": "object"]])
            let taskID = try await world.call("POST", "/hooks/g/h/trigger", [:]).body["taskId"]
            let message = PulseDelivery(exchange: "e", routingKey: "k", body: Array("{}".utf8))
            try await world.intake.accept([message], for: HookName(group: "g", hook: "h"), queue: "q")
            try await world.passNextInstant()
            try await world.scheduler.fireDue()
            try await settled(world)
            let entries = try await ledger(world)
            #expect(entries.count == 3)
            let trigger = try #require(entries.first { $0["firedBy"] == "triggerHook" })
            #expect(trigger["outcome"] == "created")
            #expect(trigger["origin"] == "request")
            #expect(trigger["taskId"] == taskID)
            #expect(trigger["latency"]?["total"]?.int ?? -1 >= 0)
            let pulse = try #require(entries.first { $0["firedBy"] == "pulseMessage" })
            #expect(pulse["outcome"] == "failed")
            #expect(pulse["reason"] == "template")
            #expect(pulse["error"]?.string?.contains("nothing") == true)
            let schedule = try #require(entries.first { $0["firedBy"] == "schedule" })
            #expect(schedule["outcome"] == "declined")
            #expect(schedule["due"]?.string?.hasSuffix(":00.000Z") == true)
        }
    }

    @Test func `pages of the ledger show every entry once, newest first, within the range`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            let first = try await next(world)
            for _ in 0..<5 {
                world.clock.advance(by: .seconds(60))
                try await world.scheduler.fireDue()
            }
            try await settled(world)
            let range = "?from=\((first + .seconds(60)).iso8601)&to=\((first + .seconds(240)).iso8601)&limit=2"
            var seen: [String] = []
            var query: String? = range
            while let options = query {
                let page = try await world.call("GET", "/hooks/g/h/ledger" + options).body
                seen += page["entries"]?.array?.compactMap { $0["due"]?.string } ?? []
                query = page["continuationToken"]?.string.map { "\(range)&continuationToken=\($0)" }
            }
            #expect(seen == [180, 120, 60].map { (first + .seconds($0)).iso8601 })
        }
    }

    @Test func `a run of skipped instants is found by any range it reaches into`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            let first = try await next(world)
            world.clock.advance(by: .seconds(3600))
            try await world.scheduler.fireDue()
            try await settled(world)
            let inside = "?from=\((first + .seconds(600)).iso8601)&to=\((first + .seconds(700)).iso8601)"
            #expect(try await ledger(world, inside).map { $0["outcome"] } == ["skipped"])
            let before = "?to=\((first + .seconds(60)).iso8601)"
            #expect(try await ledger(world, before).map { $0["outcome"] } == ["created"])
            let after = "?from=\((first + .seconds(7200)).iso8601)"
            #expect(try await ledger(world, after).isEmpty)
        }
    }

    @Test func `the ledger asks for its scope, a hook, and dates that are dates`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            #expect(try await world.call("GET", "/hooks/g/h/ledger").status == 404)
            try await world.create()
            #expect(try await world.call("GET", "/hooks/g/h/ledger", scopes: "hooks:get:g:h").status == 403)
            #expect(try await world.call("GET", "/hooks/g/h/ledger", scopes: "hooks:list-last-fires:g/h").status == 200)
            #expect(try await world.call("GET", "/hooks/g/h/ledger?from=yesterday").status == 400)
            #expect(try await world.call("GET", "/hooks/g/h/ledger?continuationToken=x").status == 400)
        }
    }

    @Test func `the ledger goes with its hook`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            _ = try await world.call("POST", "/hooks/g/h/trigger", [:])
            _ = try await world.call("DELETE", "/hooks/g/h")
            try await world.create()
            #expect(try await ledger(world).isEmpty)
        }
    }

    // MARK: - Pauses

    @Test func `a paused schedule does not fire, triggers do, and the instants of the pause are skipped`() async throws
    {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": [:]], minutely)
            let paused = try await world.call("POST", "/hooks/g/h/pause")
            #expect(paused.status == 200)
            #expect(paused.body["paused"]?["clientId"] == "c")
            #expect(paused.body["nextScheduledDate"] == nil)
            world.clock.advance(by: .seconds(300))
            #expect(try await world.scheduler.fireDue() == 0)
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).status == 200)
            #expect(try await world.call("POST", "/hooks/g/h/pause").body["paused"] == paused.body["paused"])
            let resumed = try await world.call("POST", "/hooks/g/h/resume")
            #expect(resumed.body["paused"] == nil)
            #expect(try await next(world) > world.clock.now())
            #expect(try await world.scheduler.fireDue() == 0)
            let skipped = try await ledger(world).first { $0["outcome"] == "skipped" }
            #expect(skipped?["reason"] == "paused")
            #expect(skipped?["skipped"] == 5)
            world.clock.advance(by: .seconds(60))
            #expect(try await world.scheduler.fireDue() == 1)
        }
    }

    @Test func `a paused hook stays paused when its definition changes`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": [:]], minutely)
            _ = try await world.call("POST", "/hooks/g/h/pause")
            let other = HooksWorld.request(["payload": [:]], ["schedule": ["*/5 * * * * *"]])
            #expect(try await world.call("POST", "/hooks/g/h", other).status == 200)
            world.clock.advance(by: .seconds(60))
            #expect(try await world.scheduler.fireDue() == 0)
        }
    }

    @Test func `pausing and backfilling ask for their scopes and a hook`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for verb in ["pause", "resume"] {
                #expect(try await world.call("POST", "/hooks/g/h/\(verb)").status == 404)
                let wrong = "hooks:trigger-hook:g/h"
                #expect(try await world.call("POST", "/hooks/g/h/\(verb)", scopes: wrong).status == 403)
            }
            let now = world.clock.now()
            #expect(try await backfill(world, now - .seconds(60), now).status == 404)
            try await world.create()
            #expect(try await backfill(world, now, now - .seconds(60)).status == 400)
        }
    }

    // MARK: - Backfills

    @Test func `a backfill fires what was skipped, each instant once, and only that`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            let first = try await next(world)
            world.clock.advance(by: .seconds(600))
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
            let end = first + .seconds(240)
            let rehearsal = try await backfill(world, first, end, ["dryRun": true])
            #expect(rehearsal.body["fires"]?.array?.count == 3)
            #expect(rehearsal.body["settled"] == 1)
            #expect(try await world.openFires() == 0)
            let real = try await backfill(world, first, end)
            #expect(real.body["fires"] == rehearsal.body["fires"])
            try await settled(world)
            let again = try await backfill(world, first, end)
            #expect(again.body["fires"] == [])
            #expect(again.body["settled"] == 4)
            let dues = world.queue.tasks.values.compactMap { $0["payload"]?["due"]?.string }.sorted()
            #expect(dues == [0, 60, 120, 180].map { (first + .seconds($0)).iso8601 })
            #expect(try await ledger(world).count { $0["origin"] == "backfill" } == 3)
        }
    }

    @Test func `a backfill repeats what failed, under the same task id`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            let first = try await next(world)
            world.queue.refuse(403, "InsufficientScopes")
            world.clock.advance(by: .seconds(60))
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(world.queue.tasks.isEmpty)
            let failed = try await ledger(world).first
            #expect(failed?["outcome"] == "failed")
            let answer = try await backfill(world, first, first + .seconds(1))
            #expect(answer.body["fires"]?[0]?["taskId"] == failed?["taskId"])
            try await settled(world)
            let entries = try await ledger(world)
            #expect(entries.map { $0["outcome"] } == ["created"])
            #expect(try await world.history().map { $0["result"] } == ["success"])
        }
    }

    @Test func `a backfill leaves the awaited instant to the scheduler and has a limit`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            let next = try await next(world)
            let future = try await backfill(world, next - .seconds(30), next + .seconds(3600))
            #expect(future.body["fires"] == [])
            #expect(try await backfill(world, next - .seconds(86_400 * 2), next).status == 400)
        }
    }

    // MARK: - States

    @Test func `H65: the states of a whole page are asked for at once`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            for _ in 0..<12 { _ = try await world.call("POST", "/hooks/g/h/trigger", [:]) }
            let before = world.queue.state.withLock { $0.statusCalls }
            let states = try await world.history().map { $0["taskState"] }
            #expect(states == Array(repeating: "pending", count: 12))
            #expect(world.queue.state.withLock { $0.statusCalls } == before + 1)
        }
    }
}
