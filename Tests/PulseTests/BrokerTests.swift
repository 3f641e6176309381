// SPDX-License-Identifier: MPL-2.0

import Logging
import Pulse
import ServiceLifecycle
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5)))
struct BrokerTests {
    struct Failure: Error {}

    private func subscription(
        _ queue: String,
        _ exchange: String,
        _ patterns: [String] = ["#"],
        prefetch: Int = 5
    ) -> PulseSubscription {
        PulseSubscription(
            queue: PulseQueue(queue),
            bindings: patterns.map { PulseBinding(exchange: exchange, routingKeyPattern: $0) },
            prefetch: prefetch
        )
    }

    @Test func `a confirmed message is in the queue`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            try await pulse.declareQueue(PulseQueue(queue))
            try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            try await pulse.publish((0..<1000).map { PulseMessage("\($0)", to: exchange) })
            #expect(try await pulse.deleteQueue(queue) == 1000)
        }
    }

    @Test func `A35: a CC key routes, and the routing key stays the primary one`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let journal = Journal()
            try await consuming(pulse, subscription(queue, exchange, ["route.x.*"])) {
                journal.note($0)
                return .ack
            } while: {
                try await pulse.publish(PulseMessage("{}", to: exchange, "primary", cc: ["route.x.y", "other"]))
                try await pulse.publish(PulseMessage("{}", to: exchange, "primary"))
                try await eventually("the message arrives") { journal.count == 1 }
            }
            let delivery = try #require(journal.all.first)
            #expect(delivery.routingKey == "primary")
            #expect(delivery.cc == ["route.x.y", "other"])
            #expect(delivery.routes == ["x.y"])
            #expect(delivery.exchange == exchange)
            #expect(!delivery.redelivered)
        }
    }

    @Test func `A36: two bindings of one queue that match lead to one delivery`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let journal = Journal()
            try await consuming(pulse, subscription(queue, exchange, ["a.#", "#.b"])) {
                journal.note($0)
                return .ack
            } while: {
                try await pulse.publish(PulseMessage("1", to: exchange, "a.b"))
                try await pulse.publish(PulseMessage("2", to: exchange, "a.c"))
                try await eventually("both arrive") { journal.texts.contains("2") }
            }
            #expect(journal.texts.sorted() == ["1", "2"])
        }
    }

    @Test func `A34: a handler that fails twice drops the message and the queue goes on`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let journal = Journal()
            try await consuming(pulse, subscription(queue, exchange)) { delivery in
                journal.note(delivery)
                if delivery.body == Array("bad".utf8) { throw Failure() }
                return .ack
            } while: {
                try await pulse.publish(PulseMessage("bad", to: exchange))
                try await eventually("it comes twice") { journal.count == 2 }
                try await pulse.publish(PulseMessage("good", to: exchange))
                try await eventually("the next one comes") { journal.texts.contains("good") }
            }
            #expect(journal.texts == ["bad", "bad", "good"])
            #expect(journal.all.map(\.redelivered) == [false, true, false])
            #expect(try await pulse.deleteQueue(queue) == 0)
        }
    }

    @Test func `publishing to an unknown exchange fails and hurts nobody else`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            try await pulse.declareQueue(PulseQueue(queue))
            try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            var batch = (0..<50).map { PulseMessage("\($0)", to: exchange) }
            batch[20].exchange = exchange + "-unknown"
            batch[30].exchange = exchange + "-unknown"
            let errors = try await pulse.outcomes(ofPublishing: batch)
            #expect(errors.mapValues(\.code) == [20: .notFound, 30: .notFound])
            #expect(try await pulse.declareQueue(PulseQueue(queue)) >= 48)
        }
    }

    @Test func `the id of a message arrives, and one is made up for a message without`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let journal = Journal()
            try await consuming(pulse, subscription(queue, exchange)) {
                journal.note($0)
                return .ack
            } while: {
                var named = PulseMessage("named", to: exchange)
                named.messageID = "id of the publisher"
                named.isMandatory = true
                try await pulse.publish([named, PulseMessage("1", to: exchange), PulseMessage("2", to: exchange)])
                try await eventually("all arrive") { journal.count == 3 }
            }
            let ids = journal.all.compactMap(\.messageID)
            #expect(ids.first == "id of the publisher")
            #expect(Set(ids).count == 3)
        }
    }

    @Test func `a mandatory message that no queue wants is an error`() async throws {
        try await Broker.lend { pulse, exchange, _ in
            var message = PulseMessage("{}", to: exchange)
            message.isMandatory = true
            let error = await #expect(throws: PulseError.self) { try await pulse.publish(message) }
            #expect(error?.code == .unroutable)
        }
    }

    @Test func `a key longer than 255 bytes is refused before it reaches the broker`() async throws {
        try await Broker.lend { pulse, exchange, _ in
            let message = PulseMessage("{}", to: exchange, String(repeating: "k", count: 256))
            let error = await #expect(throws: PulseError.self) { try await pulse.publish(message) }
            #expect(error?.code == .invalidArgument)
        }
    }

    @Test func `topology errors have their codes`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            try await pulse.declareQueue(PulseQueue(queue))
            let conflict = await #expect(throws: PulseError.self) {
                try await pulse.declareQueue(PulseQueue(queue, maxLength: 7))
            }
            #expect(conflict?.code == .preconditionFailed)
            let missing = await #expect(throws: PulseError.self) {
                try await pulse.bind(queue: queue, exchange: exchange + "-unknown", routingKey: "#")
            }
            #expect(missing?.code == .notFound)
            try await pulse.unbind(queue: queue, exchange: exchange, routingKey: "never bound")
            try await pulse.checkHealth()
        }
    }

    @Test func `a queue can be looked at without being made`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            #expect(try await pulse.status(ofQueue: queue) == nil)
            let subscription = PulseSubscription(
                queue: PulseQueue(queue, kind: .classic),
                bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "k")]
            )
            try await consuming(pulse, subscription) { _ in
                .ack
            } while: {
                let status = try await pulse.status(ofQueue: queue)
                #expect(status?.consumers == 1)
            }
            try await eventually("nobody consumes it") { try await pulse.status(ofQueue: queue)?.consumers == 0 }
            try await pulse.publish(PulseMessage(exchange: exchange, routingKey: "k", body: [1]))
            try await eventually("it is in the queue") { try await pulse.status(ofQueue: queue)?.messages == 1 }
        }
    }

    @Test func `consuming a queue that exists with other properties throws`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            try await pulse.declareQueue(PulseQueue(queue, maxLength: 7))
            let error = await #expect(throws: PulseError.self) {
                try await pulse.consume(subscription(queue, exchange)) { _ in .ack }
            }
            #expect(error?.code == .preconditionFailed)
        }
    }

    @Test func `a binding to a missing exchange does not stop the good one`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let journal = Journal()
            var wanted = subscription(queue, exchange)
            wanted.bindings = {
                [exchange + "-unknown", exchange].map { PulseBinding(exchange: $0, routingKeyPattern: "#") }
            }
            try await consuming(pulse, wanted) {
                journal.note($0)
                return .ack
            } while: {
                try await pulse.publish(PulseMessage("1", to: exchange))
                try await eventually("it arrives") { journal.count == 1 }
            }
        }
    }

    @Test func `a queue deleted under its consumer comes back with its bindings`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let journal = Journal()
            let begins = Flag()
            var wanted = subscription(queue, exchange)
            wanted.onConsuming = { begins.raise() }
            try await consuming(pulse, wanted) {
                journal.note($0)
                return .ack
            } while: {
                try await pulse.deleteQueue(queue)
                try await eventually("consuming begins again") { begins.count == 2 }
                try await pulse.publish(PulseMessage("1", to: exchange))
                try await eventually("it arrives") { journal.count == 1 }
            }
        }
    }

    @Test func `no more handlers run at once than the prefetch says`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let running = Mutex((now: 0, most: 0, done: 0))
            try await consuming(pulse, subscription(queue, exchange, prefetch: 3)) { _ in
                running.withLock {
                    $0.now += 1
                    $0.most = max($0.most, $0.now)
                }
                try await Task.sleep(for: .milliseconds(5))
                running.withLock {
                    $0.now -= 1
                    $0.done += 1
                }
                return .ack
            } while: {
                try await pulse.publish((0..<30).map { PulseMessage("\($0)", to: exchange) })
                try await eventually("all are done") { running.withLock { $0.done } == 30 }
            }
            #expect(running.withLock { $0.most } == 3)
        }
    }

    @Test func `ten thousand messages are each handled once`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let seen = Mutex<[String: Int]>([:])
            try await consuming(pulse, subscription(queue, exchange, prefetch: 100)) { delivery in
                let text = String(decoding: delivery.body, as: UTF8.self)
                if delivery.body.last.map({ $0 % 3 == 0 }) == true { await Task.yield() }
                seen.withLock { $0[text, default: 0] += 1 }
                return .ack
            } while: {
                for start in stride(from: 0, to: 10_000, by: 1000) {
                    try await pulse.publish((start..<start + 1000).map { PulseMessage("\($0)", to: exchange) })
                }
                try await eventually("all are seen") { seen.withLock { $0.count } == 10_000 }
            }
            #expect(seen.withLock { $0.values.allSatisfy { $0 == 1 } })
            #expect(try await pulse.deleteQueue(queue) == 0)
        }
    }

    @Test func `a body larger than a frame arrives whole`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            let journal = Journal()
            let body = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            try await consuming(pulse, subscription(queue, exchange)) {
                journal.note($0)
                return .ack
            } while: {
                try await pulse.publish(PulseMessage(exchange: exchange, routingKey: "k", body: body))
                try await eventually("it arrives") { journal.count == 1 }
            }
            #expect(journal.all.first?.body == body)
        }
    }

    @Test func `a graceful stop loses nothing and hands nothing out twice`() async throws {
        try await Broker.lend { pulse, exchange, queue in
            try await pulse.declareQueue(PulseQueue(queue))
            try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            try await pulse.publish((0..<500).map { PulseMessage("\($0)", to: exchange) })
            let journal = Journal()
            let wanted = subscription(queue, exchange, prefetch: 10)
            let service = ClosureService {
                try await pulse.consume(wanted) { delivery in
                    try await Task.sleep(for: .milliseconds(2))
                    journal.note(delivery)
                    return .ack
                }
            }
            let group = ServiceGroup(
                configuration: .init(
                    services: [.init(service: service, successTerminationBehavior: .gracefullyShutdownGroup)],
                    logger: .init(label: "test")
                )
            )
            try await withThrowingTaskGroup { tasks in
                tasks.addTask { try await group.run() }
                try await eventually("some are handled") { journal.count >= 50 }
                await group.triggerGracefulShutdown()
                try await tasks.waitForAll()
            }
            #expect(Set(journal.texts).count == journal.count)
            #expect(journal.count < 500)
            // The broker takes back what it had on its way to the closed channel a moment after the closing.
            try await eventually("the others are in the queue") {
                try await pulse.declareQueue(PulseQueue(queue)) == 500 - journal.count
            }
        }
    }
}

private struct ClosureService: Service {
    let body: @Sendable () async throws -> Void
    func run() async throws { try await body() }
}
