// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Postgres
import Pulse
import Schedules
import Synchronization
import Testing
import TestSupport

@Suite(.timeLimit(.minutes(8)))
struct FiringTests {
    let minutely: JSONObject = ["schedule": ["0 * * * * *"]]

    private func settled(_ world: HooksWorld) async throws {
        try await world.allEnded()
    }

    @Test func `H46, H47, H62: an instant fires once, with itself as the task's creation`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["schedule": ["0 * * * * *", "0 */1 * * * *"]])
            let due = try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string ?? ""
            try await world.passNextInstant()
            for _ in 0..<3 { try await world.scheduler.fireDue() }
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
            #expect(world.queue.tasks.values.first?["created"]?.string == due)
            #expect(try await world.history().first?["firedBy"] == "schedule")
            let next = try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string ?? ""
            #expect(next > due)
            #expect(next > world.clock.now().iso8601)
            #expect(try await world.history().count == 1)
        }
    }

    @Test func `H48: instants missed by the scheduler become one fire`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], minutely)
            world.clock.advance(by: .seconds(301))
            #expect(try await world.scheduler.fireDue() == 1)
            #expect(try await world.scheduler.fireDue() == 0)
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
        }
    }

    @Test func `H49: a failing queue gets the same task again until it takes it`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], minutely)
            world.queue.refuse(500, "InternalServerError", times: 3)
            try await world.passNextInstant()
            try await world.scheduler.fireDue()
            try await settled(world)
            let calls = world.queue.state.withLock { $0.calls }
            #expect(calls.count == 4)
            #expect(Set(calls.map(\.taskID)).count == 1)
            #expect(Set(calls.map(\.definition)).count == 1)
            #expect(try await world.mailer.sendDue() == 0)
            let history = try await world.history()
            #expect(history.count == 1)
            #expect(history.first?["result"] == "success")
        }
    }

    @Test(arguments: [400, 403, 499])
    func `H50, H61: a permanent failure is mailed once and the schedule goes on`(_ status: Int) async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], minutely)
            for _ in 0..<3 {
                world.queue.refuse(status, "InputError")
                try await world.passNextInstant()
                try await world.scheduler.fireDue()
                try await settled(world)
                try await world.mailer.sendDue()
            }
            let history = try await world.history()
            #expect(history.map { $0["result"] } == ["error", "error", "error"])
            #expect(Set(history.map { $0["taskId"] }).count == 3)
            #expect(world.queue.mails == 1)
            #expect(world.queue.state.withLock { $0.calls.count } == 3)
        }
    }

    @Test func `H56: two schedulers at once make one task for each due hook`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for index in 0..<40 {
                _ = try await world.call(
                    "PUT",
                    "/hooks/g/h\(index)",
                    HooksWorld.request([:], ["schedule": ["0 * * * * *"]])
                )
            }
            // Two minutes, since a minute may begin while the hooks are made.
            world.clock.advance(by: .seconds(125))
            async let first = world.scheduler.fireDue()
            async let second = world.scheduler.fireDue()
            let taken = try await first + second
            let rest = try await world.scheduler.fireDue()
            #expect(taken + rest == 40)
            try await settled(world)
            #expect(world.queue.tasks.count == 40)
        }
    }

    @Test func `a fire whose process died is performed by another one, with the stored definition`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            _ = try await world.pool.execute(
                """
                insert into hooks.fires (hook_group_id, hook_id, task_id, fired_by, context, created, started,
                    definition, state, attempts, lease, run_at)
                values ('g', 'h', 'T', 'pulseMessage', '{}', now(), now(), '{"stored":true}', 'pending', 1, 1, now())
                """
            )
            try await settled(world)
            #expect(world.queue.tasks["T"] == ["stored": true])
        }
    }

    @Test func `H70, H72, H73: messages fire hooks with their body, if it satisfies the schema`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let schema: JSONValue = ["type": "object", "required": ["n"]]
            let template: JSONValue = ["payload": ["n": ["$eval": "payload.n"], "from": "${exchange} ${routingKey}"]]
            try await world.create(template, ["triggerSchema": schema])
            let name = HookName(group: "g", hook: "h")
            let good = PulseDelivery(exchange: "e", routingKey: "a.b", body: Array(#"{"n":1}"#.utf8))
            let bad = PulseDelivery(exchange: "e", routingKey: "a.b", body: Array(#"{"m":1}"#.utf8))
            try await world.intake.accept([good, bad], for: name, queue: "q")
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
            #expect(world.queue.tasks.values.first?["payload"] == ["n": 1, "from": "e a.b"])
            #expect(try await world.history().first?["firedBy"] == "pulseMessage")
        }
    }

    @Test func `a message delivered again after a lost acknowledgement fires once, equal messages fire each`()
        async throws
    {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["triggerSchema": ["type": "object"]])
            let name = HookName(group: "g", hook: "h")
            let message = PulseDelivery(exchange: "e", routingKey: "k", body: Array("{}".utf8))
            var again = message
            again.redelivered = true
            try await world.intake.accept([message, message], for: name, queue: "q")
            try await world.intake.accept([again, again], for: name, queue: "q")
            try await settled(world)
            #expect(world.queue.tasks.count == 2)
            try await world.intake.accept([again], for: name, queue: "q")
            try await settled(world)
            #expect(world.queue.tasks.count == 3)
        }
    }

    @Test func `copies of a message with an id fire once, whoever made them`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["triggerSchema": ["type": "object"]])
            let name = HookName(group: "g", hook: "h")
            let message = PulseDelivery(exchange: "e", routingKey: "k", body: Array("{}".utf8), messageID: "1")
            var again = message
            again.redelivered = true
            // By the publisher in one batch, by the publisher later, by the broker, long after everything was settled.
            try await world.intake.accept([message, message], for: name, queue: "q")
            try await world.intake.accept([message], for: name, queue: "q")
            try await settled(world)
            try await world.intake.accept([again], for: name, queue: "q")
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
            #expect(try await world.history().count == 1)
        }
    }

    @Test func `a publisher that repeats its ids loses no event that says something else`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["triggerSchema": ["type": "object"]])
            let name = HookName(group: "g", hook: "h")
            for number in 0..<3 {
                let body = Array(#"{"n":\#(number)}"#.utf8)
                let message = PulseDelivery(exchange: "e", routingKey: "k", body: body, messageID: "1")
                try await world.intake.accept([message], for: name, queue: "q")
            }
            try await settled(world)
            #expect(world.queue.tasks.count == 3)
        }
    }

    @Test func `one message with an id fires each hook it reaches`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let message = PulseDelivery(exchange: "e", routingKey: "k", body: Array("{}".utf8), messageID: "1")
            for hook in ["a", "b"] {
                let request = HooksWorld.request([:], ["triggerSchema": ["type": "object"]])
                _ = try await world.call("PUT", "/hooks/g/\(hook)", request)
                try await world.intake.accept([message], for: HookName(group: "g", hook: hook), queue: "q")
            }
            try await settled(world)
            #expect(world.queue.tasks.count == 2)
        }
    }

    @Test func `H79: a message for a deleted hook is accepted and forgotten`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let message = PulseDelivery(exchange: "e", routingKey: "k", body: Array("{}".utf8))
            try await world.intake.accept([message], for: HookName(group: "g", hook: "h"), queue: "q")
            #expect(try await world.openFires() == 0)
        }
    }

    @Test func `H80: a refused fire of a message is an error in the history and does not stop the next`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["triggerSchema": ["type": "object"]])
            world.queue.refuse(403, "InsufficientScopes")
            let message = PulseDelivery(exchange: "e", routingKey: "k", body: Array("{}".utf8))
            for _ in 0..<2 {
                try await world.intake.accept([message], for: HookName(group: "g", hook: "h"), queue: "q")
                try await settled(world)
            }
            let results = try await world.history().map { $0["result"]?.string }
            #expect(results == ["success", "error"])
        }
    }

    @Test func `H80: a message that the template cannot use is an error in the history and does not stop the next`()
        async throws
    {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = ["payload": ["n": "${payload.n}"]]
            try await world.create(template, ["triggerSchema": ["type": "object"]])
            for body in ["{}", #"{"n":1}"#] {
                let message = PulseDelivery(exchange: "e", routingKey: "k", body: Array(body.utf8))
                try await world.intake.accept([message], for: HookName(group: "g", hook: "h"), queue: "q")
                try await settled(world)
            }
            #expect(world.queue.tasks.count == 1)
            let rows = try await world.history()
            #expect(rows.map { $0["result"] } == ["success", "error"])
            #expect(rows.last?["error"]?.string?.contains("object has no property") == true)
        }
    }
}
