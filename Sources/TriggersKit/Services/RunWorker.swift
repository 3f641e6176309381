// SPDX-License-Identifier: MPL-2.0

import Core
import HooksKit
import JSON
import Logging
import Metrics
import ServiceLifecycle

/// Brings sightings to their ends: finds out what they mean, has hooks fire, and sees that the tasks are made.
///
/// A run is leased by one process; its fire and the note of it commit together, so that a process that dies leaves
/// either both or neither behind. Failures are repeated at growing distances for as long as it takes.
struct RunWorker: Service {
    let triggers: [Trigger]
    let runs: RunStore
    let resolver: Resolver
    let door: HookDoor
    let clientID: String
    let visibility: Visibility
    /// The longest pause after failures.
    let longestPause: Duration
    let wake: Signal

    /// How often and how patiently to look for what is not visible.
    struct Visibility: Sendable {
        var tries = 5
        var pause = Duration.seconds(10)
    }

    /// How many runs a process deals with at a time.
    private static let width = 8
    /// How long a process may be silent before another one deals with its runs.
    private static let lease = Duration.seconds(10)

    func run() async throws {
        await cancelWhenGracefulShutdown { await loop() }
    }

    private func loop() async {
        var failures = 0
        while !Task.isCancelled {
            do {
                while try await work() == Self.width {}
                failures = 0
            } catch {
                if Task.isCancelled { return }
                failures += 1
                if failures == 1 { Logger.current.error("triggers cannot go on", metadata: ["error": "\(error)"]) }
            }
            _ = await wake.wait(timeout: failures > 3 ? .seconds(5) : .seconds(1))
        }
    }

    /// Deals with what is due, a few together; answers how many there were.
    @discardableResult
    func work() async throws -> Int {
        let due = try await runs.take(triggers.map(\.name), limit: Self.width, lease: Self.lease)
        guard !due.isEmpty else { return 0 }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await keepLeases(of: due) }
            for run in due {
                group.addTask { try await dealAlone(with: run) }
            }
            // The keeper of leases ends last.
            for _ in due { try await group.next() }
            group.cancelAll()
        }
        return due.count
    }

    private func keepLeases(of due: [Run]) async {
        while !Task.isCancelled {
            do { try await Task.sleep(for: Self.lease / 3) } catch { return }
            do { try await runs.extend(due, by: Self.lease) } catch {
                if Task.isCancelled { return }
                Logger.current.warning("leases were not prolonged", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Deals with a run so that whatever goes wrong concerns no other one.
    private func dealAlone(with run: Run) async throws {
        guard let trigger = triggers.first(where: { $0.name == run.trigger }) else { return }
        do { try await deal(with: run, trigger) } catch {
            try Task.checkCancellation()
            do { try await fail(run, trigger, "\(error)") } catch {
                try Task.checkCancellation()
                // Nothing can be noted now; the lease ends, and it is tried again.
                Logger.current.error(
                    "what became of a trigger cannot be noted",
                    metadata: ["trigger": "\(trigger.name)", "subject": "\(run.subject)", "error": "\(error)"]
                )
            }
        }
    }

    private func deal(with run: Run, _ trigger: Trigger) async throws {
        if run.isFiring { return try await see(run, trigger) }
        let verdict: Resolver.Verdict
        do { verdict = try await resolver.verdict(run, of: trigger) } catch {
            try Task.checkCancellation()
            return try await fail(run, trigger, "\(error)", asked: (error as? Conduit.Failure)?.retryAfter)
        }
        switch verdict {
        case .fire(let payload): try await fire(run, trigger, payload)
        case .skip(let reason): try await settle(run, trigger, "skipped", reason)
        case .lookAgain(let reason):
            if run.looks + 1 < visibility.tries {
                try await runs.postpone(run, by: visibility.pause, reason, looks: 1)
            } else {
                try await settle(run, trigger, "skipped", "\(reason) after \(run.looks + 1) looks")
            }
        }
    }

    // MARK: - Firing

    private func fire(_ run: Run, _ trigger: Trigger, _ payload: JSONValue) async throws {
        let answer = try await runs.pool.transaction { connection -> HookDoor.Answer? in
            guard try await runs.lock(run, on: connection) else { return nil }
            let answer = try await door.trigger(
                trigger.hook,
                payload: payload,
                key: run.key(firing: run.firings + 1),
                clientID: clientID,
                on: connection
            )
            if case .accepted(let taskID) = answer { try await runs.noteFiring(run, taskID: taskID, on: connection) }
            return answer
        }
        switch answer {
        case .accepted: door.wake()
        case .declined: try await settle(run, trigger, "declined", "the hook makes no task of it")
        case .refused(let reason): try await fail(run, trigger, reason)
        // Somebody else has it.
        case nil: break
        }
    }

    /// Sees what became of the fire of a run.
    private func see(_ run: Run, _ trigger: Trigger) async throws {
        let key = run.key(firing: run.firings)
        switch try await door.ends(of: [key])[key] {
        case .pending: try await runs.postpone(run, by: .seconds(2), nil)
        case .failed(let reason): try await fail(run, trigger, reason)
        // Fires are remembered for a day at least; whatever is forgotten was done.
        case .created, nil:
            try await runs.finish(run)
            note(run, trigger, "fired", nil)
        }
    }

    // MARK: - Ends

    private func settle(_ run: Run, _ trigger: Trigger, _ state: String, _ reason: String) async throws {
        try await runs.settle(run, state, reason)
        note(run, trigger, state, reason)
    }

    private func fail(_ run: Run, _ trigger: Trigger, _ reason: String, asked: Duration? = nil) async throws {
        let pause = RetryPolicy(attempts: .max, base: .seconds(1), maximum: longestPause)
            .delay(before: run.failures + 2)
        try await runs.postpone(run, by: max(pause, asked ?? .zero), reason, failures: 1)
        note(run, trigger, "failed", reason)
    }

    private func note(_ run: Run, _ trigger: Trigger, _ outcome: String, _ reason: String?) {
        Counter(
            label: "triggers_runs_total",
            dimensions: [("trigger", trigger.name), ("outcome", outcome)]
        ).increment()
        var facts: Logger.Metadata = [
            "trigger": "\(trigger.name)", "subject": "\(run.subject)", "hook": "\(trigger.hook)",
            "outcome": "\(outcome)",
        ]
        if let reason { facts["reason"] = "\(reason)" }
        let isTrouble = outcome == "failed" && run.failures == 0
        Logger.current.log(level: isTrouble ? .warning : .info, "a trigger was dealt with", metadata: facts)
    }
}
