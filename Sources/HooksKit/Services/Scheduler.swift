// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Logging
import Metrics
import Postgres
package import Schedules
import ServiceLifecycle

/// Fires hooks at the instants of their schedules.
///
/// It sleeps until the earliest instant in the database, until a hook changes, or for the poll interval. Any number of
/// schedulers may run: each locks the due hooks it takes, and the transaction that writes the fires down also moves the
/// hooks to their next instants, so an instant fires once whoever dies when.
package struct Scheduler: Service {
    let schedules: ScheduleStore
    let fires: FireStore
    let programs: HookPrograms
    let dispatcher: FireDispatcher
    let interval: Duration
    let now: @Sendable () -> Timestamp
    private let pace: CatchUpPace
    private let wake = Signal()

    package init(
        schedules: ScheduleStore,
        fires: FireStore,
        programs: HookPrograms,
        dispatcher: FireDispatcher,
        interval: Duration,
        catchUpRate: Int = 100,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.schedules = schedules
        self.fires = fires
        self.programs = programs
        self.dispatcher = dispatcher
        self.interval = interval
        self.now = now
        pace = CatchUpPace(perSecond: catchUpRate)
    }

    /// Most hooks fired by one transaction; the next one follows at once.
    private static let batch = 200

    /// Most fires of one transaction, but for a single hook that has more to make up for.
    private static let mostFires = 1000

    /// A fire later than this is made up for; it does not hurry.
    private static let lateness: Duration = .seconds(60)

    /// How long a batch waits for room among the fires that are being performed.
    private static let patience: Duration = .milliseconds(100)

    /// How long to leave due hooks alone that another scheduler has just locked.
    private static let courtesy: Duration = .milliseconds(250)

    package func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                group.addTask {
                    for await _ in schedules.pool.notifications(on: [HookStore.changes]) { wake.notify() }
                }
                await loop()
                group.cancelAll()
            }
        }
    }

    private func loop() async {
        var failures = 0
        while !Task.isCancelled {
            var pause = interval
            do {
                while try await fireDue() > 0 {}
                if let next = try await schedules.nextWake() {
                    let rest = next - now()
                    pause = min(pause, rest > .zero ? rest : Self.courtesy)
                }
                failures = 0
            } catch {
                failures += 1
                pause = min(RetryPolicy.reconnect.delay(before: failures + 1), interval)
                if failures == 1, !Task.isCancelled {
                    Logger.current.error("schedules cannot be read", metadata: ["error": "\(error)"])
                }
            }
            // A millisecond more, so that the instant has come by the millisecond clock when the timer ends.
            _ = await wake.wait(timeout: pause + .milliseconds(1))
        }
    }

    /// What one transaction does.
    private struct Batch {
        var drafts: [FireDraft] = []
        var steps: [ScheduleStore.Step] = []
    }

    /// Fires one batch of due hooks and answers how many there were.
    @discardableResult
    package func fireDue() async throws -> Int {
        let places = await dispatcher.reserve(Self.batch, patience: Self.patience)
        let instant = now()
        var accepted: [Fire] = []
        defer { dispatcher.submit(accepted, reserved: places) }
        // No more than there is room for, unless there is none.
        let limit = places > Self.batch / 4 ? places : Self.batch
        let result = try await schedules.pool.transaction { connection in
            let due = try await schedules.lockDue(now: instant, limit: limit, on: connection)
            guard !due.isEmpty else { return (batch: Batch(), accepted: [Fire]()) }
            let known = try await programs.programs(of: due.map { ($0.name, $0.version) }, on: connection)
            var batch = Batch()
            for hook in due where batch.steps.isEmpty || batch.drafts.count < Self.mostFires {
                prepare(hook, known[hook.name], at: instant, in: &batch)
            }
            let accepted = try await fires.accept(batch.drafts, slots: places, on: connection)
            try await schedules.advance(batch.steps, now: instant, on: connection)
            return (batch, accepted)
        }
        accepted = result.accepted
        FiringLog.settled(result.batch.drafts)
        FiringLog.scheduled(result.batch.drafts)
        if result.batch.drafts.count > accepted.count { dispatcher.lookNow() }
        return result.batch.steps.count
    }

    private func prepare(
        _ hook: ScheduleStore.Waiting,
        _ program: Result<HookProgram, FireFailure>?,
        at instant: Timestamp,
        in batch: inout Batch
    ) {
        let plan: FiringPlan
        do throws(InvalidHook) { plan = try schedules.plan(of: hook) } catch {
            // Perhaps this machine lacks a time zone or a key, perhaps the pattern is of another age: others may know
            // better.
            Logger.current.error(
                "schedule is unusable and waits",
                metadata: ["hook": "\(hook.name)", "error": "\(error.message)"]
            )
            let later = FiringPlan.Due(instant: hook.due.instant, fireAt: instant + .seconds(300))
            batch.steps.append(ScheduleStore.Step(name: hook.name, next: later))
            return
        }
        let reckoning = plan.reckon(from: hook.due, now: instant, catchUp: hook.scheduling.catchUp)
        batch.steps.append(
            ScheduleStore.Step(name: hook.name, next: reckoning.next ?? .never, skipped: reckoning.skipped)
        )
        guard let program else { return }
        for due in reckoning.fires {
            let isLate = instant - due.fireAt > Self.lateness
            var draft = FireDraft.scheduled(hook, due, program, at: instant, origin: isLate ? .catchUp : .schedule)
            if isLate { draft.delay = pace.delay() }
            draft.rendered = now()
            batch.drafts.append(draft)
        }
    }
}

extension FireDraft {
    /// The age from which the queue refuses tasks, with a minute to spare.
    private static let oldest: Duration = .seconds(14 * 60)

    /// The fire of an instant: the same task whoever prepares it.
    ///
    /// The task is created at the instant; only if the queue would find that too old, at the present.
    static func scheduled(
        _ hook: ScheduleStore.Waiting,
        _ due: FiringPlan.Due,
        _ program: Result<HookProgram, FireFailure>,
        at now: Timestamp,
        origin: FireOrigin
    ) -> FireDraft {
        let taskID = ScheduledTask.id(seed: hook.seed ?? "", name: hook.name, due: due.instant)
        let created = now - due.fireAt > oldest ? now : due.fireAt
        let context: JSONObject = ["scheduledFor": JSONValue(due.instant.iso8601)]
        let rendering =
            switch program {
            case .failure(let failure): Rendering.failed(failure)
            case .success(let program):
                FiringContext(firedBy: .schedule, taskID: taskID, created: created, extras: context)
                    .render(program.template)
            }
        return FireDraft(
            name: hook.name,
            taskID: taskID,
            firedBy: .schedule,
            context: context,
            created: created,
            started: now,
            rendering: rendering,
            deduplicationKey: ScheduledTask.key(name: hook.name, due: due.instant),
            due: due.instant,
            origin: origin
        )
    }
}
