// SPDX-License-Identifier: MPL-2.0

public import JSON
import Schedules
public import StepKit

extension PipelineService {
    /// A pipeline with its steps, as everybody may see it.
    struct View: Sendable {
        let evaluation: Evaluation
        let wanted: [String: [String]]
    }

    func view(_ uid: String) async throws -> View {
        guard let step = try await store.load(uid) else { throw StepProblem.unknown(uid) }
        let definition = try Self.parsed(step.definition)
        let run = try await runs.run(step.id)
        let steps = try await runs.steps(step.id)
        let now = store.now()
        var evaluation = Evaluation(definition, steps, now: now)
        evaluation.isPaused = run.isPaused
        evaluation.isCancelled = run.isCancelled
        let key = definition.concurrencyKey
        let (freezes, others) = try await store.pool.withConnection { connection in
            let freezes = try await self.freezes.current(at: now, on: connection)
            guard let key, steps.allSatisfy({ $0.intended == nil }) else { return (freezes, 0) }
            return (freezes, try await runs.predecessors(key, before: step.id, on: connection).count)
        }
        evaluation.freezes = freezes
        evaluation.isQueued = others > 0
        return View(evaluation: evaluation, wanted: try await runs.wanted(by: step.id))
    }

    /// What is told of a pipeline beyond the contract: its steps.
    public func info(of step: Step) async throws -> JSONObject {
        let view = try await view(step.uid)
        var info = step.info
        info["paused"] = JSONValue(view.evaluation.isPaused)
        info["steps"] = .array(view.evaluation.ordered.map { .object(Self.json($0, view)) })
        return info
    }

    private static func json(_ run: StepRun, _ view: View) -> JSONObject {
        let step = view.evaluation.specification(run.uid)
        var json: JSONObject = [
            "uid": .string(run.uid), "state": .string(run.state.rawValue), "status": .string(run.state.status),
            "attempt": JSONValue(run.attempt), "requires": JSONValue(step?.requires ?? []),
        ]
        json["started"] = run.started.map { .string($0.iso8601) }
        json["finished"] = run.finished.map { .string($0.iso8601) }
        if let step, let name = run.remoteUID { json["remote_url"] = .string("\(step.apiURL)/\(name)") }
        json["message"] = .string(run.message)
        json["output"] = .object(run.output)
        if run.failures > 0 { json["poll_failures"] = JSONValue(run.failures) }
        guard !run.state.isTerminal else { return json }
        json["blocked_by"] = JSONValue(step.map { view.evaluation.blockers($0) } ?? [])
        let reasons = view.evaluation.explanations(run, locks: view.wanted[run.uid] ?? [])
        json["waiting_for"] = reasons.first?.json ?? .null
        return json
    }

    /// Why each step that has not ended has not.
    func explanation(_ uid: String) async throws -> JSONValue {
        let view = try await view(uid)
        let steps = view.evaluation.ordered.filter { !$0.state.isTerminal }
        return [
            "uid": .string(uid),
            "steps": .array(
                steps.map { run in
                    let reasons = view.evaluation.explanations(run, locks: view.wanted[run.uid] ?? [])
                    return [
                        "uid": .string(run.uid), "state": .string(run.state.rawValue),
                        "reasons": .array(reasons.map(\.json)),
                    ]
                }
            ),
        ]
    }
}
