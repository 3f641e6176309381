// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import JSONSchema
import Schedules
import Taskcluster

extension HooksAPI {
    func renderEndpoints() throws -> [Endpoint] {
        [
            Endpoint(
                .post,
                Self.hookRoute + "/render",
                name: "renderHook",
                // Whoever may read the template can work out what it renders to; nothing else happens here.
                scopes: try ScopeTemplate("hooks:get:<hookGroupId>:<hookId>"),
                parameters: Self.parameters,
                input: "v1/render-hook-request.json",
                output: "v1/render-hook-response.json",
                category: "Hooks",
                stability: .experimental,
                title: "Render a hook's template",
                description: """
                    Tells what a fire would come to: the task and the scopes it takes, a refusal of the payload, or the \
                    template's error with its place. No task is created and nothing is noted in the history. With \
                    `task` in the request, a template is tried that need not be stored yet.
                    """,
                handler: render
            )
        ]
    }

    @Sendable func render(_ request: APIRequest) async throws -> APIResponse {
        let body = request.body
        do {
            let program = try await trialProgram(request.hookName, body)
            let firedBy = body["firedBy"]?.string.flatMap(FiredBy.init(rawValue:)) ?? .triggerHook
            let created = body["now"]?.string.flatMap { Timestamp($0) } ?? .now()
            var context = try Self.occasion(firedBy, body, caller: request.clientID ?? "", instant: created)
            var taskID = body["taskId"]?.string
            if firedBy == .pulseMessage, let answer = try await filtered(request.hookName, context) { return answer }
            if let payload = context["payload"] {
                let problems = program.schema.validate(payload)
                guard problems.isEmpty else { return Self.answer(problems) }
                if taskID == nil, firedBy != .pulseMessage { taskID = try chosenTaskID(payload) }
                if appliesTriggerDefaults, firedBy != .pulseMessage {
                    context["payload"] = program.schema.applyingDefaults(payload)
                }
            }
            return Self.answer(
                FiringContext(
                    firedBy: firedBy,
                    taskID: taskID ?? Slugid.make(),
                    created: created,
                    extras: context
                ),
                program
            )
        } catch let failure as FireFailure {
            return Self.answer(failure)
        }
    }

    /// What the filters of the stored bindings say to a message, unless they let it pass.
    private func filtered(_ name: HookName, _ message: JSONObject) async throws -> APIResponse? {
        guard let bindings = try await store.hook(name)?.definition.bindings else { return nil }
        let key = message["routingKey"]?.string ?? ""
        var names = message
        names["routes"] = []
        let verdict = FilterVerdict.of(
            try bindings.map { try BindingRule($0) },
            exchange: message["exchange"]?.string ?? "",
            keys: [key],
            names: names,
            now: .now()
        )
        switch verdict {
        case .passes: return nil
        case .declined(let reason): return .json(["result": "declined", "reason": JSONValue(reason)])
        case .failed(let problem): return .json(["result": "error", "error": ["message": JSONValue(problem)]])
        }
    }

    /// The program to try: the stored one, or one with the parts that the request brings instead.
    private func trialProgram(_ name: HookName, _ body: JSONValue) async throws -> HookProgram {
        if body["task"] == nil, body["triggerSchema"] == nil, body["templateLanguage"] == nil {
            guard let program = try await programs.program(of: name) else { throw APIError.noSuchHook }
            return program
        }
        let stored = try await store.hook(name)?.definition
        guard let task = body["task"] ?? stored?.task else { throw APIError.noSuchHook }
        var options = stored?.options ?? [:]
        if let language = body["templateLanguage"] { options["templateLanguage"] = language }
        let schema = body["triggerSchema"] ?? stored?.triggerSchema ?? HookRequest.closedSchema
        do { try rules.checkTriggerSchema(schema) } catch {
            throw APIError(.inputError, "{{problem}}", details: ["problem": JSONValue(error.message)])
        }
        return try HookPrograms.compile(task, TemplateLanguage(options: options), schema, version: 0)
    }

    /// What an occasion brings into the template's context.
    private static func occasion(
        _ firedBy: FiredBy,
        _ body: JSONValue,
        caller: String,
        instant: Timestamp
    ) throws(APIError) -> JSONObject {
        let payload = body["payload"]
        guard firedBy != .schedule else {
            guard payload == nil else { throw APIError(.inputError, "A schedule brings no payload") }
            return ["scheduledFor": JSONValue(instant.iso8601)]
        }
        var occasion: JSONObject = ["payload": payload ?? [:]]
        switch firedBy {
        case .triggerHook:
            occasion["clientId"] = body["clientId"] ?? JSONValue(caller)
        case .pulseMessage:
            occasion["exchange"] = body["exchange"] ?? ""
            occasion["routingKey"] = body["routingKey"] ?? ""
        case .triggerHookWithToken, .schedule:
            break
        }
        guard firedBy == .pulseMessage || occasion["payload"]?.object != nil else {
            throw APIError(.inputError, "The payload of a trigger is an object")
        }
        return occasion
    }

    // MARK: - Answers

    private static func answer(_ context: FiringContext, _ program: HookProgram) -> APIResponse {
        switch context.render(program.template) {
        case .declined:
            .json(["result": "declined"])
        case .failed(let failure):
            answer(failure)
        case .task(let task):
            .json([
                "result": "task", "taskId": JSONValue(context.taskID), "task": task,
                "requiredScopes": JSONValue(RequiredScopes.of(task: task)),
            ])
        }
    }

    private static func answer(_ failure: FireFailure) -> APIResponse {
        var error: JSONValue = ["message": JSONValue(failure.message)]
        if let location = failure.location, !location.isEmpty { error["location"] = JSONValue(location) }
        return .json(["result": "error", "error": error])
    }

    private static func answer(_ problems: [JSONSchemaProblem]) -> APIResponse {
        .json([
            "result": "rejected",
            "problems": .array(
                problems.map { ["path": JSONValue($0.path), "message": JSONValue($0.message)] }
            ),
        ])
    }
}
