// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ
import Logging

extension Engine {
    // MARK: Life

    func open(_ link: GroupLink) {
        let group = Group(link)
        groups[ObjectIdentifier(link)] = group
        if wire != nil { connected(group) }
    }

    func connected(_ group: Group) {
        group.connection += 1
        group.link.onEvent(.connected(group.connection))
    }

    /// Begins to consume a queue, unless it is consumed or there is no connection, whose beginning will be told.
    func consume(_ queue: String, _ link: GroupLink) throws(PulseError) {
        guard wire != nil, let group = groups[ObjectIdentifier(link)] else { return }
        if let present = group.members[queue], !present.isStopping {
            // Who asks again may have missed the answer.
            if present.isConsuming { group.link.onEvent(.consuming(queue)) }
            return
        }
        try ask(group.add(queue), of: group)
    }

    private func ask(_ member: GroupMember, of group: Group) throws(PulseError) {
        guard let channel = try channel(for: member, of: group) else {
            group.remove(member)
            let text = "cannot consume queue \(member.queue): no channel of the connection is free"
            return group.link.onEvent(.lost(member.queue, PulseError(.overloaded, text)))
        }
        member.channel = channel
        channel.members.append(member)
        if channel.asked.isEmpty { channel.lastAnswer = .now }
        channel.asked.append(member)
        var consume = amqp_basic_consume_t()
        consume.queue = arena.bytes(member.queue)
        consume.consumer_tag = arena.bytes(String(member.number))
        try send(channel.number, crabbitmq_basic_consume, &consume)
    }

    /// A channel of the group that can take one more consumer, opened if need be.
    ///
    /// A queue that was suspected of blocking its channel gets one of its own.
    private func channel(for member: GroupMember, of group: Group) throws(PulseError) -> GroupChannel? {
        let isSuspect = group.suspects.contains(member.queue)
        if !isSuspect, let channel = group.channelWithRoom { return channel }
        guard let number = takeChannel(.free) else { return nil }
        let channel = GroupChannel(group, number: number, serial: group.nextSerial())
        channel.isSolitary = isSuspect
        channels[number] = .group(channel)
        group.channels[channel.serial] = channel
        try openChannel(number)
        var qos = amqp_basic_qos_t(prefetch_size: 0, prefetch_count: UInt16(group.link.prefetch), global: 0)
        try send(number, crabbitmq_basic_qos, &qos)
        return channel
    }

    /// Asks the broker for no more messages of a queue; those that are here already are handled.
    func stop(_ queue: String, _ link: GroupLink) throws(PulseError) {
        guard wire != nil, let group = groups[ObjectIdentifier(link)], let member = group.members[queue],
            let channel = member.channel, !member.isStopping
        else { return }
        member.isStopping = true
        var cancel = amqp_basic_cancel_t(consumer_tag: arena.bytes(String(member.number)), nowait: 0)
        try send(channel.number, crabbitmq_basic_cancel, &cancel)
    }

    /// Settles what is left and gives the channels back; what is not settled returns to its queue.
    func close(_ link: GroupLink, _ completion: Completion) throws(PulseError) {
        guard let group = groups.removeValue(forKey: ObjectIdentifier(link)) else { return completion.complete() }
        guard wire != nil, !group.channels.isEmpty else { return completion.complete() }
        let countdown = Countdown(group.channels.count, completion)
        for channel in group.channels.values { closings[channel.number] = (countdown, .now + Self.closingLimit) }
        try settle(group)
        for channel in group.channels.values { try closeChannel(channel.number) }
    }

    // MARK: Queues that do not answer

    /// How long the broker may take to begin one consumer.
    private static var askingLimit: Duration { .seconds(8) }

    /// Looks for channels whose next consumer does not begin.
    ///
    /// A quorum queue without a leader never answers, and blocks its channel with everything on it, acknowledgements of
    /// the neighbours included. Only the end of the connection frees those; on the next one the suspects are alone.
    func watchGroups(_ now: ContinuousClock.Instant) throws(PulseError) {
        for group in groups.values {
            for channel in group.channels.values {
                guard let first = channel.asked.first, channel.lastAnswer + Self.askingLimit <= now else { continue }
                if !channel.isSolitary {
                    channel.asked.forEach { group.suspects.insert($0.queue) }
                    if channel.members.allSatisfy({ !$0.isConsuming }) {
                        try askAlone(channel)
                        continue
                    }
                    hasGivenUpConnection = true
                    let text = "the broker does not begin to deliver from queue \(first.queue)"
                    throw PulseError(.connectionLost, text)
                }
                // The channel is given up with everything on it, which is this one consumer.
                group.remove(first)
                group.channels[channel.serial] = nil
                group.discard(channel)
                try closeChannel(channel.number)
                let text = "cannot consume queue \(first.queue): the broker did not answer in time"
                group.link.onEvent(.lost(first.queue, PulseError(.timeout, text)))
            }
        }
    }

    /// Leaves a blocked channel that carries no deliveries, and asks for each of its queues on a channel of its own.
    private func askAlone(_ channel: GroupChannel) throws(PulseError) {
        let group = channel.group
        group.channels[channel.serial] = nil
        group.discard(channel)
        try closeChannel(channel.number)
        for member in channel.members {
            member.channel = nil
            if member.isStopping { group.remove(member) } else { try ask(member, of: group) }
        }
    }

    // MARK: Receiving

    func receive(_ frame: amqp_frame_t, for channel: GroupChannel) throws(PulseError) {
        if frame.frame_type == crabbitmq_frame_method { return try receive(frame.payload.method, for: channel) }
        guard readContent(frame, channel) else { return }
        let (tag, delivery) = try takeMessage(from: channel)
        let group = channel.group
        guard let receiver = channel.receiver else {
            // For a consumer that is no more: the message is somebody else's.
            if let nack = channel.window.refuse(tag, requeue: true) { try send(nack, channel.number) }
            return
        }
        group.file(
            DeliveryLink.Item(
                queue: receiver.queue,
                delivery: delivery,
                tag: tag,
                channel: channel.serial,
                connection: group.connection
            )
        )
        if !group.isTouched {
            group.isTouched = true
            touchedGroups.append(group)
        }
    }

    private func receive(_ method: amqp_method_t, for channel: GroupChannel) throws(PulseError) {
        let group = channel.group
        switch method.id {
        case crabbitmq_basic_deliver:
            guard let deliver = arguments(method, as: amqp_basic_deliver_t.self) else { return }
            channel.receiver = UInt32(String(deliver.consumer_tag)).flatMap { group.numbered[$0] }
            channel.reader.begin(deliver)
        case crabbitmq_basic_consume_ok:
            guard let member = channel.asked.popFirst() else { return }
            channel.lastAnswer = .now
            member.isConsuming = true
            group.suspects.remove(member.queue)
            group.link.onEvent(.consuming(member.queue))
        case crabbitmq_basic_cancel_ok:
            guard let ok = arguments(method, as: amqp_basic_cancel_ok_t.self) else { return }
            let member = UInt32(String(ok.consumer_tag)).flatMap { group.numbered[$0] }
            if let member { group.remove(member) }
        case crabbitmq_basic_cancel:
            guard let cancel = arguments(method, as: amqp_basic_cancel_t.self),
                let member = UInt32(String(cancel.consumer_tag)).flatMap({ group.numbered[$0] })
            else { return }
            group.remove(member)
            if !member.isStopping { group.link.onEvent(.lost(member.queue, nil)) }
        case crabbitmq_channel_close:
            try channelWasClosed(channel, method)
        default:
            break
        }
    }

    /// The broker closed a shared channel: the one it could not consume is lost, the others move to another channel.
    private func channelWasClosed(_ channel: GroupChannel, _ method: amqp_method_t) throws(PulseError) {
        let group = channel.group
        let during = arguments(method, as: amqp_channel_close_t.self)
        let cause = during.map { UInt32($0.class_id) << 16 | UInt32($0.method_id) } ?? 0
        var error = closeError(method, during: "consume a queue")
        var culprit: GroupMember?
        if cause == crabbitmq_basic_consume {
            // Answers to earlier questions may be missing as well, so the order of asking proves nothing; but the
            // broker names the queue, unless the name is too long. Then each of them is asked for alone.
            channel.asked.forEach { member in
                if channel.isSolitary || error.message.contains("'\(member.queue)'") { culprit = member }
            }
            if culprit == nil { channel.asked.forEach { group.suspects.insert($0.queue) } }
        }
        if let culprit { error = closeError(method, during: "consume queue \(culprit.queue)") }
        group.channels[channel.serial] = nil
        group.discard(channel)
        let members = channel.members
        for member in members {
            member.channel = nil
            member.isConsuming = false
            if member.isStopping || member === culprit { group.remove(member) }
        }
        try confirmClose(channel.number)
        freeChannel(channel.number)
        if let culprit {
            group.link.onEvent(.lost(culprit.queue, error))
        } else {
            logger.warning("a shared channel was closed", metadata: ["error": "\(error)"])
        }
        for member in members where !member.isStopping && member !== culprit {
            try ask(member, of: group)
        }
    }
}
