// SPDX-License-Identifier: MPL-2.0

public import JSON

/// One of several calls that travel in one request; its sender is the sender of the whole.
public struct RequestPart: Sendable {
    /// The API method that is called, one of the same API.
    public let name: String
    /// The decoded values of the method's route parameters.
    public let parameters: [String: String]
    /// The body of the call.
    public let payload: JSONValue
    /// What the call may use of the sender's scopes.
    public let scopes: [String]
    /// Why the call is not made at all.
    public let refusal: APIError?

    /// Describes a call.
    public init(
        _ name: String,
        parameters: [String: String],
        payload: JSONValue,
        scopes: [String],
        refusal: APIError? = nil
    ) {
        self.name = name
        self.parameters = parameters
        self.payload = payload
        self.scopes = scopes
        self.refusal = refusal
    }
}

/// A part of a request names a method that its API does not have.
public struct UnknownMethod: Error, CustomStringConvertible {
    /// The name.
    public let name: String

    /// What to tell the operator.
    public var description: String { "the API has no method \(name)" }
}

/// What a part of a request is answered: exactly what it would have been answered alone.
public struct PartAnswer: Sendable {
    /// The status.
    public let status: Int
    /// The bytes of the body.
    public let body: [UInt8]
}

extension APIRequest {
    /// Answers a call that travels in this request by the rules of its own endpoint: parameters, body, scopes, handler,
    /// error bodies, log line and metrics.
    ///
    /// The sender must have been authenticated, and the caller vouches that the part's scopes are the sender's. Throws
    /// when the API has no such method.
    public func perform(_ part: RequestPart) async throws(UnknownMethod) -> PartAnswer {
        guard let reply = await call.perform(part, of: state) else { throw UnknownMethod(name: part.name) }
        guard case .bytes(let bytes) = reply.body else { return PartAnswer(status: reply.status, body: []) }
        return PartAnswer(status: reply.status, body: bytes)
    }
}

extension APICall {
    /// Answers a part with its own route; nil when there is none.
    fileprivate func perform(_ part: RequestPart, of whole: RequestState) async -> Reply? {
        guard let route = dispatcher.routes.route(named: part.name, of: route.api) else { return nil }
        let call = APICall(dispatcher: dispatcher, route: route, head: head, identifiers: identifiers)
        return await call.answer(part, of: whole)
    }
}
