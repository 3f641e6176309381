// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ

/// The thread's side of one consumer: its channel, the message being read, the account of deliveries.
///
///     resting ──► settingUp ──► consuming ──► cancelling ──► (finished)
///        ▲            │             │
///        └────────────┴─────────────┘  channel or queue lost, connection gone
final class Consumer {
    enum State {
        /// Without a channel, until the next attempt or connection.
        case resting
        /// Everything from opening the channel to consuming was sent; answers are coming.
        case settingUp
        case consuming
        /// The broker was asked for no more.
        case cancelling
    }

    let link: ConsumerLink
    var state = State.resting
    var channel = 0
    /// Counts the channels this consumer had; settlements of an older one mean nothing.
    var epoch: UInt32 = 0
    var backOff = BackOff()

    /// The bindings asked for in this set-up and how many the broker has made.
    var bindings: [PulseBinding] = []
    var boundCount = 0
    /// Bindings the broker refused, left out until their next try.
    var refused: Set<PulseBinding> = []
    var retries: [(binding: PulseBinding, operation: Operation)] = []

    var window = AckWindow()
    var isTouched = false

    private var items: [ConsumerLink.Item] = []
    private var tag: UInt64 = 0
    private var current = PulseDelivery(exchange: "", routingKey: "", body: [])
    private var missing = 0
    private var exchanges = RememberedText()
    private var routingKeys = RememberedText()

    init(_ link: ConsumerLink) {
        self.link = link
    }

    /// Forgets the channel.
    func lostChannel() {
        state = .resting
        channel = 0
        epoch &+= 1
        window = AckWindow()
        items.removeAll(keepingCapacity: true)
        retries = []
        link.discardItems()
    }

    func finish(_ error: PulseError?) {
        handOver()
        link.finish(error)
    }

    /// Passes what was read on to the consuming task.
    func handOver() {
        isTouched = false
        if !items.isEmpty { link.put(&items) }
    }

    // MARK: Reading a message

    /// Begins a message.
    func begin(_ deliver: amqp_basic_deliver_t) {
        tag = deliver.delivery_tag
        current.exchange = exchanges.text(deliver.exchange)
        current.routingKey = routingKeys.text(deliver.routing_key)
        current.redelivered = deliver.redelivered != 0
        current.cc = []
    }

    /// Takes the properties; answers whether the message is complete, having no body.
    func takeHeader(_ frame: amqp_frame_t) -> Bool {
        missing = Int(clamping: frame.payload.properties.body_size)
        current.body = []
        current.messageID = nil
        if let decoded = frame.payload.properties.decoded {
            // SAFETY: the library decodes the header of class basic, the only class with content, into this struct.
            let properties = decoded.assumingMemoryBound(to: amqp_basic_properties_t.self)
            if properties.pointee._flags & amqp_flags_t(AMQP_BASIC_HEADERS_FLAG) != 0 {
                readHeaders(properties.pointee.headers)
            }
            if properties.pointee._flags & amqp_flags_t(AMQP_BASIC_MESSAGE_ID_FLAG) != 0,
                properties.pointee.message_id.len > 0
            {
                current.messageID = String(properties.pointee.message_id)
            }
        }
        return missing == 0
    }

    /// Takes a piece of the body; answers whether the message is complete.
    func takeBody(_ frame: amqp_frame_t) -> Bool {
        let fragment = frame.payload.body_fragment
        let bytes = UnsafeRawBufferPointer(start: fragment.bytes, count: fragment.len)
        if current.body.isEmpty {
            if missing > bytes.count { current.body.reserveCapacity(min(missing, 16 << 20)) }
        }
        current.body.append(contentsOf: bytes)
        missing -= bytes.count
        return missing <= 0
    }

    /// Files the complete message; answers false when its number is not the next one.
    func complete() -> Bool {
        guard window.deliver(tag) else { return false }
        items.append(ConsumerLink.Item(delivery: current, tag: tag, epoch: epoch))
        current.body = []
        return true
    }

    /// Takes the two headers that mean something to us.
    private func readHeaders(_ headers: amqp_table_t) {
        for entry in UnsafeBufferPointer(start: headers.entries, count: Int(headers.num_entries)) {
            switch entry.value.kind {
            case crabbitmq_field_array where entry.key.len == 2 && String(entry.key) == "CC":
                let array = entry.value.value.array
                guard array.num_entries > 0 else { continue }
                current.cc = UnsafeBufferPointer(start: array.entries, count: Int(array.num_entries))
                    .compactMap { $0.kind == crabbitmq_field_utf8 ? String($0.value.bytes) : nil }
            case crabbitmq_field_utf8 where entry.key.len == 18 && String(entry.key) == "x-slipway-delivery":
                guard entry.value.value.bytes.len > 0 else { continue }
                current.messageID = String(entry.value.value.bytes)
            default:
                continue
            }
        }
    }
}
