// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Taskcluster

/// The clients and moments the published vectors use.
enum Vectors {
    static let key = "Zm9vYmFyLWFjY2Vzcy10b2tlbi0xMjM0"
    static let clientID = "project/demo/client-1"
    static let now = Timestamp(milliseconds: 1_500_000_000_000)
    static let target = HawkTarget(host: "tc.example.test", port: 8080, resource: "/api/queue/v1/ping?x=1")
    static let credentials = Hawk.Credentials(clientID: clientID, accessToken: key)
    static let issuer = Hawk.Credentials(clientID: "issuer/one", accessToken: key)

    static func directory(
        scopes: [String] = ["scope:*"],
        roles: [Role] = [],
        expires: Timestamp = .farFuture,
        disabled: Bool = false
    ) -> CredentialDirectory {
        let demo = Client(id: clientID, accessToken: key, scopes: scopes, expires: expires, disabled: disabled)
        let power = ["auth:create-client:temp/*", "scope:*"]
        let issuer = Client(id: "issuer/one", accessToken: key, scopes: power, expires: expires, disabled: disabled)
        return CredentialDirectory(clients: [demo.id: demo, issuer.id: issuer], roles: RoleSet(roles))
    }

    static func request(_ authorization: String?, resource: String = target.resource) -> AuthenticationRequest {
        AuthenticationRequest(
            method: "get",
            resource: resource,
            host: target.host,
            port: target.port,
            authorization: authorization
        )
    }

    static func header(
        _ credentials: Hawk.Credentials = credentials,
        authorizedScopes: [String]? = nil,
        at time: Timestamp = now
    ) -> String {
        Hawk.authorization(
            for: "GET",
            url: target,
            credentials: credentials,
            authorizedScopes: authorizedScopes,
            now: time,
            nonce: "abc123"
        )
    }
}

extension AuthenticationResult {
    var message: String? { if case .failed(let message) = self { message } else { nil } }
    var clientID: String? { if case .success(let id, _, _, _) = self { id } else { nil } }
    var scopes: [String]? {
        switch self {
        case .success(_, _, let scopes, _), .none(let scopes, _): scopes
        case .failed: nil
        }
    }
}
