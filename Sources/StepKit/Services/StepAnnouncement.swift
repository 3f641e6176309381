// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
public import Pulse
public import ServiceLifecycle

/// How a service tells the bus of the states of its steps.
public struct StepAnnouncement: Sendable, Hashable {
    /// The topic exchange.
    public let exchange: String
    /// The service's name in routing keys, such as `signoff`.
    public let service: String
    /// Where the service's steps can be read.
    public let baseURL: String

    /// Describes the announcements of a service.
    public init(exchange: String, service: String, baseURL: String) {
        self.exchange = exchange
        self.service = service
        self.baseURL = baseURL
    }

    /// The exchange of a namespace.
    public static func exchange(namespace: String) -> String { "exchange/\(namespace)/v1/step-status" }

    /// The service as the audit names it.
    public var actor: String { "shipit-\(service)" }

    /// The message about a step that has changed its state.
    public func message(_ step: Step) -> PulseMessage {
        var body = step.status
        body["service"] = .string(service)
        body["base_url"] = .string(baseURL)
        return PulseMessage(
            exchange: exchange,
            routingKey: "primary.\(service).\(Self.word(step.uid)).\(step.state.rawValue)",
            payload: .object(body)
        )
    }

    /// A name as one word of a routing key.
    public static func word(_ uid: String) -> String {
        String(uid.map { $0 == "." ? "_" : $0 })
    }
}

/// Declares the exchange of announcements, as soon as the broker can be reached.
public struct StepExchangeDeclaration: Service {
    private let pulse: PulseConnection
    private let exchange: String

    /// Names the exchange.
    public init(pulse: PulseConnection, exchange: String) {
        self.pulse = pulse
        self.exchange = exchange
    }

    /// Tries until it is declared, then waits for the end of the process.
    public func run() async throws {
        await cancelWhenGracefulShutdown {
            var attempt = 1
            while !Task.isCancelled {
                do {
                    try await pulse.declareExchange(exchange)
                    return
                } catch {
                    attempt += 1
                    try? await Task.sleep(for: RetryPolicy.reconnect.delay(before: attempt))
                }
            }
        }
        try? await gracefulShutdown()
    }
}
