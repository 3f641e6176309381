// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Pulse

/// What the queues of hooks could not keep.
extension HookListeners {
    /// Makes the place for dead letters before any queue can need it.
    func prepareDeadLetters() async {
        let exchange = QueueName.deadLetterExchange(namespace: pulse.namespace)
        let queue = QueueName.deadLetters(namespace: pulse.namespace)
        while !Task.isCancelled {
            var mayGoOn = true
            do throws(PulseError) {
                try await pulse.declareExchange(exchange)
                try await pulse.declareQueue(PulseQueue(queue))
                try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            } catch {
                if Task.isCancelled { return }
                Logger.current.warning("no place for dead letters", metadata: ["error": "\(error)"])
                // Without the permission hooks have to do without.
                mayGoOn = error.isRefusal
            }
            if mayGoOn {
                state.withLock { $0.hasDeadLetters = true }
                return wishes.notify()
            }
            do { try await Task.sleep(for: .seconds(1)) } catch { return }
        }
    }

    /// Receives what the queues of hooks could not keep.
    func receiveDeadLetters() async {
        let exchange = QueueName.deadLetterExchange(namespace: pulse.namespace)
        let subscription = PulseSubscription(
            queue: PulseQueue(QueueName.deadLetters(namespace: pulse.namespace)),
            bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "#")],
            prefetch: 100
        )
        while !Task.isCancelled {
            do {
                try await pulse.declareExchange(exchange)
                try await pulse.consume(subscription) { delivery in
                    try await self.receive(deadLetter: delivery)
                    return .ack
                }
            } catch {
                if Task.isCancelled { return }
                Logger.current.error("dead letters are not received", metadata: ["error": "\(error)"])
            }
            do { try await Task.sleep(for: .seconds(15)) } catch { return }
        }
    }

    private func receive(deadLetter delivery: PulseDelivery) async throws {
        guard let death = delivery.death else { return }
        guard let name = try await letters.hook(ofQueue: death.queue) else { return }
        var original = delivery
        original.exchange = death.exchange
        try await intake.bury(
            original,
            of: name,
            DeadLetter.Reason(brokerReason: death.reason),
            error: "the broker took it out of its queue: \(death.reason)"
        )
    }
}
