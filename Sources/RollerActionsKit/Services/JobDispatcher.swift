// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
package import Pulse
package import RollerKit
import ServiceLifecycle
import Synchronization

/// Takes jobs and runs them, as many at a time as this worker bears.
///
/// Messages of the broker make it look at once; it looks now and then without them, too. It keeps the leases of what it
/// runs, and stops at once what was taken from it.
package final class JobDispatcher: Service, Sendable {
    private let store: DispatchStore
    private let runner: JobRunner
    private let pulse: PulseConnection
    private let exchanges: RollerExchanges
    private let concurrency: Int
    private let interval: Duration
    private let held = Mutex<[String: DatabaseConduct]>([:])
    private let wake = Signal()
    private let isStopping = Atomic<Bool>(false)
    /// After a look that found several jobs the next one waits a little.
    private static let gathering = Duration.milliseconds(3)

    package init(
        store: DispatchStore,
        runner: JobRunner,
        pulse: PulseConnection,
        exchanges: RollerExchanges,
        concurrency: Int = 20,
        interval: Duration = .seconds(15)
    ) {
        self.store = store
        self.runner = runner
        self.pulse = pulse
        self.exchanges = exchanges
        self.concurrency = max(1, concurrency)
        self.interval = interval
    }

    /// How many jobs are under way.
    package var jobsUnderWay: Int { held.withLock { $0.count } }

    // MARK: - Service

    package func run() async throws {
        SecretFiles.removeAbandoned()
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await withDiscardingTaskGroup { group in
                    group.addTask { await self.listen() }
                    group.addTask { await self.keepLeases() }
                    await self.work()
                    group.cancelAll()
                }
            } onGracefulShutdown: {
                self.isStopping.store(true, ordering: .relaxed)
                Logger.current.notice("no more jobs are taken", metadata: ["underWay": "\(self.jobsUnderWay)"])
                self.wake.notify()
            }
        } onCancel: {
            for conduct in self.held.withLock({ Array($0.values) }) {
                conduct.stop(ActionError(.other, "the worker was told to stop before the job had ended"))
            }
        }
        do { try await store.leave() } catch {
            Logger.current.debug("the list of workers was not changed", metadata: ["error": "\(error)"])
        }
    }

    private var mayGoOn: Bool { !Task.isCancelled && !isStopping.load(ordering: .relaxed) }

    private func work() async {
        await withDiscardingTaskGroup { group in
            var failures = 0
            while mayGoOn {
                let free = concurrency - jobsUnderWay
                var isMoreWaiting = false
                var isFull = free <= 0
                var wasBusy = false
                do {
                    if free > 0 {
                        let taken = try await store.claim(limit: free)
                        isMoreWaiting = taken.isMoreWaiting
                        isFull = taken.jobs.count == free
                        wasBusy = taken.jobs.count > 1
                        // Their leases are kept from now on, however long the look takes.
                        let conducts = taken.jobs.map(hold)
                        let machines = await runner.machines(of: taken.jobs)
                        for conduct in conducts {
                            start(conduct, conduct.job.machine.flatMap { machines[$0] }, in: &group)
                        }
                    }
                    failures = 0
                } catch {
                    failures += 1
                    if failures == 1 {
                        Logger.current.error("jobs cannot be taken", metadata: ["error": "\(error)"])
                    }
                }
                // The end of a job wakes us; what waits for a lock or a limit is looked at again every second.
                let pause: Duration = failures > 0 || (isMoreWaiting && !isFull) ? .seconds(1) : interval
                _ = await wake.wait(timeout: min(pause, interval))
                // Where many come and go, more may gather: each look costs a commit.
                if wasBusy { try? await Task.sleep(for: Self.gathering) }
            }
        }
    }

    private func hold(_ job: Job) -> DatabaseConduct {
        let conduct = DatabaseConduct(job, jobs: runner.jobs, dispatch: store)
        held.withLock { $0[job.id] = conduct }
        return conduct
    }

    private func start(_ conduct: DatabaseConduct, _ machine: MachineDetail?, in group: inout DiscardingTaskGroup) {
        let job = conduct.job
        group.addTask {
            await self.runner.run(job, on: machine, conduct)
            self.held.withLock { held in
                // The same job may have been taken again meanwhile.
                if held[job.id] === conduct { held[job.id] = nil }
            }
            Counter(label: "roller_jobs_total", dimensions: [("task", job.taskName)]).increment()
            self.wake.notify()
        }
    }

    // MARK: - Messages

    private func listen() async {
        let subscription = PulseSubscription(
            queue: PulseQueue(exchanges.jobQueue(pool: store.poolName)),
            bindings: [PulseBinding(exchange: exchanges.dispatch, routingKeyPattern: "job.\(store.poolName).*")],
            prefetch: concurrency
        )
        while mayGoOn {
            do {
                try await pulse.consume(subscription) { _ in
                    self.wake.notify()
                    return .ack
                }
                return
            } catch {
                guard mayGoOn else { return }
                Logger.current.error("messages about jobs do not arrive", metadata: ["error": "\(error)"])
                do { try await Task.sleep(for: .seconds(5)) } catch { return }
            }
        }
    }

    // MARK: - Leases

    private func keepLeases() async {
        while !Task.isCancelled {
            do { try await Task.sleep(for: store.lease / 3) } catch { return }
            let held = held.withLock { $0 }
            let claims = held.map { (id: $0.key, fence: $0.value.job.fence) }
            do {
                let ours = try await store.renew(claims)
                for (id, conduct) in held where !ours.contains(id) && isHeld(conduct) {
                    conduct.stop(ActionError(.lost, "another worker has the job"))
                }
            } catch {
                Logger.current.warning("leases were not prolonged", metadata: ["error": "\(error)"])
            }
        }
    }

    /// A job that has ended meanwhile is not lost.
    private func isHeld(_ conduct: DatabaseConduct) -> Bool {
        held.withLock { $0[conduct.job.id] === conduct }
    }
}
