// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Postgres
package import Pulse
import ServiceLifecycle
import Synchronization

/// Keeps one consumer for every hook with bindings, and the broker's queues in step with the definitions.
///
/// Every replica consumes every queue; the broker deals the messages out. Replicas learn of changes through the
/// database, which reaches all of them, and look for themselves every minute.
package final class HookListeners: Service, Sendable {
    /// A running consumer.
    private final class Consumer: Sendable {
        let bindings: Mutex<[HookBinding]>
        let task = Mutex<Task<Void, Never>?>(nil)

        init(_ bindings: [HookBinding]) {
            self.bindings = Mutex(bindings)
        }
    }

    private let store: ListenerStore
    private let pulse: PulseConnection
    private let intake: DeliveryIntake
    private let maxLength: Int?
    private let prefetch: Int
    private let consumers = Mutex<[HookName: Consumer]>([:])
    private let ended = Mutex<Set<HookName>>([])
    private let wake = Signal()

    package init(
        store: ListenerStore,
        pulse: PulseConnection,
        intake: DeliveryIntake,
        maxLength: Int?,
        prefetch: Int
    ) {
        self.store = store
        self.pulse = pulse
        self.intake = intake
        self.maxLength = maxLength
        self.prefetch = prefetch
    }

    package func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                group.addTask {
                    for await _ in self.store.pool.notifications(on: [HookStore.changes]) { self.wake.notify() }
                }
                group.addTask { await self.intake.keepSettling() }
                // Changes that arrive during a round make one further round, however many they are.
                while !Task.isCancelled {
                    await self.reconcile(&group)
                    _ = await self.wake.wait(timeout: .seconds(60))
                }
                group.cancelAll()
            }
        }
    }

    // MARK: - Reconciling

    private func reconcile(_ group: inout DiscardingTaskGroup) async {
        do {
            let wanted = try await store.boundHooks()
            let present = try await store.queues()
            for name in Set(wanted.keys).union(present.keys) {
                if Task.isCancelled { return }
                do {
                    if let bindings = wanted[name] {
                        try await maintain(name, bindings, before: present[name]?.bindings ?? [], &group)
                    } else {
                        try await dismantle(name, queue: present[name]?.queue)
                    }
                } catch {
                    // One hook's trouble is its own, and never a reason to delete its queue.
                    Logger.current.error(
                        "hook queue is out of step",
                        metadata: ["hook": "\(name)", "error": "\(error)"]
                    )
                }
            }
        } catch {
            Logger.current.error("bindings cannot be read", metadata: ["error": "\(error)"])
            _ = await wake.wait(timeout: .seconds(2))
            wake.notify()
        }
    }

    private func maintain(
        _ name: HookName,
        _ wanted: [HookBinding],
        before: [HookBinding],
        _ group: inout DiscardingTaskGroup
    ) async throws {
        let queue = queue(of: name)
        let running = consumers.withLock { $0[name] }
        if let running, running.bindings.withLock({ $0 }) == wanted, Set(before) == Set(wanted) { return }
        let bindings = try await store.whileAlone(with: name) { bindings, connection -> [HookBinding] in
            guard !bindings.isEmpty else { return [] }
            try await self.pulse.declareQueue(queue)
            for old in before where !bindings.contains(old) {
                try await self.pulse.unbind(
                    queue: queue.name,
                    exchange: old.exchange,
                    routingKey: old.routingKeyPattern
                )
            }
            var made: [HookBinding] = []
            for binding in bindings where await self.bind(queue.name, binding, of: name) { made.append(binding) }
            try await self.store.record(name, queue: queue.name, bindings: made, on: connection)
            return bindings
        }
        guard !bindings.isEmpty else { return }
        if let running {
            running.bindings.withLock { $0 = bindings }
        } else {
            start(name, queue, bindings, &group)
        }
    }

    private func bind(_ queue: String, _ binding: HookBinding, of name: HookName) async -> Bool {
        do {
            try await pulse.bind(queue: queue, exchange: binding.exchange, routingKey: binding.routingKeyPattern)
            return true
        } catch {
            Logger.current.notice(
                "hook binding was not made and will be tried again",
                metadata: ["hook": "\(name)", "exchange": "\(binding.exchange)", "error": "\(error)"]
            )
            return false
        }
    }

    private func dismantle(_ name: HookName, queue: String?) async throws {
        let queue = queue ?? self.queue(of: name).name
        try await store.whileAlone(with: name) { bindings, connection in
            guard bindings.isEmpty else { return }
            self.consumers.withLock { $0.removeValue(forKey: name) }?.task.withLock { $0?.cancel() }
            try await self.pulse.deleteQueue(queue)
            try await self.store.forget(name, on: connection)
        }
    }

    private func queue(of name: HookName) -> PulseQueue {
        PulseQueue(
            QueueName.ofHook(name, namespace: pulse.namespace),
            durable: true,
            exclusive: false,
            autoDelete: false,
            kind: .quorum,
            maxLength: maxLength
        )
    }

    // MARK: - Consuming

    private func start(
        _ name: HookName,
        _ queue: PulseQueue,
        _ bindings: [HookBinding],
        _ group: inout DiscardingTaskGroup
    ) {
        let consumer = Consumer(bindings)
        consumers.withLock { $0[name] = consumer }
        let subscription = PulseSubscription(queue: queue, prefetch: prefetch) {
            consumer.bindings.withLock { bindings in
                bindings.map { PulseBinding(exchange: $0.exchange, routingKeyPattern: $0.routingKeyPattern) }
            }
        }
        group.addTask {
            await withTaskCancellationHandler {
                // A bridge: one hook's consumer must be cancellable without the others of the group.
                let task = Task { await self.consume(name, subscription) }
                consumer.task.withLock { $0 = task }
                await task.value
            } onCancel: {
                consumer.task.withLock { $0?.cancel() }
            }
            self.consumers.withLock { consumers in
                if consumers[name] === consumer { consumers[name] = nil }
            }
        }
    }

    private func consume(_ name: HookName, _ subscription: PulseSubscription) async {
        do {
            try await pulse.consumeBatches(subscription) { deliveries in
                try await self.intake.accept(deliveries, for: name, queue: subscription.queue.name)
            }
        } catch is CancellationError {
        } catch {
            Logger.current.error("hook queue is not consumed", metadata: ["hook": "\(name)", "error": "\(error)"])
        }
    }
}
