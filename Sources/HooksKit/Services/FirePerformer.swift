// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Logging
package import Schedules
package import TaskclusterClient

/// Turns written-down fires into tasks.
///
/// Nothing here decides whether to fire: that happened when the fire was accepted. Performing may be repeated at will,
/// by this or another process, because every attempt sends the stored definition under the stored task id, and the queue
/// treats equal requests as one.
package struct FirePerformer: Sendable {
    let fires: FireStore
    let finisher: FireFinisher
    let hooks: HookStore
    let schedules: ScheduleStore
    let programs: HookPrograms
    let client: TaskclusterClient
    private let creator: TaskCreator
    /// The fires that are performed now, and the requests whose fires will be.
    let underWay: UnderWay
    /// The longest pause before a fire is tried again.
    let longestPause: Duration
    let now: @Sendable () -> Timestamp

    package init(
        fires: FireStore,
        hooks: HookStore,
        schedules: ScheduleStore,
        programs: HookPrograms,
        client: TaskclusterClient,
        longestPause: Duration,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.fires = fires
        let underWay = UnderWay()
        self.underWay = underWay
        finisher = FireFinisher(store: fires)
        self.hooks = hooks
        self.schedules = schedules
        self.programs = programs
        self.client = client
        // A call is answered within a lease, or it does not count.
        creator = TaskCreator(client: client, timeout: .seconds(10)) { underWay.count }
        self.longestPause = longestPause
        self.now = now
    }

    /// The age at which a definition gets a new instant; the queue refuses tasks created more than 15 minutes ago.
    private static let oldest: Duration = .seconds(14 * 60)

    /// Performs a taken fire for a caller who is counted as under way, and stores what became of it.
    ///
    /// Who asked for a task has it when this returns. That the fire is done may be written a moment later, together with
    /// other ends; should the process die before that, the fire is repeated, which makes no second task. `whenOver` is
    /// called when the fire needs no lease any more.
    @discardableResult
    func perform(_ fire: Fire, whenOver: @escaping @Sendable () -> Void) async throws -> FireOutcome {
        let outcome: FireOutcome
        do { outcome = try await attempt(fire) } catch {
            whenOver()
            throw error
        }
        if case .created = outcome, !fire.holdsUpSchedule {
            finisher.finish(FireStore.Ending(fire: fire, outcome: outcome, time: now())) { result in
                if case .failure(let error) = result {
                    // The lease ends and the fire is repeated, to the same end.
                    Logger.current.error(
                        "the end of a fire was not written",
                        metadata: ["hook": "\(fire.name)", "error": "\(error)"]
                    )
                }
                whenOver()
            }
        } else {
            defer { whenOver() }
            try await store(outcome, of: fire)
        }
        report(fire, outcome)
        return outcome
    }

    private func store(_ outcome: FireOutcome, of fire: Fire) async throws {
        if case .postponed(let failure) = outcome {
            try await fires.postpone(fire, failure, by: pause(after: fire.failures + 1))
        } else {
            let ending = FireStore.Ending(fire: fire, outcome: outcome, time: now())
            if fire.holdsUpSchedule {
                try await fires.pool.transaction { connection in
                    try await fires.finish([ending], on: connection)
                    try await schedules.goOn(after: fire, now: ending.time, on: connection)
                }
            } else {
                try await finisher.finish(ending)
            }
        }
    }

    private func pause(after failures: Int) -> Duration {
        RetryPolicy(attempts: .max, base: .milliseconds(500), maximum: longestPause).delay(before: failures + 1)
    }

    // MARK: - The call

    private func attempt(_ taken: Fire) async throws -> FireOutcome {
        if taken.attempts > 1 {
            guard try await hooks.hook(taken.name) != nil else { return .dropped }
        }
        var definition = taken.definition
        switch try await refreshed(taken) {
        case .send(let fresh): definition = fresh ?? definition
        case .end(let outcome): return outcome
        }
        do throws(TaskclusterError) {
            try await creator.create(
                TaskRequest(
                    taskID: taken.taskID,
                    definition: definition,
                    authorizedScopes: ["assume:\(taken.name.role)"]
                ),
                retry: taken.mayBeRepeated ? Self.once : .taskcluster
            )
            return .created
        } catch {
            try Task.checkCancellation()
            return try await judge(error, of: taken)
        }
    }

    /// What a failed call means for the fire.
    private func judge(_ error: TaskclusterError, of fire: Fire) async throws -> FireOutcome {
        let failure = FireFailure(error)
        if error.status == 409, !fire.hasChosenTaskID {
            // Nobody else knows the id, so a task that has it was made by an attempt whose answer was lost.
            do throws(TaskclusterError) {
                _ = try await client.queue.status(fire.taskID)
                return .created
            } catch {
                return error.status == 404 ? later(fire, failure) : later(fire, FireFailure(error, calling: "status"))
            }
        }
        // An answer of success that is no JSON did not come from the queue.
        let isUnclear = error.status.map { (200..<400).contains($0) } ?? true
        return error.isRetriable || failure.isTransient || isUnclear ? later(fire, failure) : .failed(failure)
    }

    /// What an error that may pass means: another attempt, as long as somebody may still need the task.
    private func later(_ fire: Fire, _ failure: FireFailure) -> FireOutcome {
        guard fire.mayBeRepeated, fire.giveUp.map({ now() < $0 }) ?? true else { return .failed(failure) }
        return .postponed(failure)
    }

    private static let once = RetryPolicy(attempts: 1, base: .zero, maximum: .zero)

    private enum Refreshed {
        /// The stored definition, unless there is another one.
        case send(String?)
        case end(FireOutcome)
    }

    /// Renews a definition that has grown too old for the queue, unless an earlier attempt made the task after all.
    ///
    /// The task id stays: should an attempt believed lost still arrive, the queue will refuse the second definition.
    private func refreshed(_ fire: Fire) async throws -> Refreshed {
        let instant = now()
        guard instant - fire.created > Self.oldest else { return .send(nil) }
        guard let definition = try? JSONValue(parsing: fire.definition) else {
            return .end(.failed(FireFailure(template: "the stored definition is unreadable")))
        }
        guard definition["created"]?.string == fire.created.iso8601 else { return .send(nil) }
        do {
            _ = try await client.queue.status(fire.taskID)
            return .end(.created)
        } catch {
            guard error.status == 404 else { return .end(later(fire, FireFailure(error, calling: "status"))) }
        }
        guard let program = try await programs.program(of: fire.name) else { return .end(.dropped) }
        let context = FiringContext(
            firedBy: fire.firedBy,
            taskID: fire.taskID,
            created: instant,
            extras: fire.context
        )
        switch context.render(program.template) {
        case .declined: return .end(.declined)
        case .failed(let failure): return .end(.failed(failure))
        case .task(let task):
            let text = task.text()
            guard try await fires.restamp(fire, created: instant, definition: text) else {
                return .end(.dropped)
            }
            return .send(text)
        }
    }

    // MARK: - Telling

    private func report(_ fire: Fire, _ outcome: FireOutcome) {
        let result =
            switch outcome {
            case .created: "success"
            case .declined: "declined"
            case .dropped: "dropped"
            case .failed: "failure"
            case .postponed: "postponed"
            }
        FiringLog.fired(fire.name, fire.firedBy, taskID: fire.taskID, result: result)
    }
}

extension Fire {
    /// Whether the schedule of its hook stands still until it ends.
    fileprivate var holdsUpSchedule: Bool { firedBy == .schedule && failures > 0 }

    /// Whether the caller of the API chose the id of the task; such an id may be taken by another task.
    fileprivate var hasChosenTaskID: Bool {
        !mayBeRepeated && context["payload"]?["taskId"]?.string == taskID
    }
}
