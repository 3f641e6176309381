// SPDX-License-Identifier: MPL-2.0
public import Schedules

/// What others are told about a run.
public enum RunEvent: Sendable, Hashable {
    case pending(run: Int)
    case running(run: Int)
    case completed(run: Int)
    case failed(run: Int)
    /// The message names the worker only if `withWorker`.
    case exception(run: Int, withWorker: Bool)
}

/// What has to be done in storage after a status changed.
public struct Transition: Sendable, Hashable {
    /// What to announce, in this order.
    public var events: [RunEvent] = []
    /// The run that now waits for a worker.
    public var enqueued: Int?
    /// The run that no longer waits for a worker.
    public var dequeued: Int?
    /// The run whose claim ended.
    public var released: Int?
    /// Whether the task has just become resolved, with no retry to follow.
    public var isFinal = false
    /// Whether the status differs from before.
    public var isChange = true

    /// Nothing to store; perhaps something to say again.
    public static func unchanged(repeating events: [RunEvent] = []) -> Transition {
        Transition(events: events, isChange: false)
    }
}

/// Why an event does not apply to a task.
public struct TransitionRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds of refusal.
    public enum Code: Sendable, Hashable {
        case deadlinePassed, runMissing, runNotRunning, runTaken, tooManyRuns
    }

    /// What is wrong.
    public let code: Code
    /// The same for people.
    public let description: String

    init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}

extension TaskStatus {
    /// The largest number of runs a task may have.
    public static let maximumRuns = 50

    /// Makes the first run pending.
    ///
    /// A task that already has runs is left alone: scheduling is idempotent.
    public mutating func schedule(now: Timestamp) throws(TransitionRefusal) -> Transition {
        try requireTime(now)
        guard runs.isEmpty else { return .unchanged() }
        return append(.scheduled, now: now)
    }

    /// Hands a pending run to a worker.
    public mutating func claim(
        run: Int,
        worker: WorkerName,
        takenUntil: Timestamp,
        now: Timestamp
    ) throws(TransitionRefusal) -> Transition {
        try requireTime(now)
        try requireRun(run)
        guard run == runs.count - 1, runs[run].state == .pending else {
            throw TransitionRefusal(.runTaken, "Run \(run) of task \(taskID) is not waiting for a worker.")
        }
        runs[run].state = .running
        runs[run].worker = worker
        runs[run].started = now
        runs[run].takenUntil = takenUntil
        return Transition(events: [.running(run: run)], dequeued: run)
    }

    /// Extends the claim of a running run; never shortens it.
    public mutating func reclaim(
        run: Int,
        takenUntil: Timestamp,
        now: Timestamp
    ) throws(TransitionRefusal) -> Transition {
        try requireRun(run)
        try requireTime(now)
        try requireRunning(run)
        runs[run].takenUntil = max(takenUntil, runs[run].takenUntil ?? takenUntil)
        return Transition()
    }

    /// Undoes a claim whose answer never reached the worker.
    public mutating func handBack(run: Int) throws(TransitionRefusal) -> Transition {
        try requireRun(run)
        try requireRunning(run)
        runs[run].state = .pending
        runs[run].worker = nil
        runs[run].started = nil
        runs[run].takenUntil = nil
        return Transition(events: [.pending(run: run)], enqueued: run, released: run)
    }

    /// Resolves a running run as its worker says.
    ///
    /// Repeating a report is allowed and announces the resolution once more.
    public mutating func report(
        run: Int,
        _ resolution: RunResolution,
        now: Timestamp
    ) throws(TransitionRefusal) -> Transition {
        try requireRun(run)
        if isRepetition(run: run, resolution) {
            return .unchanged(repeating: [event(of: run, withWorker: true)])
        }
        try requireRunning(run)
        try requireTime(now)
        return resolve(run: run, resolution, now: now, withWorker: true)
    }

    /// Ends a running run because its claim was not renewed.
    ///
    /// Nothing happens if the claim has been renewed or ended meanwhile, or if the deadline has passed, which is
    /// for `reachDeadline` to deal with.
    public mutating func expireClaim(run: Int, takenUntil: Timestamp, now: Timestamp) -> Transition? {
        guard runs.indices.contains(run), run == runs.count - 1, runs[run].state == .running,
            runs[run].takenUntil == takenUntil, takenUntil <= now, now < deadline
        else { return nil }
        return resolve(run: run, .claimExpired, now: now, withWorker: true)
    }

    /// Ends an unresolved task because its time is over; there is no retry.
    public mutating func reachDeadline(now: Timestamp) -> Transition? {
        guard now >= deadline, !isResolved else { return nil }
        return abandon(.deadlineExceeded, now: now, withWorker: false)
    }

    /// Ends an unresolved task on request; resolved tasks stay as they are.
    public mutating func cancel(now: Timestamp) throws(TransitionRefusal) -> Transition {
        try requireTime(now)
        guard !isResolved else {
            guard let last = runs.last, last.reasonResolved == .canceled else { return .unchanged() }
            return .unchanged(repeating: [.exception(run: last.runID, withWorker: last.worker != nil)])
        }
        return abandon(.canceled, now: now, withWorker: true)
    }

    /// Gives a resolved or unscheduled task a new run and its retries back.
    public mutating func rerun(now: Timestamp) throws(TransitionRefusal) -> Transition {
        try requireTime(now)
        if let last = runs.last, !last.state.isResolved {
            return .unchanged(repeating: last.state == .pending ? [.pending(run: last.runID)] : [])
        }
        guard runs.count < Self.maximumRuns else {
            throw TransitionRefusal(
                .tooManyRuns,
                "Task \(taskID) already has \(runs.count) runs, which is the largest number allowed."
            )
        }
        let transition = append(.rerun, now: now)
        retriesLeft = min(retries, Self.maximumRuns - runs.count)
        return transition
    }

    // MARK: - Steps

    private mutating func append(_ reason: RunCreation, now: Timestamp) -> Transition {
        let run = TaskRun(runID: runs.count, reasonCreated: reason, scheduled: now)
        runs.append(run)
        return Transition(events: [.pending(run: run.runID)], enqueued: run.runID)
    }

    private mutating func resolve(
        run: Int,
        _ resolution: RunResolution,
        now: Timestamp,
        withWorker: Bool
    ) -> Transition {
        runs[run].state =
            switch resolution {
            case .completed: .completed
            case .failed: .failed
            default: .exception
            }
        runs[run].reasonResolved = resolution
        runs[run].resolved = now
        var transition = Transition(events: [event(of: run, withWorker: withWorker)], released: run, isFinal: true)
        guard let retry = resolution.retry, retriesLeft > 0, runs.count < Self.maximumRuns else { return transition }
        retriesLeft -= 1
        let next = append(retry, now: now)
        transition.events += next.events
        transition.enqueued = next.enqueued
        transition.isFinal = false
        return transition
    }

    private mutating func abandon(_ resolution: RunResolution, now: Timestamp, withWorker: Bool) -> Transition {
        let before = runState
        if before == nil { _ = append(.exception, now: now) }
        let run = runs.count - 1
        runs[run].state = .exception
        runs[run].reasonResolved = resolution
        runs[run].resolved = now
        return Transition(
            events: [.exception(run: run, withWorker: withWorker && runs[run].worker != nil)],
            dequeued: before == .pending ? run : nil,
            released: before == .running ? run : nil,
            isFinal: true
        )
    }

    // MARK: - Conditions

    private func requireTime(_ now: Timestamp) throws(TransitionRefusal) {
        guard now < deadline else {
            throw TransitionRefusal(.deadlinePassed, "The deadline of task \(taskID), \(deadline.iso8601), has passed.")
        }
    }

    private func requireRun(_ run: Int) throws(TransitionRefusal) {
        guard runs.indices.contains(run) else {
            throw TransitionRefusal(.runMissing, "Task \(taskID) has no run \(run).")
        }
    }

    private func requireRunning(_ run: Int) throws(TransitionRefusal) {
        guard run == runs.count - 1, runs[run].state == .running else {
            throw TransitionRefusal(
                .runNotRunning,
                "Run \(run) of task \(taskID) is not running: it is \(runs[run].state.rawValue)."
            )
        }
    }

    private func isRepetition(run: Int, _ resolution: RunResolution) -> Bool {
        guard runs[run].reasonResolved == resolution else { return false }
        if run == runs.count - 1 { return true }
        return run == runs.count - 2 && resolution.retry != nil && runs[run + 1].reasonCreated == resolution.retry
    }

    private func event(of run: Int, withWorker: Bool) -> RunEvent {
        switch runs[run].state {
        case .pending: .pending(run: run)
        case .running: .running(run: run)
        case .completed: .completed(run: run)
        case .failed: .failed(run: run)
        case .exception: .exception(run: run, withWorker: withWorker && runs[run].worker != nil)
        }
    }
}

extension RunResolution {
    /// The reason of the run that follows such a resolution while retries are left.
    var retry: RunCreation? {
        switch self {
        case .claimExpired, .workerShutdown: .retry
        case .intermittentTask: .taskRetry
        default: nil
        }
    }
}
