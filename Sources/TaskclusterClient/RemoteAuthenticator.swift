// SPDX-License-Identifier: MPL-2.0

public import Core
public import HTTPClient
public import Taskcluster

/// Verifies requests by asking the deployment's auth service.
public struct RemoteAuthenticator: RequestAuthenticator {
    private let client: TaskclusterClient

    /// An authenticator for the deployment at `rootURL`.
    ///
    /// Few and quick repetitions by default: a request is waiting for the verdict.
    public init(
        rootURL: String,
        transport: any HTTPTransport,
        retry: RetryPolicy = RetryPolicy(attempts: 3, base: .milliseconds(50), maximum: .seconds(1))
    ) {
        client = TaskclusterClient(rootURL: rootURL, credentials: { nil }, transport: transport, retry: retry)
    }

    /// The verdict about a request; throws when the auth service cannot be asked.
    public func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        let json = try await client.auth.authenticateHawk(request)
        guard let result = AuthenticationResult(json: json) else {
            throw TaskclusterError(
                status: 200,
                code: "InvalidResponse",
                message: "the auth service's verdict is not understood",
                method: "POST",
                url: client.url("auth", ["authenticate-hawk"]),
                isRetriable: false
            )
        }
        return result
    }
}
