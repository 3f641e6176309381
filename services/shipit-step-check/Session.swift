// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Schedules
import Taskcluster

/// The service cannot be reached at all.
struct Unreachable: Error, CustomStringConvertible {
    let description: String
}

/// What a service answered.
struct Reply: Sendable {
    let status: Int
    /// The body; nil if it is not JSON.
    let body: JSONValue?
    let entityTag: String?

    /// The answer in few words.
    var description: String {
        let text = body?.text() ?? "no JSON"
        return "\(status) \(text.count > 200 ? text.prefix(200) + "…" : text)"
    }
}

/// Calls one service.
struct Session: Sendable {
    let base: String
    let transport: any HTTPTransport
    let credentials: Hawk.Credentials?

    /// One request; redirects are answers.
    func call(
        _ method: String,
        _ path: String,
        body: [UInt8]? = nil,
        type: String = "application/json",
        headers: [String: String] = [:],
        isSigned: Bool = true
    ) async throws -> Reply {
        var request = HTTPRequest(method: method, url: base + path, timeout: .seconds(90))
        request.headers["Accept"] = "application/json"
        if let body {
            request.body = .bytes(body)
            request.headers["Content-Type"] = type
        }
        for (name, value) in headers { request.headers[name] = value }
        if isSigned, let credentials, let target = HawkTarget(url: request.url) {
            request.headers["Authorization"] = Hawk.authorization(
                for: method,
                url: target,
                credentials: credentials,
                now: .now()
            )
        }
        let response: HTTPResponse
        do throws(HTTPClientError) {
            response = try await transport.send(request)
        } catch {
            throw Unreachable(description: "\(method) \(base + path): \(error)")
        }
        return Reply(status: response.status, body: try? response.json(), entityTag: response.headers["ETag"])
    }

    /// A request with a JSON body.
    func send(_ method: String, _ path: String, _ body: JSONObject) async throws -> Reply {
        try await call(method, path, body: JSONValue.object(body).bytes())
    }
}
