// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import Schedules

/// What can start, what is asked of services, and when to look again.
extension Evaluation {
    enum Requirement: Sendable, Hashable {
        case met
        case waiting
        case never
    }

    /// Whether what a step requires has come about, may, or cannot any more.
    func requirement(_ step: StepSpecification) -> Requirement {
        let required = step.requires.compactMap { steps[$0] }
        guard !required.isEmpty else { return .met }
        func isFine(_ run: StepRun) -> Bool {
            run.state == .completed || run.skippedByHand
                || (run.state.isTerminal && specifications[run.uid]?.isOptional == true)
        }
        func hasFailed(_ run: StepRun) -> Bool { run.state == .failed || run.state == .exception }
        let allOver = required.allSatisfy(\.state.isTerminal)
        switch (step.when, step.mode) {
        case (.success, .all):
            if required.allSatisfy(isFine) { return .met }
            return required.contains { $0.state.isTerminal && !isFine($0) } ? .never : .waiting
        case (.success, .any):
            if required.contains(where: isFine) { return .met }
            return allOver ? .never : .waiting
        case (.always, .all):
            return allOver ? .met : .waiting
        case (.always, .any):
            return required.contains(where: \.state.isTerminal) ? .met : .waiting
        case (.failure, .all):
            guard allOver else { return .waiting }
            return required.contains(where: hasFailed) ? .met : .never
        case (.failure, .any):
            if required.contains(where: hasFailed) { return .met }
            return allOver ? .never : .waiting
        }
    }

    /// The steps that could start now if they get their locks, longest ready first.
    var startable: [StepRun] {
        guard !isPaused, !isQueued, !isCancelled else { return [] }
        return ordered.filter { run in
            guard run.state == .pending, let step = specifications[run.uid], requirement(step) == .met else {
                return false
            }
            if step.isManual, !run.isCalledFor { return false }
            if let moment = step.notBefore, moment > now { return false }
            if let moment = run.retryAt, moment > now { return false }
            return freeze(step, run) == nil
        }
        .sorted { ($0.readySince ?? now, $0.position) < ($1.readySince ?? now, $1.position) }
    }

    /// The freeze that holds a step back; nil for none.
    func freeze(_ step: StepSpecification, _ run: StepRun) -> Freeze? {
        guard step.respectsFreeze, !run.freezeOverridden else { return nil }
        return freezes.first { $0.covers(step, of: definition, at: now) }
    }

    /// Stores the intent to start a step: what its service will be asked for is computed now and never again.
    mutating func intend(_ uid: String) {
        guard let step = specifications[uid], var run = steps[uid], run.state == .pending else { return }
        let parameters: JSONObject
        do {
            parameters = try rendered(step, run)
        } catch {
            move(uid, .exception, "parameters: \(error)")
            return
        }
        let name = definition.remoteUID(of: step, attempt: run.attempt, incarnation: incarnation)
        var request = parameters
        request["uid"] = .string(name)
        run.request = request
        run.remoteUID = name
        run.intended = now
        run.nextCall = now
        run.retryAt = nil
        steps[uid] = run
        move(uid, .starting, "")
    }

    private func rendered(_ step: StepSpecification, _ run: StepRun) throws(JSONEError) -> JSONObject {
        let parameters = run.parameters ?? step.parameters
        guard Templates.areIn(.object(parameters)) else { return parameters }
        var visible = JSONObject()
        for name in graph.ancestors(of: step.uid).sorted() {
            guard let other = steps[name] else { continue }
            visible[name] = [
                "output": .object(other.output), "status": .string(other.state.status),
                "attempt": JSONValue(other.attempt),
            ]
        }
        let context: JSONObject = [
            "pipeline": [
                "uid": .string(definition.uid), "labels": .object(definition.labels),
                "parameters": .object(definition.parameters),
            ],
            "steps": .object(visible),
        ]
        return try JSONE.render(.object(parameters), context: context, now: now).object ?? [:]
    }

    /// The calls that are due, of steps that are not being called already.
    func effects(besides busy: Set<String>) -> [Effect] {
        ordered.compactMap { run in
            guard run.state.isRemote, !busy.contains(run.uid), let next = run.nextCall, next <= now,
                let name = run.remoteUID, let step = specifications[run.uid]
            else { return nil }
            let kind: Effect.Kind =
                switch run.state {
                case .starting: .start(body: run.request ?? [:])
                case .stopping where !run.stopTold: .stop
                default: .poll
                }
            return Effect(
                step: run.uid,
                attempt: run.attempt,
                hints: run.hints,
                remoteUID: name,
                apiURL: step.apiURL,
                kind: kind
            )
        }
    }

    /// When something is to be done next without anybody saying so; nil for never.
    var nextMoment: Timestamp? {
        var moments: [Timestamp] = []
        for run in ordered where !run.state.isTerminal {
            guard let step = specifications[run.uid] else { continue }
            if let next = run.nextCall { moments.append(next) }
            if let limit = step.timeout, let intended = run.intended, run.state != .stopping {
                moments.append(intended + .seconds(limit))
            }
            if let deadline = step.deadline, run.state != .stopping { moments.append(deadline) }
            if let deadline = definition.deadline, run.state != .stopping { moments.append(deadline) }
            guard run.state == .pending, requirement(step) == .met else { continue }
            if let moment = step.notBefore, moment > now { moments.append(moment) }
            if let moment = run.retryAt, moment > now { moments.append(moment) }
            if let freeze = freeze(step, run), let end = freeze.end(at: now) { moments.append(end) }
        }
        return moments.min()
    }
}
