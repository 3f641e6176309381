// SPDX-License-Identifier: MPL-2.0

import Logging
import ServiceLifecycle
import Synchronization

/// Messages of one queue that arrived together, in order.
public struct PulseBatch: Sendable {
    /// The queue they came from.
    public var queue: String
    /// Which connection of the group they came on, counted from 1: acknowledgements do not outlive it.
    public var connection: Int
    /// The messages, at most as many as the prefetch says.
    public var deliveries: [PulseDelivery]
}

/// Consumers of any number of queues that share a few channels of one connection and a few tasks.
///
/// Queues come and go with `consume` and `stop`. They must exist: declaring and binding is the owner's business. When the
/// connection was lost and found again, the event `connected` says that nothing is consumed until asked for again.
///
/// Batches of one queue are handled one after the other, those of several queues side by side. A batch is acknowledged
/// when its handler returns. When it throws for several messages, each is handled again alone; a single message that
/// throws goes back to the queue once, and is rejected when it was redelivered.
public final class PulseConsumerGroup: Sendable {
    /// What the owner of a group must know.
    public enum Event: Sendable {
        /// A connection begins, the first or another; nothing is consumed on it yet.
        case connected(Int)
        /// The broker delivers messages of the queue; told each time that consuming it is asked for.
        case consuming(String)
        /// The queue is not consumed any more: it was deleted (no error), or the broker refuses.
        case lost(String, PulseError?)
    }

    private struct Work {
        var waiting: [String: [DeliveryLink.Item]] = [:]
        var ready = Fifo<String>()
        var busy: Set<String> = []
        var workers = 0
        var isStopped = false
    }

    private let pulse: PulseConnection
    private let link: GroupLink
    private let concurrency: Int
    private let handler: @Sendable (PulseBatch) async throws -> Void
    private let work = Mutex(Work())

    /// Describes a group; it begins with `run`.
    ///
    /// `prefetch` bounds the messages of each queue that are being handled, `concurrency` the batches of all queues.
    /// `onEvent` is called on the connection's thread and must return at once.
    public init(
        _ pulse: PulseConnection,
        prefetch: Int,
        concurrency: Int,
        onEvent: @escaping @Sendable (Event) -> Void,
        handler: @escaping @Sendable (PulseBatch) async throws -> Void
    ) {
        precondition((1...65535).contains(prefetch) && concurrency > 0, "a group handles something")
        self.pulse = pulse
        self.concurrency = concurrency
        self.handler = handler
        link = GroupLink(prefetch: prefetch, onEvent: onEvent)
    }

    /// Begins to consume a queue that exists; doing it again is fine.
    public func consume(_ queue: String) {
        pulse.mailbox.post(.consumeQueue(queue, link))
    }

    /// Takes no more messages of a queue; those that have arrived are handled.
    public func stop(_ queue: String) {
        pulse.mailbox.post(.stopQueue(queue, link))
    }

    /// Hands out batches until graceful shutdown, which lets the handlers finish, or cancellation, which cancels them.
    ///
    /// When it returns, the broker has processed every acknowledgement, or the connection is gone. What nobody handled
    /// is back in its queue.
    public func run() async throws {
        pulse.start()
        if !pulse.mailbox.post(.openGroup(link)) { throw PulseConnection.closedError }
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await withDiscardingTaskGroup { group in
                    var items: [DeliveryLink.Item] = []
                    while await self.link.deliveries.next(&items) {
                        for _ in 0..<self.file(&items) { group.addTask { await self.handleBatches() } }
                    }
                }
            } onGracefulShutdown: {
                self.stopAll()
            }
        } onCancel: {
            self.stopAll()
        }
        let closed = Completion()
        if pulse.mailbox.post(.closeGroup(link, closed)) { _ = await closed.waitShielded() }
        try Task.checkCancellation()
        if let error = link.deliveries.error { throw error }
    }

    private func stopAll() {
        work.withLock { work in
            work.isStopped = true
            work.waiting = [:]
        }
        link.deliveries.finish(nil, dropping: true)
    }

    // MARK: Handing out

    /// Sorts what has arrived by queue; answers how many workers more are needed.
    private func file(_ items: inout [DeliveryLink.Item]) -> Int {
        defer { items.removeAll(keepingCapacity: true) }
        return work.withLock { work in
            guard !work.isStopped else { return 0 }
            for item in items {
                if work.waiting[item.queue] == nil, !work.busy.contains(item.queue) { work.ready.append(item.queue) }
                work.waiting[item.queue, default: []].append(item)
            }
            let wanted = max(0, min(concurrency - work.workers, work.ready.count))
            work.workers += wanted
            return wanted
        }
    }

    private func handleBatches() async {
        while let items = next() {
            // One batch holds messages of one connection, so that its number says whether they can be acknowledged.
            var rest = items[...]
            while let first = rest.first {
                let batch = rest.prefix { $0.connection == first.connection }
                rest = rest.dropFirst(batch.count)
                await handle(Array(batch))
            }
            done(items[0].queue)
        }
    }

    private func next() -> [DeliveryLink.Item]? {
        work.withLock { work in
            guard !work.isStopped, let queue = work.ready.popFirst(),
                let items = work.waiting.removeValue(forKey: queue)
            else {
                work.workers -= 1
                return nil
            }
            work.busy.insert(queue)
            return items
        }
    }

    private func done(_ queue: String) {
        work.withLock { work in
            work.busy.remove(queue)
            if work.waiting[queue] != nil { work.ready.append(queue) }
        }
    }

    private func handle(_ items: [DeliveryLink.Item]) async {
        let batch = PulseBatch(
            queue: items[0].queue,
            connection: items[0].connection,
            deliveries: items.map(\.delivery)
        )
        do {
            try await handler(batch)
            settle(items, .ack)
        } catch {
            // A cancelled handler says nothing about the messages: closing the channel sends them back.
            if Task.isCancelled { return }
            guard items.count == 1 else {
                for item in items { await handle([item]) }
                return
            }
            guard items[0].delivery.redelivered else {
                return settle(items, .requeue)
            }
            Logger(label: "pulse").error(
                "message rejected: its handler failed again",
                metadata: ["pulse.queue": "\(batch.queue)", "error": "\(error)"]
            )
            settle(items, .reject)
        }
    }

    private func settle(_ items: [DeliveryLink.Item], _ disposition: PulseDisposition) {
        if link.deliveries.settle(items, disposition) { pulse.mailbox.noteSettlements(of: .group(link)) }
    }
}
