// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
import Schedules
import StepKit
import Synchronization
import Taskcluster

/// The issuer for tests over HTTP: its key set, its discovery document, and tokens for whoever asks.
public struct TestIssuerAPI: Sendable {
    private let issuer: TestIssuer
    private let users: [String: TestUser]
    private let url: String
    private let audience: String
    private let opaque = OpaqueUsers()

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
                        "userinfo_endpoint": .string("\(url)userinfo"),
                        "id_token_signing_alg_values_supported": ["RS256"],
                        TestIssuer.mark: true,
                    ])
                },
                endpoint(.post, "/token", "token") { request in try token(request) },
                endpoint(.get, "/userinfo", "userinfo") { request in userinfo(request) },
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
        let lifetime = 3600
        let token =
            body["opaque"]?.bool == true
            ? opaque.token(of: user, until: .now() + .seconds(lifetime))
            : try issuer.token(user.claims(issuer: url, audience: audience, now: .now(), lifetime: lifetime))
        return .json([
            "access_token": .string(token), "token_type": "Bearer",
            "expires_in": JSONValue(lifetime),
        ])
    }

    /// What the owner of an opaque token is like; the word of a refusal comes with 200, as from some real issuers.
    private func userinfo(_ request: APIRequest) -> APIResponse {
        let parts = (request.header("authorization") ?? "").split(separator: " ").map(String.init)
        guard parts.count == 2, parts[0].lowercased() == "bearer", let user = opaque.user(of: parts[1], at: .now())
        else {
            return .text("Unauthorized", contentType: "text/plain")
        }
        var claims = user.claims(issuer: url, audience: audience, now: .now())
        for name in ["iss", "aud", "iat", "exp", "jti"] { claims[name] = nil }
        return .json(.object(claims))
    }
}

/// Whose the opaque tokens are; the newest thousand count.
private final class OpaqueUsers: Sendable {
    private let tokens = Mutex<(owners: [String: (user: TestUser, end: Timestamp)], order: [String])>(([:], []))

    func token(of user: TestUser, until end: Timestamp) -> String {
        let token = Slugid.make() + Slugid.make()
        tokens.withLock { tokens in
            tokens.owners[token] = (user, end)
            tokens.order.append(token)
            if tokens.order.count > 1000 { tokens.owners[tokens.order.removeFirst()] = nil }
        }
        return token
    }

    func user(of token: String, at now: Timestamp) -> TestUser? {
        tokens.withLock { tokens in tokens.owners[token].flatMap { now < $0.end ? $0.user : nil } }
    }
}
