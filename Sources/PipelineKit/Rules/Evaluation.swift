// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

/// Decides what happens next in a pipeline: values in, values out.
///
/// The same decisions come out whoever computes them and however often: everything they depend on is stored with the
/// steps, and a step that is to be started is stored as such before its service is told.
struct Evaluation: Sendable {
    /// A line for the audit.
    struct Note: Sendable, Hashable {
        let kind: String
        let step: String
        let data: JSONObject
    }

    let definition: PipelineDefinition
    let now: Timestamp
    /// Whether nothing new may be started.
    var isPaused = false
    /// Whether another pipeline of the same key goes first.
    var isQueued = false
    var isCancelled = false
    /// Which pipeline of its name this is.
    var incarnation = 1
    var freezes: [Freeze] = []
    var steps: [String: StepRun]
    private(set) var notes: [Note] = []
    let specifications: [String: StepSpecification]
    let graph: StepGraph

    init(_ definition: PipelineDefinition, _ runs: [StepRun], now: Timestamp) {
        self.definition = definition
        self.now = now
        steps = Dictionary(runs.map { ($0.uid, $0) }) { first, _ in first }
        specifications = Dictionary(definition.steps.map { ($0.uid, $0) }) { first, _ in first }
        graph = StepGraph(definition.steps)
    }

    /// The steps in the order of the definition.
    var ordered: [StepRun] { definition.steps.compactMap { steps[$0.uid] } }

    func specification(_ uid: String) -> StepSpecification? { specifications[uid] }

    mutating func note(_ kind: String, _ step: String, _ data: JSONObject = [:]) {
        notes.append(Note(kind: kind, step: step, data: data))
    }

    // MARK: - Changes of one step

    /// Moves a step; a final state is noted with its time.
    mutating func move(_ uid: String, _ state: RunState, _ message: String) {
        guard var run = steps[uid], run.state != state else { return }
        run.state = state
        run.message = message
        if state == .running, run.started == nil { run.started = now }
        if state.isTerminal {
            run.finished = now
            run.nextCall = nil
            run.ending = nil
        }
        steps[uid] = run
        var data: JSONObject = ["state": .string(state.rawValue), "attempt": JSONValue(run.attempt)]
        if !message.isEmpty { data["message"] = .string(message) }
        note("step", uid, data)
    }

    /// Ends a step that its service has ended, or tries it once more.
    mutating func end(_ uid: String, _ state: RunState, _ message: String) {
        guard let run = steps[uid], let step = specifications[uid] else { return }
        let mayRetry = !isCancelled && run.ending == nil && step.retries.on.contains(state.rawValue)
        guard mayRetry, run.attempt <= step.retries.limit else {
            move(uid, state, message)
            return
        }
        let doubled = step.retries.backoff << min(run.attempt - 1, 20)
        var next = fresh(run, attempt: run.attempt + 1)
        next.retryAt = now + .seconds(min(doubled, step.retries.longestBackoff))
        next.message = message
        steps[uid] = next
        note(
            "step_retry",
            uid,
            ["state": .string(state.rawValue), "attempt": JSONValue(next.attempt), "message": .string(message)]
        )
    }

    /// A step as it is before another attempt.
    func fresh(_ run: StepRun, attempt: Int) -> StepRun {
        var next = StepRun(uid: run.uid, position: run.position)
        next.attempt = attempt
        next.parameters = run.parameters
        next.freezeOverridden = run.freezeOverridden
        next.isCalledFor = run.isCalledFor
        next.hints = run.hints
        return next
    }

    // MARK: - What follows

    /// Draws all conclusions that need no call and no lock.
    mutating func settle() {
        expire()
        if isCancelled {
            for run in ordered where !run.state.isTerminal { stop(run.uid, .cancelled, "cancelled") }
            return
        }
        var hasChanged = true
        while hasChanged {
            hasChanged = false
            if definition.onFailure == .abort, hasFailure {
                for run in ordered where !run.state.isTerminal {
                    guard let step = specifications[run.uid] else { continue }
                    if run.state == .pending {
                        guard step.when == .success else { continue }
                        move(run.uid, .skipped, "another step failed")
                        hasChanged = true
                    } else if run.state != .stopping, step.when == .success {
                        stop(run.uid, .cancelled, "another step failed")
                        hasChanged = true
                    }
                }
            }
            for run in ordered where run.state == .pending {
                guard let step = specifications[run.uid], requirement(step) == .never else { continue }
                move(run.uid, .skipped, lack(step))
                hasChanged = true
            }
        }
        for run in ordered where run.state == .pending && run.readySince == nil {
            guard let step = specifications[run.uid], requirement(step) == .met else { continue }
            steps[run.uid]?.readySince = now
        }
    }

    /// Why the requirement of a step cannot be met any more.
    private func lack(_ step: StepSpecification) -> String {
        guard step.when != .failure else { return "nothing that it is there for has failed" }
        let others = step.requires.compactMap { steps[$0] }.filter { $0.state.isTerminal && $0.state != .completed }
        let names = others.map { "\($0.uid) is \($0.state.rawValue)" }
        return "what it requires did not come about: \(names.joined(separator: ", "))"
    }

    private mutating func expire() {
        let isOver = definition.deadline.map { $0 <= now } ?? false
        for run in ordered where !run.state.isTerminal && run.state != .stopping {
            guard let step = specifications[run.uid] else { continue }
            let limit = step.timeout.flatMap { limit in run.intended.map { $0 + .seconds(limit) } }
            let isLate = limit.map { $0 <= now } ?? false
            let isPastDeadline = isOver || step.deadline.map { $0 <= now } ?? false
            guard isLate || isPastDeadline else { continue }
            stop(run.uid, .exception, isLate ? "timeout" : "deadline")
        }
    }

    /// Ends a step that goes on; its service is told if it knows of it.
    mutating func stop(_ uid: String, _ ending: RunState, _ message: String) {
        guard let run = steps[uid], !run.state.isTerminal, run.state != .stopping else { return }
        let isDetached = specifications[uid]?.detaches ?? false
        guard run.state.isRemote, !isDetached else {
            move(uid, ending, message)
            return
        }
        move(uid, .stopping, message)
        steps[uid]?.ending = ending
        steps[uid]?.stopSince = now
        steps[uid]?.stopTold = false
        steps[uid]?.nextCall = now
    }

    private var hasFailure: Bool {
        steps.values.contains { run in
            (run.state == .failed || run.state == .exception) && specifications[run.uid]?.isOptional != true
        }
    }

    // MARK: - The whole

    /// The state of the pipeline.
    var state: StepState {
        let runs = Array(steps.values)
        if runs.contains(where: { !$0.state.isTerminal }) { return isCancelled ? .stopping : .running }
        if isCancelled { return .cancelled }
        let counting = runs.filter { specifications[$0.uid]?.isOptional != true }
        if counting.contains(where: { $0.state == .failed }) { return .failed }
        if counting.contains(where: { $0.state == .exception }) { return .exception }
        if counting.contains(where: { $0.state == .cancelled }) { return .cancelled }
        return .completed
    }
}
