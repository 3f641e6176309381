// SPDX-License-Identifier: MPL-2.0

import CLinux
import CRabbitMQ
import Metrics
import Glibc
import Logging

/// The life of a connection, on its own thread: connect, serve, pause, connect again.
///
/// Not `Sendable`: born, used and freed on the thread. Each turn of `serve` does, in this order: what the mailbox asks, up
/// to a thousand frames of input, the hand-over of deliveries, output; then it sleeps on the socket and the bell unless
/// there is more to do.
final class Engine {
    let configuration: PulseConfiguration
    let name: String
    let mailbox: Mailbox
    let metrics: PulseMetrics
    let logger = Logger(label: "pulse")

    /// The library's connection while there is one, and scratch memory for calls into it.
    var wire: amqp_connection_state_t?
    var arena = Arena()

    /// Who uses which channel; the index is the number, 0 unused.
    var channels: [Channel] = []
    var channelLimit = 0
    var freeChannels: [Int] = []

    let publisher = Publisher()
    var operations = OperationQueue()
    var operationCount = 0
    var consumers: [ConsumerLink: Consumer] = [:]
    var groups: [ObjectIdentifier: Group] = [:]
    /// Groups that have deliveries to hand over after this turn's reading.
    var touchedGroups: [Group] = []
    /// Who waits for the closing of a channel, and until when: a broker whose queue has lost its leader never answers.
    var closings: [Int: (countdown: Countdown, deadline: ContinuousClock.Instant)] = [:]

    /// Consumers that have deliveries to hand over after this turn's reading.
    var touched: [Consumer] = []
    /// Consumers that wait for a moment to be set up again.
    var resting: [(due: ContinuousClock.Instant, consumer: Consumer)] = []

    private var commands: [Command] = []
    private var settled: [Consuming] = []
    /// An emptied array to swap for settlements.
    var spareSettlements: [DeliveryLink.Settlement] = []
    private var shutDownDeadline: ContinuousClock.Instant?
    private var lastTick = ContinuousClock.now

    /// The connection ends by our own choice, not because the broker could not keep it.
    var hasGivenUpConnection = false

    /// What a channel number is used for.
    enum Channel {
        case free
        case publisher
        case operation(RunningOperation)
        case consumer(Consumer)
        case group(GroupChannel)
        /// Open, for the next operation.
        case spare
        /// We asked to close it; everything but the answer is ignored.
        case closing
    }

    init(_ configuration: PulseConfiguration, name: String, mailbox: Mailbox, metrics: PulseMetrics) {
        self.configuration = configuration
        self.name = name
        self.mailbox = mailbox
        self.metrics = metrics
    }

    /// Runs until told to shut down.
    func run() {
        var backOff = BackOff(maximum: configuration.maximumBackOff)
        var isFirst = true
        while shutDownDeadline == nil {
            let failure: PulseError
            do throws(PulseError) {
                let wire = try Wire(configuration, name: name, arena: &arena)
                arena.reset()
                if !isFirst { metrics.reconnects.increment() }
                isFirst = false
                logger.notice("connected to the broker", metadata: ["pulse.broker": "\(configuration)"])
                let start = ContinuousClock.now
                begin(wire)
                do throws(PulseError) {
                    try serve(wire)
                    wire.close()
                    break
                } catch {
                    // Only a connection that lived counts as a success: otherwise a broker that throws us out at once
                    // would be asked again at once.
                    if start.duration(to: .now) > .seconds(10) || hasGivenUpConnection { backOff.reset() }
                    hasGivenUpConnection = false
                    failure = error
                }
                end()
            } catch {
                arena.reset()
                failure = error
            }
            let pause = backOff.next()
            logger.warning(
                "no connection to the broker",
                metadata: ["error": "\(failure)", "pulse.retry_in": "\(pause)"]
            )
            rest(until: .now + pause)
        }
        end()
        finishAll()
    }

    // MARK: Life cycle

    private func begin(_ wire: borrowing Wire) {
        self.wire = wire.state
        channelLimit = wire.channelLimit == 0 ? 2047 : min(wire.channelLimit, 2047)
        channels = [.free]
        freeChannels = []
        openPublisher()
        for consumer in consumers.values { setUp(consumer) }
        for group in groups.values { connected(group) }
    }

    /// Puts everything back to where a new connection can take it up.
    private func end() {
        wire = nil
        channels = []
        freeChannels = []
        touched = []
        touchedGroups = []
        for group in groups.values { group.connectionLost() }
        publisher.connectionLost()
        operations.connectionLost()
        resting = []
        for consumer in consumers.values { connectionLost(consumer) }
        for closing in closings.values { closing.countdown.arrive() }
        closings = [:]
    }

    private func finishAll() {
        let error = PulseConnection.closedError
        publisher.failAll(error)
        operations.failAll(error)
        for consumer in consumers.values { consumer.finish(nil) }
        consumers = [:]
        for group in groups.values { group.link.deliveries.finish(error, dropping: true) }
        groups = [:]
        for command in mailbox.closeAndTake() { command.fail(error) }
    }

    // MARK: Connected

    private func serve(_ wire: borrowing Wire) throws(PulseError) {
        let tick = wire.heartbeatMilliseconds > 0 ? wire.heartbeatMilliseconds / 2 : 10_000
        var mayHaveInput = true
        while true {
            try readMailbox()
            var isDrained = true
            if mayHaveInput { isDrained = try readFrames(wire) }
            handOver()
            try work()
            if let deadline = shutDownDeadline, isIdle || deadline <= .now { return }
            mayHaveInput = !isDrained || sleep(on: wire.descriptor, atMost: tick)
        }
    }

    /// Everything that can be done without input.
    private func work() throws(PulseError) {
        try publisher.pump(self)
        try startOperations()
        let now = ContinuousClock.now
        if lastTick.duration(to: now) >= .milliseconds(100) {
            lastTick = now
            expire(now)
            try abandonSilentOperations(now)
            try watchGroups(now)
            try wakeResting(now)
        }
    }

    /// Reads what has arrived; answers whether the buffers are empty.
    private func readFrames(_ wire: borrowing Wire) throws(PulseError) -> Bool {
        var frame = amqp_frame_t()
        var count = 0
        while count < 1024 {
            var noTime = timeval()
            let status = amqp_simple_wait_frame_noblock(wire.state, &frame, &noTime)
            if status == amqpTimeout {
                amqp_maybe_release_buffers(wire.state)
                return true
            }
            guard status == amqpOK else {
                throw PulseError(.connectionLost, "the connection to the broker broke: \(libraryText(status))")
            }
            try receive(frame)
            count += 1
            if count % 128 == 0 { amqp_maybe_release_buffers(wire.state) }
            // Asking an empty buffer costs two system calls; the poll that follows sees what they would.
            if !wire.isSecure, amqp_data_in_buffer(wire.state) == 0, amqp_frames_enqueued(wire.state) == 0 {
                amqp_maybe_release_buffers(wire.state)
                return true
            }
        }
        amqp_maybe_release_buffers(wire.state)
        return false
    }

    /// Sleeps until input, the bell or the next thing to look after; answers whether the library must be asked for input.
    private func sleep(on descriptor: Int32, atMost milliseconds: Int32) -> Bool {
        guard mailbox.beginSleep() else { return false }
        var set = [
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: mailbox.bell, events: Int16(POLLIN), revents: 0),
        ]
        let count = poll(&set, nfds_t(set.count), hasDeadlines ? min(milliseconds, 100) : milliseconds)
        mailbox.endSleep(bellRang: set[1].revents != 0)
        // Without input the library is asked as well, now and then, because that keeps the heartbeats going.
        return set[0].revents != 0 || count <= 0
    }

    private var hasDeadlines: Bool {
        !publisher.isIdle || !operations.isIdle || !resting.isEmpty || !closings.isEmpty || shutDownDeadline != nil
            || groups.values.contains { $0.isAsking }
    }

    private var isIdle: Bool { publisher.isIdle && operations.isIdle }

    // MARK: Not connected

    private func rest(until due: ContinuousClock.Instant) {
        while shutDownDeadline == nil {
            let left = ContinuousClock.now.duration(to: due).components
            let milliseconds = left.seconds * 1000 + left.attoseconds / 1_000_000_000_000_000
            guard milliseconds > 0 else { return }
            if mailbox.beginSleep() {
                var bell = pollfd(fd: mailbox.bell, events: Int16(POLLIN), revents: 0)
                poll(&bell, 1, Int32(min(milliseconds, 100)))
                mailbox.endSleep(bellRang: bell.revents != 0)
            }
            // Nothing in the mailbox needs the wire while there is none, so nothing is thrown.
            try? readMailbox()
            expire(.now)
        }
    }

    private func expire(_ now: ContinuousClock.Instant) {
        publisher.expire(now)
        operations.expire(now)
        for (number, closing) in closings where closing.deadline <= now {
            closings[number] = nil
            closing.countdown.arrive()
        }
    }

    // MARK: Mailbox

    private func readMailbox() throws(PulseError) {
        mailbox.take(commands: &commands, settled: &settled)
        // Everything that was taken is carried out, also when the connection breaks on the way: nobody else would.
        var failure: PulseError?
        for command in commands {
            do throws(PulseError) { try obey(command) } catch { failure = failure ?? error }
        }
        commands.removeAll(keepingCapacity: true)
        for who in settled where failure == nil {
            do throws(PulseError) { try settle(who) } catch { failure = error }
        }
        settled.removeAll(keepingCapacity: true)
        if let failure { throw failure }
    }

    private func obey(_ command: Command) throws(PulseError) {
        switch command {
        case .publish(let batch): publisher.add(batch)
        case .operate(let operation): operations.add(operation)
        case .subscribe(let link): subscribe(link)
        case .cancelConsumer(let link): try cancel(link)
        case .closeConsumer(let link, let completion): try close(link, completion)
        case .openGroup(let link): open(link)
        case .consumeQueue(let queue, let link): try consume(queue, link)
        case .stopQueue(let queue, let link): try stop(queue, link)
        case .closeGroup(let link, let completion): try close(link, completion)
        case .shutDown: shutDownDeadline = shutDownDeadline ?? .now + .seconds(5)
        }
    }

    private func settle(_ who: Consuming) throws(PulseError) {
        switch who {
        case .consumer(let link): if let consumer = consumers[link] { try settle(consumer) }
        case .group(let link): if let group = groups[ObjectIdentifier(link)] { try settle(group) }
        }
    }

    /// Tells the broker what the workers of a group have settled.
    func settle(_ group: Group) throws(PulseError) {
        try settle(group.link.deliveries) { group.channels[$0] }
    }

    /// Tells the broker what the consumer's task has settled.
    func settle(_ consumer: Consumer) throws(PulseError) {
        try settle(consumer.link.deliveries) { $0 == consumer.epoch ? consumer : nil }
    }

    private func handOver() {
        for consumer in touched { consumer.handOver() }
        touched.removeAll(keepingCapacity: true)
        for group in touchedGroups { group.handOver() }
        touchedGroups.removeAll(keepingCapacity: true)
    }

    private func wakeResting(_ now: ContinuousClock.Instant) throws(PulseError) {
        guard !resting.isEmpty else { return }
        let due = resting.filter { $0.due <= now }
        resting.removeAll { $0.due <= now }
        for entry in due where consumers[entry.consumer.link] === entry.consumer {
            try resume(entry.consumer)
        }
    }

    // MARK: Channels

    /// Takes a channel number, or nil when the broker allows no more.
    func takeChannel(_ use: Channel) -> Int? {
        if let number = freeChannels.popLast() {
            channels[number] = use
            return number
        }
        guard channels.count <= channelLimit else { return nil }
        channels.append(use)
        return channels.count - 1
    }

    func freeChannel(_ number: Int) {
        channels[number] = .free
        freeChannels.append(number)
        closings.removeValue(forKey: number)?.countdown.arrive()
    }

    /// How long the answer to the closing of a channel is waited for.
    static var closingLimit: Duration { .seconds(2) }

    /// Asks the broker to close a channel; its number is free again when the answer is here.
    func closeChannel(_ number: Int) throws(PulseError) {
        channels[number] = .closing
        var close = amqp_channel_close_t(
            reply_code: 200,
            reply_text: amqp_bytes_t(len: 0, bytes: nil),
            class_id: 0,
            method_id: 0
        )
        try send(number, crabbitmq_channel_close, &close)
    }

    func openChannel(_ number: Int) throws(PulseError) {
        var open = amqp_channel_open_t(out_of_band: amqp_bytes_t(len: 0, bytes: nil))
        try send(number, crabbitmq_channel_open, &open)
    }

    /// Sends one method; a failure means that the connection is gone.
    func send<Method>(_ channel: Int, _ method: amqp_method_number_t, _ arguments: inout Method) throws(PulseError) {
        guard let wire else { throw PulseError(.connectionLost, "the connection to the broker is gone") }
        let status = withUnsafeMutablePointer(to: &arguments) {
            amqp_send_method(wire, amqp_channel_t(channel), method, $0)
        }
        arena.reset()
        try check(status)
    }

    func check(_ status: Int32) throws(PulseError) {
        guard status != amqpOK else { return }
        throw PulseError(.connectionLost, "the connection to the broker broke: \(libraryText(status))")
    }
}
