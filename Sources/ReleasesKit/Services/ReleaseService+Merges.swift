// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import StepKit

extension ReleaseService {
    func merge(_ id: Int) async throws -> Merge {
        guard let merge = try await merges.find(id) else {
            throw StepProblem(404, "not_found", "Merge automation with id \(id) not found")
        }
        return merge
    }

    /// The step that carries a merge out; nil before it is started.
    func step(of merge: Merge) async throws -> PipelineDoor.StepView? {
        try await pipelines.steps(ofPipelines: [merge.pipeline])[merge.pipeline]?.first
    }

    func json(_ merge: Merge) async throws -> JSONValue { merge.json(try await step(of: merge)) }

    /// Starts a merge: a pipeline of one step, the action of the source.
    func start(_ merge: Merge, by caller: Caller) async throws {
        guard [.pending, .running].contains(merge.status) else { throw Self.closed(merge.status) }
        guard let product = catalogue.product(merge.product) else {
            throw StepProblem.invalid("Product \(merge.product) is not known")
        }
        let domain = DecisionTasks.trustDomain(product, project: merge.way.project)
        let project = merge.way.project
        guard let task = try await decisions.task(domain, project: project, revision: merge.revision) else {
            throw StepProblem.invalid("There is no decision task of \(merge.revision)", code: "no_decision_task")
        }
        let input: JSONValue = [
            "behavior": .string(merge.behavior), "force-dry-run": JSONValue(merge.isDryRun),
            "merge-automation-id": JSONValue(merge.id),
        ]
        let action: JSONValue = ["taskGroupId": .string(task), "name": "merge-automation", "input": input]
        let step: JSONValue = [
            "uid": "merge", "api_url": .string(place.taskclusterSteps), "parameters": ["action": action],
            "description": .string(merge.way.prettyName),
        ]
        let definition: JSONObject = [
            "description": .string("\(merge.behavior) of \(merge.product)"), "namespace_steps": true,
            "labels": ["product": .string(merge.product)], "parameters": ["steps": [step]],
        ]
        // Both or neither: whoever gives the merge up meanwhile comes before both, or finds the pipeline.
        _ = try await pipelines.create(
            definition,
            uid: merge.pipeline,
            origin: StepOrigin(actor: caller.name)
        ) { change in
            let status = try await merges.start(merge.id, by: caller.name, on: change.connection)
            guard let status, [.pending, .running].contains(status) else { throw Self.closed(status ?? merge.status) }
        }
    }

    /// Gives a merge up; what goes on is cancelled.
    func cancel(_ merge: Merge, by caller: Caller) async throws {
        guard merge.status != .completed else { throw Self.closed(.completed) }
        _ = try await merges.move(merge.id, from: [.pending, .running, .failed], to: .canceled, by: caller.name)
        guard try await step(of: merge) != nil else { return }
        try await pipelines.work(on: merge.pipeline, actor: caller.name) { door in
            door.cancel("the merge was given up by \(caller.name)")
        }
    }

    /// Notes that a merge is done, as the script says that carries it out.
    func complete(_ merge: Merge, by caller: Caller) async throws {
        let open: [Merge.Status] = [.pending, .running, .failed]
        let isMoved = try await merges.move(merge.id, from: open, to: .completed, by: caller.name)
        // The script says it again after an answer that was lost.
        guard isMoved || merge.status == .completed else { throw Self.closed(merge.status) }
    }

    private static func closed(_ status: Merge.Status) -> StepProblem {
        StepProblem(400, "merge_closed", "Cannot update automation in \(status.rawValue) status")
    }
}
