// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
public import StepKit

/// Looking after pipelines: what follows from what has happened is stored, and then services are called.
extension PipelineService {
    /// How long a pipeline is left alone at most that waits for others, and one whose steps go on.
    private static let patience = (waiting: Duration.seconds(30), running: Duration.seconds(60))

    private static let forbidden = "its address is not one of the step services that are allowed"

    /// What a look came to.
    private struct Outlook: Sendable {
        var effects: [Effect] = []
        var freedLocks: [String] = []
        /// The key that another pipeline may be waiting for.
        var freedKey: String?
        /// Older pipelines that have to make room.
        var toCancel: [String] = []
        var isReleased = false
    }

    /// Looks at a pipeline until nothing is to be done at once: stores what follows, makes the calls that are due, and takes
    /// in what they came to, as soon as each comes.
    public func look(_ claim: StepClaim) async throws {
        let definition = try Self.parsed(claim.step.definition)
        let mailbox = Mailbox()
        try await withThrowingDiscardingTaskGroup { group in
            var arrived: [Observation] = []
            var busy: Set<String> = []
            var calls = try await calls(claim, definition)
            while true {
                if calls.isEmpty {
                    let (letters, underWay) = (arrived, busy)
                    let change = try await claim.change { change in
                        try await advance(&change, definition, letters, busy: underWay)
                    }
                    // Somebody else has taken over: what is known here is old.
                    guard let (step, outlook) = change else {
                        group.cancelAll()
                        return
                    }
                    try await tell(outlook, step)
                    if outlook.isReleased { return }
                    calls = outlook.effects
                }
                for effect in calls {
                    mailbox.begin(effect.step)
                    if definition.isDryRun {
                        mailbox.put(effect.played)
                    } else if ServiceAddress.problem(effect.apiURL, allowed: services) != nil {
                        // It was allowed when the pipeline was made; credentials are for what is allowed now.
                        mailbox.put(effect.observation(.unreachable(Self.forbidden, retryAfter: nil)))
                    } else {
                        group.addTask { mailbox.put(await client.perform(effect, for: claim.step)) }
                    }
                }
                calls = []
                (arrived, busy) = await mailbox.take(within: .seconds(1))
            }
        }
    }

    /// The calls that are due, where nothing else is to be done first; empty where something is.
    ///
    /// Most looks only ask a service again whose time has come, which needs no transaction.
    private func calls(_ claim: StepClaim, _ definition: PipelineDefinition) async throws -> [Effect] {
        guard definition.concurrencyKey == nil, definition.steps.allSatisfy(\.locks.isEmpty) else { return [] }
        let now = store.now()
        let rows = try await store.pool.pipeline(RunStore.sceneQueries(claim.step.id) + [FreezeStore.query(at: now)])
        let (run, before) = try RunStore.scene(rows)
        var evaluation = Evaluation(definition, before, now: now)
        evaluation.isPaused = run.isPaused
        evaluation.isCancelled = run.isCancelled
        evaluation.freezes = try freezes.freezes(rows[2])
        evaluation.settle()
        guard evaluation.state == claim.step.state, evaluation.notes.isEmpty, evaluation.startable.isEmpty,
            evaluation.ordered == before
        else { return [] }
        return evaluation.effects(besides: [])
    }

    private func tell(_ outlook: Outlook, _ step: Step) async throws {
        if !outlook.freedLocks.isEmpty { try await store.wake(runs.waiters(outlook.freedLocks)) }
        if let key = outlook.freedKey { try await store.wake(runs.successor(key, of: step.id)) }
        for uid in outlook.toCancel {
            try await store.changeIfThere(uid, actor: store.announcement.actor) { change in
                guard !change.step.state.isTerminal, change.step.state != .stopping else { return }
                change.record("cancel", ["reason": .string("\(step.uid) takes its place")])
                try await cancel(&change, reason: "\(step.uid) takes its place")
            }
        }
    }

    private func advance(
        _ change: inout StepTransaction,
        _ definition: PipelineDefinition,
        _ observations: [Observation],
        busy: Set<String>
    ) async throws -> Outlook {
        var outlook = Outlook()
        guard !change.step.state.isTerminal else {
            change.release()
            change.step.nextCheck = nil
            outlook.isReleased = true
            return outlook
        }
        let id = change.step.id
        let rows = try await change.connection.pipeline(
            RunStore.sceneQueries(id) + [FreezeStore.query(at: change.now)]
        )
        let (run, before) = try RunStore.scene(rows)
        var evaluation = Evaluation(definition, before, now: change.now)
        evaluation.incarnation = change.step.incarnation
        evaluation.isPaused = run.isPaused
        evaluation.isCancelled = run.isCancelled
        evaluation.freezes = try freezes.freezes(rows[2])
        if let key = definition.concurrencyKey, !run.isCancelled, before.allSatisfy({ $0.intended == nil }) {
            let others = try await runs.rivals(key, of: id, on: change.connection, locking: true)
            evaluation.isQueued = others.contains { $0.precedes(id) }
            if definition.concurrencyPolicy == .cancelOldest {
                outlook.toCancel = others.filter { $0.id < id }.map(\.uid)
            }
        }
        evaluation.apply(observations)
        outlook.freedLocks = try await settle(&evaluation, &change)
        try await finish(evaluation, before, &change)
        if change.step.state.isTerminal { outlook.freedKey = definition.concurrencyKey }
        outlook.effects = evaluation.effects(besides: busy)
        if change.step.state.isTerminal || (outlook.effects.isEmpty && busy.isEmpty) {
            outlook.isReleased = true
            change.release()
        }
        return outlook
    }

    /// Draws all conclusions, starts what can start, and gives back the locks of what has ended.
    private func settle(
        _ evaluation: inout Evaluation,
        _ change: inout StepTransaction
    ) async throws -> [String] {
        let id = change.step.id
        evaluation.settle()
        let locking = evaluation.definition.steps.filter { !$0.locks.isEmpty }
        if !locking.isEmpty {
            try await runs.guardLocks(Set(locking.flatMap(\.locks)), on: change.connection)
        }
        var inLine: Set<String> = []
        while true {
            let candidates = evaluation.startable.filter { !inLine.contains($0.uid) }
            guard let next = candidates.first else { break }
            let locks = evaluation.specification(next.uid)?.locks ?? []
            if !locks.isEmpty {
                let since = next.readySince ?? change.now
                guard try await runs.take(locks, for: next.uid, of: id, since: since, change) else {
                    inLine.insert(next.uid)
                    continue
                }
            }
            evaluation.intend(next.uid)
            // A step whose parameters make no sense ends here, and others with it.
            evaluation.settle()
        }
        // Locks are for steps that go on, places in line for steps that could start: whoever has ended, is paused or is
        // held back by a freeze keeps nobody else waiting.
        let idle = locking.map(\.uid).filter { evaluation.steps[$0]?.state.isRemote != true }
        return try await runs.release(idle, inLine: inLine, of: id, on: change.connection)
    }

    /// Writes what has changed, and moves the pipeline with its steps.
    private func finish(
        _ evaluation: Evaluation,
        _ before: [StepRun],
        _ change: inout StepTransaction
    ) async throws {
        try await runs.write(evaluation.ordered, before: before, change.step.id, on: change.connection)
        for note in evaluation.notes { change.record(note.kind, subject: note.step, note.data) }
        describe(evaluation, &change)
        let state = evaluation.state
        var message = ""
        switch state {
        case .completed:
            let outputs = JSONObject(
                evaluation.ordered.filter { !$0.output.isEmpty }.map { (key: $0.uid, value: .object($0.output)) }
            )
            if JSONValue.object(outputs).bytes().count <= 64 << 10 { change.step.output = outputs }
        case .failed, .exception:
            let culprits = evaluation.ordered.filter { $0.state == .failed || $0.state == .exception }
            message = culprits.prefix(3).map { "\($0.uid) \($0.state.rawValue): \($0.message)" }.joined(separator: "; ")
        case .cancelled, .stopping:
            message = change.step.message
        default:
            break
        }
        let wasTerminal = change.step.state.isTerminal
        change.move(to: state, message: String(message.prefix(2000)))
        try await notices.forgetReminders(evaluation, before, change)
        try await notices.tell(
            PipelineNotices.happenings(evaluation, before, end: wasTerminal || !state.isTerminal ? nil : change.step),
            evaluation.definition,
            change
        )
        if !state.isTerminal {
            let next = evaluation.nextMoment
            let isRunning = evaluation.steps.values.contains { $0.state.isRemote }
            let patience = isRunning ? Self.patience.running : Self.patience.waiting
            change.step.nextCheck = min(next ?? .farFuture, change.now + patience)
        }
    }

    /// Says in lists how far the pipeline is.
    func describe(_ evaluation: Evaluation, _ change: inout StepTransaction) {
        let steps = evaluation.ordered
        change.step.info = [
            "steps_total": JSONValue(steps.count),
            "steps_done": JSONValue(steps.count { $0.state.isTerminal }),
            "current": JSONValue(steps.filter { $0.state.isRemote }.map(\.uid)),
            "paused": JSONValue(evaluation.isPaused),
            "labels": .object(evaluation.definition.labels),
        ]
    }
}
