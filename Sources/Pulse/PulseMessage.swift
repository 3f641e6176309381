// SPDX-License-Identifier: MPL-2.0

public import Schedules

/// A message on its way to the broker.
///
/// It is sent as persistent UTF-8 JSON. Bodies should stay below 8 KiB by convention of the bus.
public struct PulseMessage: Sendable, Hashable {
    /// The exchange it is published to.
    public var exchange: String
    /// The primary routing key.
    public var routingKey: String
    /// Further routing keys, such as `route.…`, that reach queues bound to them.
    public var cc: [String]
    /// The JSON text.
    public var body: [UInt8]
    /// What tells this message from every other one, so that a copy is recognised: sent as the property `message_id`.
    ///
    /// Without one the connection makes one up, which is the same when it must send the message again. An empty text
    /// sends the message without the property.
    public var messageID: String?
    /// Whether publishing fails with `unroutable` when no queue is bound for it; false on an announcement bus.
    public var isMandatory = false

    /// Creates a message whose body is JSON text already.
    public init(
        exchange: String,
        routingKey: String,
        cc: [String] = [],
        body: [UInt8],
        messageID: String? = nil
    ) {
        self.exchange = exchange
        self.routingKey = routingKey
        self.cc = cc
        self.body = body
        self.messageID = messageID
    }

    /// What the wire format cannot carry, if anything.
    package var problem: PulseError? {
        if exchange.utf8.count > 255 {
            return PulseError(.invalidArgument, "cannot publish: the exchange name is longer than 255 bytes")
        }
        if routingKey.utf8.count > 255 || cc.contains(where: { $0.utf8.count > 255 }) {
            return PulseError(.invalidArgument, "cannot publish to \(exchange): a routing key is longer than 255 bytes")
        }
        if let messageID, messageID.utf8.count > 255 {
            return PulseError(.invalidArgument, "cannot publish to \(exchange): a message id is longer than 255 bytes")
        }
        // The header frame must fit into one frame, so the keys in it may not fill more than that.
        if cc.reduce(0, { $0 + $1.utf8.count + 8 }) > 100_000 {
            return PulseError(.invalidArgument, "cannot publish to \(exchange): too many CC routing keys")
        }
        return nil
    }
}

/// A message that came from the broker.
public struct PulseDelivery: Sendable, Hashable {
    /// The exchange it was published to.
    public var exchange: String
    /// The primary routing key, also when a CC key led it here.
    public var routingKey: String
    /// The further routing keys it was published with.
    public var cc: [String]
    /// Whether the broker handed it to a consumer before.
    public var redelivered: Bool
    /// The body as it came.
    public var body: [UInt8]
    /// The publisher's name for the message, from the property `message_id` or the header `x-slipway-delivery`.
    ///
    /// Publishers need not give one, and nothing keeps them from giving two messages the same.
    public var messageID: String?
    /// When the publisher says it published, to the second; from the property `timestamp`.
    public var published: Timestamp?
    /// How the message first came to be dead-lettered, if this is not its first queue.
    public var death: PulseDeath?

    /// Creates a delivery, for the tests of handlers.
    public init(
        exchange: String,
        routingKey: String,
        cc: [String] = [],
        redelivered: Bool = false,
        body: [UInt8],
        messageID: String? = nil,
        death: PulseDeath? = nil
    ) {
        self.death = death
        self.exchange = exchange
        self.routingKey = routingKey
        self.cc = cc
        self.redelivered = redelivered
        self.body = body
        self.messageID = messageID
    }

    /// The CC keys that begin with `route.`, without that beginning.
    public var routes: [String] {
        cc.compactMap { $0.hasPrefix("route.") ? String($0.dropFirst(6)) : nil }
    }
}

/// Why and where the broker first dead-lettered a message.
public struct PulseDeath: Sendable, Hashable {
    /// The queue it was in.
    public var queue: String
    /// The exchange through which it had come there.
    public var exchange: String
    /// The broker's word: `maxlen`, `delivery_limit`, `rejected` or `expired`.
    public var reason: String

    /// Creates a description.
    public init(queue: String, exchange: String, reason: String) {
        self.queue = queue
        self.exchange = exchange
        self.reason = reason
    }
}

/// What becomes of a delivery after its handler returned.
public enum PulseDisposition: Sendable, Hashable {
    /// It is done.
    case ack
    /// Back to the queue; it comes again at once, so a handler should not answer this for ever.
    case requeue
    /// Dropped, or dead-lettered where the queue says so.
    case reject
}
