// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Taskcluster

/// A request that met the declared rules of its endpoint, as its handler sees it.
public struct APIRequest: Sendable {
    let call: APICall
    let state: RequestState
    /// The query options that were given, decoded.
    public let query: [String: String]
    /// The body with its schema's defaults filled in; an empty object for endpoints without an input schema.
    public let body: JSONValue
    private let continuation: [JSONValue]?

    init(call: APICall, state: RequestState, query: [String: String], body: JSONValue, continuation: [JSONValue]?) {
        self.call = call
        self.state = state
        self.query = query
        self.body = body
        self.continuation = continuation
    }

    /// The decoded value of a route parameter.
    ///
    /// Asking for a name that the route does not have is a programming error.
    public func parameter(_ name: String) -> String {
        guard let value = state.parameters[name] else {
            preconditionFailure("the route of \(state.endpoint.name) has no parameter \(name)")
        }
        return value
    }

    /// The bytes of the body as they arrived.
    public var rawBody: [UInt8] { state.rawBody }

    /// The first value of a header field, whatever the case of its name.
    public func header(_ name: String) -> String? {
        state.head.field(name)
    }

    /// The target of the request line: path and query, byte for byte.
    public var resource: String { state.head.target }

    /// The address of the caller, or of the caller's proxy.
    public var remoteAddress: String? { state.head.remoteAddress() }

    /// The identifier that ties together what several services do for one request.
    public var traceID: String { state.traceID }

    /// The identifier of this request alone.
    public var requestID: String { state.requestID }

    // MARK: - Who asks

    /// The caller's name, once authenticated; nil for anonymous callers and public endpoints.
    public var clientID: String? { state.identity?.clientID }

    /// The caller's expanded scopes, once authenticated.
    public var scopes: [String] { state.identity?.scopes ?? [] }

    /// What an authenticator is asked about this request; for endpoints that verify signatures of their own.
    public var authenticationRequest: AuthenticationRequest { state.authenticationRequest }

    /// Checks the caller's credentials without asking for scopes, even on a public endpoint.
    ///
    /// Wrong credentials are an `AuthenticationFailed`. The check happens at most once for a request.
    public func authenticate() async throws {
        _ = try await state.authenticate()
    }

    /// Compares the caller's scopes with the endpoint's, filling in the route's parameters and the given values.
    ///
    /// Lacking scopes are an `InsufficientScopes`. A value that the scopes mention and nobody gave is a programming
    /// error, answered as an internal error.
    public func authorize(_ values: [String: JSONValue] = [:]) async throws {
        try await state.authorize(values)
    }

    /// Authenticates the caller if that did not happen yet, and demands an expression beyond the declared one.
    public func authorize(expression: ScopeExpression) async throws {
        _ = try await state.authenticate()
        try require(expression)
    }

    /// Demands an expression beyond the declared one of a caller that was authenticated before.
    ///
    /// Success counts as authorisation.
    public func require(_ expression: ScopeExpression) throws {
        try state.require(expression)
    }

    // MARK: - What is asked

    /// The page that `limit` and `continuationToken` ask for; at most a thousand rows.
    public var page: PageRequest { page(maximum: 1000) }

    /// The page that `limit` and `continuationToken` ask for.
    public func page(maximum: Int) -> PageRequest {
        // Zero and absence mean the default; a number too long for Int is above any maximum.
        let asked = query["limit"].map { Int($0) ?? maximum } ?? maximum
        return PageRequest(limit: asked == 0 ? maximum : min(asked, maximum), continuation: continuation)
    }

    /// Tells whether a query option says yes.
    public func flag(_ name: String) -> Bool {
        query[name] == "true" || query[name] == "1"
    }

    // MARK: - Is anybody still listening

    /// Names what to do if the client turns out to be gone before the answer is written; the last call counts.
    public func onUndelivered(_ undo: @escaping @Sendable () async -> Void) {
        state.head.delivery.watch(undo)
    }

    /// Runs a long operation that is cancelled as soon as the client goes away.
    ///
    /// If the operation answers nevertheless, its answer is returned; if it is cancelled, that is no failure of the server.
    public func withDisconnect<Value: Sendable>(
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await state.head.withDisconnect(body)
    }
}

/// Nobody waits for the answer any more.
struct ClientLeft: Error {
    /// What logs and metrics show instead of a status that was never sent.
    static let status = 499
}
