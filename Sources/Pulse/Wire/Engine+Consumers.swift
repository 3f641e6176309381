// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ
import Metrics
import Logging

extension Engine {
    // MARK: Life

    func subscribe(_ link: ConsumerLink) {
        let consumer = Consumer(link)
        consumers[link] = consumer
        if wire != nil { setUp(consumer) }
    }

    /// Sets a consumer up at the next turn.
    func setUp(_ consumer: Consumer) {
        resting.append((.now, consumer))
    }

    /// Tries again after a pause that grows with each failure.
    private func setUpLater(_ consumer: Consumer) {
        resting.append((.now + consumer.backOff.next(), consumer))
    }

    /// Does what was put off for the consumer.
    func resume(_ consumer: Consumer) throws(PulseError) {
        switch consumer.state {
        case .resting: try open(consumer)
        case .consuming: retryBindings(consumer)
        case .settingUp, .cancelling: break
        }
    }

    func connectionLost(_ consumer: Consumer) {
        let wasCancelling = if case .cancelling = consumer.state { true } else { false }
        consumer.lostChannel()
        consumer.refused = []
        if wasCancelling { consumer.link.deliveries.finish(nil) }
    }

    /// Sends everything from opening the channel to consuming; the broker ignores what follows a failure.
    private func open(_ consumer: Consumer) throws(PulseError) {
        let subscription = consumer.link.subscription
        guard let number = takeChannel(.consumer(consumer)) else {
            remove(consumer, PulseError(.overloaded, "cannot consume: no channel of the connection is free"))
            return
        }
        consumer.number = number
        consumer.state = .settingUp
        consumer.boundCount = 0
        consumer.bindings = subscription.bindings().filter { !consumer.refused.contains($0) }
        var name = subscription.queue.name
        if subscription.queue.exclusive, name.hasSuffix("/") { name += Self.randomName() }

        try openChannel(number)
        var qos = amqp_basic_qos_t(prefetch_size: 0, prefetch_count: UInt16(subscription.prefetch), global: 0)
        try send(number, crabbitmq_basic_qos, &qos)
        try declare(subscription.queue, as: name, number)
        for binding in consumer.bindings {
            var bind = amqp_queue_bind_t()
            bind.queue = arena.bytes(name)
            bind.exchange = arena.bytes(binding.exchange)
            bind.routing_key = arena.bytes(binding.routingKeyPattern)
            try send(number, crabbitmq_queue_bind, &bind)
        }
        var consume = amqp_basic_consume_t()
        consume.queue = arena.bytes(name)
        consume.consumer_tag = arena.bytes("1")
        try send(number, crabbitmq_basic_consume, &consume)
    }

    private static func randomName() -> String {
        let alphabet = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
        var generator = SystemRandomNumberGenerator()
        return String((0..<22).map { _ in alphabet[Int.random(in: 0..<alphabet.count, using: &generator)] })
    }

    /// Ends a consumer for good.
    private func remove(_ consumer: Consumer, _ error: PulseError?) {
        consumers[consumer.link] = nil
        consumer.finish(error)
    }

    /// Asks the broker for no more messages.
    func cancel(_ link: ConsumerLink) throws(PulseError) {
        guard let consumer = consumers[link] else { return }
        guard case .consuming = consumer.state else { return consumer.finish(nil) }
        consumer.state = .cancelling
        var cancel = amqp_basic_cancel_t(consumer_tag: arena.bytes("1"), nowait: 0)
        try send(consumer.number, crabbitmq_basic_cancel, &cancel)
    }

    /// Settles what is left and gives the channel back; what is not settled returns to the queue.
    func close(_ link: ConsumerLink, _ completion: Completion) throws(PulseError) {
        guard let consumer = consumers.removeValue(forKey: link) else { return completion.complete() }
        guard wire != nil, consumer.number != 0 else { return completion.complete() }
        closings[consumer.number] = (Countdown(1, completion), .now + Self.closingLimit)
        try settle(consumer)
        try closeChannel(consumer.number)
    }

    // MARK: Receiving

    func receive(_ frame: amqp_frame_t, for consumer: Consumer) throws(PulseError) {
        if frame.frame_type == crabbitmq_frame_method { return try receive(frame.payload.method, for: consumer) }
        guard readContent(frame, consumer) else { return }
        let (tag, delivery) = try takeMessage(from: consumer)
        consumer.file(delivery, tag: tag)
        if !consumer.isTouched {
            consumer.isTouched = true
            touched.append(consumer)
        }
    }

    private func receive(_ method: amqp_method_t, for consumer: Consumer) throws(PulseError) {
        switch method.id {
        case crabbitmq_basic_deliver:
            if let deliver = arguments(method, as: amqp_basic_deliver_t.self) { consumer.reader.begin(deliver) }
        case crabbitmq_queue_bind_ok:
            consumer.boundCount += 1
        case crabbitmq_basic_consume_ok:
            consumer.state = .consuming
            consumer.backOff.reset()
            if !consumer.refused.isEmpty { resting.append((.now + Self.bindingPause, consumer)) }
            consumer.link.subscription.onConsuming?()
        case crabbitmq_basic_cancel_ok:
            consumer.finish(nil)
        case crabbitmq_basic_cancel:
            try queueWasTaken(from: consumer)
        case crabbitmq_channel_close:
            try channelWasClosed(of: consumer, method)
        default:
            break
        }
    }

    /// The broker ended the consumer: its queue was deleted or moved.
    private func queueWasTaken(from consumer: Consumer) throws(PulseError) {
        let isCancelling = if case .cancelling = consumer.state { true } else { false }
        if isCancelling { return consumer.finish(nil) }
        logger.warning("queue taken away by the broker", metadata: queueMetadata(consumer))
        try closeChannel(consumer.number)
        consumer.lostChannel()
        setUpLater(consumer)
    }

    private func channelWasClosed(of consumer: Consumer, _ method: amqp_method_t) throws(PulseError) {
        let action = "consume queue \(consumer.link.subscription.queue.name)"
        let error = closeError(method, during: action)
        let during = arguments(method, as: amqp_channel_close_t.self)
        let cause = during.map { UInt32($0.class_id) << 16 | UInt32($0.method_id) } ?? 0
        let state = consumer.state
        let number = consumer.number
        try confirmClose(number)
        freeChannel(number)
        consumer.lostChannel()

        switch state {
        case .cancelling:
            consumer.link.deliveries.finish(nil)
        case .settingUp where cause == crabbitmq_queue_bind && consumer.boundCount < consumer.bindings.count:
            let binding = consumer.bindings[consumer.boundCount]
            consumer.refused.insert(binding)
            var metadata = queueMetadata(consumer)
            metadata["pulse.exchange"] = "\(binding.exchange)"
            metadata["error"] = "\(error)"
            logger.warning("binding refused, will be tried again", metadata: metadata)
            setUp(consumer)
        case .settingUp where error.code == .preconditionFailed || error.code == .accessRefused:
            remove(consumer, error)
        default:
            var metadata = queueMetadata(consumer)
            metadata["error"] = "\(error)"
            logger.warning("consumer lost its channel", metadata: metadata)
            setUpLater(consumer)
        }
    }

    private func queueMetadata(_ consumer: Consumer) -> Logger.Metadata {
        ["pulse.queue": "\(consumer.link.subscription.queue.name)"]
    }

    // MARK: Bindings that were refused

    private static var bindingPause: Duration { .seconds(15) }

    /// Tries refused bindings again, each on a channel of its own; forgets those that worked or are wanted no more.
    private func retryBindings(_ consumer: Consumer) {
        // A queue with a random name cannot be named again here; it gets its bindings at the next connect.
        guard !consumer.link.subscription.queue.name.hasSuffix("/") else { return }
        let wanted = Set(consumer.link.subscription.bindings())
        for retry in consumer.retries where retry.operation.completion.isSuccess {
            consumer.refused.remove(retry.binding)
        }
        consumer.refused.formIntersection(wanted)
        consumer.retries = consumer.refused.map { binding in
            let kind = Operation.Kind.bind(queue: consumer.link.subscription.queue.name, binding)
            return (binding, Operation(kind, deadline: .now + .seconds(10)))
        }
        for retry in consumer.retries { operations.add(retry.operation) }
        if !consumer.refused.isEmpty { resting.append((.now + Self.bindingPause, consumer)) }
    }
}
