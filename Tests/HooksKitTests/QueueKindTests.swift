// SPDX-License-Identifier: MPL-2.0

import JSON
import TestSupport
import Testing

@testable import HooksKit
@testable import Pulse

/// What queues of either kind promise: nothing is lost with the broker, and nothing blocks a queue for ever.
@Suite(.timeLimit(.minutes(10)))
struct QueueKindTests {
    @Test func `a message that no consumer survives becomes a dead letter, and its neighbour fires`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": ["$eval": "payload"]], ["triggerSchema": ["type": "object"]])
            let store = ListenerStore(pool: world.pool)
            func delivery(_ body: String) -> PulseDelivery {
                PulseDelivery(exchange: "e", routingKey: "k", redelivered: true, body: Array(body.utf8))
            }
            let (poison, other) = (delivery(#"{"n":1}"#), delivery(#"{"n":2}"#))
            let hash = DeliveryIdentity.contentHash(exchange: "e", routingKey: "k", cc: [], body: poison.body)
            // As many processes as are allowed have counted it and died.
            for time in 1...20 { #expect(try await store.countRedeliveries([hash, hash], in: "q") == [hash: time]) }
            // The same in another queue is another message.
            #expect(try await store.countRedeliveries([hash], in: "r") == [hash: 1])
            try await world.intake.acceptOrBury(
                PulseBatch(queue: "q", connection: 1, deliveries: [poison, other]),
                for: HookName(group: "g", hook: "h")
            )
            try await eventually(within: .seconds(120), "the neighbour fires") { !world.queue.tasks.isEmpty }
            try await world.allEnded()
            #expect(world.queue.tasks.values.map { $0["payload"] } == [["n": 2]])
            let letters = try await world.call("GET", "/hooks/g/h/dead-letters").body["deadLetters"]?.array ?? []
            #expect(letters.map { $0["reason"] } == ["redelivered"])
            #expect(letters.first?["body"] == #"{"n":1}"#)
            let left = try await world.pool.query("select queue, count from hooks.redeliveries")
            #expect(try left.map { "\(try $0.string("queue")) \(try $0.int("count"))" } == ["r 1"])
        }
    }

    @Test func `quorum queues are made where that is asked for, and stay what they are`() async throws {
        let options = HookQueueOptions(kind: .quorum)
        try await ListenerWorld.with(listeners: 0) { world in
            try await world.listening(options: options) {
                try await world.create("h", [world.binding("#")])
                try await world.publish(#"{"n":1}"#)
                #expect(try await world.tasks(1) == [["n": 1]])
            }
            try await world.publish(#"{"n":2}"#)
            try await world.listening {
                #expect(Set(try await world.tasks(2)) == [["n": 1], ["n": 2]])
                // The broker would refuse to declare a queue of the other kind so.
                let reconciler = QueueReconciler(
                    store: ListenerStore(pool: world.hooks.pool),
                    pulse: world.pulse,
                    options: options,
                    listener: "test"
                )
                try await world.pulse.declareQueue(reconciler.queue(of: HookName(group: "g", hook: "h")))
            }
        }
    }
}
