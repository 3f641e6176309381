// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
import Schedules
import StepKit

/// The issuer for tests over HTTP: its key set, its discovery document, and tokens for whoever asks.
public struct TestIssuerAPI: Sendable {
    private let issuer: TestIssuer
    private let users: [String: TestUser]
    private let url: String
    private let audience: String

    /// Serves tokens for users; `url` is the issuer as tokens spell it, with a slash at its end.
    public init(issuer: TestIssuer, users: [TestUser], url: String, audience: String) {
        self.issuer = issuer
        self.users = Dictionary(users.map { ($0.name, $0) }) { first, _ in first }
        self.url = url
        self.audience = audience
    }

    /// The whole API.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "shipit-oidc-dev",
            title: "Issuer for tests",
            description: "Vouches for anybody; for development alone.",
            schemas: schemas,
            endpoints: [
                endpoint(.get, "/.well-known/jwks.json", "keys") { _ in .json(try issuer.keySet()) },
                endpoint(.get, "/.well-known/openid-configuration", "configuration") { _ in
                    .json([
                        "issuer": .string(url), "jwks_uri": .string("\(url).well-known/jwks.json"),
                        "token_endpoint": .string("\(url)token"),
                        "id_token_signing_alg_values_supported": ["RS256"],
                        TestIssuer.mark: true,
                    ])
                },
                endpoint(.post, "/token", "token") { request in try token(request) },
            ],
            mount: .root,
            errors: .problem
        )
    }

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        _ handler: @escaping Endpoint.Handler
    ) -> Endpoint {
        Endpoint(
            method,
            route,
            name: name,
            category: "Issuer",
            title: name,
            description: name,
            handler: handler
        )
    }

    private func token(_ request: APIRequest) throws -> APIResponse {
        let body: JSONObject
        do {
            body = try request.jsonObject()
        } catch {
            throw APIError(.inputError, error.detail)
        }
        guard let user = body["user"]?.string.flatMap({ users[$0] }) else {
            throw APIError(.resourceNotFound, "There is no such user in the list of this issuer")
        }
        let claims = user.claims(issuer: url, audience: audience, now: .now())
        let lifetime = 3600
        return .json([
            "access_token": .string(try issuer.token(claims)), "token_type": "Bearer",
            "expires_in": JSONValue(lifetime),
        ])
    }
}
