// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Logging
import Postgres
package import Schedules
import ServiceLifecycle

/// Fires hooks at the instants of their schedules.
///
/// It sleeps until the earliest instant in the database, until a hook changes, or for the poll interval. Any number of
/// schedulers may run: each locks the due hooks it takes, and the transaction that writes the fire down also moves the
/// hook to its next instant, so an instant fires once whoever dies when.
package struct Scheduler: Service {
    let schedules: ScheduleStore
    let fires: FireStore
    let programs: HookPrograms
    let dispatcher: FireDispatcher
    let interval: Duration
    let now: @Sendable () -> Timestamp
    private let wake = Signal()

    package init(
        schedules: ScheduleStore,
        fires: FireStore,
        programs: HookPrograms,
        dispatcher: FireDispatcher,
        interval: Duration,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.schedules = schedules
        self.fires = fires
        self.programs = programs
        self.dispatcher = dispatcher
        self.interval = interval
        self.now = now
    }

    /// Most hooks fired by one transaction; the next one follows at once.
    private static let batch = 200

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
                while try await fireDue() == Self.batch {}
                let instant = now()
                if let next = try await schedules.nextInstant(after: instant) { pause = min(pause, next - now()) }
                failures = 0
            } catch {
                failures += 1
                pause = min(RetryPolicy.reconnect.delay(before: failures + 1), interval)
                if failures == 1, !Task.isCancelled {
                    Logger.current.error("schedules cannot be read", metadata: ["error": "\(error)"])
                }
            }
            // A millisecond more, so that the instant has come by the millisecond clock when the timer ends.
            if pause > .zero { _ = await wake.wait(timeout: pause + .milliseconds(1)) }
        }
    }

    /// Fires one batch of due hooks and answers how many there were.
    @discardableResult
    package func fireDue() async throws -> Int {
        let instant = now()
        let places = dispatcher.reserve(Self.batch)
        var accepted: [Fire] = []
        defer { dispatcher.submit(accepted, reserved: places) }
        let result = try await schedules.pool.transaction { connection in
            let due = try await schedules.lockDue(now: instant, limit: Self.batch, on: connection)
            var drafts: [FireDraft] = []
            var steps: [(name: HookName, next: Timestamp)] = []
            for hook in due {
                let next = HookRules.nextInstant(of: hook.schedule, after: instant)
                if next == nil {
                    Logger.current.error("schedule is unusable and was parked", metadata: ["hook": "\(hook.name)"])
                }
                steps.append((hook.name, next ?? .farFuture))
                if let draft = try await draft(hook, started: instant, on: connection) { drafts.append(draft) }
            }
            let accepted = try await fires.accept(drafts, slots: places, on: connection)
            try await schedules.advance(steps, on: connection)
            return (count: due.count, accepted: accepted, drafts: drafts)
        }
        accepted = result.accepted
        FiringLog.settled(result.drafts)
        if result.drafts.count > accepted.count { dispatcher.lookNow() }
        return result.count
    }

    private func draft(
        _ hook: ScheduleStore.Due,
        started: Timestamp,
        on connection: PostgresConnection
    ) async throws -> FireDraft? {
        var rendering: Rendering
        do {
            guard let program = try await programs.program(of: hook.name, on: connection) else { return nil }
            rendering = FiringContext(
                firedBy: .schedule,
                taskID: hook.taskID,
                created: hook.instant,
                extras: [:]
            ).render(program.template)
            if started - hook.instant > .seconds(14 * 60), case .task = rendering {
                // The queue refuses tasks this old, so a schedule that slept for long gets the present as its instant.
                rendering = FiringContext(
                    firedBy: .schedule,
                    taskID: hook.taskID,
                    created: started,
                    extras: [:]
                ).render(program.template)
            }
        } catch let failure as FireFailure {
            rendering = .failed(failure)
        }
        let isOld = started - hook.instant > .seconds(14 * 60)
        return FireDraft(
            name: hook.name,
            taskID: hook.taskID,
            firedBy: .schedule,
            context: [:],
            created: isOld ? started : hook.instant,
            started: started,
            rendering: rendering,
            deduplicationKey: "schedule \(hook.name) \(hook.instant.iso8601)"
        )
    }
}
