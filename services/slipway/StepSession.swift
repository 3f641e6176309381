// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import HTTPClient
import JSON
import Schedules
import Taskcluster

/// Where a step service is and who asks; both come from the environment.
struct StepSession {
    private let variable: String
    private let url: String
    private let target: Hawk.Target
    private let credentials: Hawk.Credentials?
    private let transport = CurlTransport()

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

    /// Sends a request whose answer has to be good; with a person's token instead of credentials if one is given.
    func call(
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        body: JSONValue? = nil,
        token: String? = nil,
        headers: HTTPHeaders = [:],
        timeout: Duration = .seconds(60)
    ) async throws -> (status: Int, json: JSONValue, tag: String?) {
        // The service may be below a path of its own.
        let base = target.resource == "/" ? "" : target.resource
        var resource = base + "/" + path.map(Self.escaped).joined(separator: "/")
        if !query.isEmpty {
            resource += "?" + query.map { "\(Self.escaped($0.0))=\(Self.escaped($0.1))" }.joined(separator: "&")
        }
        let bytes = body?.bytes()
        var headers = headers
        if bytes != nil { headers["Content-Type"] = "application/json" }
        if let token {
            headers["Authorization"] = "Bearer \(token)"
        } else if let credentials {
            headers["Authorization"] = Hawk.authorization(
                for: method,
                url: Hawk.Target(host: target.host, port: target.port, resource: resource),
                credentials: credentials,
                payload: bytes.map { ("application/json", $0) },
                now: .now()
            )
        }
        let response: HTTPResponse
        do {
            response = try await transport.send(
                HTTPRequest(
                    method: method,
                    url: url + resource.dropFirst(base.utf8.count),
                    headers: headers,
                    body: bytes.map { .bytes($0) } ?? .none,
                    timeout: timeout
                )
            )
        } catch {
            throw Failure("\(url) does not answer (\(error)); check \(variable) and that the service runs")
        }
        let json = (try? response.json()) ?? .null
        guard (200..<300).contains(response.status) || response.status == 304 else {
            throw Self.failure(response.status, json)
        }
        return (response.status, json, response.headers["ETag"])
    }

    /// What a refusal means for the person who asked.
    private static func failure(_ status: Int, _ json: JSONValue) -> Failure {
        var text = json["detail"]?.string ?? "no reason was given"
        let errors = json["errors"]?.array?.compactMap { $0["message"]?.string ?? $0.string } ?? []
        if errors.count > 1 { text += errors.map { "\n  \($0)" }.joined() }
        switch status {
        case 401: return Failure("the credentials were refused (\(text)); check who you are")
        case 403: return Failure("not allowed: \(text)")
        case 404: return Failure("not found: \(text)")
        case 400, 422: return Failure(text)
        default: return Failure("refused with \(status) \(json["code"]?.string ?? ""): \(text)")
        }
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
