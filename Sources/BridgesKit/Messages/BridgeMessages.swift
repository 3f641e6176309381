// SPDX-License-Identifier: MPL-2.0

import JSON
import Pulse
import Schedules

/// The names of the exchanges of bridges.
enum BridgeExchange {
    /// The exchange of a source, of the clock or of Mercurial.
    static func name(_ source: String, namespace: String) -> String {
        "exchange/\(namespace)/v1/\(source)"
    }
}

/// A delivery as it is stored and announced.
struct Delivery: Sendable {
    var source: String
    var deliveryID: String
    var event: String
    var routingKey: String
    /// What is said beside the body.
    var envelope: JSONObject
    /// The body as JSON text, byte for byte as it came.
    var body: [UInt8]

    init(_ event: WebhookEvent, source: String, body: [UInt8], received: Timestamp) {
        self.source = source
        deliveryID = event.deliveryID
        self.event = event.event
        routingKey = RoutingWords.key(event.words)
        envelope = [
            "version": 1,
            "source": .string(source),
            "event": .string(event.event),
            "eventId": .string(event.deliveryID),
        ]
        if let action = event.action { envelope["action"] = .string(action) }
        // Spelled like the words of the routing key, as in Taskcluster's messages about GitHub.
        if let owner = event.owner { envelope["organization"] = .string(RoutingWords.word(owner)) }
        if let repository = event.repository { envelope["repository"] = .string(RoutingWords.word(repository)) }
        if let installation = event.installation { envelope["installationId"] = installation }
        envelope["received"] = .string(received.iso8601)
        self.body = body
    }

    /// A delivery from the database.
    init(
        source: String,
        deliveryID: String,
        event: String,
        routingKey: String,
        envelope: JSONObject,
        body: [UInt8]
    ) {
        self.source = source
        self.deliveryID = deliveryID
        self.event = event
        self.routingKey = routingKey
        self.envelope = envelope
        self.body = body
    }

    /// The message; a replay says the how manieth it is, so that it is not taken for a copy.
    func message(exchange: String, replay: Int = 0) -> PulseMessage {
        var envelope = envelope
        if replay > 0 { envelope["replay"] = JSONValue(replay) }
        var text = JSONValue.object(envelope).bytes()
        text.removeLast()
        text += Array(#","body":"#.utf8)
        text += body
        text.append(UInt8(ascii: "}"))
        return PulseMessage(exchange: exchange, routingKey: routingKey, body: text)
    }
}
