// SPDX-License-Identifier: MPL-2.0

import Core
public import ServiceLifecycle
import Synchronization

/// A connection to the broker that comes back by itself.
///
/// One thread owns the connection; it starts with the first use or with `run()`, whichever is earlier. Publishing, the
/// topology and any number of consumers share it, each on channels of their own. When the connection breaks, the
/// thread connects again with growing, jittered pauses: unconfirmed messages are sent again (so one may arrive twice),
/// unanswered topology steps are repeated, consumers are set up anew.
public final class PulseConnection: Service, Sendable {
    /// Where the broker is.
    public let configuration: PulseConfiguration
    /// The name the broker shows for this connection.
    public let name: String

    let mailbox = Mailbox()
    let metrics = PulseMetrics()
    private let hasStarted = Atomic<Bool>(false)
    private let ended = Completion()

    /// Describes a connection; nothing is opened yet.
    public init(_ configuration: PulseConfiguration, name: String) {
        self.configuration = configuration
        self.name = name
    }

    deinit {
        mailbox.post(.shutDown)
    }

    /// The middle part of the names of our exchanges and queues.
    public var namespace: String { configuration.namespace }

    /// Keeps the connection until the graceful shutdown or cancellation of the calling task.
    ///
    /// On graceful shutdown what was accepted for publishing is confirmed first, for up to five seconds.
    public func run() async throws {
        start()
        try? await gracefulShutdown()
        await shutDown()
    }

    /// Ends the connection for good; waits until its thread is gone.
    public func shutDown() async {
        guard hasStarted.load(ordering: .acquiring) else {
            _ = mailbox.closeAndTake()
            return
        }
        mailbox.post(.shutDown)
        _ = await ended.waitShielded()
    }

    /// Starts the thread unless it runs.
    func start() {
        guard !hasStarted.exchange(true, ordering: .acquiringAndReleasing) else { return }
        let (configuration, name, mailbox, metrics, ended) = (configuration, name, mailbox, metrics, ended)
        startThread(named: "pulse") {
            let engine = Engine(configuration, name: name, mailbox: mailbox, metrics: metrics)
            engine.run()
            ended.complete()
        }
    }

    static let closedError = PulseError(.closed, "the connection to the broker was shut down")
}

// MARK: - Publishing

extension PulseConnection {
    /// Publishes a message and returns after the broker's confirm.
    ///
    /// Callers that publish at the same time share one window of confirms. Waits through reconnects until the timeout;
    /// after one, the message may have been delivered nevertheless.
    public func publish(_ message: PulseMessage, timeout: Duration = .seconds(30)) async throws(PulseError) {
        try await publish([message], timeout: timeout)
    }

    /// Publishes messages in order and returns after the broker confirmed all of them.
    ///
    /// Throws the error of the first message that failed; others may have been delivered.
    public func publish(_ batch: [PulseMessage], timeout: Duration = .seconds(30)) async throws(PulseError) {
        let errors = try await outcomes(ofPublishing: batch, timeout: timeout)
        if let first = errors.min(by: { $0.key < $1.key }) { throw first.value }
    }

    /// Publishes messages in order and tells which ones failed: errors by position.
    ///
    /// Throws only when the verdict on some messages is unknown, because of the timeout, cancellation or shutdown.
    public func outcomes(
        ofPublishing batch: [PulseMessage],
        timeout: Duration = .seconds(30)
    ) async throws(PulseError) -> [Int: PulseError] {
        guard !batch.isEmpty else { return [:] }
        start()
        let work = PublishBatch(batch, deadline: .now + timeout)
        if !mailbox.post(.publish(work)) { throw Self.closedError }
        let (whole, errors) = await work.verdict()
        if let whole { throw whole }
        return errors
    }
}

// MARK: - Topology

extension PulseConnection {
    /// Declares a durable topic exchange.
    public func declareExchange(_ name: String) async throws(PulseError) {
        try await operate(.declareExchange(name))
    }

    /// Deletes an exchange; one that does not exist is fine.
    public func deleteExchange(_ name: String) async throws(PulseError) {
        try await operate(.deleteExchange(name))
    }

    /// Declares a queue; answers how many messages are ready in it.
    @discardableResult
    public func declareQueue(_ queue: PulseQueue) async throws(PulseError) -> Int {
        if let problem = queue.problem { throw problem }
        return try await operate(.declareQueue(queue)).messageCount.load(ordering: .acquiring)
    }

    /// Deletes a queue with its messages and answers how many those were; a queue that does not exist is fine.
    @discardableResult
    public func deleteQueue(_ name: String) async throws(PulseError) -> Int {
        try await operate(.deleteQueue(name)).messageCount.load(ordering: .acquiring)
    }

    /// What is in a queue and how many consume it; nil if there is no such queue.
    public func status(
        ofQueue name: String,
        timeout: Duration = .seconds(30)
    ) async throws(PulseError) -> PulseQueueStatus? {
        do {
            let answer = try await operate(.inspectQueue(name), timeout: timeout)
            return PulseQueueStatus(
                messages: answer.messageCount.load(ordering: .acquiring),
                consumers: answer.consumerCount.load(ordering: .acquiring)
            )
        } catch {
            guard error.code == .notFound else { throw error }
            return nil
        }
    }

    /// Binds a queue to an exchange; doing it again is fine.
    public func bind(queue: String, exchange: String, routingKey: String) async throws(PulseError) {
        let binding = PulseBinding(exchange: exchange, routingKeyPattern: routingKey)
        try await operate(.bind(queue: queue, binding))
    }

    /// Removes a binding; one that does not exist is fine.
    public func unbind(queue: String, exchange: String, routingKey: String) async throws(PulseError) {
        let binding = PulseBinding(exchange: exchange, routingKeyPattern: routingKey)
        try await operate(.unbind(queue: queue, binding))
    }

    /// Throws unless the broker answers within five seconds.
    public func checkHealth() async throws {
        try await operate(.ping, timeout: .seconds(5))
    }

    @discardableResult
    private func operate(_ kind: Operation.Kind, timeout: Duration = .seconds(30)) async throws(PulseError) -> Operation
    {
        start()
        let operation = Operation(kind, deadline: .now + timeout)
        for name in operation.names where name.utf8.count > 255 {
            throw PulseError(.invalidArgument, "cannot \(operation.description): a name is longer than 255 bytes")
        }
        if !mailbox.post(.operate(operation)) { throw Self.closedError }
        if let error = await operation.completion.wait() { throw error }
        return operation
    }
}

extension Operation {
    /// Every name the wire format limits.
    fileprivate var names: [String] {
        switch kind {
        case .declareExchange(let name), .deleteExchange(let name), .deleteQueue(let name), .inspectQueue(let name):
            [name]
        case .declareQueue(let queue): [queue.name]
        case .bind(let queue, let binding), .unbind(let queue, let binding):
            [queue, binding.exchange, binding.routingKeyPattern]
        case .ping: []
        }
    }
}

// MARK: - The thread

extension Command {
    /// Tells whoever waits that nothing will be done.
    func fail(_ error: PulseError) {
        switch self {
        case .publish(let batch): batch.abandon(error)
        case .operate(let operation): operation.completion.complete(error)
        case .subscribe(let link), .cancelConsumer(let link): link.deliveries.finish(error)
        case .closeConsumer(_, let completion), .closeGroup(_, let completion): completion.complete()
        case .openGroup(let link): link.deliveries.finish(error, dropping: true)
        case .consumeQueue, .stopQueue: break
        case .shutDown: break
        }
    }
}
