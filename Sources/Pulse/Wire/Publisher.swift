// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ
import Metrics

/// Sends messages on one channel in confirm mode and keeps account of what the broker has confirmed.
///
/// Messages wait in `pending`, are sent while fewer than `window` are unconfirmed, and wait in `unconfirmed` for the
/// broker's verdict. When the channel or the connection breaks, the unconfirmed ones go back to the front of `pending`.
///
/// A message the broker cannot take at all, for an exchange that does not exist say, makes it close the channel
/// without naming the message. The unconfirmed ones are then sent again one at a time (`probation`): the one that is alone
/// when the channel closes again is the culprit.
final class Publisher {
    private struct Outgoing {
        var batch: PublishBatch
        var index: Int
        /// Stays the same when the message is sent again.
        var serial: UInt64
        var returned = false
        var message: PulseMessage { batch.messages[index] }
    }

    private enum State {
        case closed, opening, open
    }

    private static let window = 512
    private static let waitingLimit = 16_384

    private var state = State.closed
    private var channel = 0
    private var pending = Fifo<Outgoing>()
    private var unconfirmed = Fifo<Outgoing?>()
    /// The number, on this channel, of the first entry of `unconfirmed`; the broker counts from 1.
    private var firstTag: UInt64 = 1
    private var inFlight = 0
    private var probation = 0
    private var nearestDeadline: ContinuousClock.Instant?
    /// Begins the ids of messages that have none of their own; no two publishers share it.
    private let idPrefix = String(UInt64.random(in: .min ... .max), radix: 36)
    private var lastSerial: UInt64 = 0

    /// Whether the broker asked us to hold back.
    var isBlocked = false

    /// Whether nothing waits to be sent or confirmed.
    var isIdle: Bool { pending.isEmpty && inFlight == 0 }

    func add(_ batch: PublishBatch) {
        guard pending.count + batch.messages.count <= Self.waitingLimit || pending.isEmpty else {
            batch.abandon(PulseError(.overloaded, "cannot publish: too many messages wait for the broker already"))
            return
        }
        for (index, message) in batch.messages.enumerated() {
            if let problem = message.problem {
                batch.complete(index, problem)
            } else {
                lastSerial += 1
                pending.append(Outgoing(batch: batch, index: index, serial: lastSerial))
            }
        }
        nearestDeadline = min(nearestDeadline ?? batch.deadline, batch.deadline)
    }

    // MARK: Channel

    func opened(on channel: Int) {
        self.channel = channel
        state = .opening
        firstTag = 1
    }

    func connectionLost() {
        state = .closed
        isBlocked = false
        takeBack()
    }

    /// Puts what is unconfirmed back in front of what was not sent yet, in order.
    private func takeBack() {
        var all = Fifo<Outgoing>()
        while let entry = unconfirmed.popFirst() {
            if let entry { all.append(entry) }
        }
        inFlight = 0
        while let entry = pending.popFirst() { all.append(entry) }
        pending = all
    }

    // MARK: Sending

    /// Sends what the window allows.
    func pump(_ engine: Engine) throws(PulseError) {
        guard state == .open, !isBlocked, !pending.isEmpty else { return }
        var count = 0
        while inFlight < (probation > 0 ? 1 : Self.window), let next = pending.popFirst() {
            if next.batch.isAbandoned { continue }
            // Noted before it is sent: when the connection breaks right here, the next one sends it again.
            unconfirmed.append(next)
            inFlight += 1
            count += 1
            try send(next, tag: firstTag + UInt64(unconfirmed.count) - 1, engine)
        }
        if count > 0 { engine.metrics.published.increment(by: count) }
    }

    /// Sends a message that will have a number on this channel.
    private func send(_ outgoing: Outgoing, tag: UInt64, _ engine: Engine) throws(PulseError) {
        guard let wire = engine.wire else { throw PulseError(.connectionLost, "the connection to the broker is gone") }
        let message = outgoing.message
        defer { engine.arena.reset() }
        var properties = amqp_basic_properties_t()
        properties._flags = amqp_flags_t(
            AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG
                | AMQP_BASIC_HEADERS_FLAG
        )
        properties.content_type = engine.arena.bytes("application/json")
        properties.content_encoding = engine.arena.bytes("utf-8")
        properties.delivery_mode = UInt8(AMQP_DELIVERY_PERSISTENT.rawValue)
        properties.headers = engine.arena.table("CC", texts: message.cc)
        if message.messageID != "" {
            properties._flags |= amqp_flags_t(AMQP_BASIC_MESSAGE_ID_FLAG)
            properties.message_id = engine.arena.bytes(message.messageID ?? "\(idPrefix).\(outgoing.serial)")
        }
        if message.isMandatory {
            // A returned message comes back without its number; this property tells which one it was.
            properties._flags |= amqp_flags_t(AMQP_BASIC_CORRELATION_ID_FLAG)
            properties.correlation_id = engine.arena.bytes(String(tag))
        }
        let exchange = engine.arena.bytes(message.exchange)
        let routingKey = engine.arena.bytes(message.routingKey)
        let status = message.body.withUnsafeBytes { body in
            // The library only reads the body, though its type does not say so.
            amqp_basic_publish(
                wire,
                amqp_channel_t(channel),
                exchange,
                routingKey,
                message.isMandatory ? 1 : 0,
                0,
                &properties,
                amqp_bytes_t(len: body.count, bytes: UnsafeMutableRawPointer(mutating: body.baseAddress))
            )
        }
        try engine.check(status)
    }

    // MARK: Receiving

    func receive(_ frame: amqp_frame_t, _ engine: Engine) throws(PulseError) {
        guard frame.frame_type == crabbitmq_frame_method else {
            if frame.frame_type == crabbitmq_frame_header { noteReturned(frame, engine) }
            return
        }
        let method = frame.payload.method
        switch method.id {
        case crabbitmq_channel_open_ok:
            var select = amqp_confirm_select_t(nowait: 1)
            try engine.send(channel, crabbitmq_confirm_select, &select)
            state = .open
        case crabbitmq_basic_ack:
            guard let ack = arguments(method, as: amqp_basic_ack_t.self) else { return }
            settle(ack.delivery_tag, multiple: ack.multiple != 0, nil, engine)
        case crabbitmq_basic_nack:
            guard let nack = arguments(method, as: amqp_basic_nack_t.self) else { return }
            let error = PulseError(.nacked, "cannot publish: the broker could not keep the message")
            settle(nack.delivery_tag, multiple: nack.multiple != 0, error, engine)
        case crabbitmq_basic_return:
            engine.metrics.returned.increment()
        case crabbitmq_channel_close:
            let error = engine.closeError(method, during: "publish")
            try engine.confirmClose(channel)
            engine.freeChannel(channel)
            blame(error)
            engine.openPublisher()
        default:
            break
        }
    }

    /// Reads which message a return is about from the properties that follow it.
    private func noteReturned(_ frame: amqp_frame_t, _ engine: Engine) {
        guard let decoded = frame.payload.properties.decoded else { return }
        // SAFETY: the library decodes the header of class basic, the only class with content, into this struct.
        let properties = decoded.assumingMemoryBound(to: amqp_basic_properties_t.self).pointee
        guard properties._flags & amqp_flags_t(AMQP_BASIC_CORRELATION_ID_FLAG) != 0,
            let tag = UInt64(String(properties.correlation_id)), tag >= firstTag
        else { return }
        let position = Int(tag - firstTag)
        guard position < unconfirmed.count, var entry = unconfirmed[position] else { return }
        entry.returned = true
        unconfirmed[position] = entry
    }

    private func settle(_ tag: UInt64, multiple: Bool, _ error: PulseError?, _ engine: Engine) {
        guard tag >= firstTag else { return }
        let last = Int(tag - firstTag)
        guard last < unconfirmed.count else { return }
        var count = 0
        for position in (multiple ? 0 : last)...last {
            guard let entry = unconfirmed[position] else { continue }
            unconfirmed[position] = nil
            inFlight -= 1
            count += 1
            let unroutable =
                entry.returned
                ? PulseError(.unroutable, "cannot publish to \(entry.message.exchange): no queue is bound for it") : nil
            entry.batch.complete(entry.index, error ?? unroutable)
        }
        while let first = unconfirmed.first, first == nil {
            _ = unconfirmed.popFirst()
            firstTag += 1
        }
        if probation > 0 { probation -= count }
        (error == nil ? engine.metrics.confirmed : engine.metrics.refused).increment(by: count)
    }

    /// Finds out which message made the broker close the channel, or prepares to find out.
    private func blame(_ error: PulseError) {
        state = .closed
        takeBackAndBlame(error)
    }

    private func takeBackAndBlame(_ error: PulseError) {
        let suspects = inFlight
        takeBack()
        if suspects == 1, let culprit = pending.popFirst() {
            let text =
                "cannot publish to \(culprit.message.exchange): \(error.message.dropFirst("cannot publish: ".count))"
            culprit.batch.complete(culprit.index, PulseError(error.code, text))
            probation = max(0, probation - 1)
        } else {
            probation = suspects
        }
    }

    // MARK: Deadlines

    /// Gives up on batches whose time is over.
    func expire(_ now: ContinuousClock.Instant) {
        guard let nearest = nearestDeadline, nearest <= now else { return }
        nearestDeadline = nil
        func look(at batch: PublishBatch) {
            if batch.isAbandoned { return }
            if batch.deadline <= now {
                batch.abandon(PulseError(.timeout, "cannot publish: the broker did not confirm in time"))
            } else {
                nearestDeadline = min(nearestDeadline ?? batch.deadline, batch.deadline)
            }
        }
        unconfirmed.forEach { if let entry = $0 { look(at: entry.batch) } }
        pending.forEach { look(at: $0.batch) }
        // What nobody waits for is not sent; while there is no connection it need not be kept either.
        pending.removeAll { $0.batch.isAbandoned }
    }

    func failAll(_ error: PulseError) {
        takeBack()
        while let entry = pending.popFirst() { entry.batch.abandon(error) }
    }
}

extension Engine {
    /// Opens the publisher's channel.
    func openPublisher() {
        guard let number = takeChannel(.publisher) else { return }
        publisher.opened(on: number)
        // A failure to write shows again at the next read, which ends the connection.
        try? openChannel(number)
    }
}
