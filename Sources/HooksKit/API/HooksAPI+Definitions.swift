// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Logging
import Schedules
import Taskcluster

extension HooksAPI {
    func definitionEndpoints() throws -> [Endpoint] {
        let mayChange = try Self.mayChange()
        return [
            Endpoint(
                .get,
                "/hooks",
                name: "listHookGroups",
                scopes: try ScopeTemplate("hooks:list-hooks:"),
                output: "v1/list-hook-groups-response.json",
                category: "Hooks",
                title: "List hook groups",
                description: "Lists the groups that hold at least one hook.",
                handler: listGroups
            ),
            Endpoint(
                .get,
                "/hooks/<hookGroupId>",
                name: "listHooks",
                scopes: try ScopeTemplate("hooks:list-hooks:<hookGroupId>"),
                parameters: Self.parameters,
                output: "v1/list-hooks-response.json",
                category: "Hooks",
                title: "List hooks in a given group",
                description: "Lists the definitions of all hooks of a group.",
                handler: listHooks
            ),
            Endpoint(
                .get,
                Self.hookRoute,
                name: "hook",
                scopes: try ScopeTemplate("hooks:get:<hookGroupId>:<hookId>"),
                parameters: Self.parameters,
                output: "v1/hook-definition.json",
                category: "Hooks",
                title: "Get hook definition",
                description: "Gets the definition of one hook.",
                handler: hook
            ),
            Endpoint(
                .put,
                Self.hookRoute,
                name: "createHook",
                scopes: mayChange,
                parameters: Self.parameters,
                input: "v1/create-hook-request.json",
                output: "v1/hook-definition.json",
                category: "Hooks",
                title: "Create a hook",
                description: "Creates a hook. Repeating the request with the same definition succeeds.",
                handler: createHook
            ),
            Endpoint(
                .post,
                Self.hookRoute,
                name: "updateHook",
                scopes: mayChange,
                parameters: Self.parameters,
                input: "v1/create-hook-request.json",
                output: "v1/hook-definition.json",
                category: "Hooks",
                title: "Update a hook",
                description: "Replaces the definition of a hook; bindings are kept if the request has none.",
                handler: updateHook
            ),
            Endpoint(
                .delete,
                Self.hookRoute,
                name: "removeHook",
                scopes: try ScopeTemplate("hooks:modify-hook:<hookGroupId>/<hookId>"),
                parameters: Self.parameters,
                category: "Hooks",
                title: "Delete a hook",
                description: "Deletes a hook and its history; success also if there is none.",
                handler: removeHook
            ),
        ]
    }

    /// Whoever shapes a hook's tasks must hold the hook's role, and so everything those tasks can do.
    static func mayChange() throws(ScopeError) -> ScopeTemplate {
        try ScopeTemplate([
            "AllOf": ["hooks:modify-hook:<hookGroupId>/<hookId>", "assume:hook-id:<hookGroupId>/<hookId>"]
        ])
    }

    @Sendable func listGroups(_ request: APIRequest) async throws -> APIResponse {
        .json(["groups": JSONValue(try await store.groups())])
    }

    @Sendable func listHooks(_ request: APIRequest) async throws -> APIResponse {
        let hooks = try await store.hooks(in: request.parameter("hookGroupId"))
        guard !hooks.isEmpty else { throw APIError(.resourceNotFound, "No such group") }
        return .json(["hooks": .array(hooks.map(\.definition.json))])
    }

    @Sendable func hook(_ request: APIRequest) async throws -> APIResponse {
        guard let hook = try await store.hook(request.hookName) else { throw APIError.noSuchHook }
        return .json(hook.definition.json)
    }

    @Sendable func createHook(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        let definition = try HookRequest(request.body, name: name).definition(defaultBindings: [])
        let next = try refusing { () throws(InvalidHook) in
            try rules.check(definition, scheduleFirst: true, now: now())
        }
        switch try await store.create(definition, next: next, by: request.clientID ?? "") {
        case .created: audit("created", name, request)
        case .repeated: break
        case .conflict: throw APIError(.requestConflict, "hook `\(name)` already exists.")
        }
        return .json(definition.json)
    }

    @Sendable func updateHook(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        let wanted = try HookRequest(request.body, name: name)
        let (rules, now) = (rules, now)
        let updated = try await store.update(name, by: request.clientID ?? "") { stored in
            let definition = wanted.definition(defaultBindings: stored.bindings)
            let next = try refusing { () throws(InvalidHook) in
                try rules.check(definition, scheduleFirst: false, now: now())
            }
            return (definition, next)
        }
        guard let updated else { throw APIError.noSuchHook }
        audit("updated", name, request)
        return .json(updated.json)
    }

    @Sendable func removeHook(_ request: APIRequest) async throws -> APIResponse {
        // What it did is announced before it is gone.
        try await fires.settleEnds(of: request.hookName)
        try await store.remove(request.hookName, by: request.clientID ?? "")
        audit("deleted", request.hookName, request)
        return .json([:])
    }

    private func audit(_ action: String, _ name: HookName, _ request: APIRequest) {
        Logger.current.info(
            "audit-event",
            metadata: [
                "service": "hooks", "entity": "hook", "entityId": "\(name)", "clientId": "\(request.clientID ?? "")",
                "action": "\(action)",
            ]
        )
    }
}

/// Runs a rule and turns its refusal into what callers are answered.
private func refusing<Value>(_ rule: () throws(InvalidHook) -> Value) throws(APIError) -> Value {
    do {
        return try rule()
    } catch {
        throw APIError(.inputError, "{{problem}}", details: ["problem": JSONValue(error.message)])
    }
}
