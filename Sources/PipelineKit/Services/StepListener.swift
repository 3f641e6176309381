// SPDX-License-Identifier: MPL-2.0

import JSON
import Logging
public import Pulse
public import ServiceLifecycle
import StepKit

/// Makes pipelines look at once when a service says on the bus that one of their steps has changed.
///
/// What the message says is a hint: the service is asked. Without a broker pipelines find out by asking now and then.
public struct StepListener: Service {
    private let service: PipelineService
    private let pulse: PulseConnection
    private let queue: PulseQueue
    private let exchange: String

    /// Listens for the pipelines of a service; replicas share one queue, by default of the broker user's namespace.
    public init(service: PipelineService, pulse: PulseConnection, queue name: String? = nil) {
        self.service = service
        self.pulse = pulse
        exchange = service.store.announcement.exchange
        queue = PulseQueue(name ?? "queue/\(pulse.namespace)/shipit-pipeline/step-status", maxLength: 100_000)
    }

    /// Listens until graceful shutdown.
    public func run() async throws {
        let wanted = PulseSubscription(
            queue: queue,
            bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "primary.#")],
            prefetch: 50
        )
        try await pulse.consume(wanted) { delivery in
            guard let body = try? delivery.json(), let uid = body["uid"]?.string else {
                // Nothing can come of it, however often it is delivered.
                Logger.current.warning("a message about a step makes no sense")
                return .ack
            }
            try await service.heard(of: uid, body)
            return .ack
        }
    }
}
