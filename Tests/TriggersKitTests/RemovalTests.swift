// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Postgres
import Pulse
import TestSupport
import Testing

@testable import TriggersKit

@Suite(.timeLimit(.minutes(5)))
struct RemovalTests {
    private func use(_ queue: String, _ exchange: String, _ key: String = "k") -> TriggerUse {
        TriggerUse(trigger: TriggersWorld.coverage.name, queue: queue, exchange: exchange, routingKey: key)
    }

    /// Has listeners be silent about a use for long enough, while they spoke of others.
    private func silence(_ world: TriggersWorld, _ use: TriggerUse) async throws {
        try await world.pool.execute(
            """
            update triggers.uses set seen = now() - interval '1 hour'
            where queue = \(use.queue) and routing_key = \(use.routingKey)
            """
        )
        try await world.pool.execute(
            "update triggers.places set looked = now() - interval '1 hour' where name = 'uses'"
        )
    }

    private func sighting(_ subject: String) -> Sighting {
        Sighting(subject: subject, facts: .group(subject), origin: .message)
    }

    private func waiting(_ pulse: PulseConnection, in queue: String, _ count: Int) async throws {
        try await eventually("\(count) messages wait") {
            try await pulse.status(ofQueue: queue)?.messages == count
        }
    }

    @Test func `what a listener has in its file stays, and what none has goes with all that waits for it`() async throws
    {
        try await TriggersWorld.with { world in
            try await Broker.lend { pulse, exchange, queue in
                let removal = TriggerRemoval(uses: world.uses, runs: world.runs, pulse: pulse)
                let own = use(queue, exchange)
                try await world.uses.note([own])
                _ = try await world.runs.add([sighting("a")], for: TriggersWorld.coverage)
                _ = try await world.runs.add([sighting("a")], for: TriggersWorld.diffs)
                try await pulse.declareQueue(PulseQueue(queue, kind: .classic))
                try await pulse.bind(queue: queue, exchange: exchange, routingKey: "k")
                for _ in 0..<3 { try await pulse.publish(PulseMessage(exchange: exchange, routingKey: "k", body: [1])) }
                try await waiting(pulse, in: queue, 3)
                try await world.serve(pulse: pulse) { url in
                    let path = "/triggers/\(own.trigger)"
                    #expect(try await world.call(url, "DELETE", path, scopes: "triggers:list").status == 403)
                    #expect(try await world.call(url, "DELETE", path).status == 409)
                    #expect(try await world.call(url, "GET", "/triggers").body["leftovers"]?.array?.isEmpty == true)

                    try await silence(world, own)
                    let left = try await world.call(url, "GET", "/triggers").body["leftovers"]?.array ?? []
                    #expect(left.count == 1)
                    #expect(left.first?["queue"]?.string == queue)
                    #expect(left.first?["messages"]?.int == 3)
                    let answer = try await world.call(url, "DELETE", path)
                    #expect(answer.status == 200)
                    #expect(answer.body["queues"] == [["queue": .string(queue), "messages": 3]])
                    #expect(answer.body["runs"]?.int == 1)

                    #expect(try await pulse.status(ofQueue: queue) == nil)
                    #expect(try await world.call(url, "GET", "/triggers").body["leftovers"]?.array?.isEmpty == true)
                    #expect(try await world.call(url, "DELETE", path).status == 404)
                }
                // What other triggers observed is none of its business.
                #expect(try await world.open() == 1)
                #expect(try await world.reasons() == ["the trigger was removed"])
                // The same file again: everything begins anew.
                try await world.uses.note([own])
                await #expect(throws: TriggerRemoval.Refusal.self) { try await removal.remove(own.trigger) }
            }
        }
    }

    @Test func `a queue that somebody consumes stays, whatever was written down`() async throws {
        try await TriggersWorld.with { world in
            try await Broker.lend { pulse, exchange, queue in
                let removal = TriggerRemoval(uses: world.uses, runs: world.runs, pulse: pulse)
                let subscription = PulseSubscription(
                    queue: PulseQueue(queue, kind: .classic),
                    bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "k")]
                )
                let trigger = TriggersWorld.coverage
                let consumption = Consumption([queue])
                #expect(throws: Consumption.NotReady.self) { try consumption.check() }
                let intake = world.intake(trigger, subscription, pulse: pulse, consumption: consumption)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { try await intake.run() }
                    try await eventually("it is ready") { (try? consumption.check()) != nil }
                    #expect(try await pulse.status(ofQueue: queue)?.consumers == 1)
                    // As if this listener could not reach the database for a long time.
                    try await silence(world, use(queue, exchange))
                    await #expect(
                        throws: TriggerRemoval.Refusal.used(
                            "\(queue) is being consumed: some listener has the trigger in its file"
                        )
                    ) {
                        try await removal.remove(trigger.name)
                    }
                    #expect(try await pulse.status(ofQueue: queue)?.consumers == 1)
                    group.cancelAll()
                }
            }
        }
    }

    @Test func `of a trigger that is still used, bindings go that nobody has any more`() async throws {
        try await TriggersWorld.with { world in
            try await Broker.lend { pulse, exchange, queue in
                let removal = TriggerRemoval(uses: world.uses, runs: world.runs, pulse: pulse)
                let (old, new) = (use(queue, exchange, "old"), use(queue, exchange, "new"))
                try await world.uses.note([old, new])
                _ = try await world.runs.add([sighting("a")], for: TriggersWorld.coverage)
                try await pulse.declareQueue(PulseQueue(queue, kind: .classic))
                for key in ["old", "new"] { try await pulse.bind(queue: queue, exchange: exchange, routingKey: key) }
                try await silence(world, old)
                let outcome = try await removal.remove(old.trigger)
                #expect(outcome.bindings == [old])
                #expect(outcome.queues.isEmpty)
                for key in ["old", "new"] {
                    try await pulse.publish(PulseMessage(exchange: exchange, routingKey: key, body: [1]))
                }
                try await waiting(pulse, in: queue, 1)
                #expect(try await world.open() == 1)
            }
        }
    }

    @Test func `after all listeners were away nothing is left over before they have spoken for a while`() async throws {
        try await TriggersWorld.with { world in
            let (old, own) = (use("old", "e"), TriggerUse(trigger: TriggersWorld.diffs.name))
            try await world.uses.note([old, own])
            try await world.pool.execute("update triggers.uses set seen = now() - interval '1 hour'")
            try await world.pool.execute(
                "update triggers.places set looked = now() - interval '2 hours', next_look = now() - interval '59 minutes'"
            )
            // The first one is back, and says what it has; another one may still be starting.
            try await world.uses.note([own])
            #expect(try await world.uses.leftovers().isEmpty)
            try await world.pool.execute("update triggers.places set looked = now() - interval '61 seconds'")
            try await world.uses.note([own])
            #expect(try await world.uses.leftovers().map(\.use) == [old])
        }
    }

    @Test func `a listener that comes up while something is removed waits for the end of it`() async throws {
        try await TriggersWorld.with { world in
            let own = use("q", "e")
            try await withThrowingTaskGroup(of: Void.self) { group in
                try await world.pool.transaction { connection in
                    let known = try await world.uses.lock(own.trigger, on: connection)
                    #expect(known.used.isEmpty && known.left.isEmpty)
                    group.addTask { try await world.uses.note([own]) }
                    try await eventually("the listener waits") {
                        let rows = try await world.pool.query(
                            """
                            select count(*) as n from pg_locks where locktype = 'advisory' and not granted
                                and database = (select oid from pg_database where datname = current_database())
                            """
                        )
                        return try rows.first?.int("n") == 1
                    }
                }
                try await group.waitForAll()
            }
            let known = try await world.pool.transaction { try await world.uses.lock(own.trigger, on: $0) }
            #expect(known.used.map(\.use) == [own])
        }
    }

    @Test func `a queue that cannot be consumed is named by what asks for readiness`() async throws {
        try await TriggersWorld.with { world in
            try await Broker.lend { pulse, exchange, queue in
                // There already, as something else.
                try await pulse.declareQueue(PulseQueue(queue, kind: .classic, maxLength: 7))
                let subscription = PulseSubscription(queue: PulseQueue(queue, kind: .classic), bindings: [])
                let consumption = Consumption([queue])
                let intake = world.intake(TriggersWorld.coverage, subscription, pulse: pulse, consumption: consumption)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { try await intake.run() }
                    try await eventually("the reason is told") {
                        do throws(Consumption.NotReady) { try consumption.check() } catch {
                            return error.description.contains(queue) && error.description.contains("inequivalent arg")
                        }
                        return false
                    }
                    group.cancelAll()
                }
            }
        }
    }
}
