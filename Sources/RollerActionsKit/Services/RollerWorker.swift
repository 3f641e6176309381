// SPDX-License-Identifier: MPL-2.0

package import Core
import Glibc
import JSON
import Logging
import RollerKit
package import ServiceLifecycle

/// How a worker is put together.
package enum RollerWorker {
    /// The services of a worker, in start order.
    ///
    /// ## Configuration keys
    /// - `ROLLER_CONCURRENCY`: how many jobs at a time; `ROLLER_POOL`: the pool of jobs it takes.
    /// - `ROLLER_LEASE`: how long a worker may be silent before its jobs are taken from it.
    /// - `CELERY_TASK_TIME_LIMIT`: how long after its start a job's programs are killed.
    /// - `HEALTH_CHECK_INTERVAL`: how far apart two looks at a machine are.
    /// - `LOCK_WAIT_MAX`, `MAX_DESTRUCTIVE_PER_GROUP`, `MAX_DESTRUCTIVE_PER_SITE`, `QUARANTINE_POLICY`, `DRAIN_TIMEOUT`, `ROLLER_DRY_RUN`.
    package static func services(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = RollerFoundation(context)
        let actions = ActionSettings(settings: settings)
        let hardLimit = settings.duration(
            "celery.task.time.limit",
            default: .seconds(1200),
            in: .seconds(1)...(.seconds(86_400)),
            "how long after its start a job's programs are killed"
        )
        let concurrency = settings.int("roller.concurrency", default: 20, in: 1...1000, "how many jobs at a time")
        let dispatch = dispatchStore(settings, foundation)
        let lockWait = settings.duration(
            "lock.wait.max",
            default: .seconds(900),
            in: .seconds(1)...(.seconds(86_400)),
            "how long a job waits for a lock or a limit"
        )
        let quarantine = quarantine(settings, foundation, span: hardLimit)
        let isDryRun = settings.bool("roller.dry.run", default: false, "whether no job touches anything")
        let poll = settings.duration(
            "roller.poll",
            default: .seconds(15),
            in: .milliseconds(100)...(.seconds(600)),
            "how often to look for jobs without being told"
        )
        let lookInterval = settings.duration(
            "health.check.interval",
            default: .zero,
            in: .zero ... .seconds(30 * 86_400),
            "how far apart two looks at a machine are; 0s for none"
        )
        try settings.check()
        let runner = JobRunner(
            jobs: foundation.jobs,
            inventory: foundation.inventory,
            dispatch: dispatch,
            settings: actions,
            transport: foundation.transport,
            credentials: foundation.credentials,
            quarantine: quarantine,
            hardLimit: hardLimit,
            isDryRun: isDryRun
        )
        let dispatcher = JobDispatcher(
            store: dispatch,
            runner: runner,
            pulse: foundation.pulse,
            exchanges: foundation.exchanges,
            concurrency: concurrency,
            interval: poll
        )
        let reaper = Reaper(
            jobs: foundation.jobs,
            inventory: foundation.inventory,
            dispatch: dispatch,
            lockWait: lockWait
        )
        let pool = foundation.pool
        context.health.register("database") { try await pool.checkHealth() }
        let host = hostName()
        return foundation.services + [
            PeriodicService(name: "heartbeat", every: .seconds(15)) {
                try await dispatch.beat(capacity: concurrency, host: host, process: Int(getpid()))
            },
            PeriodicService(name: "reaper", every: min(.seconds(5), dispatch.lease / 2)) { try await reaper.sweep() },
        ] + watches(lookInterval, foundation, dispatch) + [dispatcher]
    }

    /// What looks at machines by itself, if that is wanted.
    private static func watches(
        _ interval: Duration,
        _ foundation: RollerFoundation,
        _ dispatch: DispatchStore
    ) -> [any Service] {
        guard interval > .zero else { return [] }
        let watch = HealthWatch(
            jobs: foundation.jobs,
            inventory: foundation.inventory,
            dispatch: dispatch,
            interval: interval
        )
        return [PeriodicService(name: "health", every: min(.seconds(60), interval / 2)) { try await watch.sweep() }]
    }

    private static func dispatchStore(_ settings: Settings, _ foundation: RollerFoundation) -> DispatchStore {
        let poolName = settings.string("roller.pool", default: "default", "the pool of jobs that this worker takes")
        let lease = settings.duration(
            "roller.lease",
            default: .seconds(30),
            in: .seconds(1)...(.seconds(600)),
            "how long a worker may be silent before its jobs are taken from it"
        )
        let groupLimit = settings.int(
            "max.destructive.per.group",
            default: 10,
            in: 1...100_000,
            "how many machines of a group may be in destructive jobs at once, or a tenth if that is more"
        )
        let siteLimit = settings.int(
            "max.destructive.per.site",
            default: 100,
            in: 1...1_000_000,
            "how many machines of this pool may be in destructive jobs at once"
        )
        let name = "\(hostName())-\(getpid())-\(String(UInt32.random(in: .min ... .max), radix: 36))"
        return DispatchStore(
            jobs: foundation.jobs,
            runner: name,
            poolName: poolName,
            lease: lease,
            groupLimit: groupLimit,
            siteLimit: siteLimit
        )
    }

    private static func quarantine(
        _ settings: Settings,
        _ foundation: RollerFoundation,
        span: Duration
    ) -> Quarantine {
        let timeout = settings.duration(
            "drain.timeout",
            default: .seconds(3600),
            in: .seconds(1)...(.seconds(86_400)),
            "how long a worker's task may take to end before its machine is worked on"
        )
        let text = settings.string("quarantine.policy", default: "{}", "what to do with workers, by action, as JSON")
        let policies = (try? JSONValue(parsing: text)).flatMap(Quarantine.policies)
        if policies == nil {
            settings.fail("quarantine.policy", "must be a JSON object of none, before, drain or on_failure by action")
        }
        return Quarantine(client: foundation.client, policies: policies ?? [:], drainTimeout: timeout, span: span)
    }

    private static func hostName() -> String {
        var bytes = [CChar](repeating: 0, count: 256)
        guard gethostname(&bytes, bytes.count - 1) == 0 else { return "localhost" }
        return String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
