// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
import Postgres
package import Pulse
import Schedules
import ServiceLifecycle
import Synchronization
import Taskcluster

/// Consumes the queues of the hooks that fall to this listener, and keeps the broker in step with the definitions.
///
/// Any number of listeners run side by side. The database tells them what is out of step; whoever takes it first sets it
/// right. Each hook's queue is consumed by two of them, see ``ListenerShare``.
package final class HookListeners: Service, Sendable {
    private struct State {
        /// The hooks of the queues that are or were consumed here.
        var names: [String: HookName] = [:]
        var consumed: Set<String> = []
        var share: ListenerShare
        var connection = 0
        /// Hooks whose queues were made or removed, by whoever.
        var changed: Set<HookName> = []
        /// Walks that are due: over all queues, or over those that should be consumed and are not.
        var mustWalk = false
        var mustMakeAgain = false
        /// Whether a walk was completed, and whether every wish of the start was carried out.
        var hasWalked = false
        var hasCarriedOut = false
        /// Whether there is a place for dead letters.
        var hasDeadLetters = false
    }

    private let store: ListenerStore
    private let letters: DeadLetterStore
    private let pulse: PulseConnection
    private let intake: DeliveryIntake
    private let reconciler: QueueReconciler
    private let group: PulseConsumerGroup
    private let events: AsyncStream<PulseConsumerGroup.Event>
    private let state: Registry
    private let wishes = Signal()
    private let walks = Signal()
    private let changes = Signal()
    private let listener: String

    /// What the handlers of batches share with the listener.
    private final class Registry: Sendable {
        let state: Mutex<State>
        init(_ listener: String) {
            state = Mutex(State(share: ListenerShare(listener: listener, all: [listener])))
        }
        func withLock<R: Sendable>(_ body: (inout sending State) throws -> sending R) rethrows -> R {
            try state.withLock(body)
        }
    }

    package init(
        store: ListenerStore,
        pulse: PulseConnection,
        intake: DeliveryIntake,
        options: HookQueueOptions = HookQueueOptions(),
        prefetch: Int = 50,
        concurrency: Int = 8
    ) {
        let listener = Slugid.make()
        let state = Registry(listener)
        let (events, input) = AsyncStream<PulseConsumerGroup.Event>.makeStream()
        self.store = store
        self.pulse = pulse
        self.intake = intake
        self.listener = listener
        self.state = state
        self.events = events
        letters = DeadLetterStore(pool: store.pool)
        reconciler = QueueReconciler(store: store, pulse: pulse, options: options, listener: listener)
        group = PulseConsumerGroup(
            pulse,
            prefetch: prefetch,
            concurrency: concurrency,
            onEvent: { input.yield($0) },
            handler: { batch in
                // The messages of a hook that is gone go with it.
                guard let name = state.withLock({ $0.names[batch.queue] }) else { return }
                try await intake.acceptOrBury(batch, for: name)
            }
        )
    }

    /// Throws until every queue that falls to this listener is consumed for the first time.
    package func checkReady() async throws {
        if !state.withLock({ $0.hasWalked && $0.hasCarriedOut }) { throw NotReady() }
    }

    private struct NotReady: Error, CustomStringConvertible {
        var description: String { "not all queues of hooks are consumed yet" }
    }

    package func run() async throws {
        await withDiscardingTaskGroup { tasks in
            tasks.addTask { await cancelWhenGracefulShutdown { await self.upkeep() } }
            tasks.addTask {
                do { try await self.group.run() } catch is CancellationError {} catch {
                    Logger.current.error("hooks are not listened to any more", metadata: ["error": "\(error)"])
                }
            }
        }
        await sayGoodbye()
    }

    /// What the others would otherwise find out by waiting.
    private func sayGoodbye() async {
        do {
            try await intake.settleAll(connection: state.withLock { $0.connection })
            try await store.leave(listener)
        } catch {
            Logger.current.debug("listener left without a word", metadata: ["error": "\(error)"])
        }
    }

    private func upkeep() async {
        await withDiscardingTaskGroup { tasks in
            tasks.addTask { await self.followDatabase() }
            tasks.addTask { await self.followBroker() }
            tasks.addTask { await self.prepareDeadLetters() }
            // Several, so that a queue for which the broker does not answer holds up few others.
            for _ in 0..<4 { tasks.addTask { await self.carryOutWishes() } }
            tasks.addTask { await self.followChanges() }
            tasks.addTask { await self.walk() }
            tasks.addTask { await self.staySeen() }
            tasks.addTask { await self.keepSettling() }
            tasks.addTask { await self.receiveDeadLetters() }
        }
    }

    // MARK: - News

    private func followDatabase() async {
        for await news in store.pool.notifications(on: [ListenerStore.wishes, ListenerStore.results]) {
            switch news {
            case .reconnected:
                // Whatever was said meanwhile was not heard.
                wishes.notify()
                askForWalk(makingAgain: false)
            case .notification(let channel, _) where channel == ListenerStore.wishes:
                wishes.notify()
            case .notification(_, let payload):
                guard let name = HookName(text: payload) else { continue }
                state.withLock { _ = $0.changed.insert(name) }
                changes.notify()
            }
        }
    }

    private func followBroker() async {
        for await event in events {
            switch event {
            case .connected(let number):
                state.withLock { state in
                    state.connection = number
                    state.consumed = []
                }
                askForWalk(makingAgain: true)
            case .consuming(let queue):
                await noteConsumption(of: queue, problem: nil)
            case .lost(let queue, let error):
                let name = state.withLock { state in
                    state.consumed.remove(queue)
                    return state.names[queue]
                }
                guard let name else { continue }
                await replace(queue, of: name, error)
            }
        }
    }

    /// Has a lost queue made again, or says in the hook's status why it is not consumed.
    private func replace(_ queue: String, of name: HookName, _ error: PulseError?) async {
        Logger.current.warning(
            "hook queue is not consumed",
            metadata: ["hook": "\(name)", "error": "\(error?.message ?? "it was deleted")"]
        )
        do {
            if let error, error.code != .notFound {
                await noteConsumption(of: queue, problem: error.message)
                guard error.code == .timeout, reconciler.options.replacesSilentQueues else { return }
                try await pulse.deleteQueue(queue)
                Counter(label: "hooks_queues_replaced_total").increment()
            }
            try await store.noteVanished([name])
        } catch {
            // The walk after the next connection, or the next change, finds it.
            Logger.current.error("lost queue was not noted", metadata: ["hook": "\(name)", "error": "\(error)"])
        }
        wishes.notify()
    }

    private let troubled = Mutex<Set<String>>([])

    private func noteConsumption(of queue: String, problem: String?) async {
        // Almost always there was no trouble before and is none now, and the database need not hear of it.
        let isNews = troubled.withLock { problem == nil ? $0.remove(queue) != nil : $0.insert(queue).inserted }
        guard isNews, let name = state.withLock({ $0.names[queue] }) else { return }
        do { try await store.noteConsumption(of: name, problem: problem, since: .now()) } catch {
            Logger.current.debug("trouble was not noted", metadata: ["hook": "\(name)", "error": "\(error)"])
        }
    }

    // MARK: - Wishes

    private func carryOutWishes() async {
        while !Task.isCancelled, !state.withLock({ $0.hasDeadLetters }) { _ = await wishes.wait(timeout: .seconds(1)) }
        while !Task.isCancelled {
            var pause = Duration.seconds(5)
            do {
                while try await reconciler.carryOutBatch() > 0, !Task.isCancelled {}
                state.withLock { $0.hasCarriedOut = true }
            } catch {
                if Task.isCancelled { return }
                Logger.current.error("bindings cannot be read", metadata: ["error": "\(error)"])
                pause = .seconds(1)
            }
            _ = await wishes.wait(timeout: pause)
        }
    }

    private func followChanges() async {
        while !Task.isCancelled {
            let names = state.withLock { state in
                defer { state.changed = [] }
                return Array(state.changed)
            }
            guard !names.isEmpty else {
                _ = await changes.wait(timeout: .seconds(60))
                continue
            }
            do {
                let queues = try await store.queues(of: names)
                for queue in queues { settle(queue) }
                let gone = Set(names).subtracting(queues.map(\.name))
                for name in gone { forget(reconciler.queue(of: name).name) }
            } catch {
                if Task.isCancelled { return }
                state.withLock { $0.changed.formUnion(names) }
                _ = await changes.wait(timeout: .seconds(1))
            }
        }
    }

    /// Consumes a queue that exists, or lets it go, as the share says.
    private func settle(_ queue: ListenerStore.Queue) {
        let isMine = state.withLock { state in
            state.names[queue.queue] = queue.name
            let isMine = state.share.includes(queue.name)
            if isMine { state.consumed.insert(queue.queue) } else { state.consumed.remove(queue.queue) }
            return isMine
        }
        if isMine { group.consume(queue.queue) } else { group.stop(queue.queue) }
    }

    private func forget(_ queue: String) {
        state.withLock { state in
            state.names[queue] = nil
            state.consumed.remove(queue)
        }
        group.stop(queue)
    }

    // MARK: - Walks

    private func askForWalk(makingAgain: Bool) {
        state.withLock { state in
            state.mustWalk = true
            if makingAgain { state.mustMakeAgain = true }
        }
        walks.notify()
    }

    private func walk() async {
        while !Task.isCancelled {
            let (mustWalk, mustMakeAgain, connection) = state.withLock { state in
                defer {
                    state.mustWalk = false
                    state.mustMakeAgain = false
                }
                return (state.mustWalk, state.mustMakeAgain, state.connection)
            }
            guard mustWalk, connection > 0 else {
                _ = await walks.wait(timeout: .seconds(15))
                // What the broker refused to deliver from is asked for again now and then.
                if troubled.withLock({ !$0.isEmpty }) { state.withLock { $0.mustWalk = true } }
                continue
            }
            do {
                try await walkOnce(makingAgain: mustMakeAgain, connection)
                state.withLock { $0.hasWalked = true }
            } catch {
                if Task.isCancelled { return }
                Logger.current.warning("hook queues are not all consumed yet", metadata: ["error": "\(error)"])
                askForWalk(makingAgain: mustMakeAgain)
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    /// Looks at the queues of all hooks, page by page: what falls to this listener is consumed, after it was made again if
    /// that is asked for or it was not consumed before.
    private func walkOnce(makingAgain: Bool, _ connection: Int) async throws {
        var last: HookName?
        var seen = 0
        while true {
            let page = try await store.queues(after: last, limit: 500)
            let (mine, others) = state.withLock { state in
                (page.filter { state.share.includes($0.name) }, page.filter { !state.share.includes($0.name) })
            }
            for queue in others where state.withLock({ $0.consumed.contains(queue.queue) }) { settle(queue) }
            // One that is out of step is being set right, and will be told of.
            let unsure = mine.filter { queue in
                queue.isInStep && (makingAgain || !state.withLock { $0.consumed.contains(queue.queue) })
            }
            try await makeAgain(unsure)
            try await store.recheck(unsure)
            seen += page.count
            // A newer connection wants its own walk.
            guard state.withLock({ $0.connection == connection }) else { return }
            guard let next = page.last?.name, page.count == 500 else { break }
            last = next
        }
        Logger.current.debug("hook queues looked over", metadata: ["hooks": "\(seen)"])
    }

    private func makeAgain(_ queues: [ListenerStore.Queue]) async throws {
        try await withThrowingTaskGroup(of: ListenerStore.Queue?.self) { tasks in
            var waiting = queues[...]
            var wrong: [HookName] = []
            func addNext() {
                guard let queue = waiting.popFirst() else { return }
                tasks.addTask {
                    guard queue.queue == self.reconciler.queue(of: queue.name).name else { return queue }
                    let problem = try await self.problemMakingAgain(queue)
                    self.settle(queue)
                    return problem == nil || problem?.code == .timeout ? nil : queue
                }
            }
            for _ in 0..<QueueReconciler.batch { addNext() }
            while let outcome = try await tasks.next() {
                if let outcome { wrong.append(outcome.name) }
                addNext()
            }
            // Somebody sets them right by the usual way, and notes what the broker refuses.
            if !wrong.isEmpty { try await store.noteVanished(wrong) }
        }
    }

    /// Makes one queue again; answers what the broker said against it, or that it did not answer.
    ///
    /// Only what concerns all queues is thrown: that the broker is away.
    private func problemMakingAgain(_ queue: ListenerStore.Queue) async throws -> PulseError? {
        do {
            try await withTimeout(QueueReconciler.limit) { try await self.reconciler.makeAgain(queue) }
            return nil
        } catch let error as PulseError {
            guard error.isRefusal || error.code == .timeout else { throw error }
            return error
        } catch {
            try Task.checkCancellation()
            Logger.current.warning("the broker does not answer for a queue", metadata: ["hook": "\(queue.name)"])
            return PulseError(.timeout, "\(error)")
        }
    }

    // MARK: - Sharing

    private func staySeen() async {
        while !Task.isCancelled {
            do {
                let share = ListenerShare(listener: listener, all: try await store.beSeen(listener))
                let hasChanged = state.withLock { state in
                    defer { state.share = share }
                    return state.share != share
                }
                if hasChanged { askForWalk(makingAgain: false) }
            } catch {
                Logger.current.debug("listener was not seen", metadata: ["error": "\(error)"])
            }
            do { try await Task.sleep(for: .seconds(3)) } catch { return }
        }
    }

    // MARK: - Acknowledgements

    /// Settles fires of a connection that still answers: it has carried their acknowledgements.
    private func keepSettling() async {
        var round = 0
        while !Task.isCancelled {
            do { try await Task.sleep(for: .seconds(5)) } catch { return }
            let connection = state.withLock { $0.connection }
            do {
                try await pulse.checkHealth()
                guard state.withLock({ $0.connection == connection }) else { continue }
                try await intake.settle(connection: connection)
                round += 1
                if round % 60 == 0 { try await store.settleAbandoned() }
            } catch {
                Logger.current.debug("fires were not settled", metadata: ["error": "\(error)"])
            }
        }
    }

    // MARK: - Dead letters

    /// Makes the place for dead letters before any queue can need it.
    private func prepareDeadLetters() async {
        let exchange = QueueName.deadLetterExchange(namespace: pulse.namespace)
        let queue = QueueName.deadLetters(namespace: pulse.namespace)
        while !Task.isCancelled {
            var mayGoOn = true
            do throws(PulseError) {
                try await pulse.declareExchange(exchange)
                try await pulse.declareQueue(PulseQueue(queue))
                try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            } catch {
                if Task.isCancelled { return }
                Logger.current.warning("no place for dead letters", metadata: ["error": "\(error)"])
                // Without the permission hooks have to do without.
                mayGoOn = error.isRefusal
            }
            if mayGoOn {
                state.withLock { $0.hasDeadLetters = true }
                return wishes.notify()
            }
            do { try await Task.sleep(for: .seconds(1)) } catch { return }
        }
    }

    /// Receives what the queues of hooks could not keep.
    private func receiveDeadLetters() async {
        let exchange = QueueName.deadLetterExchange(namespace: pulse.namespace)
        let subscription = PulseSubscription(
            queue: PulseQueue(QueueName.deadLetters(namespace: pulse.namespace)),
            bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "#")],
            prefetch: 100
        )
        while !Task.isCancelled {
            do {
                try await pulse.declareExchange(exchange)
                try await pulse.consume(subscription) { delivery in
                    try await self.receive(deadLetter: delivery)
                    return .ack
                }
            } catch {
                if Task.isCancelled { return }
                Logger.current.error("dead letters are not received", metadata: ["error": "\(error)"])
            }
            do { try await Task.sleep(for: .seconds(15)) } catch { return }
        }
    }

    private func receive(deadLetter delivery: PulseDelivery) async throws {
        guard let death = delivery.death else { return }
        guard let name = try await letters.hook(ofQueue: death.queue) else { return }
        var original = delivery
        original.exchange = death.exchange
        try await intake.bury(
            original,
            of: name,
            DeadLetter.Reason(brokerReason: death.reason),
            error: "the broker took it out of its queue: \(death.reason)"
        )
    }
}
