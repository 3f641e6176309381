// SPDX-License-Identifier: MPL-2.0

public import Core
public import HTTPClient
import JSON
import Synchronization
public import Taskcluster

/// Verifies requests by asking the deployment's auth service, about those that come at the same time in one call where
/// the service can do that.
public final class RemoteAuthenticator: RequestAuthenticator {
    private let calls: AuthCalls
    private let rounds: Coalescer<AuthenticationRequest, AuthenticationResult?>
    /// How many requests wait for their verdict, whether or not the call is under way.
    private let asking: UnderWay

    /// An authenticator for the deployment at `rootURL`.
    ///
    /// Few and quick repetitions by default: a request is waiting for the verdict. At most `concurrency` calls are under
    /// way. `expecting` tells how many requests are answered now that were verified before: their senders may soon send
    /// the next ones.
    public init(
        rootURL: String,
        transport: any HTTPTransport,
        retry: RetryPolicy = RetryPolicy(attempts: 3, base: .milliseconds(50), maximum: .seconds(1)),
        concurrency: Int = 2,
        expecting: (@Sendable () -> Int)? = nil
    ) {
        let client = TaskclusterClient(rootURL: rootURL, credentials: { nil }, transport: transport, retry: retry)
        let calls = AuthCalls(client: client)
        self.calls = calls
        let asking = UnderWay()
        self.asking = asking
        let expecting = expecting.map { answering in { @Sendable in answering() + asking.count } }
        rounds = Coalescer(concurrency: concurrency, expecting: expecting) { await calls.authenticate($0) }
    }

    /// How many requests wait for a call to begin.
    package var waiting: Int { rounds.waiting }

    /// The verdict about a request; throws when the auth service cannot be asked.
    public func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        asking.begin()
        defer { asking.end() }
        guard calls.mayJoin, let verdict = try await rounds.submit(request) else {
            return try await calls.authenticate(alone: request)
        }
        return verdict
    }
}

/// The calls of the auth service, and whether it takes several requests at a time.
private final class AuthCalls: Sendable {
    private let client: TaskclusterClient
    /// Until when the service is taken at its word that it takes only one request at a time.
    private let aloneUntil = Mutex<ContinuousClock.Instant?>(nil)

    /// A deployment may learn it with its next release.
    private static let memory = Duration.seconds(300)

    init(client: TaskclusterClient) {
        self.client = client
    }

    /// Whether several requests may be asked about in one call.
    var mayJoin: Bool { aloneUntil.withLock { $0.map { $0 < .now } ?? true } }

    /// The verdicts about requests; nil for those that are to be asked about in a call of their own.
    func authenticate(_ requests: [AuthenticationRequest]) async -> [Result<AuthenticationResult?, any Error>] {
        if requests.count == 1 {
            do { return [.success(try await authenticate(alone: requests[0]))] } catch { return [.failure(error)] }
        }
        let each = [Result<AuthenticationResult?, any Error>](repeating: .success(nil), count: requests.count)
        guard mayJoin else { return each }
        do throws(TaskclusterError) {
            let json = try await client.call(
                "auth",
                "POST",
                ["authenticate-hawk", "several"],
                body: ["requests": .array(requests.map(\.json))]
            )
            let verdicts = json["verdicts"]?.array?.compactMap(AuthenticationResult.init(json:))
            // What is not understood is asked again in the way that everybody understands.
            guard let verdicts, verdicts.count == requests.count else { return each }
            return verdicts.map { .success($0) }
        } catch {
            switch error.status {
            case nil, .some(500...): return requests.map { _ in .failure(error) }
            case 404, 405: aloneUntil.withLock { $0 = .now + Self.memory }
            default: break
            }
            return each
        }
    }

    func authenticate(alone request: AuthenticationRequest) async throws -> AuthenticationResult {
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
