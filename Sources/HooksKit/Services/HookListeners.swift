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
    struct State {
        /// The hooks of the queues that are or were consumed here.
        var names: [String: HookName] = [:]
        var consumed: Set<String> = []
        /// Those of them for which the broker has not answered yet.
        var unanswered: Set<String> = []
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
        /// Whether reading wishes failed the last time; told once for all workers.
        var isFailing = false
        /// How many tasks carry out wishes at this moment.
        var workers = 0
        /// Whether there is a place for dead letters.
        var hasDeadLetters = false
    }

    let store: ListenerStore
    let letters: DeadLetterStore
    let pulse: PulseConnection
    let intake: DeliveryIntake
    let reconciler: QueueReconciler
    let group: PulseConsumerGroup
    let events: AsyncStream<PulseConsumerGroup.Event>
    let state: Registry
    let wishes = Signal()
    let walks = Signal()
    let changes = Signal()
    let listener: String

    /// What the handlers of batches share with the listener.
    final class Registry: Sendable {
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
        if !state.withLock({ $0.hasWalked && $0.hasCarriedOut && $0.unanswered.isEmpty }) { throw NotReady() }
    }

    private struct NotReady: Error, CustomStringConvertible {
        var description: String { "not all queues of hooks are consumed yet" }
    }

    /// Listens until the process goes down; throws when listening ends before, so that the process ends and is started anew.
    package func run() async throws {
        let failure = await withTaskGroup(of: (any Error)?.self) { tasks -> (any Error)? in
            tasks.addTask {
                await cancelWhenGracefulShutdown { await self.upkeep() }
                return nil
            }
            tasks.addTask {
                do { try await self.group.run() } catch is CancellationError {} catch { return error }
                return nil
            }
            for await failure in tasks {
                guard let failure else { continue }
                tasks.cancelAll()
                return failure
            }
            return nil
        }
        await sayGoodbye()
        if let failure, !Task.isCancelled {
            Logger.current.error("hooks are not listened to any more", metadata: ["error": "\(failure)"])
            throw failure
        }
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
            for _ in 0..<QueueReconciler.workers { tasks.addTask { await self.carryOutWishes() } }
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
                    state.unanswered = []
                }
                askForWalk(makingAgain: true)
            case .consuming(let queue):
                state.withLock { _ = $0.unanswered.remove(queue) }
                await noteConsumption(of: queue, problem: nil)
            case .lost(let queue, let error):
                let name = state.withLock { state in
                    state.consumed.remove(queue)
                    state.unanswered.remove(queue)
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

    let troubled = Mutex<Set<String>>([])

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
            state.withLock { $0.workers += 1 }
            do {
                while try await reconciler.carryOutBatch() > 0, !Task.isCancelled {}
                state.withLock { state in
                    state.workers -= 1
                    state.isFailing = false
                    if state.workers == 0 { state.hasCarriedOut = true }
                }
            } catch {
                let isNews = state.withLock { state in
                    state.workers -= 1
                    defer { state.isFailing = true }
                    return !state.isFailing
                }
                if Task.isCancelled { return }
                Logger.current.log(
                    level: isNews ? .error : .debug,
                    "bindings cannot be read",
                    metadata: ["error": "\(error)"]
                )
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
    func settle(_ queue: ListenerStore.Queue) {
        let isMine = state.withLock { state in
            state.names[queue.queue] = queue.name
            let isMine = state.share.includes(queue.name)
            if isMine {
                if state.consumed.insert(queue.queue).inserted { state.unanswered.insert(queue.queue) }
            } else {
                state.consumed.remove(queue.queue)
                state.unanswered.remove(queue.queue)
            }
            return isMine
        }
        if isMine { group.consume(queue.queue) } else { group.stop(queue.queue) }
    }

    private func forget(_ queue: String) {
        state.withLock { state in
            state.names[queue] = nil
            state.consumed.remove(queue)
            state.unanswered.remove(queue)
        }
        group.stop(queue)
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
                guard round % 60 == 0 else { continue }
                try await store.settleAbandoned()
                try await store.expireRedeliveries()
            } catch {
                Logger.current.debug("fires were not settled", metadata: ["error": "\(error)"])
            }
        }
    }
}
