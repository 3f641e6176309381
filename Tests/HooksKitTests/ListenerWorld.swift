// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Pulse
import TestSupport

@testable import HooksKit

/// Hooks with listeners on a real broker, under a namespace of their own.
struct ListenerWorld: Sendable {
    let hooks: HooksWorld
    let pulse: PulseConnection
    /// An exchange that exists.
    let exchange: String

    /// Builds a world, runs listeners in it, and removes every queue afterwards.
    static func with(
        listeners: Int = 1,
        options: HookQueueOptions = HookQueueOptions(),
        _ body: @Sendable @escaping (ListenerWorld) async throws -> Void
    ) async throws {
        try await HooksWorld.with { (hooks: HooksWorld) async throws -> Void in
            let namespace = Broker.uniqueName()
            try await Broker.lend(configure: { $0.namespace = namespace }) { pulse, exchange, _ in
                let world = ListenerWorld(hooks: hooks, pulse: pulse, exchange: exchange)
                var failure: (any Error)?
                do {
                    try await world.listening(listeners, options: options) { try await body(world) }
                } catch {
                    failure = error
                }
                await world.removeQueues()
                if let failure { throw failure }
            }
        }
    }

    /// Runs listeners, each on a connection of its own, beside a body.
    func listening(
        _ count: Int = 1,
        options: HookQueueOptions = HookQueueOptions(),
        through relay: Relay? = nil,
        _ body: () async throws -> Void
    ) async throws {
        try await withThrowingTaskGroup { group in
            var connections: [PulseConnection] = []
            for number in 0..<count {
                var configuration = pulse.configuration
                if let relay {
                    configuration.host = "127.0.0.1"
                    configuration.port = relay.port
                }
                let connection = PulseConnection(configuration, name: "listener \(number)")
                connections.append(connection)
                let listener = listener(on: connection, options: options)
                group.addTask { try await listener.run() }
                try await eventually(within: .seconds(120), "listener \(number) is ready") {
                    do { try await listener.checkReady() } catch { return false }
                    return true
                }
            }
            var failure: (any Error)?
            do { try await body() } catch { failure = error }
            group.cancelAll()
            try await group.waitForAll()
            for connection in connections { await connection.shutDown() }
            if let failure { throw failure }
        }
    }

    func listener(on connection: PulseConnection, options: HookQueueOptions = HookQueueOptions()) -> HookListeners {
        let store = ListenerStore(pool: hooks.pool)
        return HookListeners(
            store: store,
            pulse: connection,
            intake: DeliveryIntake(
                store: store,
                fires: hooks.fires,
                programs: HookPrograms(pool: hooks.pool),
                dispatcher: hooks.dispatcher
            ),
            options: options
        )
    }

    private func removeQueues() async {
        let rows = try? await hooks.pool.query("select queue_name from hooks.queues where queue_name <> ''")
        for row in rows ?? [] {
            if let name = try? row.string("queue_name") { _ = try? await pulse.deleteQueue(name) }
        }
        _ = try? await pulse.deleteQueue("queue/\(pulse.namespace)/dead-letters")
        try? await pulse.deleteExchange("exchange/\(pulse.namespace)/v1/dead-letters")
    }

    // MARK: - Hooks

    func binding(_ pattern: String, filter: String? = nil, exchange: String? = nil) -> JSONValue {
        var binding: JSONValue = [
            "exchange": JSONValue(exchange ?? self.exchange), "routingKeyPattern": JSONValue(pattern),
        ]
        if let filter { binding["filter"] = JSONValue(filter) }
        return binding
    }

    func request(_ bindings: [JSONValue], template: JSONValue = ["payload": ["$eval": "payload"]]) -> JSONValue {
        HooksWorld.request(template, ["bindings": .array(bindings), "triggerSchema": ["type": "object"]])
    }

    /// Creates a hook and waits until the broker is in step with it.
    func create(_ name: String = "h", _ bindings: [JSONValue]) async throws {
        let status = try await hooks.call("PUT", "/hooks/g/\(name)", request(bindings)).status
        guard status == 200 else { throw EventuallyFailed(what: "PUT answered \(status)") }
        try await inStep()
    }

    func update(_ name: String = "h", _ bindings: [JSONValue]) async throws {
        let status = try await hooks.call("POST", "/hooks/g/\(name)", request(bindings)).status
        guard status == 200 else { throw EventuallyFailed(what: "POST answered \(status)") }
    }

    /// Waits until every wish was carried out.
    func inStep() async throws {
        try await eventually(within: .seconds(120), "the broker is in step") {
            let rows = try await hooks.pool.query("select count(*) as n from hooks.queues where wanted <> made")
            return try rows.first?.int("n") == 0
        }
    }

    func status(_ name: String = "h") async throws -> JSONValue {
        try await hooks.call("GET", "/hooks/g/\(name)/status").body
    }

    func queue(_ name: String = "h") async throws -> String {
        try await hooks.pool.query(
            "select queue_name from hooks.queues where hook_group_id = 'g' and hook_id = \(name)"
        ).first?.string("queue_name") ?? ""
    }

    /// How many messages are in a hook's queue, while no listener has any of them.
    func waiting(_ name: String) async throws -> Int {
        let reconciler = QueueReconciler(
            store: ListenerStore(pool: hooks.pool),
            pulse: pulse,
            options: HookQueueOptions(),
            listener: "test"
        )
        return try await pulse.declareQueue(reconciler.queue(of: HookName(group: "g", hook: name)))
    }

    // MARK: - Messages

    /// Publishes a message, with a made-up id unless told otherwise.
    func publish(_ body: String, _ key: String = "a.b", cc: [String] = [], id: String? = nil) async throws {
        try await pulse.publish(
            PulseMessage(exchange: exchange, routingKey: key, cc: cc, body: Array(body.utf8), messageID: id)
        )
    }

    /// Waits for a number of tasks, and for no more of them to come.
    func tasks(_ count: Int, within limit: Duration = .seconds(90)) async throws -> [JSONValue] {
        try await eventually(within: limit, "\(count) tasks exist") { hooks.queue.tasks.count >= count }
        try await eventually(within: limit, "all fires ended") { try await hooks.openFires() == 0 }
        return hooks.queue.tasks.values.compactMap { $0["payload"] }
    }
}

struct EventuallyFailed: Error {
    let what: String
}
