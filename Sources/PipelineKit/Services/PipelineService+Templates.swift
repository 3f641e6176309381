// SPDX-License-Identifier: MPL-2.0

public import JSON
import JSONE
import JSONSchema
public import StepKit

extension PipelineService {
    func template(_ name: String) async throws -> TemplateStore.Template {
        guard let template = try await templates.find(name) else {
            throw StepProblem(404, "not_found", "There is no template \(name)")
        }
        return template
    }

    /// The definition a template makes of parameters; what steps compute when they start is written with `$$`.
    func filledIn(_ name: String, uid: String, parameters: JSONValue) async throws -> PipelineDefinition {
        if let problem = StepUID.problem(with: uid) { throw StepProblem.invalid(problem, code: "invalid_uid") }
        let template = try await template(name)
        let schema = try JSONSchema(template.schema, unknownKeywords: .ignore)
        let problems = schema.validate(parameters).map { $0.described(root: "parameters") }
        guard problems.isEmpty else {
            throw StepProblem(
                400,
                "invalid_parameters",
                "The parameters do not fit the template: \(problems.prefix(5).joined(separator: "; "))",
                members: ["errors": JSONValue(problems)]
            )
        }
        let context: JSONObject = ["uid": .string(uid), "parameters": schema.applyingDefaults(parameters)]
        let rendered: JSONValue
        do {
            rendered = try JSONE.render(template.definition, context: context, now: store.now())
        } catch {
            throw StepProblem.invalid("The template cannot be filled in: \(error)", code: "invalid_template")
        }
        var definition = try checked(rendered.object ?? [:], uid: uid)
        definition.template = (template.name, template.version)
        return definition
    }

    /// Makes a pipeline from a template, or finds the one that was made so before.
    public func instantiate(
        _ template: String,
        uid: String,
        parameters: JSONValue,
        origin: StepOrigin
    ) async throws -> Step {
        try await create(filledIn(template, uid: uid, parameters: parameters), origin: origin)
    }

    /// Stores a pipeline whose definition was checked.
    func create(
        _ definition: PipelineDefinition,
        origin: StepOrigin,
        key: StepStore.RequestKey? = nil,
        _ more: (inout StepTransaction) async throws -> Void = { _ in }
    ) async throws -> Step {
        let creation = try await store.create(
            definition.uid,
            definition: definition.json,
            labels: definition.labels,
            origin: origin,
            key: key,
            reply: ["uid": .string(definition.uid)]
        ) { change in
            try await begin(&change)
            try await more(&change)
        }
        switch creation {
        case .created(let step), .existing(let step): return step
        }
    }
}
