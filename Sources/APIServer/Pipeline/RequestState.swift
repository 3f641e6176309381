// SPDX-License-Identifier: MPL-2.0

import HTTPTypes
import JSON
import Schedules
import Synchronization
import Taskcluster

/// Who sent a request, as far as the authenticator could tell.
struct Identity: Sendable {
    /// Nil for callers without credentials.
    let clientID: String?
    let scopes: [String]
    let expires: Timestamp
}

/// One request to an endpoint on its way through the checks: what is fixed, and what became known about the caller.
final class RequestState: Sendable {
    let head: RequestHead
    let api: API
    let endpoint: Endpoint
    let parameters: [String: String]
    let rawBody: [UInt8]
    /// The parsed body before validation, for error bodies.
    let payload: JSONValue
    let traceID: String
    let requestID: String
    private let authenticator: (any RequestAuthenticator)?
    /// Whether this came as a part of another request.
    private let isPart: Bool

    private struct Caller {
        var identity: Identity?
        var isAuthorized = false
        var satisfying: ScopeExpression?
    }

    private let caller = Mutex(Caller())

    init(
        head: RequestHead,
        api: API,
        endpoint: Endpoint,
        parameters: [String: String],
        rawBody: [UInt8],
        payload: JSONValue,
        identifiers: (trace: String, request: String),
        authenticator: (any RequestAuthenticator)?
    ) {
        self.head = head
        self.api = api
        self.endpoint = endpoint
        self.parameters = parameters
        self.rawBody = rawBody
        self.payload = payload
        self.traceID = identifiers.trace
        self.requestID = identifiers.request
        self.authenticator = authenticator
        isPart = false
    }

    /// A part of a request: the same sender, limited to the part's scopes.
    init(_ part: RequestPart, of whole: RequestState, _ endpoint: Endpoint) {
        head = whole.head
        api = whole.api
        self.endpoint = endpoint
        parameters = part.parameters
        rawBody = whole.rawBody
        payload = part.payload
        traceID = whole.traceID
        requestID = whole.requestID
        authenticator = whole.authenticator
        isPart = true
        let sender = whole.identity
        let identity = Identity(clientID: sender?.clientID, scopes: part.scopes, expires: sender?.expires ?? .now())
        caller.withLock { $0.identity = identity }
    }

    /// The path that a part would have been sent to by itself; nil for other requests.
    var partResource: String? {
        guard isPart else { return nil }
        var path = "/api/\(api.service)/\(api.version)"
        for segment in RoutePattern(endpoint.route).segments {
            switch segment {
            case .literal(let literal): path += "/\(literal)"
            case .parameter(let name), .rest(let name):
                let value = parameters[name] ?? ""
                path += endpoint.secretParameters.contains(name) ? "/..." : "/\(value)"
            }
        }
        return path
    }

    var identity: Identity? { caller.withLock { $0.identity } }
    var isAuthorized: Bool { endpoint.scopes == nil || caller.withLock { $0.isAuthorized } }
    var satisfied: ScopeExpression? { caller.withLock { $0.satisfying } }

    /// The request as its signature saw it.
    var authenticationRequest: AuthenticationRequest {
        let address = HawkAddress(head)
        return AuthenticationRequest(
            method: head.method.lowercased(),
            resource: head.target,
            host: address.host,
            port: address.port,
            authorization: head.fields[.authorization],
            sourceIP: head.remoteAddress()
        )
    }

    /// Asks the authenticator once and remembers the answer.
    func authenticate() async throws -> Identity {
        if let identity { return identity }
        guard let authenticator else {
            throw ServerFault(message: "no authenticator for an endpoint that needs one")
        }
        let identity: Identity
        switch try await authenticator.authenticate(authenticationRequest) {
        case .success(let clientID, let expires, let scopes, let hash):
            if let hash {
                try verify(hash)
            }
            identity = Identity(clientID: clientID, scopes: scopes, expires: expires)
        case .none(let scopes, let expires):
            identity = Identity(clientID: nil, scopes: scopes, expires: expires)
        case .failed(let message):
            throw APIError(.authenticationFailed, message)
        }
        caller.withLock { $0.identity = identity }
        return identity
    }

    /// Compares the declared scopes with the caller's.
    func authorize(_ values: [String: JSONValue]) async throws {
        guard let template = endpoint.scopes else { return }
        let identity = try await authenticate()
        var all = parameters.mapValues { JSONValue.string($0) }
        all.merge(values) { _, given in given }
        guard let expression = try template.rendered(all) else {
            caller.withLock { $0.isAuthorized = true }
            return
        }
        try check(expression, identity)
    }

    /// Compares an expression with the scopes of an authenticated caller.
    func require(_ expression: ScopeExpression) throws {
        guard let identity else {
            throw ServerFault(message: "scopes were required before the caller was authenticated")
        }
        try check(expression, identity)
    }

    private func check(_ expression: ScopeExpression, _ identity: Identity) throws {
        guard expression.isSatisfied(by: identity.scopes) else {
            throw ScopeRefusal.error(identity, expression)
        }
        caller.withLock { caller in
            caller.isAuthorized = true
            caller.satisfying = expression
        }
    }

    /// Compares the hash in the caller's header with the body that arrived.
    private func verify(_ hash: String) throws {
        let mediaType = head.mediaType
        let computed = Hawk.payloadHash(contentType: mediaType, body: rawBody)
        if ConstantTime.equal(hash, computed) { return }
        // Upstream hashes an empty text for bodies it does not parse; clients that adapted to it are accepted too.
        if mediaType != "application/json", !rawBody.isEmpty,
            ConstantTime.equal(hash, Hawk.payloadHash(contentType: mediaType, body: []))
        {
            return
        }
        throw APIError(
            .authenticationFailed,
            "Invalid payload hash: the header says \(hash), the payload hashes to \(computed)"
        )
    }
}

/// The host and port a client signed, as they can be seen behind proxies.
struct HawkAddress: Equatable {
    let host: String
    let port: Int

    init(_ head: RequestHead) {
        let isBelieved = head.believesSignedPort
        self.init(
            authority: head.host ?? "",
            forwardedPort: isBelieved ? head.fields[.forwardedPort] : nil,
            forwardedProto: isBelieved ? head.fields[.forwardedProto] : nil
        )
    }

    init(authority: String, forwardedPort: String?, forwardedProto: String?) {
        let text = authority.trimmingBlanks().lowercased()
        var name = text[...]
        var port: Int?
        // The colon of a port is the last one, unless it belongs to an address in brackets.
        if let colon = text.lastIndex(of: ":"), !text[colon...].contains("]") {
            name = text[..<colon]
            port = Int(text[text.index(after: colon)...])
        }
        host = String(name)
        let forwarded = forwardedPort.flatMap { Int($0.trimmingBlanks().prefix { $0.isASCII && $0.isNumber }) }
        if let forwarded {
            self.port = forwarded
        } else if forwardedProto?.prefix(while: { $0 != "," }).trimmingBlanks().lowercased() == "https" {
            self.port = 443
        } else {
            self.port = port ?? 80
        }
    }
}

/// Comparison that takes the same time wherever texts of one length differ.
enum ConstantTime {
    static func equal(_ left: String, _ right: String) -> Bool {
        let left = Array(left.utf8)
        let right = Array(right.utf8)
        guard left.count == right.count else { return false }
        return zip(left, right).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
}

/// The text of a refusal for lack of scopes.
enum ScopeRefusal {
    static func error(_ identity: Identity, _ expression: ScopeExpression) -> APIError {
        guard let clientID = identity.clientID else {
            return APIError(
                .insufficientScopes,
                """
                This request requires Taskcluster credentials that satisfy the following scope expression:

                ```
                {{required}}
                ```
                """,
                details: ["required": expression.json]
            )
        }
        return APIError(
            .insufficientScopes,
            """
            Client ID {{client}} does not have sufficient scopes and is missing the following scopes:

            ```
            {{missing}}
            ```

            This request requires the client to satisfy the following scope expression:

            ```
            {{required}}
            ```
            """,
            details: [
                "client": .string(clientID),
                "missing": (expression.missing(from: identity.scopes) ?? expression).json,
                "required": expression.json,
            ]
        )
    }
}

/// A failure of the server or of the code above it, never shown to a caller.
struct ServerFault: Error, CustomStringConvertible {
    let message: String
    var description: String { message }
}
