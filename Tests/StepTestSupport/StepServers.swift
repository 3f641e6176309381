// SPDX-License-Identifier: MPL-2.0

public import APIServer
import Core
public import HTTPClient
public import JSON
public import Logging
import Schedules
public import Taskcluster

/// Believes callers whose authorization is a name and a list of scopes, as `client scope scope`.
public struct NamedCallers: RequestAuthenticator {
    private let believesSignatures: Bool

    /// Makes one; with `believesSignatures` whoever signs anything may do everything, since tests have no directory.
    public init(believesSignatures: Bool = false) {
        self.believesSignatures = believesSignatures
    }

    /// The caller's name and scopes, as they say themselves.
    public func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        let expires = Timestamp.now() + .seconds(900)
        guard let text = request.authorization else { return .none(scopes: [], expires: expires) }
        let words = text.split(separator: " ").map(String.init)
        guard let client = words.first, client != "Hawk" else {
            guard believesSignatures else { return .failed(message: "Bad mac") }
            return .success(clientID: "signed", expires: expires, scopes: ["*"], hash: nil)
        }
        return .success(clientID: client, expires: expires, scopes: Array(words.dropFirst()), hash: nil)
    }
}

/// What a service answered.
public struct Answer: Sendable {
    /// The HTTP status.
    public let status: Int
    /// The body; null if it is not JSON.
    public let body: JSONValue
    /// The header fields.
    public let headers: HTTPHeaders
    /// The word that refusals carry.
    public var code: String { body["code"]?.string ?? "" }
}

/// Step services on ports of their own, for as long as a test lasts.
public struct StepServers: Sendable {
    /// Whom tests call as, unless they say otherwise: a client that may do everything.
    public static let client = "tests *"

    /// One line for each request would hide everything else.
    public static var quiet: Logger {
        var logger = Logger(label: "step-tests")
        logger.logLevel = .error
        return logger
    }

    /// What requests go out through.
    public let curl: CurlTransport
    /// Where the services are.
    public let urls: [String]

    /// Names the services that tests call.
    public init(curl: CurlTransport, urls: [String]) {
        self.curl = curl
        self.urls = urls
    }

    /// Serves an API until the group is cancelled; answers where.
    public static func serve(
        _ api: API,
        authenticator: (any RequestAuthenticator)?,
        port: Int = 0,
        in group: inout ThrowingTaskGroup<Void, any Error>
    ) async -> String {
        var configuration = HTTPServerConfiguration(port: port)
        configuration.bodyLimit = 1 << 20
        let server = HTTPServer(
            configuration: configuration,
            name: "step-tests",
            rootURL: nil,
            apis: [api],
            authenticator: authenticator,
            health: HealthRegistry()
        )
        group.addTask { try await withLogger(quiet) { _ in try await server.run() } }
        return "http://127.0.0.1:\(await server.waitUntilListening())"
    }

    /// Calls a service; answers status, body and headers.
    @discardableResult
    public func call(
        _ method: String,
        _ path: String,
        _ body: JSONValue? = nil,
        as authorization: String? = client,
        headers: [String: String] = [:],
        server: Int = 0
    ) async throws -> Answer {
        var fields: HTTPHeaders = [:]
        if let authorization { fields["Authorization"] = authorization }
        if body != nil { fields["Content-Type"] = "application/json" }
        for (name, value) in headers { fields[name] = value }
        let response = try await curl.send(
            HTTPRequest(
                method: method,
                url: urls[server] + path,
                headers: fields,
                body: body.map { .bytes($0.bytes()) } ?? .none,
                timeout: .seconds(60)
            )
        )
        return Answer(status: response.status, body: (try? response.json()) ?? .null, headers: response.headers)
    }
}
