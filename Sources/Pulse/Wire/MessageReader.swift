// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ
import Schedules

/// Puts the frames of one channel's deliveries together.
struct MessageReader {
    private var tag: UInt64 = 0
    private var current = PulseDelivery(exchange: "", routingKey: "", body: [])
    private var missing = 0
    private var exchanges = RememberedText()
    private var routingKeys = RememberedText()

    /// Begins a message.
    mutating func begin(_ deliver: amqp_basic_deliver_t) {
        tag = deliver.delivery_tag
        current.exchange = exchanges.text(deliver.exchange)
        current.routingKey = routingKeys.text(deliver.routing_key)
        current.redelivered = deliver.redelivered != 0
        current.cc = []
        current.messageID = nil
        current.death = nil
        current.published = nil
    }

    /// Takes the properties; answers whether the message is complete, having no body.
    mutating func takeHeader(_ frame: amqp_frame_t) -> Bool {
        missing = Int(clamping: frame.payload.properties.body_size)
        current.body = []
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
            if properties.pointee._flags & amqp_flags_t(AMQP_BASIC_TIMESTAMP_FLAG) != 0,
                let seconds = Int64(exactly: properties.pointee.timestamp), seconds <= 32_503_680_000
            {
                current.published = Timestamp(milliseconds: seconds * 1000)
            }
        }
        return missing == 0
    }

    /// Takes a piece of the body; answers whether the message is complete.
    mutating func takeBody(_ frame: amqp_frame_t) -> Bool {
        let fragment = frame.payload.body_fragment
        let bytes = UnsafeRawBufferPointer(start: fragment.bytes, count: fragment.len)
        if current.body.isEmpty {
            if missing > bytes.count { current.body.reserveCapacity(min(missing, 16 << 20)) }
        }
        current.body.append(contentsOf: bytes)
        missing -= bytes.count
        return missing <= 0
    }

    /// The complete message and its number on the channel.
    mutating func take() -> (tag: UInt64, delivery: PulseDelivery) {
        defer { current.body = [] }
        return (tag, current)
    }

    /// Takes the headers that mean something to us.
    private mutating func readHeaders(_ headers: amqp_table_t) {
        var death = PulseDeath(queue: "", exchange: "", reason: "")
        for entry in UnsafeBufferPointer(start: headers.entries, count: Int(headers.num_entries)) {
            switch entry.value.kind {
            case crabbitmq_field_array where entry.key.len == 2 && String(entry.key) == "CC":
                let array = entry.value.value.array
                guard array.num_entries > 0 else { continue }
                current.cc = UnsafeBufferPointer(start: array.entries, count: Int(array.num_entries))
                    .compactMap { $0.kind == crabbitmq_field_utf8 ? String($0.value.bytes) : nil }
            case crabbitmq_field_utf8 where (18...22).contains(entry.key.len) && entry.value.value.bytes.len > 0:
                let text = String(entry.value.value.bytes)
                switch String(entry.key) {
                case "x-slipway-delivery": current.messageID = text
                case "x-first-death-queue": death.queue = text
                case "x-first-death-exchange": death.exchange = text
                case "x-first-death-reason": death.reason = text
                default: continue
                }
            default:
                continue
            }
        }
        if !death.queue.isEmpty { current.death = death }
    }
}
