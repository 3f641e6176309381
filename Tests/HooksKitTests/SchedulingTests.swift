// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Logging
import Postgres
import Schedules
import Synchronization
import TaskclusterClient
import TestSupport
import Testing

@testable import HooksKit

/// The scheduler and what it leaves behind, on a real database.
@Suite(.timeLimit(.minutes(8)))
struct SchedulingTests {
    private let minutely: JSONObject = ["schedule": ["0 * * * * *"]]

    private func scheduled(_ scheduling: JSONValue) -> JSONObject {
        ["schedule": ["0 * * * * *"], "scheduling": scheduling]
    }

    private func settled(_ world: HooksWorld) async throws {
        try await world.allEnded()
    }

    private func ledger(_ world: HooksWorld, _ query: String = "") async throws -> [JSONValue] {
        try await world.call("GET", "/hooks/g/h/ledger" + query).body["entries"]?.array ?? []
    }

    private func dues(_ world: HooksWorld) -> [String] {
        world.queue.tasks.values.compactMap { $0["payload"]?["due"]?.string }.sorted()
    }

    private let template: JSONValue = ["payload": ["due": "${scheduledFor}"]]

    /// The first instant of the hook `g/h`.
    private func first(_ world: HooksWorld) async throws -> Timestamp {
        let text = try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string ?? ""
        return try #require(Timestamp(text))
    }

    // MARK: - Catching up

    @Test func `H48: without catching up, the awaited instant fires and the later ones are noted as skipped`()
        async throws
    {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            let first = try await first(world)
            world.clock.advance(by: .seconds(301))
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(dues(world) == [first.iso8601])
            let entries = try await ledger(world)
            let skipped = try #require(entries.first { $0["outcome"] == "skipped" })
            #expect(skipped["since"]?.string == (first + .seconds(60)).iso8601)
            #expect(skipped["reason"] == "missed")
            let last = try #require(skipped["due"]?.string.flatMap { Timestamp($0) })
            #expect(skipped["skipped"]?.int == Int((last - first) / .seconds(60)))
            #expect(entries.count == 2)
        }
    }

    @Test func `H48: the policy last fires the newest missed instant alone`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, scheduled(["catchUp": "last"]))
            let first = try await first(world)
            world.clock.advance(by: .seconds(300))
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(dues(world) == [(first + .seconds(240)).iso8601])
            let skipped = try await ledger(world).first { $0["outcome"] == "skipped" }
            #expect(skipped?["skipped"] == 4)
        }
    }

    @Test func `H48: the policy all fires every missed instant once, up to its limit`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, scheduled(["catchUp": "all", "catchUpLimit": 3]))
            let first = try await first(world)
            world.clock.advance(by: .seconds(300))
            try await world.scheduler.fireDue()
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(dues(world) == [120, 180, 240].map { (first + .seconds($0)).iso8601 })
            let entries = try await ledger(world)
            #expect(entries.count { $0["outcome"] == "created" } == 3)
            #expect(entries.count { $0["origin"] == "catch-up" } >= 2)
            #expect(entries.last?["outcome"] == "skipped")
        }
    }

    @Test func `fires that are made up for are spread over time`() {
        let pace = CatchUpPace(perSecond: 10)
        let start = ContinuousClock.now
        let delays = (0..<40).map { _ in pace.delay(now: start) }
        #expect(delays.prefix(11).allSatisfy { $0 == .zero })
        #expect(delays[20] == .seconds(1))
        #expect(delays[39] == .milliseconds(2900))
        #expect(pace.delay(now: start + .seconds(60)) == .zero)
    }

    // MARK: - Identity

    @Test func `the task of an instant is the same whoever makes it, and a secret before`() {
        let name = HookName(group: "g", hook: "h")
        let due = Timestamp(milliseconds: 1_707_566_400_000)
        let id = ScheduledTask.id(seed: "s", name: name, due: due)
        #expect(id == ScheduledTask.id(seed: "s", name: name, due: due))
        #expect(id != ScheduledTask.id(seed: "t", name: name, due: due))
        #expect(id != ScheduledTask.id(seed: "s", name: name, due: due + .seconds(60)))
        #expect(id != ScheduledTask.id(seed: "s", name: HookName(group: "g", hook: "i"), due: due))
    }

    @Test func `H47: every instant makes another task and moves on`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            for _ in 0..<3 {
                world.clock.advance(by: .seconds(60))
                try await world.scheduler.fireDue()
            }
            try await settled(world)
            #expect(world.queue.tasks.count == 3)
            #expect(Set(dues(world)).count == 3)
            for (id, task) in world.queue.tasks {
                #expect(task["taskGroupId"]?.string == id)
                #expect(task["created"] == task["payload"]?["due"])
            }
        }
    }

    @Test func `jitter delays the fire and keeps the instant`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, ["schedule": ["0 0 * * * *"], "scheduling": ["jitter": 1800]])
            let fireAt = try await first(world)
            world.clock.advance(by: fireAt - world.clock.now() - .milliseconds(1))
            #expect(try await world.scheduler.fireDue() == 0)
            world.clock.advance(by: .milliseconds(1))
            #expect(try await world.scheduler.fireDue() == 1)
            try await settled(world)
            let task = try #require(world.queue.tasks.values.first)
            #expect(task["created"]?.string == fireAt.iso8601)
            let due = try #require(task["payload"]?["due"]?.string)
            #expect(due.hasSuffix(":00:00.000Z"))
            #expect(due <= fireAt.iso8601)
        }
    }

    @Test func `a schedule follows the clocks of its place`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let more: JSONObject = ["schedule": ["0 30 9 * * *"], "scheduling": ["timeZone": "Asia/Kathmandu"]]
            #expect(try await world.create(template, more).status == 200)
            #expect(try await first(world).iso8601.hasSuffix("T03:45:00.000Z"))
            #expect(try await world.call("GET", "/hooks/g/h").body["scheduling"] == ["timeZone": "Asia/Kathmandu"])
        }
    }

    @Test func `H59: the time zone of the process means nothing to schedules without one`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, ["schedule": ["0 30 9 * * *"]])
            #expect(try await first(world).iso8601.hasSuffix("T09:30:00.000Z"))
        }
    }

    @Test(
        arguments: [
            ["timeZone": "Europe/Nowhere"], ["timeZone": "../../etc/passwd"], ["catchUp": "some"], ["catchUpLimit": 0],
            ["jitter": -1], ["unknown": 1],
        ] as [JSONValue]
    )
    func `scheduling that means nothing is refused`(_ scheduling: JSONValue) async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let answer = try await world.create(template, scheduled(scheduling))
            #expect(answer.status == 400)
        }
    }

    // MARK: - Replicas and crashes

    @Test func `H53, H55: hundreds due at once all fire, with failing ones among them`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["$eval": "nothing"], minutely)
            try await world.multiply(300)
            try await world.passNextInstant()
            while try await world.scheduler.fireDue() > 0 {}
            try await settled(world)
            #expect(world.queue.tasks.count == 300)
            let failed = try await world.pool.query("select hook_id from hooks.fires where outcome = 'failed'")
            #expect(try failed.map { try $0.string("hook_id") } == ["h"])
        }
    }

    @Test func `H55: a fire whose task takes its time holds up no other one`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            try await world.multiply(200)
            let gate = world.queue.holdFirstCall()
            try await world.passNextInstant()
            while try await world.scheduler.fireDue() > 0 {}
            try await eventually(within: .seconds(120), "all but the one have fired") {
                world.queue.tasks.count == 200
            }
            #expect(try await world.openFires() >= 1)
            gate.finish()
            try await settled(world)
            #expect(world.queue.tasks.count == 201)
        }
    }

    @Test func `H53: a hook whose schedule cannot be used does not hold up the others`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            try await world.multiply(3)
            for change: SQL in [
                "encrypted_next_task_id = 'gone|AAAA' where hook_id = 'many0'",
                "schedule = '[\"of another age\"]' where hook_id = 'many1'",
                "options = '{\"scheduling\": {\"timeZone\": \"Europe/Atlantis\"}}' where hook_id = 'many2'",
            ] { _ = try await world.pool.execute("update hooks.hooks set " + change) }
            world.clock.advance(by: .seconds(60))
            #expect(try await world.scheduler.fireDue() == 4)
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
            #expect(try await world.scheduler.fireDue() == 0)
            // They keep their instant, and are tried again later.
            world.clock.advance(by: .seconds(300))
            let waiting = try await world.pool.query(
                "select from hooks.hooks where hook_id like 'many%' and next_due < next_scheduled_date"
            )
            #expect(waiting.count == 3)
        }
    }

    @Test func `H56: two schedulers over one database fire each due hook once, though one is abandoned`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            try await world.multiply(400)
            try await world.passNextInstant()
            // The fires this one accepts are leased to a dispatcher that never runs, as if its process had died.
            let dead = world.abandonedScheduler(lease: .seconds(1))
            async let first = dead.fireDue()
            async let second = world.scheduler.fireDue()
            var taken = try await first + second
            while true {
                let more = try await world.scheduler.fireDue()
                if more == 0 { break }
                taken += more
            }
            #expect(taken == 401)
            try await settled(world)
            #expect(world.queue.tasks.count == 401)
            let rows = try await world.pool.query(
                "select count(*) as n, count(distinct (hook_id, due)) as d, count(distinct task_id) as t from hooks.fires"
            )
            let row = try #require(rows.first)
            let counts = try [row.int("n"), row.int("d"), row.int("t")]
            #expect(counts == [401, 401, 401])
        }
    }

    @Test func `a scheduler that dies before its commit leaves everything to the next`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            try await world.passNextInstant()
            let instant = world.clock.now()
            struct Death: Error {}
            await #expect(throws: Death.self) {
                try await world.pool.transaction { connection in
                    let due = try await world.schedules.lockDue(now: instant, limit: 10, on: connection)
                    #expect(due.count == 1)
                    // Nobody waits for the dying one.
                    #expect(try await world.scheduler.fireDue() == 0)
                    throw Death()
                }
            }
            #expect(try await world.scheduler.fireDue() == 1)
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
        }
    }

    @Test func `H58: a database that fails during a poll is asked again`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            try await world.passNextInstant()
            _ = try await world.pool.execute("alter table hooks.fires rename to gone")
            let lines = Mutex<[String]>([])
            let handler = LineLogHandler(service: "tests") { line in lines.withLock { $0.append(line) } }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    try await withLogger(Logger(label: "tests") { _ in handler }) { _ in
                        try await world.scheduler.run()
                    }
                }
                try await eventually(within: .seconds(120), "a poll failed") {
                    lines.withLock { $0.contains { $0.contains("\"severity\":\"ERROR\"") } }
                }
                _ = try await world.pool.execute("alter table hooks.gone rename to fires")
                try await eventually(within: .seconds(120), "the hook fired") { world.queue.tasks.count == 1 }
                group.cancelAll()
            }
        }
    }

    @Test func `the running scheduler sleeps until the next instant and wakes for changes`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let scheduler = world.liveScheduler()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await scheduler.run() }
                // A hook that comes due each second, created while the scheduler sleeps for an hour.
                try await Task.sleep(for: .milliseconds(200))
                try await world.create(template, ["schedule": ["* * * * * *"]])
                try await eventually(within: .seconds(120), "several instants fired") { world.queue.tasks.count >= 3 }
                group.cancelAll()
            }
        }
    }

    @Test func `H57: an update between reading and firing wins`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(template, minutely)
            try await world.passNextInstant()
            let instant = world.clock.now()
            let yearly = HooksWorld.request(template, ["schedule": ["0 0 0 1 1 *"]])
            try await withThrowingTaskGroup(of: Int.self) { group in
                try await world.pool.transaction { connection in
                    _ = try await world.schedules.lockDue(now: instant, limit: 1, on: connection)
                    // It waits for the lock, and replaces what the lock's owner would have written.
                    group.addTask { try await world.call("POST", "/hooks/g/h", yearly).status }
                    try await Task.sleep(for: .milliseconds(100))
                }
                #expect(try await group.next() == 200)
            }
            #expect(try await world.scheduler.fireDue() == 0)
            #expect(try await first(world).iso8601.hasSuffix("-01-01T00:00:00.000Z"))
        }
    }

    @Test func `H54: a schedule asks no trigger schema`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let needy: JSONValue = ["type": "object", "required": ["who"]]
            try await world.create(template, ["schedule": ["0 * * * * *"], "triggerSchema": needy])
            try await world.passNextInstant()
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
        }
    }
}
