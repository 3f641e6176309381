// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Postgres
import Schedules
public import ServiceLifecycle
import Synchronization

/// Tells readers that wait for a step that it has changed, here and in other processes.
///
/// What other processes are told goes out in batches on a connection of its own, so that no change waits for it. It is a
/// hint: readers look for themselves now and then.
public final class StepChanges: Service, Sendable {
    private struct State {
        var watches: [Int: [ObjectIdentifier: Signal]] = [:]
        var untold: Set<Int> = []
    }

    private let pool: PostgresPool
    private let channel: String
    private let state = Mutex(State())
    private let outgoing = Signal()
    /// Wakes the runner of this process.
    let work = Signal()
    /// When the runner looks by itself, in milliseconds; without end while it does not sleep.
    private let runnerWakes = Atomic<Int64>(.max)

    init(pool: PostgresPool, channel: String) {
        self.pool = pool
        self.channel = channel
    }

    /// A reader's place among those who wait for a step; it is given up when nobody holds it any more.
    public final class Watch: Sendable {
        private let id: Int
        private let changes: StepChanges
        private let signal = Signal()

        init(_ id: Int, _ changes: StepChanges) {
            self.id = id
            self.changes = changes
            changes.state.withLock { $0.watches[id, default: [:]][ObjectIdentifier(self)] = signal }
        }

        deinit {
            let key = ObjectIdentifier(self)
            changes.state.withLock { state in
                state.watches[id]?[key] = nil
                if state.watches[id]?.isEmpty == true { state.watches[id] = nil }
            }
        }

        /// Waits until the step may have changed since the last wait or the beginning; at most so long.
        public func wait(_ timeout: Duration) async {
            _ = await signal.wait(timeout: timeout)
        }
    }

    /// Begins to watch a step.
    public func watch(_ id: Int) -> Watch { Watch(id, self) }

    /// Says that a step of this process has changed.
    func changed(_ id: Int) {
        state.withLock { _ = $0.untold.insert(id) }
        wake([id])
        outgoing.notify()
    }

    /// Says that steps are due.
    package func workIsDue() {
        work.notify()
    }

    /// Says that a step is due at a moment, which wakes a runner that would sleep longer.
    func workIsDue(at moment: Timestamp) {
        if moment.milliseconds < runnerWakes.load(ordering: .acquiring) { work.notify() }
    }

    /// From now on whatever becomes due is news to the runner.
    func runnerIsAwake() {
        runnerWakes.store(.max, ordering: .releasing)
    }

    /// The runner has seen what is due before a moment, and sleeps until then.
    func runnerSleeps(until moment: Timestamp) {
        runnerWakes.store(moment.milliseconds, ordering: .releasing)
    }

    private func wake(_ ids: some Sequence<Int>) {
        let signals = state.withLock { state in ids.flatMap { state.watches[$0].map { Array($0.values) } ?? [] } }
        for signal in signals { signal.notify() }
    }

    /// Tells and listens until graceful shutdown.
    public func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                group.addTask { await self.tell() }
                group.addTask { await self.listen() }
            }
        }
    }

    private func tell() async {
        while !Task.isCancelled {
            _ = await outgoing.wait(timeout: .seconds(60))
            let ids = state.withLock { state in
                defer { state.untold = [] }
                return state.untold.sorted()
            }
            // A notification holds 8000 bytes; a number has up to 19 digits.
            for start in stride(from: 0, to: ids.count, by: 300) {
                let text = ids[start..<min(start + 300, ids.count)].map(String.init).joined(separator: ",")
                do {
                    _ = try await pool.query("select pg_notify(\(channel), \(text))")
                } catch {
                    // Readers elsewhere find out by themselves a second later.
                    Logger.current.debug("changes not told", metadata: ["error": "\(error)"])
                }
            }
        }
    }

    private func listen() async {
        for await notification in pool.notifications(on: [channel]) {
            switch notification {
            case .notification(_, let payload):
                wake(payload.split(separator: ",").compactMap { Int($0) })
            case .reconnected:
                wake(state.withLock { Array($0.watches.keys) })
            }
        }
    }
}
