// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Taskcluster

/// The messages of auth: which client or role has changed, and nothing more.
public struct AuthMessages: Sendable, Hashable {
    /// What happened to a client or a role.
    public enum Event: String, Sendable, Hashable, CaseIterable {
        case created, updated, deleted
    }

    /// The part of the exchange names before their last word.
    public let prefix: String

    /// The exchanges to declare at start, without prefix.
    public static let exchanges = ["client", "role"].flatMap { kind in Event.allCases.map { "\(kind)-\($0)" } }

    /// Uses exchanges below this prefix.
    public init(prefix: String = "exchange/taskcluster-auth/v1/") {
        self.prefix = prefix
    }

    /// Announces a change of a client.
    public func client(_ event: Event, _ clientID: String) -> QueueMessage {
        message("client-\(event)", ["version": 1, "clientId": JSONValue(clientID)])
    }

    /// Announces a change of a role.
    public func role(_ event: Event, _ roleID: String) -> QueueMessage {
        message("role-\(event)", ["version": 1, "roleId": JSONValue(roleID)])
    }

    private func message(_ name: String, _ body: JSONValue) -> QueueMessage {
        QueueMessage(exchange: prefix + name, routingKey: "_", cc: [], body: body.text())
    }
}

extension AuthMessages {
    /// How the exchanges are described to clients.
    static let references: [ExchangeReference] = ["Client", "Role"].flatMap { kind in
        Event.allCases.map { event in
            ExchangeReference(
                exchange: "\(kind.lowercased())-\(event)",
                name: "\(kind.lowercased())\(event.rawValue.prefix(1).uppercased())\(event.rawValue.dropFirst())",
                title: "\(kind) \(event)",
                description: "A \(kind.lowercased()) was \(event).",
                routingKey: [
                    ExchangeReference.Key(
                        "reserved",
                        summary: "Not used; reserved for parts that may be needed one day.",
                        multipleWords: true,
                        required: false
                    )
                ],
                schema: "v1/\(kind.lowercased())-message.json"
            )
        }
    }
}
