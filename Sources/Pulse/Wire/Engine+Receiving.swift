// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ
import Logging

extension Engine {
    /// Takes one frame to whom it concerns.
    func receive(_ frame: amqp_frame_t) throws(PulseError) {
        let number = Int(frame.channel)
        guard number > 0 else { return try receiveForConnection(frame) }
        guard number < channels.count else { return }
        switch channels[number] {
        case .consumer(let consumer):
            try receive(frame, for: consumer)
        case .publisher:
            try publisher.receive(frame, self)
        case .operation(let operation):
            try receive(frame, for: operation, number)
        case .group(let channel):
            try receive(frame, for: channel)
        case .spare:
            guard frame.frame_type == crabbitmq_frame_method, frame.payload.method.id == crabbitmq_channel_close
            else { return }
            try spareChannelWasClosed(number)
        case .closing:
            guard frame.frame_type == crabbitmq_frame_method else { return }
            switch frame.payload.method.id {
            case crabbitmq_channel_close_ok:
                freeChannel(number)
            case crabbitmq_channel_close:
                // Both sides closed at the same time: the answer to ours is still to come.
                try confirmClose(number)
            default: break
            }
        case .free:
            break
        }
    }

    private func receiveForConnection(_ frame: amqp_frame_t) throws(PulseError) {
        guard frame.frame_type == crabbitmq_frame_method else { return }
        let method = frame.payload.method
        switch method.id {
        case crabbitmq_connection_close:
            let close = arguments(method, as: amqp_connection_close_t.self)
            let text = close.map { String($0.reply_text) } ?? ""
            let code = close.map { Int($0.reply_code) } ?? 0
            var answer = amqp_connection_close_ok_t()
            try send(0, crabbitmq_connection_close_ok, &answer)
            throw PulseError(.connectionLost, "the broker closed the connection: \(code) \(text)")
        case crabbitmq_connection_blocked:
            publisher.isBlocked = true
            let reason = arguments(method, as: amqp_connection_blocked_t.self).map { String($0.reason) } ?? ""
            logger.warning("the broker takes no messages for now", metadata: ["pulse.reason": "\(reason)"])
        case crabbitmq_connection_unblocked:
            publisher.isBlocked = false
            logger.notice("the broker takes messages again")
        default:
            break
        }
    }

    /// Answers the broker's closing of a channel.
    func confirmClose(_ number: Int) throws(PulseError) {
        var answer = amqp_channel_close_ok_t()
        try send(number, crabbitmq_channel_close_ok, &answer)
    }

    /// The error with which the broker closed a channel.
    func closeError(_ method: amqp_method_t, during action: String) -> PulseError {
        guard let close = arguments(method, as: amqp_channel_close_t.self) else {
            return PulseError(.brokerFailure, "cannot \(action): the broker closed the channel")
        }
        return PulseError(replyCode: Int(close.reply_code), text: String(close.reply_text), during: action)
    }
}

/// The decoded arguments of a method.
///
/// SAFETY: the library decodes the arguments of a method number into that method's struct; the caller names the struct
/// that belongs to the number it has just compared. Pointers inside live until the buffers are released.
func arguments<Arguments>(_ method: amqp_method_t, as type: Arguments.Type) -> Arguments? {
    method.decoded?.assumingMemoryBound(to: type).pointee
}
