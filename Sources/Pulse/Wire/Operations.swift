// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ
import Synchronization

/// The topology steps that wait for a channel, and those that have one.
struct OperationQueue {
    /// How many run at the same time, each on a channel of its own.
    static let limit = 64
    /// How many channels are kept for the next steps: opening one costs the broker more than most steps do.
    private static let spareLimit = 32

    fileprivate var spare: [Int] = []

    fileprivate var waiting = Fifo<Operation>()
    fileprivate var running: [Int: RunningOperation] = [:]

    var isIdle: Bool { waiting.isEmpty && running.isEmpty }

    mutating func add(_ operation: Operation) {
        waiting.append(operation)
    }

    /// Every step is repeatable, so the next connection starts those that were under way again, in their old order.
    mutating func connectionLost() {
        var all = Fifo<Operation>()
        for running in running.values.sorted(by: { $0.order < $1.order }) { all.append(running.operation) }
        spare = []
        while let operation = waiting.popFirst() { all.append(operation) }
        running = [:]
        waiting = all
    }

    /// Keeps a channel for later; answers false if there are enough.
    fileprivate mutating func keep(_ number: Int) -> Bool {
        guard spare.count < Self.spareLimit else { return false }
        spare.append(number)
        return true
    }

    mutating func expire(_ now: ContinuousClock.Instant) {
        func look(at operation: Operation) {
            guard operation.deadline <= now else { return }
            let text = "cannot \(operation.description): the broker did not answer in time"
            operation.completion.complete(PulseError(.timeout, text))
        }
        waiting.forEach(look)
        for running in running.values { look(at: running.operation) }
        waiting.removeAll { $0.completion.isDone }
    }

    mutating func failAll(_ error: PulseError) {
        connectionLost()
        while let operation = waiting.popFirst() { operation.completion.complete(error) }
    }
}

/// A topology step that has a channel.
final class RunningOperation {
    let operation: Operation
    let order: Int

    init(_ operation: Operation, order: Int) {
        self.operation = operation
        self.order = order
    }
}

extension Engine {
    /// Gives waiting steps their channels: opening and the step itself go out together.
    func startOperations() throws(PulseError) {
        guard wire != nil else { return }
        while operations.running.count < OperationQueue.limit, let operation = operations.waiting.popFirst() {
            if operation.completion.isDone { continue }
            operationCount += 1
            let running = RunningOperation(operation, order: operationCount)
            // A ping asks for a channel of its own, because opening one is the question.
            if !operation.kind.isPing, let number = operations.spare.popLast() {
                channels[number] = .operation(running)
                operations.running[number] = running
                try request(operation.kind, number)
                continue
            }
            guard let number = takeChannel(.operation(running)) else {
                let text = "cannot \(operation.description): no channel of the connection is free"
                operation.completion.complete(PulseError(.overloaded, text))
                continue
            }
            operations.running[number] = running
            try openChannel(number)
            try request(operation.kind, number)
        }
    }

    /// Gives up channels on which the broker did not answer in time.
    func abandonSilentOperations(_ now: ContinuousClock.Instant) throws(PulseError) {
        for (number, running) in operations.running where running.operation.deadline <= now {
            operations.running[number] = nil
            try closeChannel(number)
        }
    }

    func receive(_ frame: amqp_frame_t, for running: RunningOperation, _ number: Int) throws(PulseError) {
        guard frame.frame_type == crabbitmq_frame_method else { return }
        let method = frame.payload.method
        let operation = running.operation
        switch method.id {
        case crabbitmq_channel_open_ok:
            guard case .ping = operation.kind else { return }
            break
        case crabbitmq_channel_close:
            operations.running[number] = nil
            operation.completion.complete(closeError(method, during: operation.description))
            try confirmClose(number)
            freeChannel(number)
            return
        case crabbitmq_queue_declare_ok:
            if let answer = arguments(method, as: amqp_queue_declare_ok_t.self) {
                operation.messageCount.store(Int(answer.message_count), ordering: .releasing)
                operation.consumerCount.store(Int(answer.consumer_count), ordering: .releasing)
            }
        case crabbitmq_queue_delete_ok:
            let count = arguments(method, as: amqp_queue_delete_ok_t.self)?.message_count ?? 0
            operation.messageCount.store(Int(count), ordering: .releasing)
        default:
            break
        }
        operations.running[number] = nil
        operation.completion.complete()
        if !operation.kind.isPing, operations.keep(number) {
            channels[number] = .spare
        } else {
            try closeChannel(number)
        }
    }

    /// The broker closed a channel that nobody uses.
    func spareChannelWasClosed(_ number: Int) throws(PulseError) {
        operations.spare.removeAll { $0 == number }
        try confirmClose(number)
        freeChannel(number)
    }

    private func request(_ kind: Operation.Kind, _ number: Int) throws(PulseError) {
        switch kind {
        case .declareExchange(let name):
            var declare = amqp_exchange_declare_t()
            declare.exchange = arena.bytes(name)
            declare.type = arena.bytes("topic")
            declare.durable = 1
            try send(number, crabbitmq_exchange_declare, &declare)
        case .deleteExchange(let name):
            var delete = amqp_exchange_delete_t()
            delete.exchange = arena.bytes(name)
            try send(number, crabbitmq_exchange_delete, &delete)
        case .declareQueue(let queue):
            try declare(queue, as: queue.name, number)
        case .deleteQueue(let name):
            var delete = amqp_queue_delete_t()
            delete.queue = arena.bytes(name)
            try send(number, crabbitmq_queue_delete, &delete)
        case .inspectQueue(let name):
            var declare = amqp_queue_declare_t()
            declare.queue = arena.bytes(name)
            declare.passive = 1
            try send(number, crabbitmq_queue_declare, &declare)
        case .bind(let queue, let binding):
            try bind(queue, binding, number)
        case .unbind(let queue, let binding):
            var unbind = amqp_queue_unbind_t()
            unbind.queue = arena.bytes(queue)
            unbind.exchange = arena.bytes(binding.exchange)
            unbind.routing_key = arena.bytes(binding.routingKeyPattern)
            try send(number, crabbitmq_queue_unbind, &unbind)
        case .ping:
            break
        }
    }

    func declare(_ queue: PulseQueue, as name: String, _ number: Int) throws(PulseError) {
        var arguments: [(String, Arena.Field)] = []
        if let kind = queue.kind { arguments.append(("x-queue-type", .text(kind.rawValue))) }
        if let maxLength = queue.maxLength { arguments.append(("x-max-length", .number(Int64(maxLength)))) }
        if let overflow = queue.overflow { arguments.append(("x-overflow", .text(overflow.rawValue))) }
        if let exchange = queue.deadLetterExchange { arguments.append(("x-dead-letter-exchange", .text(exchange))) }
        if let limit = queue.deliveryLimit { arguments.append(("x-delivery-limit", .number(Int64(limit)))) }
        if let expires = queue.expires {
            let parts = expires.components
            let milliseconds = parts.seconds * 1000 + parts.attoseconds / 1_000_000_000_000_000
            arguments.append(("x-expires", .number(milliseconds)))
        }
        var declare = amqp_queue_declare_t()
        declare.queue = arena.bytes(name)
        declare.durable = queue.durable ? 1 : 0
        declare.exclusive = queue.exclusive ? 1 : 0
        declare.auto_delete = queue.autoDelete ? 1 : 0
        declare.arguments = arena.table(arguments)
        try send(number, crabbitmq_queue_declare, &declare)
    }

    private func bind(_ queue: String, _ binding: PulseBinding, _ number: Int) throws(PulseError) {
        var bind = amqp_queue_bind_t()
        bind.queue = arena.bytes(queue)
        bind.exchange = arena.bytes(binding.exchange)
        bind.routing_key = arena.bytes(binding.routingKeyPattern)
        try send(number, crabbitmq_queue_bind, &bind)
    }
}
