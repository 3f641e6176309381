// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import JSON
import JSONSchema
import Postgres
import Schedules
import Taskcluster

extension HooksAPI {
    func triggerEndpoints() throws -> [Endpoint] {
        [
            Endpoint(
                .post,
                Self.hookRoute + "/trigger",
                name: "triggerHook",
                scopes: try ScopeTemplate("hooks:trigger-hook:<hookGroupId>/<hookId>"),
                parameters: Self.parameters,
                input: "v1/trigger-hook.json",
                output: "v1/trigger-hook-response.json",
                category: "Hooks",
                title: "Trigger a hook",
                description: "Fires a hook with the payload that is the request's body, and tells the task it made.",
                handler: triggerHook
            ),
            Endpoint(
                .get,
                Self.hookRoute + "/token",
                name: "getTriggerToken",
                scopes: try ScopeTemplate("hooks:get-trigger-token:<hookGroupId>/<hookId>"),
                parameters: Self.parameters,
                output: "v1/trigger-token-response.json",
                category: "Hooks",
                title: "Get a trigger token",
                description: "Gets the secret that lets its holder trigger the hook without credentials.",
                handler: getToken
            ),
            Endpoint(
                .post,
                Self.hookRoute + "/token",
                name: "resetTriggerToken",
                scopes: try ScopeTemplate("hooks:reset-trigger-token:<hookGroupId>/<hookId>"),
                parameters: Self.parameters,
                output: "v1/trigger-token-response.json",
                category: "Hooks",
                title: "Reset a trigger token",
                description: "Replaces the token; the old one stops working at once.",
                handler: resetToken
            ),
            Endpoint(
                .post,
                Self.hookRoute + "/trigger/<token>",
                name: "triggerHookWithToken",
                query: ignoresTokenQuery ? ["*": .any] : [:],
                parameters: Self.parameters,
                input: "v1/trigger-hook.json",
                output: "v1/trigger-hook-response.json",
                category: "Hooks",
                title: "Trigger a hook with a token",
                description: "Fires a hook like `triggerHook`, for callers that know its token instead of credentials.",
                secretParameters: ["token"],
                handler: triggerHookWithToken
            ),
        ]
    }

    @Sendable func getToken(_ request: APIRequest) async throws -> APIResponse {
        guard let token = try await store.token(of: request.hookName) else { throw APIError.noSuchHook }
        return .json(["token": JSONValue(token)])
    }

    @Sendable func resetToken(_ request: APIRequest) async throws -> APIResponse {
        guard let token = try await store.resetToken(of: request.hookName) else { throw APIError.noSuchHook }
        return .json(["token": JSONValue(token)])
    }

    @Sendable func triggerHook(_ request: APIRequest) async throws -> APIResponse {
        try await trigger(request, by: .triggerHook, extras: ["clientId": JSONValue(request.clientID ?? "")])
    }

    @Sendable func triggerHookWithToken(_ request: APIRequest) async throws -> APIResponse {
        guard let token = try await store.token(of: request.hookName) else { throw APIError.noSuchHook }
        guard areEqualInConstantTime(token, request.parameter("token")) else {
            throw APIError(.authenticationFailed, "invalid hook token")
        }
        return try await trigger(request, by: .triggerHookWithToken, extras: [:])
    }

    // MARK: - Firing

    /// Fires with the definition that was known last, which the statement that writes the fire down then checks.
    ///
    /// Only what is not simply accepted is decided again with the definition as it is now.
    private func trigger(_ request: APIRequest, by firedBy: FiredBy, extras: JSONObject) async throws -> APIResponse {
        dispatcher.underWay.begin()
        defer { dispatcher.underWay.end() }
        let started = Timestamp.now()
        if let program = programs.known(request.hookName),
            let draft = try? draft(request, program, by: firedBy, extras, started), case .task = draft.rendering
        {
            switch try await triggers.accept(draft, version: program.version) {
            case .fire(let fire): return try await perform(fire)
            case .taken: return try await repeated(draft)
            case .outdated: break
            }
        }
        let current: HookProgram?
        do { current = try await programs.program(of: request.hookName) } catch let failure as FireFailure {
            throw failure.reply(for: request.hookName)
        }
        guard let current else { throw APIError.noSuchHook }
        let draft = try draft(request, current, by: firedBy, extras, started)
        let accepted = try await fires.pool.transaction { connection in
            try await fires.accept([draft], slots: 1, on: connection)
        }
        FiringLog.settled([draft])
        switch draft.rendering {
        case .declined: return .json([:])
        case .failed(let failure): throw failure.reply(for: draft.name)
        case .task: break
        }
        guard let fire = accepted.first else { return try await repeated(draft) }
        return try await perform(fire)
    }

    private func draft(
        _ request: APIRequest,
        _ program: HookProgram,
        by firedBy: FiredBy,
        _ extras: JSONObject,
        _ started: Timestamp
    ) throws(APIError) -> FireDraft {
        var payload = request.body
        let problems = program.schema.validate(payload)
        guard problems.isEmpty else {
            let text = problems.map { $0.described() }.joined(separator: "; ")
            throw APIError(.inputError, "{{problems}}", details: ["problems": JSONValue(text)])
        }
        let chosen = try chosenTaskID(payload)
        if appliesTriggerDefaults { payload = program.schema.applyingDefaults(payload) }

        let name = request.hookName
        let taskID = chosen ?? Slugid.make()
        var context = extras
        context["payload"] = payload
        return FireDraft(
            name: name,
            taskID: taskID,
            firedBy: firedBy,
            context: context,
            created: started,
            started: started,
            rendering: FiringContext(firedBy: firedBy, taskID: taskID, created: started, extras: context)
                .render(program.template),
            // Only a caller who chose the id can mean the same fire twice.
            deduplicationKey: chosen.map { "api \(name) \($0)" },
            requestHash: DeliveryIdentity.requestHash(firedBy: firedBy, context: context),
            rendered: .now()
        )
    }

    /// The id that a payload asks for, if it does.
    func chosenTaskID(_ payload: JSONValue) throws(APIError) -> String? {
        switch payload["taskId"] {
        case nil, .null, .bool(false), .string(""): return nil
        case .number(let number) where number.double == 0: return nil
        case .string(let text) where Slugid.isValid(text): return text
        case .some(let other):
            throw APIError(
                .inputError,
                "Invalid taskId format: {{taskId}}",
                details: ["taskId": JSONValue(other.string ?? other.text())]
            )
        }
    }

    private func perform(_ fire: Fire) async throws -> APIResponse {
        switch try await dispatcher.performNow(fire) {
        case .created: return Self.reply(fire.taskID)
        case .declined, .dropped: return .json([:])
        case .failed(let failure), .postponed(let failure): throw failure.reply(for: fire.name)
        }
    }

    /// Answers a request whose task id was used before for the same hook: with the same task, if it is the same request.
    private func repeated(_ draft: FireDraft) async throws -> APIResponse {
        let deadline = ContinuousClock.now + .seconds(30)
        while let earlier = try await fires.earlier(draft.deduplicationKey ?? "") {
            guard earlier.requestHash == draft.requestHash else { break }
            if earlier.isCreated { return Self.reply(draft.taskID) }
            guard !earlier.isDone, ContinuousClock.now < deadline else { break }
            try await Task.sleep(for: .milliseconds(100))
        }
        throw APIError(
            .inputError,
            "While calling createTask: RequestConflict\n\nThe task `\(draft.taskID)` was asked for before, differently."
        )
    }

    private static func reply(_ taskID: String) -> APIResponse {
        .json(["taskId": JSONValue(taskID), "status": ["taskId": JSONValue(taskID)]])
    }
}
