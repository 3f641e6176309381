// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Taskcluster

extension HooksAPI {
    /// Addresses of the service's first design that still mean something; they are not part of the reference.
    func seedEndpoints() throws -> [Endpoint] {
        [
            Endpoint(
                .patch,
                Self.hookRoute,
                name: "patchHook",
                scopes: try Self.mayChange(),
                parameters: Self.parameters,
                input: "v1/create-hook-request.json",
                output: "v1/hook-definition.json",
                category: "Hooks",
                stability: .deprecated,
                title: "Update a hook",
                description: "The first name of `updateHook`: replaces the whole definition.",
                publish: false,
                handler: updateHook
            ),
            Endpoint(
                .get,
                Self.hookRoute + "/schedule",
                name: "getHookSchedule",
                scopes: try ScopeTemplate("hooks:status:<hookGroupId>/<hookId>"),
                parameters: Self.parameters,
                category: "Hook Status",
                stability: .deprecated,
                title: "Get hook schedule",
                description: "Tells the schedule and its next instant; nothing for hooks without a schedule.",
                publish: false,
                handler: schedule
            ),
        ]
    }

    @Sendable func schedule(_ request: APIRequest) async throws -> APIResponse {
        guard let hook = try await store.hook(request.hookName) else { throw APIError.noSuchHook }
        let patterns = hook.definition.schedule
        guard !patterns.isEmpty else { return .json([:]) }
        let outstanding = try await history.outstandingInstant(of: request.hookName)
        return .json([
            "schedule": JSONValue(patterns),
            "nextScheduledDate": JSONValue((outstanding ?? hook.nextScheduledDate).iso8601),
        ])
    }
}
