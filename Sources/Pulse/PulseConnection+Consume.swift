// SPDX-License-Identifier: MPL-2.0

import Logging
import ServiceLifecycle

extension PulseConnection {
    /// Consumes a queue until graceful shutdown, cancellation, or an error that repeating cannot cure.
    ///
    /// On every (re)connect the queue is declared, then bound, then consumed; the same when the broker takes the queue
    /// away. A binding that fails (no such exchange, no permission) is logged and tried again now and then without
    /// stopping the others. What throws: the queue cannot be declared because it exists with other properties
    /// (`preconditionFailed`) or is forbidden (`accessRefused`).
    ///
    /// Up to `prefetch` handlers run at the same time. A handler starts on the consuming task and continues elsewhere
    /// once it suspends; handlers that never suspend therefore run one after the other. A delivery is settled only after
    /// its handler returned. A handler that throws sends the delivery back once; if it was redelivered it is dropped,
    /// with an error in the log. Messages may come twice when a connection breaks.
    ///
    /// Graceful shutdown takes no more messages, lets the handlers finish and settles what they did. Cancellation
    /// cancels the handlers; what is not settled by then goes back to the queue.
    public func consume(
        _ subscription: PulseSubscription,
        _ handler: @escaping @Sendable (PulseDelivery) async throws -> PulseDisposition
    ) async throws {
        try await withLink(subscription) { link in
            await self.pump(link, handler)
        }
    }

    /// Subscribes, runs the body until the link is finished, and unsubscribes.
    private func withLink(
        _ subscription: PulseSubscription,
        _ body: @escaping @Sendable (ConsumerLink) async -> Void
    ) async throws {
        if let problem = subscription.queue.problem { throw problem }
        guard (1...65535).contains(subscription.prefetch) else {
            throw PulseError(.invalidArgument, "cannot consume: prefetch must be from 1 to 65535")
        }
        start()
        let link = ConsumerLink(subscription)
        if !mailbox.post(.subscribe(link)) { throw Self.closedError }
        let mailbox = mailbox
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await body(link)
            } onGracefulShutdown: {
                mailbox.post(.cancelConsumer(link))
            }
        } onCancel: {
            link.deliveries.finish(nil, dropping: true)
        }
        let closed = Completion()
        if mailbox.post(.closeConsumer(link, closed)) { _ = await closed.waitShielded() }
        try Task.checkCancellation()
        if let error = link.deliveries.error { throw error }
    }

    /// Starts a handler for each delivery; they are bounded by the broker, which sends no more than `prefetch`.
    private func pump(
        _ link: ConsumerLink,
        _ handler: @escaping @Sendable (PulseDelivery) async throws -> PulseDisposition
    ) async {
        await withDiscardingTaskGroup { group in
            var items: [DeliveryLink.Item] = []
            while await link.deliveries.next(&items) {
                link.deliveries.beginBurst()
                for item in items {
                    // Runs right here until the handler suspends for the first time: no hop for those that never do.
                    group.addImmediateTask {
                        await self.handle(item, link, handler)
                    }
                }
                if link.deliveries.endBurst() { self.mailbox.noteSettlements(of: .consumer(link)) }
                items.removeAll(keepingCapacity: true)
            }
        }
    }

    private func handle(
        _ item: DeliveryLink.Item,
        _ link: ConsumerLink,
        _ handler: @Sendable (PulseDelivery) async throws -> PulseDisposition
    ) async {
        let disposition: PulseDisposition
        do {
            disposition = try await handler(item.delivery)
        } catch {
            // A cancelled handler says nothing about the message: closing the channel sends it back.
            if Task.isCancelled { return }
            disposition = refusal(of: item, link, error)
        }
        if link.deliveries.settle(CollectionOfOne(item), disposition) {
            mailbox.noteSettlements(of: .consumer(link))
        }
    }

    /// What becomes of a delivery whose handler threw: back to the queue once, then dropped.
    private func refusal(of item: DeliveryLink.Item, _ link: ConsumerLink, _ error: any Error) -> PulseDisposition {
        guard item.delivery.redelivered else { return .requeue }
        Logger(label: "pulse").error(
            "message dropped: its handler failed again",
            metadata: [
                "pulse.queue": "\(link.subscription.queue.name)",
                "pulse.exchange": "\(item.delivery.exchange)",
                "pulse.routing_key": "\(item.delivery.routingKey)",
                "error": "\(error)",
            ]
        )
        return .reject
    }
}
