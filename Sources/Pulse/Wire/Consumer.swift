// SPDX-License-Identifier: MPL-2.0

/// The thread's side of one consumer: its channel, the message being read, the account of deliveries.
///
///     resting ──► settingUp ──► consuming ──► cancelling ──► (finished)
///        ▲            │             │
///        └────────────┴─────────────┘  channel or queue lost, connection gone
final class Consumer: DeliveryChannel {
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
    /// The number of its channel.
    var number = 0
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

    var reader = MessageReader()
    private var items: [DeliveryLink.Item] = []

    init(_ link: ConsumerLink) {
        self.link = link
    }

    /// Forgets the channel.
    func lostChannel() {
        state = .resting
        number = 0
        epoch &+= 1
        window = AckWindow()
        items.removeAll(keepingCapacity: true)
        retries = []
        link.deliveries.discard()
    }

    func finish(_ error: PulseError?) {
        handOver()
        link.deliveries.finish(error)
    }

    /// Passes what was read on to the consuming task.
    func handOver() {
        isTouched = false
        if !items.isEmpty { link.deliveries.put(&items) }
    }

    // MARK: Reading a message

    /// Files a complete message.
    func file(_ delivery: PulseDelivery, tag: UInt64) {
        let queue = link.subscription.queue.name
        items.append(DeliveryLink.Item(queue: queue, delivery: delivery, tag: tag, channel: epoch))
    }
}
