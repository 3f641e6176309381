// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// Why a step has not started, or not ended.
struct Explanation: Sendable, Hashable {
    /// The kind of reason, for programs.
    let kind: String
    /// What people read.
    let detail: String
    /// The names it is about: steps, locks, freezes.
    var names: [String] = []

    var json: JSONValue {
        ["kind": .string(kind), "detail": .string(detail), "names": JSONValue(names)]
    }
}

extension Evaluation {
    /// The reasons why a step has not started or not ended; none for a step that has ended or is about to start.
    func explanations(_ run: StepRun, locks: [String]) -> [Explanation] {
        guard !run.state.isTerminal, let step = specification(run.uid) else { return [] }
        var reasons: [Explanation] = []
        if run.failures > 0, run.state.isRemote {
            reasons.append(Explanation(kind: "unreachable", detail: run.message))
        }
        switch run.state {
        case .running:
            if let missing = run.remoteInfo["missing"]?.array, !missing.isEmpty {
                let ways = missing.map { way in
                    way.object?.map { "\($0.value.text()) of \($0.key)" }.joined(separator: " and ") ?? way.text()
                }
                let text = ways.joined(separator: ", or ")
                reasons.append(Explanation(kind: "signoff_missing", detail: "signatures are missing: \(text)"))
            }
            if reasons.isEmpty { reasons.append(Explanation(kind: "running", detail: run.message)) }
        case .starting:
            if reasons.isEmpty { reasons.append(Explanation(kind: "starting", detail: "its service is being told")) }
        case .stopping:
            reasons.append(Explanation(kind: "stopping", detail: run.message))
        case .pending:
            reasons += waiting(run, step, locks)
        case .completed, .failed, .exception, .cancelled, .skipped:
            break
        }
        return reasons
    }

    private func waiting(_ run: StepRun, _ step: StepSpecification, _ locks: [String]) -> [Explanation] {
        var reasons: [Explanation] = []
        if isPaused { reasons.append(Explanation(kind: "paused", detail: "the pipeline is paused")) }
        if isQueued, let key = definition.concurrencyKey {
            reasons.append(
                Explanation(kind: "concurrency", detail: "an older pipeline of the key goes on", names: [key])
            )
        }
        if requirement(step) == .waiting {
            let names = blockers(step)
            reasons.append(
                Explanation(kind: "dependency", detail: "waits for \(names.joined(separator: ", "))", names: names)
            )
            return reasons
        }
        if step.isManual, !run.isCalledFor {
            reasons.append(Explanation(kind: "manual", detail: "waits for somebody to call for it"))
        }
        if let moment = step.notBefore, moment > now {
            reasons.append(Explanation(kind: "not_before", detail: "starts at \(moment.iso8601) at the earliest"))
        }
        if let moment = run.retryAt, moment > now {
            reasons.append(Explanation(kind: "retry", detail: "is tried again at \(moment.iso8601): \(run.message)"))
        }
        if let freeze = freeze(step, run) {
            let end = freeze.end(at: now)?.iso8601 ?? "somebody ends the freeze"
            reasons.append(
                Explanation(
                    kind: "freeze",
                    detail: "nothing starts until \(end): \(freeze.reason)",
                    names: [freeze.uid]
                )
            )
        }
        if !locks.isEmpty {
            reasons.append(
                Explanation(kind: "lock", detail: "waits for \(locks.joined(separator: ", "))", names: locks)
            )
        }
        return reasons
    }

    /// The required steps that have not ended.
    func blockers(_ step: StepSpecification) -> [String] {
        step.requires.filter { steps[$0]?.state.isTerminal == false }
    }
}
