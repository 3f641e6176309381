// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONSchema
import StepKit

/// What steps ask of their services, as far as it can be checked before they start.
extension DefinitionReader {
    /// How long the parameters of a step may be, as JSON.
    private static let parametersLimit = 64 << 10

    /// Parameters that somebody gives a step of a pipeline that goes on, which have to be as good as those it came with.
    static func check(
        _ parameters: JSONObject,
        of uid: String,
        in definition: PipelineDefinition
    ) throws(StepProblem) {
        guard var step = definition.steps.first(where: { $0.uid == uid }) else { return }
        step.parameters = parameters
        var reader = DefinitionReader(services: [], webhooks: [])
        reader.checkSize(step, "")
        reader.checkSchema(step, "")
        reader.checkReferences(step, StepGraph(definition.steps), "")
        try reader.refuseProblems("The parameters are not valid", code: "invalid_parameters")
    }

    mutating func checkSize(_ step: StepSpecification, _ path: String) {
        guard JSONValue.object(step.parameters).bytes().count > Self.parametersLimit else { return }
        fail(place(path, "parameters"), "too_long", "\(place(path, "parameters")) is longer than 64 KiB")
    }

    /// Checks the parameters against the step's own schema, if it has one.
    mutating func checkSchema(_ step: StepSpecification, _ path: String) {
        guard step.parametersSchema.object != nil else { return }
        let schema: JSONSchema
        do {
            schema = try JSONSchema(step.parametersSchema, unknownKeywords: .ignore)
        } catch {
            let place = place(path, "parameters_schema")
            fail(place, "invalid_schema", "\(place) is no schema: \(error)")
            return
        }
        // What is only known when the step starts cannot be checked now.
        guard !Templates.areIn(.object(step.parameters)) else { return }
        for problem in schema.validate(.object(step.parameters)) {
            let text = problem.described(root: "parameters")
            fail(place(path, "parameters"), "schema", path.isEmpty ? text : "\(path).\(text)")
        }
    }

    /// Checks that parameters are computed from nothing but steps that come before.
    mutating func checkReferences(_ step: StepSpecification, _ graph: StepGraph, _ path: String) {
        // What was checked when the pipeline was made is not checked again.
        guard services != nil else { return }
        let used = Templates.steps(in: .object(step.parameters))
        guard !used.isEmpty else { return }
        let known = graph.ancestors(of: step.uid)
        for name in used.subtracting(known).sorted() {
            let reason = graph.contains(name) ? "which it does not wait for" : "which is not there"
            fail(place(path, "parameters"), "template_reference", "\(step.uid) uses steps.\(name), \(reason)")
        }
    }

    private func place(_ path: String, _ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }
}
