// SPDX-License-Identifier: MPL-2.0

/// The thread's side of a group of consumers: many queues that share few channels.
///
/// A queue is consumed on one connection only. After the next one begins, nothing is consumed until asked again, because
/// asking for a queue that has vanished closes the channel under all its neighbours.
final class Group {
    let link: GroupLink
    /// The consumers of this connection, by queue and, for the deliveries, by their number.
    var members: [String: GroupMember] = [:]
    var numbered: [UInt32: GroupMember] = [:]
    var channels: [UInt32: GroupChannel] = [:]
    var connection = 0
    var isTouched = false
    /// Queues that did not answer on an earlier connection, or stood behind one that did not.
    var suspects: Set<String> = []

    /// Whether the broker owes an answer.
    var isAsking: Bool { channels.values.contains { !$0.asked.isEmpty } }

    private var items: [DeliveryLink.Item] = []
    private var lastNumber: UInt32 = 0
    private var lastSerial: UInt32 = 0

    /// How many consumers share a channel.
    static let channelSize = 256

    /// How many unanswered questions a channel has before another one is opened.
    ///
    /// The broker answers those of one channel one after the other, and each costs a quorum queue a write to its disk.
    private static let askingSize = 32
    /// How many channels are opened for the sake of speed alone.
    private static let speedyChannels = 8

    /// The channel for one consumer more: any that is not busy answering, else the least busy one; nil for a new one.
    var channelWithRoom: GroupChannel? {
        var best: GroupChannel?
        for channel in channels.values where !channel.isSolitary && channel.members.count < Self.channelSize {
            if channel.asked.count < best?.asked.count ?? .max { best = channel }
        }
        guard let best, best.asked.count >= Self.askingSize, channels.count < Self.speedyChannels else { return best }
        return nil
    }

    init(_ link: GroupLink) {
        self.link = link
    }

    /// Makes a consumer for a queue.
    func add(_ queue: String) -> GroupMember {
        lastNumber &+= 1
        let member = GroupMember(queue, number: lastNumber)
        members[queue] = member
        numbered[lastNumber] = member
        return member
    }

    func remove(_ member: GroupMember) {
        if members[member.queue] === member { members[member.queue] = nil }
        numbered[member.number] = nil
        member.channel?.members.removeAll { $0 === member }
        member.channel = nil
    }

    func nextSerial() -> UInt32 {
        lastSerial &+= 1
        return lastSerial
    }

    func file(_ item: DeliveryLink.Item) {
        items.append(item)
    }

    /// Passes what was read on to the workers.
    func handOver() {
        isTouched = false
        if !items.isEmpty { link.deliveries.put(&items) }
    }

    /// Forgets deliveries of a channel that is gone.
    func discard(_ channel: GroupChannel) {
        items.removeAll { $0.channel == channel.serial }
        link.deliveries.discard(channel: channel.serial)
    }

    func connectionLost() {
        members = [:]
        numbered = [:]
        channels = [:]
        items = []
        isTouched = false
        link.deliveries.discard()
    }
}

/// One queue of a group.
final class GroupMember {
    let queue: String
    /// Names the consumer at the broker.
    let number: UInt32
    var channel: GroupChannel?
    var isConsuming = false
    /// The broker was asked for no more.
    var isStopping = false

    init(_ queue: String, number: UInt32) {
        self.queue = queue
        self.number = number
    }
}

/// One channel of a group.
final class GroupChannel: DeliveryChannel {
    let group: Group
    let number: Int
    let serial: UInt32
    var members: [GroupMember] = []
    /// Those the broker was asked to consume and has not answered, in the order of asking.
    var asked = Fifo<GroupMember>()
    /// When the broker last answered, or the first unanswered question was asked.
    var lastAnswer = ContinuousClock.now
    /// For one consumer only.
    var isSolitary = false
    var window = AckWindow()
    var reader = MessageReader()
    /// Whom the message that is being read is for.
    var receiver: GroupMember?

    init(_ group: Group, number: Int, serial: UInt32) {
        self.group = group
        self.number = number
        self.serial = serial
    }
}
