// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONSchema
import Schedules
import StepKit

/// Reads a definition and collects everything that is wrong with it.
struct DefinitionReader {
    /// One thing that is wrong.
    struct Problem: Sendable, Hashable {
        let path: String
        let code: String
        var message: String
        /// The steps that wait for each other, from one of them back to it, where that is the problem.
        var cycle: [String]?

        var json: JSONValue {
            var object: JSONObject = ["path": .string(path), "code": .string(code), "message": .string(message)]
            object["cycle"] = cycle.map { JSONValue($0) }
            return .object(object)
        }
    }

    /// Addresses that steps may be at; what begins with one of them is allowed.
    let services: [String]?
    /// Addresses that webhooks may be at.
    let webhooks: [String]
    private(set) var problems: [Problem] = []

    /// Without a list of services every address is allowed, as for definitions that were checked before.
    init(services: [String]?, webhooks: [String]) {
        self.services = services
        self.webhooks = webhooks
    }

    /// The definition behind a body; a refusal with all problems if there are any.
    static func read(
        _ body: JSONObject,
        uid: String,
        services: [String]?,
        webhooks: [String] = []
    ) throws(StepProblem) -> PipelineDefinition {
        var reader = DefinitionReader(services: services, webhooks: webhooks)
        let definition = reader.definition(body, uid: uid)
        try reader.refuseProblems("The pipeline is not valid", code: "invalid_pipeline")
        return definition
    }

    /// Refuses what anything is wrong with, and says all of it.
    func refuseProblems(_ text: String, code: String) throws(StepProblem) {
        guard !problems.isEmpty else { return }
        let errors = problems.prefix(1000).map(\.json)
        throw StepProblem(
            400,
            code,
            "\(text): " + problems.prefix(5).map(\.message).joined(separator: "; "),
            members: ["errors": .array(errors)]
        )
    }

    mutating func fail(_ path: String, _ code: String, _ message: String) {
        problems.append(Problem(path: path, code: code, message: message))
    }

    // MARK: - The whole

    private static let members: Set<String> = [
        "uid", "description", "labels", "parameters", "steps", "on_failure", "concurrency_key", "concurrency_policy",
        "namespace_steps", "deadline", "dry_run", "notify", "template",
        // What is told with a definition, and says nothing of what it shall be.
        "resolved",
    ]

    private mutating func definition(_ body: JSONObject, uid: String) -> PipelineDefinition {
        var definition = PipelineDefinition(uid: uid)
        allowOnly(body, Self.members, "")
        definition.description = text(body, "description", "") ?? ""
        definition.labels = labels(body["labels"])
        definition.onFailure = word(body, "on_failure", "", PipelineDefinition.FailurePolicy.init) ?? .drain
        definition.concurrencyKey = text(body, "concurrency_key", "")
        checkLength(definition.concurrencyKey, "concurrency_key")
        definition.concurrencyPolicy =
            word(body, "concurrency_policy", "", PipelineDefinition.ConcurrencyPolicy.init) ?? .queue
        definition.namespacesSteps = bool(body, "namespace_steps", "") ?? false
        definition.deadline = moment(body, "deadline", "")
        definition.isDryRun = bool(body, "dry_run", "") ?? false
        definition.notify = notifyRules(body["notify"])
        if let template = body["template"]?.object, let name = template["name"]?.string {
            definition.template = (name, template["version"]?.string ?? "")
        }
        let parameters = body["parameters"]?.object ?? [:]
        if body["parameters"] != nil, body["parameters"]?.object == nil {
            fail("parameters", "type", "parameters has to be an object")
        }
        definition.parameters = parameters
        definition.parameters["steps"] = nil
        if JSONValue.object(definition.parameters).bytes().count > 64 << 10 {
            fail("parameters", "too_large", "parameters beside the steps are longer than 64 KiB")
        }
        guard let list = (parameters["steps"] ?? body["steps"])?.array else {
            fail("parameters.steps", "missing", "parameters.steps has to be a list")
            return definition
        }
        if list.count > 500 {
            fail("parameters.steps", "too_many", "a pipeline has up to 500 steps, not \(list.count)")
        }
        for (index, json) in list.enumerated() {
            let path = "parameters.steps[\(index)]"
            guard let object = json.object else {
                fail(path, "type", "\(path) has to be an object")
                continue
            }
            definition.steps.append(step(object, path))
        }
        nameSteps(list)
        checkGraph(definition)
        checkRemoteNames(definition)
        return definition
    }

    /// Says in what people read which step a number in a list means.
    private mutating func nameSteps(_ list: [JSONValue]) {
        for (index, json) in list.enumerated() {
            guard let name = json["uid"]?.string, StepUID.problem(with: name) == nil else { continue }
            let path = "parameters.steps[\(index)]"
            for place in problems.indices where problems[place].message.hasPrefix(path) {
                problems[place].message = "\(name): " + problems[place].message.dropFirst(path.count).drop { $0 == "." }
            }
        }
    }

    /// Refuses a name that no index of the database takes; what was stored before is not asked again.
    private mutating func checkLength(_ name: String?, _ path: String) {
        guard services != nil, let name, name.utf8.count > 500 else { return }
        fail(path, "too_long", "\(path) is longer than 500 bytes")
    }

    private mutating func labels(_ json: JSONValue?) -> JSONObject {
        guard let json else { return [:] }
        guard let object = json.object, object.values.allSatisfy({ $0.string != nil }), object.count <= 64 else {
            fail("labels", "type", "labels has to be an object of up to 64 texts")
            return [:]
        }
        return object
    }

    // MARK: - One step

    private static let stepMembers: Set<String> = [
        "uid", "api_url", "api", "url", "description", "parameters_schema", "parameters", "requires", "requires_mode",
        "when", "timeout_s", "retries", "not_before", "deadline", "locks", "respect_freeze", "optional",
        "on_unreachable", "remote_uid", "cancel", "manual",
    ]

    private mutating func step(_ json: JSONObject, _ path: String) -> StepSpecification {
        allowOnly(json, Self.stepMembers, path)
        var step = StepSpecification(uid: text(json, "uid", path) ?? "", apiURL: "")
        if let problem = StepUID.problem(with: step.uid) {
            fail("\(path).uid", "invalid_uid", "\(path).uid: \(problem)")
        }
        step.apiURL = address(json, path)
        step.description = text(json, "description", path) ?? ""
        if let parameters = json["parameters"] {
            guard let object = parameters.object else {
                fail("\(path).parameters", "type", "\(path).parameters has to be an object")
                return step
            }
            step.parameters = object
            checkSize(step, path)
        }
        if let schema = json["parameters_schema"] {
            step.parametersSchema = schema
            if schema.string == nil, schema.object == nil {
                fail("\(path).parameters_schema", "type", "\(path).parameters_schema is neither a schema nor text")
            }
        }
        checkSchema(step, path)
        step.requires = strings(json, "requires", path)
        step.mode = word(json, "requires_mode", path, StepSpecification.Mode.init) ?? .all
        step.when = word(json, "when", path, StepSpecification.Condition.init) ?? .success
        step.timeout = int(json, "timeout_s", path, 1...2_592_000)
        step.retries = retries(json, path)
        step.notBefore = moment(json, "not_before", path)
        step.deadline = moment(json, "deadline", path)
        step.locks = strings(json, "locks", path)
        if step.locks.count > 10 { fail("\(path).locks", "too_many", "\(path) has more than 10 locks") }
        for lock in step.locks { checkLength(lock, "\(path).locks") }
        step.respectsFreeze = bool(json, "respect_freeze", path) ?? true
        step.isOptional = bool(json, "optional", path) ?? false
        step.failsUnreachable = choice(json, "on_unreachable", path, no: "wait", yes: "fail")
        step.remoteUID = text(json, "remote_uid", path)
        step.detaches = choice(json, "cancel", path, no: "remote", yes: "detach")
        step.isManual = bool(json, "manual", path) ?? false
        if step.when == .failure, step.requires.isEmpty {
            fail("\(path).when", "nothing_to_fail", "\(path) waits for a failure of nothing")
        }
        return step
    }

    private mutating func address(_ json: JSONObject, _ path: String) -> String {
        guard let value = json["api_url"] ?? json["api"] ?? json["url"] else {
            fail("\(path).api_url", "missing", "\(path).api_url is missing")
            return ""
        }
        guard var text = value.string else {
            fail("\(path).api_url", "type", "\(path).api_url has to be text")
            return ""
        }
        while text.hasSuffix("/") { text.removeLast() }
        guard let problem = ServiceAddress.problem(text, allowed: services) else { return text }
        fail("\(path).api_url", problem.code, "\(path).api_url \(problem.message)")
        return text
    }

    private mutating func retries(_ json: JSONObject, _ path: String) -> StepSpecification.Retries {
        var retries = StepSpecification.Retries()
        guard let value = json["retries"] else { return retries }
        let path = "\(path).retries"
        guard let object = value.object else {
            fail(path, "type", "\(path) has to be an object")
            return retries
        }
        allowOnly(object, ["limit", "backoff_s", "max_backoff_s", "on"], path)
        retries.limit = int(object, "limit", path, 0...10) ?? 0
        retries.backoff = int(object, "backoff_s", path, 0...86_400) ?? 30
        retries.longestBackoff = int(object, "max_backoff_s", path, 0...86_400) ?? 600
        if object["on"] != nil {
            retries.on = Set(strings(object, "on", path))
            if !retries.on.isSubset(of: ["exception", "failed"]) {
                fail("\(path).on", "value", "\(path).on has to be of exception and failed")
            }
        }
        return retries
    }

    // MARK: - How steps fit together

    private mutating func checkGraph(_ definition: PipelineDefinition) {
        var names: Set<String> = []
        for (index, step) in definition.steps.enumerated() where !names.insert(step.uid).inserted {
            fail("parameters.steps[\(index)].uid", "duplicate", "there are two steps \(step.uid)")
        }
        for (index, step) in definition.steps.enumerated() {
            let path = "parameters.steps[\(index)].requires"
            var seen: Set<String> = []
            for name in step.requires {
                if name == step.uid {
                    fail(path, "self", "\(step.uid) requires itself")
                } else if !names.contains(name) {
                    fail(path, "unknown_step", "\(step.uid) requires \(name), which is not there")
                }
                if !seen.insert(name).inserted { fail(path, "duplicate", "\(step.uid) requires \(name) twice") }
            }
        }
        let graph = StepGraph(definition.steps)
        for (index, step) in definition.steps.enumerated() {
            checkReferences(step, graph, "parameters.steps[\(index)]")
        }
        if let cycle = graph.cycle, cycle.count > 2 {
            let text = "steps wait for each other: \(cycle.joined(separator: " → "))"
            problems.append(Problem(path: "parameters.steps", code: "cycle", message: text, cycle: cycle))
        }
    }

    private mutating func checkRemoteNames(_ definition: PipelineDefinition) {
        for (index, step) in definition.steps.enumerated() {
            let name = definition.remoteUID(of: step, attempt: step.retries.limit + 1)
            if let problem = StepUID.problem(with: name), StepUID.problem(with: step.uid) == nil {
                fail("parameters.steps[\(index)].remote_uid", "invalid_uid", "\(name): \(problem)")
            }
        }
    }
}
