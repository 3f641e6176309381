// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Schedules
import StepKit

/// Merges of branches, which a script carries out and says to be done.
extension ReleasesAPI {
    var merges: [Endpoint] {
        let one = "/merge-automation/<id>"
        return [
            make.open(
                .get,
                "/merge-automation",
                name: "merges",
                query: ["product": .any],
                title: "List merges",
                handler: listMerges
            ),
            make.open(.post, "/merge-automation", name: "addMerge", title: "Ask for a merge", handler: addMerge),
            make.open(.get, "/merge-automation/products", name: "mergedProducts", title: "List products") { _ in
                let products = service.catalogue.products.values.filter { !$0.merges.isEmpty }
                return .json(JSONValue(products.map(\.name).sorted()))
            },
            make.open(.get, "/merge-automation/behaviors/<product>", name: "behaviors", title: "List ways to merge") {
                .json(try behaviors($0.parameter("product")))
            },
            make.open(.post, "\(one)/start", name: "startMerge", title: "Start a merge", handler: startMerge),
            make.open(.get, "\(one)/task-status", name: "mergeTask", title: "Read its tasks", handler: mergeStatus),
            make.open(.delete, one, name: "cancelMerge", title: "Give a merge up", handler: cancelMerge),
            make.open(.patch, one, name: "completeMerge", title: "Say that it is done", handler: completeMerge),
        ]
    }

    private func behaviors(_ product: String) throws(StepProblem) -> JSONValue {
        guard let found = service.catalogue.product(product)?.merges, !found.isEmpty else {
            throw StepProblem(404, "not_found", "No merge behavior found for product: \(product)")
        }
        return .array(
            found.sorted { $0.key < $1.key }.map { behavior, merge in
                [
                    "behavior": .string(behavior), "repo": .string(merge.repository),
                    "project": .string(merge.project), "pretty_name": .string(merge.prettyName),
                ]
            }
        )
    }

    private func listMerges(_ request: APIRequest) async throws -> APIResponse {
        guard let product = request.query["product"] else { throw StepProblem.invalid("product is missing") }
        let found = try await service.merges.list(product)
        let steps = try await service.pipelines.steps(ofPipelines: found.map(\.pipeline))
        return .json(.array(found.map { $0.json(steps[$0.pipeline]?.first) }))
    }

    private func addMerge(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let body = try request.jsonObject()
        guard let product = body["product"]?.string, let behavior = body["behavior"]?.string,
            let revision = body["revision"]?.string, let version = body["version"]?.string
        else { throw StepProblem.invalid("product, behavior, revision and version are needed") }
        try caller.require("add_merge_automation", product, groups: groups(product))
        guard let way = service.catalogue.product(product)?.merges[behavior] else {
            throw StepProblem(404, "not_found", "Behavior \(behavior) not found for product: \(product)")
        }
        let merge = Merge(
            id: 0,
            product: product,
            behavior: behavior,
            revision: revision,
            isDryRun: body["dryRun"]?.bool ?? true,
            version: version,
            message: body["commitMessage"]?.string ?? "",
            author: body["commitAuthor"]?.string ?? "",
            way: way,
            status: .pending,
            created: service.now(),
            completed: nil
        )
        let id = try await service.merges.add(merge, by: caller.name)
        return .json(["message": "Merge automation created successfully", "id": JSONValue(id)], status: 201)
    }

    /// The merge that the path names, if the caller may do what a verb says.
    private func merge(_ request: APIRequest, _ verb: String) async throws -> (merge: Merge, caller: Caller) {
        let caller = try await caller(request)
        guard let id = Int(request.parameter("id")) else {
            throw StepProblem(404, "not_found", "There is no such merge")
        }
        let merge = try await service.merge(id)
        try caller.require(verb, merge.product, groups: groups(merge.product))
        return (merge, caller)
    }

    private func startMerge(_ request: APIRequest) async throws -> APIResponse {
        let (merge, caller) = try await merge(request, "add_merge_automation")
        try await service.start(merge, by: caller)
        let task = try await service.step(of: merge)?.info["task_id"] ?? .null
        return .json(["message": "Merge automation started successfully", "task_id": task])
    }

    private func mergeStatus(_ request: APIRequest) async throws -> APIResponse {
        guard let id = Int(request.parameter("id")) else {
            throw StepProblem(404, "not_found", "There is no such merge")
        }
        let merge = try await service.merge(id)
        guard let step = try await service.step(of: merge), let task = step.info["task_id"]?.string else {
            throw StepProblem(404, "not_found", "Automation not found or no task ID")
        }
        let status = JSONValue.string(merge.status(step).rawValue)
        return .json([
            "automation": merge.json(step), "decisionTask": ["taskId": .string(task), "state": .string(step.state)],
            "taskGroup": ["overallStatus": status],
        ])
    }

    private func cancelMerge(_ request: APIRequest) async throws -> APIResponse {
        let (merge, caller) = try await merge(request, "cancel_merge_automation")
        try await service.cancel(merge, by: caller)
        return .json(try await service.json(service.merge(merge.id)))
    }

    private func completeMerge(_ request: APIRequest) async throws -> APIResponse {
        let (merge, caller) = try await merge(request, "mark_merge_automation_completed")
        try await service.complete(merge, by: caller)
        return .json(try await service.json(service.merge(merge.id)))
    }
}
