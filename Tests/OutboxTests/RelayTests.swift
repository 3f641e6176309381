// SPDX-License-Identifier: MPL-2.0

import Postgres
import Pulse
import Synchronization
import TestSupport
import Testing

@testable import Outbox

@Suite(.timeLimit(.minutes(5)))
struct RelayTests {
    struct Abort: Error {}

    /// Lends a database with an outbox, and a connection with a queue that gets all that is published to the exchange.
    private func lend(
        _ body: (_ database: TestDatabase, _ outbox: Outbox, _ pulse: PulseConnection, _ exchange: String, String)
            async throws -> Void
    ) async throws {
        try await TestDatabase.with { database in
            for statement in Outbox.tableSQL(schema: database.schema).split(separator: ";\n") {
                try await database.pool.execute(SQL(unsafe: String(statement)))
            }
            try await Broker.lend { pulse, exchange, queue in
                try await pulse.declareQueue(PulseQueue(queue))
                try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
                try await body(database, Outbox(schema: database.schema), pulse, exchange, queue)
            }
        }
    }

    private func messages(_ range: Range<Int>, to exchange: String) -> [PulseMessage] {
        range.map { PulseMessage(exchange: exchange, routingKey: "k", cc: ["route.\($0)"], body: Array("\($0)".utf8)) }
    }

    private func depth(_ database: TestDatabase) async throws -> Int {
        try await database.pool.query("select count(*) as n from \(unsafe: database.schema).outbox").first?.int("n")
            ?? -1
    }

    /// Consumes until as many messages as expected have arrived; answers their texts in order.
    private func received(_ count: Int, from queue: String, _ pulse: PulseConnection) async throws -> [String] {
        try await deliveries(count, from: queue, pulse).map { String(decoding: $0.body, as: UTF8.self) }
    }

    private func deliveries(_ count: Int, from queue: String, _ pulse: PulseConnection) async throws -> [PulseDelivery]
    {
        let seen = Deliveries()
        let wanted = PulseSubscription(queue: PulseQueue(queue), bindings: [], prefetch: 100)
        try await withThrowingTaskGroup { group in
            group.addTask {
                do {
                    try await pulse.consume(wanted) { delivery in
                        seen.add(delivery)
                        return .ack
                    }
                } catch is CancellationError {}
            }
            try await eventually { seen.all.count >= count }
            group.cancelAll()
            try await group.waitForAll()
        }
        return seen.all
    }

    @Test func `committed messages are published in order and removed`() async throws {
        try await lend { database, outbox, pulse, exchange, queue in
            try await database.pool.transaction { try await outbox.add(messages(0..<400, to: exchange), on: $0) }
            try await database.pool.transaction { try await outbox.add(messages(400..<600, to: exchange), on: $0) }
            let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse)
            #expect(try await relay.drain() == 600)
            #expect(try await depth(database) == 0)
            #expect(try await received(600, from: queue, pulse) == (0..<600).map(String.init))
        }
    }

    @Test func `messages of a transaction that rolled back are never published`() async throws {
        try await lend { database, outbox, pulse, exchange, _ in
            await #expect(throws: Abort.self) {
                try await database.pool.transaction { connection in
                    try await outbox.add(messages(0..<3, to: exchange), on: connection)
                    throw Abort()
                }
            }
            let count = try await OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse).drain()
            #expect(count == 0)
        }
    }

    @Test func `a running relay publishes soon after a wake`() async throws {
        try await lend { database, outbox, pulse, exchange, queue in
            try await withThrowingTaskGroup { group in
                let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse)
                group.addTask { try await relay.run() }
                for round in 0..<5 {
                    try await database.pool.transaction {
                        try await outbox.add(messages(round..<round + 1, to: exchange), on: $0)
                    }
                    outbox.wake()
                    try await eventually { try await depth(database) == 0 }
                }
                group.cancelAll()
                try await group.waitForAll()
            }
            #expect(try await received(5, from: queue, pulse) == (0..<5).map(String.init))
        }
    }

    @Test func `several relays publish each message once and in order`() async throws {
        try await lend { database, outbox, pulse, exchange, queue in
            let second = PulseConnection(pulse.configuration, name: "test second relay")
            try await withThrowingTaskGroup { group in
                for connection in [pulse, second, pulse] {
                    let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: connection)
                    group.addTask { try await relay.run() }
                }
                for start in stride(from: 0, to: 1000, by: 20) {
                    try await database.pool.transaction {
                        try await outbox.add(messages(start..<start + 20, to: exchange), on: $0)
                    }
                    outbox.wake()
                }
                try await eventually { try await depth(database) == 0 }
                group.cancelAll()
                try await group.waitForAll()
            }
            await second.shutDown()
            #expect(try await received(1000, from: queue, pulse) == (0..<1000).map(String.init))
        }
    }

    @Test func `messages for a missing exchange stay and hold up no others`() async throws {
        try await lend { database, outbox, pulse, exchange, _ in
            var some = messages(0..<10, to: exchange)
            some[3].exchange = exchange + "-unknown"
            let stuck = some
            try await database.pool.transaction { try await outbox.add(stuck, on: $0) }
            let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse)
            #expect(try await relay.drain() == 9)
            #expect(try await depth(database) == 1)
        }
    }

    @Test func `a relay that dies between confirm and commit leaves copies that carry the same ids`() async throws {
        try await lend { database, outbox, pulse, exchange, queue in
            try await database.pool.transaction { try await outbox.add(messages(0..<300, to: exchange), on: $0) }
            let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse)
            // The deletion of what was confirmed fails, and with it the transaction, as when the process dies there.
            let block: SQL = """
                create function \(unsafe: database.schema).die() returns trigger language plpgsql as
                $$ begin raise exception 'the relay dies here'; end $$
                """
            try await database.pool.execute(block)
            try await database.pool.execute(
                """
                create trigger die before delete on \(unsafe: database.schema).outbox
                for each statement execute function \(unsafe: database.schema).die()
                """
            )
            await #expect(throws: PostgresError.self) { try await relay.drain() }
            #expect(try await depth(database) == 300)
            try await database.pool.execute("drop trigger die on \(unsafe: database.schema).outbox")
            let restarted = OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse)
            #expect(try await restarted.drain() == 300)
            let all = try await deliveries(556, from: queue, pulse)
            #expect(all.count == 556)
            let ids = Dictionary(grouping: all) { $0.messageID ?? "" }
            #expect(ids.count == 300)
            #expect(ids.values.allSatisfy { Set($0.map(\.body)).count == 1 })
        }
    }

    @Test func `a full queue that refuses messages holds up no other exchange`() async throws {
        try await Broker.lend(suffixes: ["-full"]) { broker, other, full in
            try await lend { database, outbox, pulse, exchange, queue in
                try await broker.declareExchange(other + "-full")
                let tight = PulseQueue(full + "-full", kind: .classic, maxLength: 1, overflow: .refuse)
                try await broker.declareQueue(tight)
                try await broker.bind(queue: full + "-full", exchange: other + "-full", routingKey: "#")
                let declined = messages(0..<400, to: other + "-full")
                try await database.pool.transaction { try await outbox.add(declined, on: $0) }
                try await database.pool.transaction { try await outbox.add(messages(0..<5, to: exchange), on: $0) }
                let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse)
                try await relay.drain()
                #expect(try await pulse.declareQueue(PulseQueue(queue)) == 5)
                let left = try await database.pool.query(
                    "select distinct exchange from \(unsafe: database.schema).outbox"
                )
                #expect(try left.map { try $0.string("exchange") } == [other + "-full"])
            }
        }
    }

    @Test func `heavy messages are published a few at a time`() async throws {
        try await lend { database, outbox, pulse, exchange, queue in
            let text = [UInt8](repeating: UInt8(ascii: "x"), count: 3 << 20)
            let heavy = (0..<7).map { _ in PulseMessage(exchange: exchange, routingKey: "k", body: text) }
            try await database.pool.transaction { try await outbox.add(heavy, on: $0) }
            let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: pulse)
            #expect(try await relay.drainOnce() == .published(3, more: true))
            #expect(try await relay.drain() == 4)
            #expect(try await depth(database) == 0)
            #expect(try await pulse.declareQueue(PulseQueue(queue)) == 7)
        }
    }

    @Test func `the id of a row differs between databases made one after the other`() {
        #expect(Outbox.messageID(schema: "s", id: 1, moment: 1) != Outbox.messageID(schema: "s", id: 1, moment: 2))
        #expect(Outbox.messageID(schema: "s", id: 1, moment: 1) != Outbox.messageID(schema: "t", id: 1, moment: 1))
    }

    @Test func `a broker that is away keeps messages in the table`() async throws {
        try await lend { database, outbox, _, exchange, _ in
            try await database.pool.transaction { try await outbox.add(messages(0..<3, to: exchange), on: $0) }
            let nowhere = PulseConnection(
                PulseConfiguration(host: "127.0.0.1", port: 1, user: "x", password: "x"),
                name: "test"
            )
            let relay = OutboxRelay(outbox: outbox, pool: database.pool, pulse: nowhere)
            let task = Task { try await relay.drain() }
            try await database.pool.transaction { try await outbox.add(messages(3..<5, to: exchange), on: $0) }
            task.cancel()
            _ = await task.result
            await nowhere.shutDown()
            #expect(try await depth(database) == 5)
        }
    }

    @Test func `a message no broker would take is refused when it is added`() async throws {
        try await lend { database, outbox, _, exchange, _ in
            let message = PulseMessage(exchange: exchange, routingKey: String(repeating: "k", count: 300), body: [])
            await #expect(throws: PulseError.self) {
                try await database.pool.transaction { try await outbox.add([message], on: $0) }
            }
        }
    }
}

private final class Deliveries: Sendable {
    private let entries = Mutex<[PulseDelivery]>([])

    var all: [PulseDelivery] { entries.withLock { $0 } }

    func add(_ delivery: PulseDelivery) { entries.withLock { $0.append(delivery) } }
}
