// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ
import Metrics

/// A channel on which messages arrive and are settled.
protocol DeliveryChannel: AnyObject {
    /// Its number on the connection; 0 while it has none.
    var number: Int { get }
    var window: AckWindow { get set }
    var reader: MessageReader { get set }
}

extension Engine {
    /// Takes in a frame of a message's content; answers whether the message is complete.
    func readContent(_ frame: amqp_frame_t, _ channel: some DeliveryChannel) -> Bool {
        switch frame.frame_type {
        case crabbitmq_frame_body: channel.reader.takeBody(frame)
        case crabbitmq_frame_header: channel.reader.takeHeader(frame)
        default: false
        }
    }

    /// Takes the complete message with its number.
    func takeMessage(from channel: some DeliveryChannel) throws(PulseError) -> (tag: UInt64, delivery: PulseDelivery) {
        let message = channel.reader.take()
        guard channel.window.deliver(message.tag) else {
            throw PulseError(.connectionLost, "the broker numbered a delivery out of order")
        }
        metrics.consumed.increment()
        return message
    }

    /// Tells the broker what tasks have settled, in as few frames as is safe; `find` knows the channel of a serial number,
    /// unless it is gone.
    func settle<Found: DeliveryChannel>(_ link: DeliveryLink, _ find: (UInt32) -> Found?) throws(PulseError) {
        var settlements = spareSettlements
        spareSettlements = []
        link.takeSettlements(&settlements)
        defer {
            settlements.removeAll(keepingCapacity: true)
            spareSettlements = settlements
        }
        guard wire != nil else { return }
        var counts = (acked: 0, requeued: 0, rejected: 0)
        var concerned: [Found] = []
        for settlement in settlements {
            guard let channel = find(settlement.channel), channel.number != 0 else { continue }
            if !concerned.contains(where: { $0 === channel }) { concerned.append(channel) }
            switch settlement.disposition {
            case .ack:
                channel.window.acknowledge(settlement.tag)
                counts.acked += 1
            case .requeue, .reject:
                let requeue = settlement.disposition == .requeue
                if requeue { counts.requeued += 1 } else { counts.rejected += 1 }
                if let frame = channel.window.refuse(settlement.tag, requeue: requeue) {
                    try send(frame, channel.number)
                }
            }
        }
        for channel in concerned {
            var frames: [AckWindow.Frame] = []
            channel.window.flush { frames.append($0) }
            for frame in frames { try send(frame, channel.number) }
        }
        if counts.acked > 0 { metrics.acked.increment(by: counts.acked) }
        if counts.requeued > 0 { metrics.requeued.increment(by: counts.requeued) }
        if counts.rejected > 0 { metrics.rejected.increment(by: counts.rejected) }
    }

    func send(_ frame: AckWindow.Frame, _ channel: Int) throws(PulseError) {
        switch frame {
        case .ack(let tag, let multiple):
            var ack = amqp_basic_ack_t(delivery_tag: tag, multiple: multiple ? 1 : 0)
            try send(channel, crabbitmq_basic_ack, &ack)
        case .nack(let tag, let requeue):
            var nack = amqp_basic_nack_t(delivery_tag: tag, multiple: 0, requeue: requeue ? 1 : 0)
            try send(channel, crabbitmq_basic_nack, &nack)
        }
    }
}
