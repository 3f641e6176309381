// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Outbox
import Postgres
import Pulse
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct AnnouncementTests {
    /// Lends a world whose exchanges are on the broker, and a queue that hears all of them.
    private func listen(
        _ body:
            @escaping @Sendable (HooksWorld, OutboxRelay, _ received: @Sendable (Int) async throws -> [Heard])
            async throws -> Void
    ) async throws {
        let namespace = Broker.uniqueName()
        let names = HookExchanges.names
        try await Broker.lend { pulse, _, queue in
            try await pulse.declareQueue(PulseQueue(queue))
            for name in names {
                let exchange = HookExchanges.exchange(name, namespace: namespace)
                try await pulse.declareExchange(exchange)
                try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            }
            var failure: (any Error)?
            do {
                try await HooksWorld.with(namespace: namespace) { world in
                    let relay = OutboxRelay(outbox: Outbox(schema: "hooks"), pool: world.pool, pulse: pulse)
                    try await body(world, relay) { try await Self.receive($0, queue, pulse) }
                }
            } catch { failure = error }
            for name in names {
                try await pulse.deleteExchange(HookExchanges.exchange(name, namespace: namespace))
            }
            if let failure { throw failure }
        }
    }

    /// A message without the part of its exchange's name that is different in each test.
    struct Heard: Equatable, Sendable {
        let exchange: String
        let routingKey: String
        let body: JSONValue
    }

    /// What was heard so far.
    private final class Ear: Sendable {
        private let messages = Mutex<[Heard]>([])

        var all: [Heard] { messages.withLock { $0 } }

        func add(_ message: Heard) {
            messages.withLock { $0.append(message) }
        }
    }

    private static func receive(_ count: Int, _ queue: String, _ pulse: PulseConnection) async throws -> [Heard] {
        let heard = Ear()
        let subscription = PulseSubscription(queue: PulseQueue(queue), bindings: [], prefetch: 10)
        try await withThrowingTaskGroup { group in
            group.addTask {
                do {
                    try await pulse.consume(subscription) { delivery in
                        let name = delivery.exchange.split(separator: "/").last.map(String.init) ?? ""
                        let message = Heard(
                            exchange: name,
                            routingKey: delivery.routingKey,
                            body: try delivery.json()
                        )
                        heard.add(message)
                        return .ack
                    }
                } catch is CancellationError {}
            }
            try await eventually { heard.all.count >= count }
            group.cancelAll()
        }
        return heard.all
    }

    @Test func `H69: every change of a hook is announced once, with its name and nothing else`() async throws {
        try await listen { world, relay, received in
            try await world.create()
            _ = try await world.call("POST", "/hooks/g/h", HooksWorld.request(["x": 1]))
            _ = try await world.call("DELETE", "/hooks/g/h")
            try await relay.drain()
            let ids: JSONValue = ["hookGroupId": "g", "hookId": "h"]
            #expect(
                try await received(3) == [
                    Heard(exchange: "hook-created", routingKey: "_", body: ids),
                    Heard(exchange: "hook-updated", routingKey: "_", body: ids),
                    Heard(exchange: "hook-deleted", routingKey: "_", body: ids),
                ]
            )
        }
    }

    @Test func `H24: a broker that is away delays the announcement of a change, not the change`() async throws {
        try await listen { world, relay, received in
            var elsewhere = try PulseConfiguration(url: "amqp://guest:guest@127.0.0.1:1/%2F")
            elsewhere.connectTimeout = .seconds(1)
            let broken = PulseConnection(elsewhere, name: "nowhere")
            #expect(try await world.create().status == 200)
            let lost = OutboxRelay(outbox: Outbox(schema: "hooks"), pool: world.pool, pulse: broken)
            let attempt = Task { try await lost.drain() }
            try await Task.sleep(for: .milliseconds(300))
            attempt.cancel()
            _ = await attempt.result
            await broken.shutDown()
            #expect(try await world.call("GET", "/hooks/g/h").status == 200)
            #expect(try await world.create().status == 200)
            try await relay.drain()
            let ids: JSONValue = ["hookGroupId": "g", "hookId": "h"]
            let created = Heard(exchange: "hook-created", routingKey: "_", body: ids)
            #expect(try await received(2) == [created, created])
        }
    }

    @Test func `fires are announced with their task, failures with their kind alone`() async throws {
        try await listen { world, relay, received in
            try await world.create(["payload": "${payload.x}"], ["triggerSchema": ["type": "object"]])
            let taskID = try await world.call("POST", "/hooks/g/h/trigger", ["x": "y"]).body["taskId"]
            world.queue.refuse(403, "InsufficientScopes")
            _ = try await world.call("POST", "/hooks/g/h/trigger", ["x": "y"])
            _ = try await world.call("POST", "/hooks/g/h/trigger", [:])
            try await relay.drain()
            let heard = try await received(4)
            #expect(heard.map(\.exchange) == ["hook-created", "hook-fired", "hook-failed", "hook-failed"])
            #expect(Set(heard.dropFirst().map(\.routingKey)) == ["primary.triggerHook.g.h"])
            #expect(heard[1].body["taskId"] == taskID)
            #expect(heard[1].body["firedBy"] == "triggerHook")
            #expect(heard[1].body["reason"] == nil)
            #expect(heard[2].body["reason"] == "InsufficientScopes")
            #expect(heard[3].body["reason"] == "TemplateError")
            let members: Set = ["hookGroupId", "hookId", "firedBy", "taskId", "time", "reason"]
            for message in heard.dropFirst() {
                let present = message.body.object.map { Set($0.keys) } ?? []
                #expect(present.isSubset(of: members))
            }
            let row = try await world.history().last
            #expect(heard[1].body["time"] == row?["taskCreateTime"])
        }
    }

    @Test func `routing keys stay within what a broker takes, whatever the length of names`() {
        func key(_ group: Int, _ hook: Int) -> String {
            let name = HookName(
                group: String(repeating: "g", count: group),
                hook: String(repeating: "h", count: hook)
            )
            return FireAnnouncement.routingKey(name, .triggerHookWithToken)
        }
        for (group, hook) in [(1, 1), (100, 123), (200, 200), (1000, 1), (1, 1000), (1000, 1000), (224, 1), (225, 1)] {
            let text = key(group, hook)
            #expect(text.utf8.count <= 255)
            #expect(text.split(separator: ".").count == 4)
        }
        #expect(key(1, 1) == "primary.triggerHookWithToken.g.h")
        #expect(key(1000, 1) == "primary.triggerHookWithToken._.h")
        #expect(key(1, 1000) == "primary.triggerHookWithToken.g._")
    }
}
