// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import StepKit

extension ReleaseService {
    /// Makes the pipelines of submitted releases whose tasks are known; what fails is tried again.
    ///
    /// Whatever becomes of the pipeline, what was told to the first version stays as it is.
    func makePipelines() async throws {
        for submission in try await submissions.pending() {
            do {
                var problem: String?
                do {
                    try await makePipeline(submission)
                } catch let refusal as StepProblem {
                    problem = refusal.detail
                }
                guard problem == nil || problem != submission.problem else { continue }
                let text = problem
                _ = try await submissions.change(submission.name, by: Self.actor) { changed in
                    changed.problem = text
                    changed.isPending = text != nil
                }
            } catch {
                try Self.goOn(after: error, submission.name)
            }
        }
    }

    private func makePipeline(_ submission: Submission) async throws {
        guard let graph = submission.graph else { return }
        let origin = StepOrigin(actor: submission.submitter)
        if let template = catalogue.product(submission.product)?.template {
            var parameters = submission.fields
            parameters["taskGroupId"] = .string(graph)
            parameters["product"] = .string(submission.product)
            _ = try await pipelines.instantiate(
                template,
                uid: submission.name,
                parameters: .object(parameters),
                origin: origin
            )
            return
        }
        // Without a template there is only one thing to follow.
        let build: JSONValue = [
            "uid": "build", "api_url": .string(place.taskclusterSteps),
            "description": "The tasks of the release runner",
            "parameters": ["taskGroupId": .string(graph)],
        ]
        let definition: JSONObject = [
            "description": .string("What follows the tasks of \(submission.name)"), "namespace_steps": true,
            "labels": ["product": .string(submission.product)], "parameters": ["steps": [build]],
            "notify": catalogue.product(submission.product)?.notify ?? [],
        ]
        _ = try await pipelines.create(definition, uid: submission.name, origin: origin) { _ in }
    }
}
