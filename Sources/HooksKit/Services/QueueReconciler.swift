// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
package import Pulse
import Schedules

/// How the queues of hooks are made.
package struct HookQueueOptions: Sendable {
    /// The kind of a queue that is made; one that exists stays what it is.
    ///
    /// Both kinds outlive a restart of the broker with all that it confirmed. Quorum queues also outlive the loss of a
    /// cluster's member, which costs every node some ten times as much for each queue.
    package var kind: PulseQueue.Kind
    /// How many messages a queue keeps; nil for all.
    package var maxLength: Int?
    /// Whether a message more is refused to its publisher, instead of the oldest one becoming a dead letter.
    package var refusesOverflow: Bool
    /// How often a message may break its consumer before it becomes a dead letter.
    package var deliveryLimit: Int
    /// Whether a queue is made anew, without its messages, when the broker does not answer for it.
    ///
    /// A single broker killed right after it made a quorum queue never elects a leader for it, and refuses every message
    /// for such a queue to its publisher. In a cluster the reason may be a node that is away for a while.
    package var replacesSilentQueues: Bool

    package init(
        kind: PulseQueue.Kind = .classic,
        maxLength: Int? = nil,
        refusesOverflow: Bool = false,
        deliveryLimit: Int = 20,
        replacesSilentQueues: Bool = false
    ) {
        self.kind = kind
        self.replacesSilentQueues = replacesSilentQueues
        self.maxLength = maxLength
        self.refusesOverflow = refusesOverflow
        self.deliveryLimit = deliveryLimit
    }
}

/// Carries out at the broker what the database wants of it, hook by hook.
struct QueueReconciler: Sendable {
    let store: ListenerStore
    let pulse: PulseConnection
    let options: HookQueueOptions
    let listener: String

    /// How many hooks are taken together and worked on at the same time.
    ///
    /// Few: a broker that is asked for many quorum queues at once makes none of them faster, and fails those that it does
    /// not get ready within five seconds.
    static let batch = 4

    /// How many queues are looked after at the same time that should be there already.
    static let walking = 32

    /// How many tasks carry out wishes.
    ///
    /// Several, so that a queue for which the broker does not answer holds up few others.
    static let workers = 4

    /// How long one hook may take; the broker may never answer for a queue that has lost its leader.
    static let limit: Duration = .seconds(10)

    // MARK: - Names

    /// The queue of a hook as it is declared.
    func queue(of name: HookName) -> PulseQueue {
        PulseQueue(
            QueueName.ofHook(name, namespace: pulse.namespace),
            kind: options.kind,
            maxLength: options.maxLength,
            overflow: options.maxLength == nil ? nil : options.refusesOverflow ? .refuse : .dropOldest,
            deadLetterExchange: QueueName.deadLetterExchange(namespace: pulse.namespace),
            // Where the broker does not count deliveries, the intake does.
            deliveryLimit: options.kind == .quorum ? options.deliveryLimit : nil
        )
    }

    // MARK: - Wishes

    /// Takes one batch of hooks that are out of step and sets them right; answers how many there were.
    func carryOutBatch() async throws -> Int {
        let taken = try await store.take(Self.batch, by: listener)
        guard !taken.isEmpty else { return 0 }
        let results = await withTaskGroup(of: ListenerStore.Result?.self) { group in
            for hook in taken {
                group.addTask {
                    do {
                        return try await withTimeout(Self.limit) { try await carryOut(hook) }
                    } catch {
                        await giveBack(hook.name, error)
                        return nil
                    }
                }
            }
            return await group.reduce(into: [ListenerStore.Result]()) { if let result = $1 { $0.append(result) } }
        }
        try await store.finish(results, by: listener)
        Counter(label: "hooks_queues_reconciled_total").increment(by: results.count)
        return taken.count
    }

    private func giveBack(_ name: HookName, _ error: any Error) async {
        Logger.current.warning("hook queue waits for the broker", metadata: ["hook": "\(name)", "error": "\(error)"])
        do { try await store.release(name, by: listener, for: .seconds(5)) } catch {
            // The lease ends by itself.
            Logger.current.debug("hook was not given back", metadata: ["hook": "\(name)", "error": "\(error)"])
        }
    }

    private func carryOut(_ hook: ListenerStore.Taken) async throws -> ListenerStore.Result {
        let queue = queue(of: hook.name)
        if hook.wanted.isEmpty {
            for name in Set([hook.queue, queue.name]) where !name.isEmpty { try await pulse.deleteQueue(name) }
            return ListenerStore.Result(taken: hook, queue: "", routes: nil, problems: [], retryIn: nil)
        }
        var problems: [BindingProblem] = []
        func note(_ route: BindingRoute?, _ error: PulseError) {
            let since = hook.problems.first { $0.route == route }?.since ?? .now()
            problems.append(BindingProblem(route, reason: error.message, since: since))
            Logger.current.notice(
                "the broker refuses a binding, which will be tried again",
                metadata: ["hook": "\(hook.name)", "exchange": "\(route?.exchange ?? "")", "error": "\(error)"]
            )
        }
        do throws(PulseError) {
            try await declare(queue)
        } catch {
            guard error.isRefusal else { throw error }
            note(nil, error)
            return ListenerStore.Result(
                taken: hook,
                queue: hook.queue,
                routes: hook.earlier,
                problems: problems,
                retryIn: Self.pause(after: hook.attempts)
            )
        }
        var made: Set<BindingRoute> = []
        for route in hook.wanted {
            do throws(PulseError) {
                try await bind(queue.name, route)
                made.insert(route)
            } catch {
                guard error.isRefusal else { throw error }
                note(route, error)
            }
        }
        // New routes first, so that no message finds neither.
        for route in hook.earlier.subtracting(hook.wanted) {
            do throws(PulseError) {
                try await pulse.unbind(
                    queue: queue.name,
                    exchange: route.exchange,
                    routingKey: route.routingKeyPattern
                )
            } catch {
                guard error.isRefusal else { throw error }
                // An exchange that does not exist has no bindings; one that we may not touch keeps this one.
                if error.code == .accessRefused { made.insert(route) }
            }
        }
        if !hook.queue.isEmpty, hook.queue != queue.name { try await pulse.deleteQueue(hook.queue) }
        return ListenerStore.Result(
            taken: hook,
            queue: queue.name,
            routes: made,
            problems: problems,
            retryIn: problems.isEmpty ? nil : Self.pause(after: hook.attempts)
        )
    }

    /// The pauses grow from five seconds to a minute.
    private static func pause(after attempts: Int) -> Duration {
        min(.seconds(5) * (1 << min(attempts, 4)), .seconds(60))
    }

    /// Makes the queue and the routes that are known to be right once more, for a broker that may have lost them.
    ///
    /// A route can only be made into a queue that is there, so as a rule nothing else need be asked: declaring a queue
    /// that exists costs the broker more than binding it.
    func makeAgain(_ queue: ListenerStore.Queue) async throws(PulseError) {
        do throws(PulseError) {
            for route in queue.routes { try await bind(queue.queue, route) }
            if !queue.routes.isEmpty { return }
        } catch {
            guard error.code == .notFound else { throw error }
        }
        try await declare(self.queue(of: queue.name))
        for route in queue.routes { try await bind(queue.queue, route) }
    }

    /// Declares a queue; one that exists with other properties is used as it is, since its messages count for more.
    private func declare(_ queue: PulseQueue) async throws(PulseError) {
        do throws(PulseError) {
            try await pulse.declareQueue(queue)
        } catch {
            guard error.code == .preconditionFailed else { throw error }
            Logger.current.notice(
                "a hook's queue exists with other properties and is used as it is",
                metadata: ["pulse.queue": "\(queue.name)", "error": "\(error)"]
            )
        }
    }

    private func bind(_ queue: String, _ route: BindingRoute) async throws(PulseError) {
        try await pulse.bind(queue: queue, exchange: route.exchange, routingKey: route.routingKeyPattern)
    }
}

extension PulseError {
    /// Whether the broker answered and said no, so that asking again at once is no use.
    var isRefusal: Bool {
        [.notFound, .accessRefused, .preconditionFailed, .locked, .invalidArgument, .brokerFailure].contains(code)
    }
}
