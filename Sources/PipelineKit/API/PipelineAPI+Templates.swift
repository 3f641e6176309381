// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import JSONSchema
import StepKit

/// Pipelines to be, and pipelines made from them.
extension PipelineAPI {
    var templates: [Endpoint] {
        let manage = "template/manage"
        return [
            endpoint(.get, "/templates", "listTemplates", verb: "view", "List templates") { _, _ in
                .json(["templates": .array(try await service.templates.list())])
            },
            endpoint(.get, "/templates/<name>", "template", verb: "view", "Read a template") { request, _ in
                .json(.object(try await service.template(request.parameter("name")).json))
            },
            endpoint(.put, "/templates/<name>", "saveTemplate", verb: manage, "Make a template", saveTemplate),
            endpoint(.delete, "/templates/<name>", "deleteTemplate", verb: manage, "Delete a template", deleteTemplate),
            steps.endpoints.open(
                .post,
                "/templates/<name>/instantiate",
                name: "instantiate",
                query: ["dry_run": .bool],
                title: "Make a pipeline from a template",
                handler: instantiate
            ),
        ]
    }

    private func saveTemplate(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let name = try Self.name(request)
        let body = try request.jsonObject()
        try body.allowOnly(["name", "version", "schema", "definition"])
        guard let definition = body["definition"], definition.object != nil else {
            throw StepProblem.invalid("definition has to be an object")
        }
        let version = body["version"].map { $0.string ?? $0.text() } ?? "1"
        let schema = body["schema"] ?? [:]
        if let problem = JSONSchema.problems(inSchema: schema).first {
            throw StepProblem.invalid("schema is not a schema: \(problem.described(root: "schema"))")
        }
        let template = TemplateStore.Template(name: name, version: version, schema: schema, definition: definition)
        guard try await service.templates.save(template, by: actor.name, at: service.store.now()) else {
            throw StepProblem.conflict("template_differs", "The version \(version) of \(name) has another content")
        }
        return .json([:])
    }

    private func deleteTemplate(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let name = request.parameter("name")
        guard try await service.templates.delete(name, by: actor.name) else {
            throw StepProblem(404, "not_found", "There is no template \(name)")
        }
        return .json([:])
    }

    private func instantiate(_ request: APIRequest) async throws -> APIResponse {
        let body = try request.jsonObject()
        try body.allowOnly(["uid", "parameters"])
        guard let uid = body["uid"]?.string else { throw StepProblem.invalid("uid is missing", code: "invalid_uid") }
        let actor = try await steps.endpoints.gate.admit(request, "create", uid)
        let parameters = body["parameters"] ?? [:]
        let definition = try await service.filledIn(request.parameter("name"), uid: uid, parameters: parameters)
        if request.flag("dry_run") { return .json(definition.json) }
        let step = try await service.create(
            definition,
            origin: StepOrigin(actor: actor.name),
            key: try request.requestKey(service.store, actor)
        )
        return .json(["uid": .string(uid)], headers: ["ETag": step.entityTag, "Location": "/\(uid)"])
    }
}
