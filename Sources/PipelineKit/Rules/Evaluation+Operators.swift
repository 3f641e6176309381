// SPDX-License-Identifier: MPL-2.0

import JSON
import StepKit
import Taskcluster

/// What operators decide.
extension Evaluation {
    /// Lets failed steps, or the named ones, run again with everything that waits for them; answers which those are.
    mutating func retry(_ names: Set<String>?) throws(StepProblem) -> [String] {
        let chosen: Set<String>
        if let names {
            for name in names.sorted() {
                guard let run = steps[name] else { throw StepProblem.invalid("There is no step \(name)") }
                guard run.state.isTerminal else {
                    throw StepProblem.conflict("not_finished", "The step \(name) is \(run.state.rawValue)")
                }
            }
            chosen = names
        } else {
            let failed = ordered.filter { [.failed, .exception, .cancelled].contains($0.state) }
            chosen = Set(failed.map(\.uid))
        }
        guard !chosen.isEmpty else { throw StepProblem.conflict("nothing_to_retry", "No step has failed") }
        let completed = chosen.filter { steps[$0]?.state == .completed }
        let later = graph.descendants(of: chosen).filter { name in
            guard let run = steps[name] else { return false }
            if run.state == .skipped { return !run.skippedByHand }
            // What is built upon something that is made anew is made anew.
            return !graph.ancestors(of: name).isDisjoint(with: completed)
        }
        if let running = later.sorted().first(where: { steps[$0]?.state.isRemote == true }) {
            throw StepProblem.conflict("not_finished", "The step \(running) goes on")
        }
        for name in chosen.union(later) {
            guard let run = steps[name] else { continue }
            // What was never started is not counted as an attempt.
            steps[name] = fresh(run, attempt: run.intended == nil ? run.attempt : run.attempt + 1)
        }
        let all = definition.steps.map(\.uid).filter { chosen.union(later).contains($0) }
        for name in all { note("step_reset", name, ["attempt": JSONValue(steps[name]?.attempt ?? 1)]) }
        return all
    }

    /// Calls for a step that waits for that.
    mutating func call(for uid: String) throws(StepProblem) {
        guard steps[uid]?.state == .pending else { throw closed(uid) }
        guard specifications[uid]?.isManual == true else {
            throw StepProblem.conflict("not_manual", "The step \(uid) starts by itself")
        }
        steps[uid]?.isCalledFor = true
    }

    /// Leaves out a step that has not been started: what requires it goes on as if it had been completed.
    mutating func skip(_ uid: String, _ reason: String? = nil) throws(StepProblem) {
        guard steps[uid]?.state == .pending else { throw closed(uid) }
        steps[uid]?.skippedByHand = true
        move(uid, .skipped, reason.map { "skipped by an operator: \($0)" } ?? "skipped by an operator")
    }

    /// Ends a step as an operator says.
    ///
    /// One that has not succeeded may be taken for completed afterwards; what was left out because of it can start then.
    mutating func resolve(_ uid: String, _ state: RunState, _ reason: String) throws(StepProblem) {
        if let run = steps[uid], run.state.isTerminal {
            guard state == .completed, [.failed, .exception, .cancelled].contains(run.state) else { throw closed(uid) }
            let later = graph.descendants(of: [uid])
            for other in ordered where later.contains(other.uid) && other.state == .skipped && !other.skippedByHand {
                steps[other.uid] = fresh(other, attempt: other.attempt)
                note("step_reset", other.uid, ["attempt": JSONValue(other.attempt)])
            }
        } else if steps[uid] == nil {
            throw closed(uid)
        }
        steps[uid]?.ending = nil
        move(uid, state, "resolved: \(reason)")
    }

    /// Stops a step by itself.
    mutating func cancel(_ uid: String) throws(StepProblem) {
        guard steps[uid]?.state.isTerminal == false else { throw closed(uid) }
        stop(uid, .cancelled, "cancelled by an operator")
    }

    /// Replaces the parameters of a step that has not been started.
    mutating func setParameters(_ uid: String, _ parameters: JSONObject) throws(StepProblem) {
        guard steps[uid]?.state == .pending else { throw closed(uid) }
        steps[uid]?.parameters = parameters
    }

    /// Lets a step start in spite of freezes.
    ///
    /// A freeze may say which scopes that takes.
    mutating func overrideFreeze(_ uid: String, scopes: [String]) throws(StepProblem) {
        guard let run = steps[uid], let step = specifications[uid], run.state == .pending else { throw closed(uid) }
        let covering = step.respectsFreeze ? freezes.filter { $0.covers(step, of: definition, at: now) } : []
        for freeze in covering where !freeze.overrideScopes.isEmpty {
            guard freeze.overrideScopes.contains(where: { Scope.satisfies(scopes, $0) }) else {
                throw StepProblem(
                    403,
                    "insufficient_scopes",
                    "You lack the scopes to override the freeze \(freeze.uid)"
                )
            }
        }
        steps[uid]?.freezeOverridden = true
    }

    /// Makes a step's service be asked at once.
    mutating func wake(_ uid: String) {
        steps[uid]?.nextCall = now
    }

    private func closed(_ uid: String) -> StepProblem {
        guard let run = steps[uid] else { return StepProblem(404, "not_found", "There is no step \(uid)") }
        return StepProblem.conflict("step_closed", "The step \(uid) is \(run.state.rawValue)")
    }
}
