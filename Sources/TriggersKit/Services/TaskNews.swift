// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Logging
import Pulse
import ServiceLifecycle
import Synchronization

/// Hears from the queue how the tasks ended that triggers made.
///
/// All listeners share one queue at the broker, which gets the messages about tasks of ours and no others. Which those are
/// is in the database: a process that dies leaves nothing at the broker that another one does not take away. It is a hint;
/// what is not heard is asked for.
struct TaskNews: Service {
    let tasks: TaskStore
    let places: PlaceStore
    let pulse: PulseConnection
    let queue: PulseQueue
    /// What the names of the queue's exchanges begin with.
    var exchanges = "exchange/taskcluster-queue/v1/"
    private let state = Listening()

    /// How many tasks are dealt with at a time.
    private static let width = 20
    /// How long to wait when the broker refuses a binding: somebody else's broker has no such exchanges.
    private static let pause = Duration.seconds(60)
    private static let kinds = ["task-completed", "task-failed", "task-exception"]

    private final class Listening: Sendable {
        let hasQueue = Atomic<Bool>(false)
        let restsUntil = Mutex<ContinuousClock.Instant?>(nil)
    }

    init(
        tasks: TaskStore,
        places: PlaceStore,
        pulse: PulseConnection,
        queue: PulseQueue,
        exchanges: String = "exchange/taskcluster-queue/v1/"
    ) {
        self.tasks = tasks
        self.places = places
        self.pulse = pulse
        self.queue = queue
        self.exchanges = exchanges
    }

    func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await PeriodicService(name: "bindings for triggered tasks", every: .seconds(1)) {
                    try await follow()
                }.run()
            }
            group.addTask { await listen() }
            try await group.waitForAll()
        }
    }

    // MARK: - Listening

    private func listen() async {
        await cancelWhenGracefulShutdown {
            var subscription = PulseSubscription(queue: queue, bindings: [], prefetch: 50)
            subscription.onConsuming = { state.hasQueue.store(true, ordering: .releasing) }
            while !Task.isCancelled {
                do { try await pulse.consume(subscription) { try await accept($0) } } catch {
                    if Task.isCancelled { return }
                    Logger.current.error("the ends of tasks are not heard", metadata: ["error": "\(error)"])
                }
                do { try await Task.sleep(for: .seconds(15)) } catch { return }
            }
        }
    }

    private func accept(_ delivery: PulseDelivery) async throws -> PulseDisposition {
        let status = (try? delivery.json())?["status"]
        guard let taskID = status?["taskId"]?.string, let state = status?["state"]?.string else {
            // Nothing can come of it, however often it is delivered.
            Logger.current.warning("a message about a task makes no sense")
            return .ack
        }
        try await tasks.noteAndCount([taskID: state])
        return .ack
    }

    // MARK: - Following

    /// Has the queue tell about new tasks, and no more about those that ended, if nobody else does so now.
    func follow() async throws {
        guard state.hasQueue.load(ordering: .acquiring), state.restsUntil.withLock({ $0.map { $0 <= .now } ?? true }),
            try await places.take(.bindings, lease: .milliseconds(900)) != nil
        else { return }
        do {
            var rounds = 0
            var count = Self.width
            while count == Self.width, rounds < 10 {
                count = try await followSome()
                rounds += 1
            }
            state.restsUntil.withLock { $0 = nil }
        } catch let error as PulseError {
            let isNews = state.restsUntil.withLock { rest in
                defer { rest = .now + Self.pause }
                return rest == nil
            }
            Logger.current.log(
                level: isNews ? .notice : .debug,
                "the queue does not tell how tasks end, it is asked instead",
                metadata: ["error": "\(error)"]
            )
        }
    }

    private func followSome() async throws -> Int {
        let old = try await tasks.boundInVain(limit: Self.width)
        for (exchange, key) in topics(of: old) {
            try await pulse.unbind(queue: queue.name, exchange: exchange, routingKey: key)
        }
        if !old.isEmpty { try await tasks.noteBound(old, false) }
        let new = try await tasks.unbound(limit: Self.width)
        for (exchange, key) in topics(of: new) {
            try await pulse.bind(queue: queue.name, exchange: exchange, routingKey: key)
        }
        if !new.isEmpty { try await tasks.noteBound(new, true) }
        return max(old.count, new.count)
    }

    private func topics(of taskIDs: [String]) -> [(exchange: String, key: String)] {
        taskIDs.flatMap { taskID in Self.kinds.map { (exchanges + $0, "primary.\(taskID).#") } }
    }
}
