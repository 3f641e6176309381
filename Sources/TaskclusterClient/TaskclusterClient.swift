// SPDX-License-Identifier: MPL-2.0

public import Core
public import HTTPClient
public import JSON
public import Schedules
public import Taskcluster

/// Calls the services of a deployment.
///
/// Requests are signed when there are credentials and repeated, with a fresh signature, on 5xx answers and failures of the
/// network. Redirects are answers, not followed.
public struct TaskclusterClient: Sendable {
    /// The deployment's root URL without a trailing slash.
    public let rootURL: String
    /// How requests travel.
    public let transport: any HTTPTransport

    private let credentials: @Sendable () async -> Hawk.Credentials?
    private let retry: RetryPolicy
    private let now: @Sendable () -> Timestamp

    /// A client of the deployment at `rootURL`; the credentials are asked for at every attempt, so they may change.
    public init(
        rootURL: String,
        credentials: @escaping @Sendable () async -> Hawk.Credentials?,
        transport: any HTTPTransport,
        retry: RetryPolicy = .taskcluster,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        var root = rootURL
        while root.hasSuffix("/") { root.removeLast() }
        self.rootURL = root
        self.credentials = credentials
        self.transport = transport
        self.retry = retry
        self.now = now
    }

    /// The URL of a method; segments and query are percent-encoded here.
    public func url(_ service: String, _ path: [String], query: [(String, String)] = []) -> String {
        var url = rootURL + "/api/\(service)/v1"
        for segment in path { url += "/" + URLText.encoded(segment) }
        if !query.isEmpty {
            url += "?" + query.map { "\(URLText.encoded($0.0))=\(URLText.encoded($0.1))" }.joined(separator: "&")
        }
        return url
    }

    /// The answer of a method as JSON; null when it has no content.
    ///
    /// `service` is the dashed name, `path` the segments after the version; slashes inside a segment travel encoded.
    /// `authorizedScopes` limits what this call may use of the credentials' scopes, `retry` replaces the client's policy and
    /// `timeout` limits one attempt.
    public func call(
        _ service: String,
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        body: JSONValue? = nil,
        authorizedScopes: [String]? = nil,
        retry policy: RetryPolicy? = nil,
        timeout: Duration? = nil
    ) async throws(TaskclusterError) -> JSONValue {
        let response = try await response(
            service,
            method,
            path,
            query: query,
            body: body,
            authorizedScopes: authorizedScopes,
            retry: policy,
            timeout: timeout
        )
        guard response.status != 204, !response.body.isEmpty else { return .null }
        do {
            return try response.json()
        } catch {
            throw TaskclusterError(
                status: response.status,
                code: "InvalidResponse",
                message: "the answer is not JSON",
                method: method,
                url: url(service, path),
                isRetriable: false
            )
        }
    }

    /// The answer of a method as it came, for callers who need its headers; 4xx and 5xx throw.
    public func response(
        _ service: String,
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        body: JSONValue? = nil,
        authorizedScopes: [String]? = nil,
        retry policy: RetryPolicy? = nil,
        timeout: Duration? = nil
    ) async throws(TaskclusterError) -> HTTPResponse {
        try await response(
            service,
            method,
            path,
            query: query,
            bodyText: body?.bytes(),
            authorizedScopes: authorizedScopes,
            retry: policy,
            timeout: timeout
        )
    }

    /// The same for a body that is JSON text already.
    func response(
        _ service: String,
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        bodyText body: [UInt8]?,
        authorizedScopes: [String]? = nil,
        retry policy: RetryPolicy? = nil,
        timeout: Duration? = nil
    ) async throws(TaskclusterError) -> HTTPResponse {
        var request = HTTPRequest(
            method: method,
            url: url(service, path, query: query),
            timeout: timeout ?? .seconds(30)
        )
        if let body {
            request.body = .bytes(body)
            request.headers["Content-Type"] = "application/json"
        }
        let policy = policy ?? retry
        let place = url(service, path)
        var attempt = 1
        while true {
            do throws(TaskclusterError) {
                return try await attemptOnce(request, authorizedScopes, place)
            } catch {
                attempt += 1
                guard error.isRetriable, attempt <= policy.attempts else { throw error }
                // A cancelled pause gives the failure that made it necessary.
                guard (try? await Task.sleep(for: policy.delay(before: attempt))) != nil else { throw error }
            }
        }
    }

    /// A URL to a GET method that works without credentials for a while; unsigned when there are none.
    public func signedURL(
        _ service: String,
        _ path: [String],
        lifetime: Duration = .seconds(15 * 60)
    ) async -> String {
        let url = url(service, path)
        guard let credentials = await credentials() else { return url }
        return Hawk.signedURL(url, credentials: credentials, lifetime: lifetime, now: now()) ?? url
    }

    private func attemptOnce(
        _ request: HTTPRequest,
        _ authorizedScopes: [String]?,
        _ place: String
    ) async throws(TaskclusterError) -> HTTPResponse {
        var request = request
        if let credentials = await credentials() {
            guard let target = HawkTarget(url: request.url) else {
                throw TaskclusterError(
                    status: nil,
                    code: "InvalidRootURL",
                    message: "the root URL must begin with http:// or https://",
                    method: request.method,
                    url: place,
                    isRetriable: false
                )
            }
            request.headers["Authorization"] = Hawk.authorization(
                for: request.method,
                url: target,
                credentials: credentials,
                authorizedScopes: authorizedScopes,
                now: now()
            )
        }
        let response: HTTPResponse
        do throws(HTTPClientError) {
            response = try await transport.send(request)
        } catch {
            throw TaskclusterError(
                status: nil,
                code: error.code.name,
                message: error.message,
                method: request.method,
                url: place,
                isRetriable: error.isRetriable
            )
        }
        guard response.status >= 400 else { return response }
        throw TaskclusterError(
            status: response.status,
            body: try? response.json(),
            method: request.method,
            url: place
        )
    }
}

/// The spelling of texts inside URLs and messages.
enum URLText {
    /// Everything but letters, digits and `-._~` as percent escapes of its UTF-8 bytes.
    static func encoded(_ text: String) -> String {
        var result: [UInt8] = []
        let digits = Array("0123456789ABCDEF".utf8)
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                result.append(byte)
            default:
                result += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// The message before the `---` line that repeats method, code and time.
    static func withoutTrailer(_ message: String) -> String {
        let lines = message.split(separator: "\n", omittingEmptySubsequences: false)
        var kept = Array(lines.prefix { $0 != "---" })
        while kept.last?.isEmpty == true { kept.removeLast() }
        return kept.joined(separator: "\n")
    }
}
