// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Taskcluster

extension Endpoint {
    /// An endpoint whose problems become API errors and whose title says all there is to say.
    ///
    /// Of the rules for parameters those count that the route names; schemas go by their names in version 1.
    static func answering(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        scopes: ScopeTemplate?,
        mode: Mode = .automatic,
        query: [String: QueryRule] = [:],
        parameters: [String: ParameterRule] = [:],
        input: String? = nil,
        output: String? = nil,
        category: String,
        stability: Stability = .stable,
        publish: Bool = true,
        showsPayload: Bool = true,
        _ title: String,
        _ handler: @escaping Handler
    ) -> Endpoint {
        let names = Set(route.split(whereSeparator: { "<>*".contains($0) }).map(String.init))
        let shown: @Sendable (JSONValue) -> JSONValue = { showsPayload ? $0 : .object([:]) }
        return Endpoint(
            method,
            route,
            name: name,
            scopes: scopes,
            authorization: mode,
            query: query,
            parameters: parameters.filter { names.contains($0.key) },
            input: input.map { "v1/\($0).json" },
            output: output.map { "v1/\($0).json" },
            category: category,
            stability: stability,
            title: title,
            description: title,
            publish: publish,
            payloadInErrors: shown,
            handler: { try await LocalTaskclusterKit.answering(handler, $0) }
        )
    }
}
