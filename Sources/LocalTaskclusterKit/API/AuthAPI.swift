// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Schedules
import Taskcluster

/// Auth: clients, roles, and who a request comes from.
public struct AuthAPI: Sendable {
    let directory: DirectoryStore
    let audit: AuditStore
    let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    public init(directory: DirectoryStore, audit: AuditStore, now: @escaping @Sendable () -> Timestamp) {
        self.directory = directory
        self.audit = audit
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "auth",
            title: "Auth",
            description: "Knows clients, roles and scopes.",
            schemas: schemas,
            endpoints: clientEndpoints + roleEndpoints + authenticationEndpoints + auditEndpoints,
            exchanges: AuthMessages.references
        )
    }

    /// Declares an endpoint whose problems become API errors.
    func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        scopes: ScopeTemplate?,
        mode: Endpoint.Mode = .automatic,
        query: [String: QueryRule] = [:],
        input: String? = nil,
        output: String? = nil,
        category: String,
        _ title: String,
        _ handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) -> Endpoint {
        .answering(
            method,
            route,
            name,
            scopes: scopes,
            mode: mode,
            query: query,
            parameters: Self.parameters,
            input: input,
            output: output,
            category: category,
            showsPayload: false,
            title,
            handler
        )
    }

    private static let parameters: [String: ParameterRule] = [
        "clientId": ParameterRule(pattern: Patterns.clientID.regularExpression) { Patterns.clientID.matches($0) },
        "roleId": ParameterRule(pattern: Patterns.roleID.regularExpression) { Patterns.roleID.matches($0) },
        "entityType": "^(client|role|secret|hook|worker_pool)$",
    ]

    // MARK: - Who is it

    private var authenticationEndpoints: [Endpoint] {
        [
            endpoint(
                .get,
                "/scopes/current",
                "currentScopes",
                scopes: .scope("auth:current-scopes"),
                output: "scopeset",
                category: "Scopes",
                "Get the caller's scopes, roles expanded"
            ) {
                .json(["scopes": JSONValue($0.scopes)])
            },
            endpoint(
                .post,
                "/scopes/expand",
                "expandScopes",
                scopes: .scope("auth:expand-scopes"),
                input: "scopeset",
                output: "scopeset",
                category: "Scopes",
                "Expand scopes"
            ) { request in
                .json(["scopes": JSONValue(directory.expand(request.strings("scopes")))])
            },
            endpoint(
                .post,
                "/authenticate-hawk",
                "authenticateHawk",
                scopes: nil,
                input: "authenticate-hawk-request",
                output: "authenticate-hawk-response",
                category: "Authentication",
                "Tell a service who sent a request and what they may do"
            ) { request in
                guard let question = AuthenticationRequest(json: request.body) else {
                    throw APIError(.inputError, "The request to check is incomplete.")
                }
                // As text: a verdict is made by one function only, and checking it costs more than reaching it.
                return .rawJSON(try await directory.authenticate(question).json.bytes())
            },
            Endpoint(
                .post,
                "/authenticate-hawk/several",
                name: "authenticateHawkRequests",
                input: "v1/authenticate-hawk-requests.json",
                output: "v1/authenticate-hawk-responses.json",
                category: "Authentication",
                stability: .experimental,
                title: "Tell a service who sent several requests",
                description: "Answers as so many calls of `authenticateHawk` would.",
                publish: false,
                payloadInErrors: { _ in .object([:]) },
                handler: authenticateSeveral
            ),
            endpoint(
                .post,
                "/test-authenticate",
                "testAuthenticate",
                scopes: nil,
                input: "test-authenticate-request",
                output: "test-authenticate-response",
                category: "Authentication",
                "Check that a client library signs as it should"
            ) { request in
                try test(
                    request,
                    held: request.strings("clientScopes"),
                    required: request.strings("requiredScopes")
                )
            },
            endpoint(
                .get,
                "/test-authenticate-get/",
                "testAuthenticateGet",
                scopes: nil,
                output: "test-authenticate-response",
                category: "Authentication",
                "Check that a client library signs a GET as it should"
            ) { request in
                try test(
                    request,
                    held: ["test:*", "auth:create-client:test:*"],
                    required: ["test:authenticate-get"]
                )
            },
        ]
    }

    /// Sent as text: verdicts are made by one function only, and checking them costs more than reaching them.
    @Sendable private func authenticateSeveral(_ request: APIRequest) async throws -> APIResponse {
        var verdicts = SplicedJSON()
        verdicts.append("{\"verdicts\":[")
        for (index, body) in (request.body["requests"]?.array ?? []).enumerated() {
            guard let question = AuthenticationRequest(json: body) else {
                throw APIError(.inputError, "The request to check is incomplete.")
            }
            if index > 0 { verdicts.append(",") }
            verdicts.append(try await directory.authenticate(question).json)
        }
        verdicts.append("]}")
        return .rawJSON(verdicts.bytes)
    }

    /// Verifies the request as if the deployment had one client, `tester`, and no roles.
    private func test(_ request: APIRequest, held: [String], required: [String]) throws -> APIResponse {
        let tester = Client(id: "tester", accessToken: "no-secret", scopes: held)
        let directory = CredentialDirectory(clients: [tester.id: tester], roles: RoleSet([]))
        switch directory.authenticate(request.authenticationRequest, now: now()) {
        case .success(let clientID, _, let scopes, _):
            let expression: ScopeExpression = .allOf(required.map { .scope($0) })
            if let missing = expression.missing(from: scopes) {
                throw APIError(
                    .insufficientScopes,
                    "The test client lacks these scopes:\n\n```\n{{missing}}\n```",
                    details: ["missing": missing.json]
                )
            }
            return .json(["clientId": JSONValue(clientID), "scopes": JSONValue(scopes)])
        case .failed(let message):
            throw APIError(.authenticationFailed, message)
        case .none:
            throw APIError(.authenticationFailed, "The request to test is not signed.")
        }
    }

    // MARK: - Who changed it

    private var auditEndpoints: [Endpoint] {
        [
            endpoint(
                .get,
                "/audit/<entityType>/<entityId>",
                "getEntityHistory",
                scopes: .scope("auth:audit-history:<entityType>"),
                query: .paging,
                category: "Audit",
                "List the changes of a client, role or secret, newest first"
            ) { request in
                let page = request.page
                let entries = try await audit.history(
                    of: request.parameter("entityType"),
                    request.parameter("entityId"),
                    before: try page.int(0),
                    limit: page.fetch
                )
                return .json(page.reply("auditHistory", entries, columns: { [JSONValue($0.id)] }, json: \.json))
            },
            endpoint(
                .get,
                "/clients/<clientId>/audit",
                "listAuditHistory",
                scopes: .scope("auth:client-audit-history:<clientId>"),
                query: .paging,
                category: "Audit",
                "List the changes a client made, newest first"
            ) { request in
                let page = request.page
                let entries = try await audit.history(
                    by: request.parameter("clientId"),
                    before: try page.int(0),
                    limit: page.fetch
                )
                return .json(page.reply("auditHistory", entries, columns: { [JSONValue($0.id)] }, json: \.json))
            },
        ]
    }
}

extension APIRequest {
    /// The strings of an array in the body.
    func strings(_ key: String) -> [String] { body[key]?.array?.compactMap(\.string) ?? [] }

    /// Who is noted as the author of a change.
    var author: String { clientID ?? "anonymous" }
}
