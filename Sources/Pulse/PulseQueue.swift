// SPDX-License-Identifier: MPL-2.0

/// A queue as it is declared.
///
/// Declaring an existing queue with other properties fails with `preconditionFailed`.
public struct PulseQueue: Sendable, Hashable {
    /// The kind of queue at the broker.
    public enum Kind: String, Sendable, Hashable {
        /// Replicated and fenced; must be durable.
        case quorum
        /// The older kind; the only one that may be exclusive or auto-deleted.
        case classic
    }

    /// What a queue at its greatest length does with one message more.
    public enum Overflow: String, Sendable, Hashable {
        /// The oldest message goes: to the dead-letter exchange if the queue has one, else nowhere.
        case dropOldest = "drop-head"
        /// The new message does not come in, and its publisher is told.
        case refuse = "reject-publish"
    }

    /// The name, `queue/<namespace>/…`.
    ///
    /// An exclusive queue whose name ends in `/` gets a random last part at every (re)connect.
    public var name: String
    /// Whether it outlives a restart of the broker.
    public var durable: Bool
    /// Whether it belongs to one connection and dies with it.
    public var exclusive: Bool
    /// Whether it dies with its last consumer.
    public var autoDelete: Bool
    /// The kind, as the `x-queue-type` argument; nil leaves the argument out.
    public var kind: Kind?
    /// How many ready messages it keeps.
    public var maxLength: Int?
    /// What happens to one more; nil leaves the argument out, which means that the oldest one goes.
    public var overflow: Overflow?
    /// Where messages go that were rejected, pushed out or delivered too often.
    public var deadLetterExchange: String?
    /// How often a message may be delivered again before the broker takes it for poison; quorum queues only.
    public var deliveryLimit: Int?
    /// How long it stays without consumers and use.
    public var expires: Duration?

    /// Creates a description; the default is what durable pulse queues are today.
    public init(
        _ name: String,
        durable: Bool = true,
        exclusive: Bool = false,
        autoDelete: Bool = false,
        kind: Kind? = .quorum,
        maxLength: Int? = nil,
        expires: Duration? = nil,
        overflow: Overflow? = nil,
        deadLetterExchange: String? = nil,
        deliveryLimit: Int? = nil
    ) {
        self.overflow = overflow
        self.deadLetterExchange = deadLetterExchange
        self.deliveryLimit = deliveryLimit
        self.name = name
        self.durable = durable
        self.exclusive = exclusive
        self.autoDelete = autoDelete
        self.kind = kind
        self.maxLength = maxLength
        self.expires = expires
    }

    /// A queue for one connection only, under a fresh random name at every (re)connect.
    ///
    /// Messages published while the connection is away are lost.
    public static func ephemeral(namespace: String, maxLength: Int? = nil) -> PulseQueue {
        PulseQueue(
            "queue/\(namespace)/",
            durable: false,
            exclusive: true,
            autoDelete: true,
            kind: .classic,
            maxLength: maxLength
        )
    }

    var problem: PulseError? {
        if name.isEmpty || name.utf8.count > 255 {
            return PulseError(.invalidArgument, "a queue name must have 1 to 255 bytes")
        }
        if kind == .quorum, !durable || exclusive || autoDelete {
            return PulseError(.invalidArgument, "queue \(name): a quorum queue is durable, shared and not auto-deleted")
        }
        return nil
    }
}

/// What the broker says about a queue.
public struct PulseQueueStatus: Sendable, Equatable {
    /// How many messages are ready in it.
    public let messages: Int
    /// How many consume it.
    public let consumers: Int
}

/// A reason for the broker to put messages into a queue.
public struct PulseBinding: Sendable, Hashable {
    /// The exchange.
    public var exchange: String
    /// The topic pattern: `*` is one word, `#` any number.
    public var routingKeyPattern: String

    /// Creates a binding.
    public init(exchange: String, routingKeyPattern: String) {
        self.exchange = exchange
        self.routingKeyPattern = routingKeyPattern
    }
}

/// What a consumer wants.
public struct PulseSubscription: Sendable {
    /// The queue, declared at every (re)connect.
    public var queue: PulseQueue
    /// The bindings to make at every (re)connect, asked anew each time.
    public var bindings: @Sendable () -> [PulseBinding]
    /// How many deliveries are handled at the same time; the broker sends no more before some are settled.
    public var prefetch: Int
    /// Called each time consuming has begun, before the first message is handled; must return quickly.
    public var onConsuming: (@Sendable () -> Void)?

    /// Creates a subscription with fixed bindings.
    public init(queue: PulseQueue, bindings: [PulseBinding], prefetch: Int = 5) {
        self.init(queue: queue, prefetch: prefetch) { bindings }
    }

    /// Creates a subscription whose bindings change over time.
    ///
    /// Changes between reconnects are made with `bind` and `unbind`; the closure must then answer the new state.
    public init(queue: PulseQueue, prefetch: Int = 5, bindings: @escaping @Sendable () -> [PulseBinding]) {
        self.queue = queue
        self.bindings = bindings
        self.prefetch = prefetch
    }
}
