// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import ServiceLifecycle
import Synchronization

/// Performs fires with bounded concurrency: those its process accepted, and those nobody else performs.
///
/// Every process that accepts fires runs one. A fire whose process dies becomes free when its lease ends, and the next
/// dispatcher that looks takes it.
package final class FireDispatcher: Service, Sendable {
    private struct State {
        /// How many more fires may be held.
        var free: Int
        /// Held, whether or not their turn has come; their leases are prolonged.
        var held: Set<Int> = []
        /// Whether fires that nobody holds may be waiting in the database.
        var hasBacklog = false
    }

    private let fires: FireStore
    private let performer: FirePerformer
    private let interval: Duration
    /// How many fires are performed at a time.
    private let concurrency: Int
    /// How many fires are held at a time: those performed, and a store so that performers need not wait for more.
    private let capacity: Int
    private let state: Mutex<State>
    private let wake = Signal()
    /// Told when there is room for a batch of fires.
    private let room = Signal()
    private let work: AsyncStream<Fire>
    private let input: AsyncStream<Fire>.Continuation

    package init(fires: FireStore, performer: FirePerformer, concurrency: Int = 64, interval: Duration = .seconds(1)) {
        self.fires = fires
        self.performer = performer
        self.interval = interval
        self.concurrency = max(1, concurrency)
        capacity = self.concurrency * 3
        state = Mutex(State(free: capacity))
        (work, input) = AsyncStream.makeStream()
    }

    // MARK: - For those who accept fires

    /// Keeps up to `wanted` places free for fires about to be accepted; the rest will be taken from the database.
    func reserve(_ wanted: Int) -> Int {
        state.withLock { state in
            let granted = min(max(wanted, 0), state.free)
            state.free -= granted
            return granted
        }
    }

    /// Keeps places free for a batch of fires about to be accepted, once there is room for a good part of one.
    ///
    /// Waiting for room is cheaper than writing fires down for nobody and having them taken afterwards. But it has an end:
    /// what came due is written down even while the queue is unwell and all places are held.
    func reserve(_ wanted: Int, patience: Duration) async -> Int {
        let enough = min(wanted, concurrency)
        let end = ContinuousClock.now + patience
        while state.withLock({ $0.free < enough }) {
            let left = end - ContinuousClock.now
            guard left > .zero, await room.wait(timeout: left) else { break }
        }
        return reserve(wanted)
    }

    /// Performs accepted fires in the places reserved for them, and gives back the places that were not needed.
    func submit(_ accepted: [Fire], reserved: Int) {
        let isRoomy = state.withLock { state in
            state.free += reserved - accepted.count
            for fire in accepted { state.held.insert(fire.id) }
            return state.free >= concurrency
        }
        for fire in accepted { input.yield(fire) }
        if isRoomy { room.notify() }
    }

    /// Looks for fires in the database at once.
    func lookNow() {
        state.withLock { $0.hasBacklog = true }
        wake.notify()
    }

    /// Counts what is under way; who will call `performNow` is counted from the moment that is certain.
    var underWay: UnderWay { performer.underWay }

    /// Performs a fire while the caller waits, and keeps its lease until it is over.
    @discardableResult
    func performNow(_ fire: Fire) async throws -> FireOutcome {
        state.withLock { _ = $0.held.insert(fire.id) }
        return try await performer.perform(fire) {
            self.state.withLock { _ = $0.held.remove(fire.id) }
        }
    }

    // MARK: - Service

    package func run() async throws {
        await withGracefulShutdownHandler {
            await withDiscardingTaskGroup { group in
                group.addTask { await self.keepLeases() }
                group.addTask {
                    await self.look()
                    self.input.finish()
                }
                await self.carryOutAll()
                group.cancelAll()
            }
        } onGracefulShutdown: {
            self.isStopping.store(true, ordering: .relaxed)
            self.wake.notify()
        }
    }

    private func carryOutAll() async {
        await withTaskGroup(of: Void.self) { group in
            var underWay = 0
            for await fire in work {
                guard !isStopping.load(ordering: .relaxed) else {
                    await giveBack(fire)
                    continue
                }
                if underWay >= concurrency {
                    await group.next()
                    underWay -= 1
                }
                underWay += 1
                // In this thread until it waits for the first time: waking another one takes longer than getting there.
                group.addImmediateTask { await self.carryOut(fire) }
            }
        }
    }

    private let isStopping = Atomic<Bool>(false)

    private var mayGoOn: Bool { !Task.isCancelled && !isStopping.load(ordering: .relaxed) }

    private func look() async {
        var failures = 0
        while mayGoOn {
            let places = reserve(capacity)
            var taken: [Fire] = []
            do {
                if places > 0 {
                    taken = try await fires.claim(limit: places)
                    state.withLock { $0.hasBacklog = taken.count == places }
                }
                failures = 0
            } catch {
                failures += 1
                if failures == 1 { Logger.current.error("fires cannot be taken", metadata: ["error": "\(error)"]) }
            }
            submit(taken, reserved: places)
            if !taken.isEmpty && taken.count == places { continue }
            _ = await wake.wait(timeout: failures > 3 ? interval * 5 : interval)
        }
        // Fires in progress end before the process does, for as long as the service group allows.
        while !Task.isCancelled, state.withLock({ !$0.held.isEmpty }) {
            _ = await wake.wait(timeout: .milliseconds(50))
        }
    }

    private func carryOut(_ fire: Fire) async {
        underWay.begin()
        defer { underWay.end() }
        do {
            try await performer.perform(fire) { self.giveUpPlace(of: fire) }
        } catch {
            // The lease ends and the fire is taken again; nothing is lost by giving up here.
            Logger.current.error("fire was interrupted", metadata: ["hook": "\(fire.name)", "error": "\(error)"])
        }
    }

    private func giveUpPlace(of fire: Fire) {
        let (free, hasBacklog) = state.withLock { state in
            state.held.remove(fire.id)
            state.free += 1
            return (state.free, state.hasBacklog)
        }
        if free == concurrency { room.notify() }
        if free == capacity - concurrency, hasBacklog { wake.notify() }
    }

    /// Leaves a fire whose turn has not come to other processes, because this one stops.
    private func giveBack(_ fire: Fire) async {
        do {
            try await fires.release([fire])
        } catch {
            // Its lease ends by itself.
            Logger.current.debug("a fire was not given back", metadata: ["error": "\(error)"])
        }
        state.withLock { state in
            state.held.remove(fire.id)
            state.free += 1
        }
    }

    private func keepLeases() async {
        while !Task.isCancelled {
            do { try await Task.sleep(for: fires.lease / 3) } catch { return }
            let ids = state.withLock { Array($0.held) }
            guard !ids.isEmpty else { continue }
            do { try await fires.extend(ids) } catch {
                Logger.current.warning("leases were not prolonged", metadata: ["error": "\(error)"])
            }
        }
    }
}
