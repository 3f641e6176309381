// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import HTTPClient
import JSON
import Schedules
import Taskcluster

/// A service outside the deployment's root: where it is and who asks, both from the environment.
struct ServiceSession {
    private let variable: String
    private let url: String
    private let target: Hawk.Target
    private let credentials: Hawk.Credentials?
    private let transport = CurlTransport()

    /// An answer, whatever its status.
    struct Answer {
        let status: Int
        let body: [UInt8]
        let headers: HTTPHeaders

        /// The body; null where it is no JSON, as some are.
        var json: JSONValue { (try? JSONValue(parsing: body)) ?? .null }

        /// The version of what was read.
        var tag: String? { headers["ETag"] }

        var isGood: Bool { (200..<300).contains(status) }
    }

    /// A request.
    struct Request {
        var method: String
        /// Pieces that are escaped.
        var path: [String]
        var query: [(String, String)] = []
        var headers: HTTPHeaders = [:]
        var body: [UInt8]?
        var contentType = "application/json"
        /// A person's token, instead of the credentials.
        var token: String?
        var timeout = Duration.seconds(60)
        /// How often it is sent if nobody answers.
        var attempts = 1
    }

    /// Reads the address from a variable such as `SHIPIT_PIPELINE_URL`.
    init(_ variable: String) throws {
        self.variable = variable
        guard let text = Self.value(variable) else {
            throw Failure(usage: "\(variable) is not set; export it, or source the env file that make up writes")
        }
        url = text.hasSuffix("/") ? String(text.dropLast()) : text
        guard let target = Hawk.Target(url: url) else {
            throw Failure(usage: "\(variable) must begin with http:// or https://")
        }
        self.target = target
        let clientID = Self.value("TASKCLUSTER_CLIENT_ID")
        let accessToken = Self.value("TASKCLUSTER_ACCESS_TOKEN")
        guard (clientID == nil) == (accessToken == nil) else {
            throw Failure(usage: "export both TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN, or neither")
        }
        if let clientID, let accessToken {
            credentials = Hawk.Credentials(
                clientID: clientID,
                accessToken: accessToken,
                certificate: Self.value("TASKCLUSTER_CERTIFICATE")
            )
        } else {
            credentials = nil
        }
    }

    /// A variable of the environment; an empty one counts as absent.
    static func value(_ name: String) -> String? {
        guard let value = getenv(name), value[0] != 0 else { return nil }
        return String(cString: value)
    }

    /// Sends a request and answers with what came back; fails only if nothing did.
    func send(_ wanted: Request) async throws -> Answer {
        // The service may be below a path of its own.
        let base = target.resource == "/" ? "" : target.resource
        var resource = base + "/" + wanted.path.map(Self.escaped).joined(separator: "/")
        if !wanted.query.isEmpty {
            resource += "?" + wanted.query.map { "\(Self.escaped($0.0))=\(Self.escaped($0.1))" }.joined(separator: "&")
        }
        let policy = RetryPolicy(attempts: wanted.attempts, base: .milliseconds(200), maximum: .seconds(2))
        do {
            return try await policy.run(isRetriable: { $0 is HTTPClientError }) {
                let response = try await transport.send(request(wanted, resource, base))
                return Answer(status: response.status, body: response.body, headers: response.headers)
            }
        } catch let error as HTTPClientError {
            var failure = Failure("\(url) does not answer (\(error)); check \(variable) and that the service runs")
            failure.isPassing = true
            throw failure
        }
    }

    /// A request as it is sent; every repetition is signed anew.
    private func request(_ wanted: Request, _ resource: String, _ base: String) -> HTTPRequest {
        var headers = wanted.headers
        if wanted.body?.isEmpty == false { headers["Content-Type"] = wanted.contentType }
        if let token = wanted.token {
            headers["Authorization"] = "Bearer \(token)"
        } else if let credentials {
            headers["Authorization"] = Hawk.authorization(
                for: wanted.method,
                url: Hawk.Target(host: target.host, port: target.port, resource: resource),
                credentials: credentials,
                payload: wanted.body.map { (wanted.contentType, $0) },
                now: .now()
            )
        }
        return HTTPRequest(
            method: wanted.method,
            url: url + resource.dropFirst(base.utf8.count),
            headers: headers,
            body: wanted.body.map { .bytes($0) } ?? .none,
            timeout: wanted.timeout
        )
    }

    /// One piece of a path or query, with everything but unreserved characters escaped.
    private static func escaped(_ text: String) -> String {
        text.utf8.reduce(into: "") { result, byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
    }
}
