// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Schedules
import Taskcluster

/// The part of auth that services and clients need to check who they are.
public struct AuthAPI: Sendable {
    private let directory: DirectoryStore
    private let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    public init(directory: DirectoryStore, now: @escaping @Sendable () -> Timestamp) {
        self.directory = directory
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "auth",
            title: "Auth",
            description: "Knows clients, roles and scopes.",
            schemas: schemas,
            endpoints: [
                Endpoint(
                    .post,
                    "/authenticate-hawk",
                    name: "authenticateHawk",
                    input: "v1/authenticate-hawk-request.json",
                    category: "Authentication",
                    title: "Check a request",
                    description: "Tells a service who sent a request and what they may do.",
                    payloadInErrors: { _ in .object([:]) },
                    handler: authenticateHawk
                ),
                Endpoint(
                    .get,
                    "/scopes/current",
                    name: "currentScopes",
                    scopes: .scope("auth:current-scopes"),
                    category: "Scopes",
                    title: "Get the caller's scopes",
                    description: "Answers with the scopes of the request itself, roles expanded.",
                    handler: { .json(["scopes": JSONValue($0.scopes)]) }
                ),
                Endpoint(
                    .post,
                    "/scopes/expand",
                    name: "expandScopes",
                    scopes: .scope("auth:expand-scopes"),
                    input: "v1/scopeset.json",
                    category: "Scopes",
                    title: "Expand scopes",
                    description: "Answers with the given scopes, roles expanded.",
                    handler: expandScopes
                ),
            ]
        )
    }

    private func authenticateHawk(_ request: APIRequest) async throws -> APIResponse {
        guard let question = AuthenticationRequest(json: request.body) else {
            throw APIError(.inputError, "The request to check is incomplete.")
        }
        return .json(try await directory.authenticate(question).json)
    }

    private func expandScopes(_ request: APIRequest) async throws -> APIResponse {
        let scopes = request.body["scopes"]?.array?.compactMap(\.string) ?? []
        return .json(["scopes": JSONValue(directory.expand(scopes))])
    }
}
