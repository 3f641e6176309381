// SPDX-License-Identifier: MPL-2.0

public import JSON
import Schedules
public import StepKit

extension PipelineService {
    /// A pipeline with its steps, as everybody may see it.
    struct View: Sendable {
        let step: Step
        let evaluation: Evaluation
        let wanted: [String: [String]]

        /// Until when nothing but a change of the pipeline itself, or of freezes, changes what is told of it.
        ///
        /// Nil where it depends on other pipelines.
        var end: Timestamp? {
            guard !step.state.isTerminal else { return .farFuture }
            let isUntouched = evaluation.ordered.allSatisfy { $0.intended == nil }
            if evaluation.definition.concurrencyKey != nil, isUntouched { return nil }
            var moments = evaluation.freezes.compactMap { $0.change(after: evaluation.now) }
            for run in evaluation.ordered where run.state == .pending {
                moments += [evaluation.specification(run.uid)?.notBefore, run.retryAt].compactMap(\.self)
            }
            return moments.filter { $0 > evaluation.now }.min() ?? .farFuture
        }
    }

    func view(_ uid: String) async throws -> View {
        guard let step = try await store.load(uid) else { throw StepProblem.unknown(uid) }
        let definition = try Self.parsed(step.definition)
        let now = store.now()
        let rows = try await store.pool.pipeline(
            RunStore.sceneQueries(step.id) + [FreezeStore.query(at: now), RunStore.wantedQuery(step.id)]
        )
        let (run, steps) = try RunStore.scene(rows)
        var evaluation = Evaluation(definition, steps, now: now)
        evaluation.isPaused = run.isPaused
        evaluation.isCancelled = run.isCancelled
        evaluation.freezes = try freezes.freezes(rows[2])
        if let key = definition.concurrencyKey, steps.allSatisfy({ $0.intended == nil }) {
            evaluation.isQueued = try await store.pool.withConnection { connection in
                try await runs.rivals(key, of: step.id, on: connection).contains { $0.precedes(step.id) }
            }
        }
        return View(step: step, evaluation: evaluation, wanted: try RunStore.wanted(rows[3]))
    }

    /// The pipeline in lists, which say at once how far it is.
    public func item(_ step: Step) -> JSONObject {
        var item = step.status
        for (name, value) in step.info { item[name] = value }
        return item
    }

    /// What steps that have been started were asked to do.
    public func resolved(_ step: Step) async throws -> JSONObject? {
        let definition = try Self.parsed(step.definition)
        var steps: [JSONValue] = []
        for run in try await runs.steps(step.id) {
            guard let name = run.remoteUID, let request = run.request else { continue }
            let address = definition.steps.first { $0.uid == run.uid }?.apiURL ?? ""
            steps.append([
                "uid": .string(run.uid), "attempt": JSONValue(run.attempt), "remote_uid": .string(name),
                "remote_url": .string("\(address)/\(name)"), "request": .object(request),
            ])
        }
        return ["steps": .array(steps)]
    }

    /// What is told of a pipeline beyond the contract: its steps.
    public func info(of step: Step) async throws -> JSONObject {
        Self.info(try await view(step.uid), of: step)
    }

    /// The status as it was sent last if nothing has changed since, and as it is now otherwise.
    public func rendered(_ uid: String) async throws -> RenderedStatus? {
        try await board.reading { try await current(uid) }
    }

    /// How many statuses are being read: their readers may soon read again.
    public var statusesUnderWay: Int { board.underWay }

    private func current(_ uid: String) async throws -> RenderedStatus? {
        guard let stamp = try await board.stamp(uid) else { return nil }
        if let status = board.status(uid, stamp, at: store.now()) { return status }
        // All that is read now is at least as new as the stamp; if it is newer, the next reader's stamp is another one.
        let view = try await view(uid)
        let json = JSONValue.object(view.step.status(info: Self.info(view, of: view.step)))
        let status = RenderedStatus(body: json.bytes(.pretty), entityTag: view.step.entityTag)
        if let end = view.end { board.keep(status, of: uid, stamp, until: end) }
        return status
    }

    private static func info(_ view: View, of step: Step) -> JSONObject {
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
        let reasons = Self.reasons(try await view(uid))
        return [
            "uid": .string(uid),
            "steps": .array(
                reasons.map { run, reasons in
                    [
                        "uid": .string(run.uid), "state": .string(run.state.rawValue),
                        "reasons": .array(reasons.map(\.json)),
                    ]
                }
            ),
        ]
    }

    /// The steps that have not ended, each with why.
    static func reasons(_ view: View) -> [(run: StepRun, reasons: [Explanation])] {
        view.evaluation.ordered.filter { !$0.state.isTerminal }.map { run in
            (run, view.evaluation.explanations(run, locks: view.wanted[run.uid] ?? []))
        }
    }
}
