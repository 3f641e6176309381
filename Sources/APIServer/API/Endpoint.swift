// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Taskcluster

/// One endpoint of an API: its address, the rules that requests must meet, and the function that answers.
public struct Endpoint: Sendable {
    /// The function that answers a request which met all declared rules.
    public typealias Handler = @Sendable (APIRequest) async throws -> APIResponse

    /// When the scopes of a request are compared with what the endpoint asks for.
    public enum Mode: Sendable {
        /// Before anything else is validated, if the scopes mention nothing but parameters of the route.
        ///
        /// Otherwise the handler calls ``APIRequest/authorize(_:)`` with the missing values.
        case automatic
        /// By the handler, even if the route's parameters would be enough.
        case deferred
    }

    /// The request method.
    public let method: HTTPMethodName
    /// The path below the API, with parameters in angle brackets; a name ending in `*` takes the rest of the path.
    public let route: String
    /// The API method name, as clients call it.
    public let name: String
    /// The scopes a caller needs; nil declares a public endpoint, which never looks at credentials.
    public let scopes: ScopeTemplate?
    /// Who compares scopes, and when.
    public let authorization: Mode
    /// The query options that are accepted.
    public let query: [String: QueryRule]
    /// What route parameters must look like.
    public let parameters: [String: ParameterRule]
    /// The schema of the request body, such as `v1/create-hook-request.json`.
    public let input: String?
    /// The schema of the reply; `blob` or nil means that the reply is not validated.
    public let output: String?
    /// The heading in the reference document.
    public let category: String
    /// How much a client may rely on this endpoint.
    public let stability: Stability
    /// A short human title.
    public let title: String
    /// Markdown for the reference document.
    public let description: String
    /// Whether the endpoint is part of the reference document.
    public let publish: Bool
    /// Route parameters that grant something by themselves and therefore never reach a log.
    public let secretParameters: Set<String>
    /// What an error body shows of the request's payload.
    public let payloadInErrors: @Sendable (JSONValue) -> JSONValue
    /// The function that answers.
    public let handler: Handler

    /// Declares an endpoint.
    ///
    /// - Parameters:
    ///   - method: The request method; a `GET` answers `HEAD` as well.
    ///   - route: The path below the API, such as `/hooks/<hookGroupId>/<hookId>` or `/secret/<name*>`.
    ///   - name: The API method name.
    ///   - scopes: The scopes a caller needs; nil for a public endpoint.
    ///   - authorization: Whether the server or the handler compares scopes.
    ///   - query: The accepted query options; any other one is refused.
    ///   - parameters: Patterns of route parameters.
    ///   - input: The schema of the body; nil ignores bodies.
    ///   - output: The schema of the reply.
    ///   - category: The heading in the reference document.
    ///   - stability: How much a client may rely on the endpoint.
    ///   - title: A short human title.
    ///   - description: Markdown.
    ///   - publish: Whether the endpoint is part of the reference document.
    ///   - secretParameters: Route parameters to keep out of logs.
    ///   - payloadInErrors: What an error body may repeat of the payload.
    ///   - handler: The function that answers.
    public init(
        _ method: HTTPMethodName,
        _ route: String,
        name: String,
        scopes: ScopeTemplate? = nil,
        authorization: Mode = .automatic,
        query: [String: QueryRule] = [:],
        parameters: [String: ParameterRule] = [:],
        input: String? = nil,
        output: String? = nil,
        category: String,
        stability: Stability = .stable,
        title: String,
        description: String,
        publish: Bool = true,
        secretParameters: Set<String> = [],
        payloadInErrors: @escaping @Sendable (JSONValue) -> JSONValue = { $0 },
        handler: @escaping Handler
    ) {
        self.method = method
        self.route = route
        self.name = name
        self.scopes = scopes
        self.authorization = authorization
        self.query = query
        self.parameters = parameters
        self.input = input
        self.output = output
        self.category = category
        self.stability = stability
        self.title = title
        self.description = description
        self.publish = publish
        self.secretParameters = secretParameters
        self.payloadInErrors = payloadInErrors
        self.handler = handler
    }
}
