// SPDX-License-Identifier: MPL-2.0

import Pulse
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5)))
struct ReconnectTests {
    private func lend(
        _ body: (_ relay: Relay, _ pulse: PulseConnection, _ exchange: String, _ queue: String) async throws -> Void
    ) async throws {
        let direct = try PulseConfiguration(url: Broker.url)
        let relay = try Relay(to: direct.host, direct.port)
        try await Broker.lend(configure: {
            $0.host = "127.0.0.1"
            $0.port = relay.port
        }) { pulse, exchange, queue in
            try await body(relay, pulse, exchange, queue)
        }
    }

    @Test func `a consumer survives the loss of its connection`() async throws {
        try await lend { relay, pulse, exchange, queue in
            let journal = Journal()
            let begins = Flag()
            var wanted = PulseSubscription(
                queue: PulseQueue(queue),
                bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "#")]
            )
            wanted.onConsuming = { begins.raise() }
            try await consuming(pulse, wanted) {
                journal.note($0)
                return .ack
            } while: {
                try await pulse.publish(PulseMessage("1", to: exchange))
                relay.cut()
                try await eventually("consuming begins again") { begins.count >= 2 }
                try await pulse.publish(PulseMessage("2", to: exchange))
                try await eventually("both arrive") { Set(journal.texts) == ["1", "2"] }
            }
        }
    }

    @Test func `a queue of one connection comes back with the next one, under another name and with its bindings`()
        async throws
    {
        try await lend { relay, pulse, exchange, _ in
            let journal = Journal()
            let begins = Flag()
            var wanted = PulseSubscription(
                queue: .ephemeral(namespace: pulse.namespace),
                bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "#")]
            )
            wanted.onConsuming = { begins.raise() }
            try await consuming(pulse, wanted) {
                journal.note($0)
                return .ack
            } while: {
                for number in 1...3 {
                    try await eventually("consuming begins") { begins.count >= number }
                    try await pulse.publish(PulseMessage("\(number)", to: exchange))
                    try await eventually("the message arrives") { journal.texts.contains("\(number)") }
                    relay.cut()
                }
            }
        }
    }

    @Test func `A33: publishing waits for a broker that is away for a while`() async throws {
        try await lend { relay, pulse, exchange, queue in
            try await pulse.declareQueue(PulseQueue(queue))
            try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            relay.refuse(true)
            try await withThrowingTaskGroup { group in
                group.addTask { try await pulse.publish(PulseMessage("1", to: exchange)) }
                let error = await #expect(throws: PulseError.self) {
                    try await pulse.publish(PulseMessage("2", to: exchange), timeout: .milliseconds(300))
                }
                #expect(error?.code == .timeout)
                relay.refuse(false)
                try await group.waitForAll()
            }
            #expect(try await pulse.declareQueue(PulseQueue(queue)) == 1)
        }
    }

    @Test func `a message that is sent again after the connection broke keeps its made-up id`() async throws {
        try await lend { relay, pulse, exchange, queue in
            let journal = Journal()
            let wanted = PulseSubscription(
                queue: PulseQueue(queue),
                bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "#")],
                prefetch: 1000
            )
            try await consuming(pulse, wanted) {
                journal.note($0)
                return .ack
            } while: {
                try await withThrowingTaskGroup { group in
                    group.addTask { try await pulse.publish((0..<5000).map { PulseMessage("\($0)", to: exchange) }) }
                    try await eventually("some are seen") { journal.count > 200 }
                    relay.cut()
                    try await group.waitForAll()
                }
                try await eventually("all are seen") { Set(journal.texts).count == 5000 }
            }
            // However often each came: one text, one id.
            let pairs = Set(journal.all.map { String(decoding: $0.body, as: UTF8.self) + " " + ($0.messageID ?? "") })
            #expect(pairs.count == 5000)
            #expect(Set(journal.all.compactMap(\.messageID)).count == 5000)
        }
    }

    @Test func `no message of a long batch is lost when connections break under it`() async throws {
        try await lend { relay, pulse, exchange, queue in
            let seen = Mutex<Set<String>>([])
            let wanted = PulseSubscription(
                queue: PulseQueue(queue),
                bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "#")],
                prefetch: 50
            )
            try await consuming(pulse, wanted) { delivery in
                seen.withLock { _ = $0.insert(String(decoding: delivery.body, as: UTF8.self)) }
                return .ack
            } while: {
                try await withThrowingTaskGroup { group in
                    group.addTask { try await pulse.publish((0..<4000).map { PulseMessage("\($0)", to: exchange) }) }
                    for target in [500, 1500, 2500] {
                        try await eventually("\(target) are seen") { seen.withLock { $0.count } >= target }
                        relay.cut()
                    }
                    try await group.waitForAll()
                }
                try await eventually("all are seen") { seen.withLock { $0.count } == 4000 }
            }
        }
    }

    @Test func `publishing after the shutdown fails at once`() async throws {
        let pulse = PulseConnection(try PulseConfiguration(url: Broker.url), name: "test")
        try await pulse.checkHealth()
        await pulse.shutDown()
        let error = await #expect(throws: PulseError.self) { try await pulse.publish(PulseMessage("1", to: "x")) }
        #expect(error?.code == .closed)
    }

    @Test func `cancelling a publisher that waits ends the wait`() async throws {
        let pulse = PulseConnection(
            PulseConfiguration(host: "127.0.0.1", port: 1, user: "x", password: "x"),
            name: "test"
        )
        let task = Task { () -> PulseError? in
            do throws(PulseError) {
                try await pulse.publish(PulseMessage("1", to: "x"))
                return nil
            } catch {
                return error
            }
        }
        task.cancel()
        #expect(await task.value?.code == .cancelled)
        await pulse.shutDown()
    }
}
