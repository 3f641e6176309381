// SPDX-License-Identifier: MPL-2.0

import Pulse
import Synchronization

/// How fast our consumer takes and acknowledges messages, to be compared with `floor/amqp_floor.c` in one run.
enum AMQPBenchmark {
    /// Fills a quorum queue of its own and answers how many messages per second are consumed from it.
    ///
    /// The time runs from the first delivery until the last handler returned. The handler counts and no more.
    static func run(url: String, messages: Int, prefetch: Int) async throws -> Double {
        let pulse = PulseConnection(try PulseConfiguration(url: url), name: "benchmark")
        let queue = PulseQueue("queue/\(pulse.namespace)/benchmark-\(UInt64.random(in: 0..<1 << 48))")
        do {
            let rate = try await measure(pulse, queue, messages, prefetch)
            try await pulse.deleteQueue(queue.name)
            await pulse.shutDown()
            return rate
        } catch {
            _ = try? await pulse.deleteQueue(queue.name)
            await pulse.shutDown()
            throw error
        }
    }

    private static func measure(
        _ pulse: PulseConnection,
        _ queue: PulseQueue,
        _ messages: Int,
        _ prefetch: Int
    ) async throws -> Double {
        try await pulse.declareQueue(queue)
        let body = [UInt8](repeating: UInt8(ascii: "x"), count: 200)
        // The nameless exchange routes by the name of the queue.
        let message = PulseMessage(exchange: "", routingKey: queue.name, body: body)
        for start in stride(from: 0, to: messages, by: 5000) {
            try await pulse.publish(
                Array(repeating: message, count: min(5000, messages - start)),
                timeout: .seconds(120)
            )
        }

        let meter = Meter(goal: messages)
        let subscription = PulseSubscription(queue: queue, bindings: [], prefetch: prefetch)
        return try await withThrowingTaskGroup { group in
            group.addTask {
                do {
                    try await pulse.consume(subscription) { _ in
                        meter.count()
                        return .ack
                    }
                } catch is CancellationError {}
            }
            let elapsed = await meter.elapsed()
            group.cancelAll()
            try await group.waitForAll()
            return Double(messages) / (elapsed / .seconds(1))
        }
    }

    private final class Meter: Sendable {
        private struct State {
            var count = 0
            var start: ContinuousClock.Instant?
        }

        private let goal: Int
        private let state = Mutex(State())
        private let finish: (stream: AsyncStream<Duration>, continuation: AsyncStream<Duration>.Continuation)

        init(goal: Int) {
            self.goal = goal
            finish = AsyncStream.makeStream()
        }

        func count() {
            let elapsed = state.withLock { state -> Duration? in
                if state.count == 0 { state.start = .now }
                state.count += 1
                guard state.count == goal, let start = state.start else { return nil }
                return start.duration(to: .now)
            }
            guard let elapsed else { return }
            finish.continuation.yield(elapsed)
            finish.continuation.finish()
        }

        func elapsed() async -> Duration {
            for await elapsed in finish.stream { return elapsed }
            return .zero
        }
    }
}
