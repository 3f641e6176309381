// SPDX-License-Identifier: MPL-2.0

import Logging
import Pulse
import ServiceLifecycle
import Synchronization
import TestSupport
import Testing

/// What the owner of a group was told.
private final class GroupJournal: Sendable {
    struct State {
        var connections = 0
        var consuming: [String: Int] = [:]
        var lost: [String: [PulseError.Code?]] = [:]
        var bodies: [String: [String]] = [:]
        var running: Set<String> = []
        var overlaps = 0
        var most = 0
    }

    let state = Mutex(State())

    func note(_ event: PulseConsumerGroup.Event) {
        state.withLock { state in
            switch event {
            case .connected: state.connections += 1
            case .consuming(let queue): state.consuming[queue, default: 0] += 1
            case .lost(let queue, let error): state.lost[queue, default: []].append(error?.code)
            }
        }
    }

    func begin(_ queue: String) {
        state.withLock { state in
            if !state.running.insert(queue).inserted { state.overlaps += 1 }
            state.most = max(state.most, state.running.count)
        }
    }

    func end(_ batch: PulseBatch) {
        state.withLock { state in
            state.running.remove(batch.queue)
            state.bodies[batch.queue, default: []] += batch.deliveries.map { String(decoding: $0.body, as: UTF8.self) }
        }
    }

    func bodies(_ queue: String) -> [String] { state.withLock { $0.bodies[queue] ?? [] } }
    func isConsuming(_ queue: String, times: Int = 1) -> Bool { state.withLock { $0.consuming[queue] ?? 0 >= times } }
    func losses(_ queue: String) -> [PulseError.Code?] { state.withLock { $0.lost[queue] ?? [] } }
    var connections: Int { state.withLock { $0.connections } }
}

@Suite(.timeLimit(.minutes(5)))
struct GroupTests {
    /// Runs a group beside the body, with `count` declared queues bound by their number; removes the queues.
    private func lend(
        queues count: Int,
        prefetch: Int = 20,
        concurrency: Int = 4,
        configure: (inout PulseConfiguration) -> Void = { _ in },
        handler: (@Sendable (PulseBatch) async throws -> Void)? = nil,
        _ body: (PulseConnection, PulseConsumerGroup, GroupJournal, _ exchange: String, [String]) async throws -> Void
    ) async throws {
        let suffixes = (0..<count).map { "-\($0)" }
        try await Broker.lend(suffixes: suffixes, configure: configure) { pulse, exchange, base in
            let queues = suffixes.map { base + $0 }
            for (number, queue) in queues.enumerated() {
                try await pulse.declareQueue(PulseQueue(queue, durable: true, kind: .classic))
                try await pulse.bind(queue: queue, exchange: exchange, routingKey: "\(number)")
            }
            let journal = GroupJournal()
            let group = PulseConsumerGroup(
                pulse,
                prefetch: prefetch,
                concurrency: concurrency,
                onEvent: { journal.note($0) },
                handler: { batch in
                    journal.begin(batch.queue)
                    try await handler?(batch)
                    journal.end(batch)
                }
            )
            try await withThrowingTaskGroup { tasks in
                tasks.addTask { do { try await group.run() } catch is CancellationError {} }
                try await eventually("the group is connected") { journal.connections == 1 }
                try await body(pulse, group, journal, exchange, queues)
                tasks.cancelAll()
                try await tasks.waitForAll()
            }
        }
    }

    @Test func `three hundred queues share a few channels and each message is handled once`() async throws {
        try await lend(queues: 300) { pulse, group, journal, exchange, queues in
            for queue in queues { group.consume(queue) }
            for round in 0..<3 {
                try await pulse.publish(
                    queues.indices.map { PulseMessage("\(round)", to: exchange, "\($0)") }
                )
            }
            try await eventually("all are handled") { queues.allSatisfy { journal.bodies($0).count >= 3 } }
            #expect(queues.allSatisfy { journal.bodies($0) == ["0", "1", "2"] })
            let state = journal.state.withLock { ($0.overlaps, $0.most) }
            #expect(state.0 == 0)
            #expect(state.1 <= 4)
        }
    }

    @Test func `a queue deleted under the group is reported, and consumed again when it is asked for`() async throws {
        try await lend(queues: 2) { pulse, group, journal, exchange, queues in
            for queue in queues { group.consume(queue) }
            try await eventually("both are consumed") { queues.allSatisfy { journal.isConsuming($0) } }
            try await pulse.deleteQueue(queues[0])
            try await eventually("the loss is told") { journal.losses(queues[0]) == [nil] }
            try await pulse.declareQueue(PulseQueue(queues[0], kind: .classic))
            try await pulse.bind(queue: queues[0], exchange: exchange, routingKey: "0")
            group.consume(queues[0])
            try await pulse.publish([PulseMessage("a", to: exchange, "0"), PulseMessage("b", to: exchange, "1")])
            try await eventually("both arrive") {
                journal.bodies(queues[0]) == ["a"] && journal.bodies(queues[1]) == ["b"]
            }
        }
    }

    @Test func `whoever asks again for a queue that is consumed is answered again`() async throws {
        try await lend(queues: 1) { pulse, group, journal, exchange, queues in
            group.consume(queues[0])
            try await eventually("it is consumed") { journal.isConsuming(queues[0]) }
            group.consume(queues[0])
            try await eventually("that is told again") { journal.isConsuming(queues[0], times: 2) }
            try await pulse.publish([PulseMessage("x", to: exchange, "0")])
            try await eventually("it arrives once") { journal.bodies(queues[0]) == ["x"] }
        }
    }

    @Test func `asking for a queue that does not exist costs its neighbours nothing`() async throws {
        try await lend(queues: 3) { pulse, group, journal, exchange, queues in
            group.consume(queues[0])
            group.consume(queues[0] + "-missing")
            group.consume(queues[1])
            try await eventually("the failure is told") { journal.losses(queues[0] + "-missing") == [.notFound] }
            group.consume(queues[2])
            try await pulse.publish((0..<3).map { PulseMessage("x", to: exchange, "\($0)") })
            try await eventually("all arrive") { queues.allSatisfy { journal.bodies($0) == ["x"] } }
            #expect(queues.allSatisfy { journal.losses($0).isEmpty })
        }
    }

    @Test func `a stopped queue keeps its messages, and the others go on`() async throws {
        try await lend(queues: 2) { pulse, group, journal, exchange, queues in
            for queue in queues { group.consume(queue) }
            try await eventually("both are consumed") { queues.allSatisfy { journal.isConsuming($0) } }
            group.stop(queues[0])
            // Topology steps of the same connection come after the cancelling.
            try await pulse.checkHealth()
            try await eventually("the consumer is gone") {
                try await pulse.publish([PulseMessage("x", to: exchange, "0"), PulseMessage("x", to: exchange, "1")])
                return try await pulse.declareQueue(PulseQueue(queues[0], kind: .classic)) > 0
            }
            try await eventually("the other one goes on") { !journal.bodies(queues[1]).isEmpty }
        }
    }

    @Test func `a handler that fails singles out the message, which is rejected when it fails again`() async throws {
        struct Failure: Error {}
        let attempts = Mutex(0)
        try await lend(
            queues: 1,
            handler: { batch in
                guard batch.deliveries.contains(where: { $0.body == Array("bad".utf8) }) else { return }
                if batch.deliveries.count == 1 { attempts.withLock { $0 += 1 } }
                throw Failure()
            }
        ) { pulse, group, journal, exchange, queues in
            try await pulse.publish((0..<10).map { PulseMessage($0 == 5 ? "bad" : "\($0)", to: exchange, "0") })
            group.consume(queues[0])
            try await eventually("the good ones are handled") { Set(journal.bodies(queues[0])).count == 9 }
            try await eventually("the bad one was tried twice") { attempts.withLock { $0 } >= 2 }
            group.stop(queues[0])
            try await eventually("nothing is left") {
                try await pulse.declareQueue(PulseQueue(queues[0], kind: .classic)) == 0
            }
        }
    }

    @Test func `a rejected message tells in the dead-letter queue where it died`() async throws {
        try await Broker.lend(suffixes: ["-dead"]) { pulse, exchange, queue in
            try await pulse.declareExchange(exchange + "-dead")
            let short = PulseQueue(queue, maxLength: 3, overflow: .dropOldest, deadLetterExchange: exchange + "-dead")
            try await pulse.declareQueue(short)
            try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            let journal = Journal()
            let dead = PulseSubscription(
                queue: PulseQueue(queue + "-dead"),
                bindings: [PulseBinding(exchange: exchange + "-dead", routingKeyPattern: "#")]
            )
            try await consuming(pulse, dead) {
                journal.note($0)
                return .ack
            } while: {
                try await pulse.publish((0..<5).map { PulseMessage("\($0)", to: exchange, "a.b", cc: ["route.x"]) })
                try await eventually("the two oldest are pushed out") { journal.count == 2 }
            }
            #expect(journal.texts.sorted() == ["0", "1"])
            let death = PulseDeath(queue: queue, exchange: exchange, reason: "maxlen")
            #expect(journal.all.allSatisfy { $0.death == death && $0.routingKey == "a.b" && $0.messageID != nil })
        }
    }

    @Test func `a new connection is told, and what was asked for again is consumed`() async throws {
        let direct = try PulseConfiguration(url: Broker.url)
        let relay = try Relay(to: direct.host, direct.port)
        try await lend(
            queues: 20,
            configure: {
                $0.host = "127.0.0.1"
                $0.port = relay.port
            }
        ) { pulse, group, journal, exchange, queues in
            for queue in queues { group.consume(queue) }
            try await eventually("all are consumed") { queues.allSatisfy { journal.isConsuming($0) } }
            relay.cut()
            try await eventually("the next connection is told") { journal.connections == 2 }
            for queue in queues { group.consume(queue) }
            try await pulse.publish(queues.indices.map { PulseMessage("x", to: exchange, "\($0)") })
            try await eventually("all arrive") { queues.allSatisfy { journal.bodies($0) == ["x"] } }
        }
    }

    @Test func `a broker that does not answer is left, and the next connection consumes`() async throws {
        let direct = try PulseConfiguration(url: Broker.url)
        let relay = try Relay(to: direct.host, direct.port)
        try await lend(
            queues: 3,
            configure: {
                $0.host = "127.0.0.1"
                $0.port = relay.port
            }
        ) { pulse, group, journal, exchange, queues in
            group.consume(queues[0])
            try await eventually("one is consumed") { journal.isConsuming(queues[0]) }
            relay.deafen()
            group.consume(queues[1])
            group.consume(queues[2])
            try await eventually("another connection begins", within: .seconds(40)) { journal.connections == 2 }
            for queue in queues { group.consume(queue) }
            try await pulse.publish(queues.indices.map { PulseMessage("x", to: exchange, "\($0)") })
            try await eventually("all arrive") { queues.allSatisfy { journal.bodies($0) == ["x"] } }
        }
    }

    @Test func `a group stops in seconds though the broker does not answer`() async throws {
        let direct = try PulseConfiguration(url: Broker.url)
        let relay = try Relay(to: direct.host, direct.port)
        let outcome = Mutex<Bool>(false)
        try await lend(
            queues: 1,
            configure: {
                $0.host = "127.0.0.1"
                $0.port = relay.port
            }
        ) { pulse, group, journal, _, queues in
            group.consume(queues[0])
            try await eventually("it is consumed") { journal.isConsuming(queues[0]) }
            relay.deafen()
            let second = PulseConsumerGroup(
                pulse,
                prefetch: 1,
                concurrency: 1,
                onEvent: { journal.note($0) },
                handler: { _ in }
            )
            let task = Task { try await second.run() }
            try await eventually("the second group is connected") { journal.connections == 2 }
            second.consume(queues[0])
            task.cancel()
            _ = await task.result
            outcome.withLock { $0 = true }
            // The connection is of no use any more; the queues are removed through the next one.
            relay.cut()
        }
        #expect(outcome.withLock { $0 })
    }
}
