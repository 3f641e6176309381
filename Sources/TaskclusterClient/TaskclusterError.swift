// SPDX-License-Identifier: MPL-2.0

public import JSON

/// Why a call to a Taskcluster service failed.
public struct TaskclusterError: Error, Sendable, CustomStringConvertible {
    /// The status of the answer; nil when there was none.
    public let status: Int?
    /// The service's error code, or a word for what went wrong on the way.
    public let code: String
    /// The service's message without its trailer.
    public let message: String
    /// The body of the answer, if it was JSON.
    public let body: JSONValue?
    /// The HTTP method of the call.
    public let method: String
    /// The URL without its query.
    public let url: String
    /// Whether the same call may succeed a little later.
    public let isRetriable: Bool

    /// An error from its parts; 5xx and failures of the network count as passing unless told otherwise.
    public init(
        status: Int?,
        code: String,
        message: String,
        body: JSONValue? = nil,
        method: String,
        url: String,
        isRetriable: Bool? = nil
    ) {
        self.status = status
        self.code = code
        self.message = message
        self.body = body
        self.method = method
        self.url = url
        self.isRetriable = isRetriable ?? (status.map { $0 >= 500 } ?? true)
    }

    /// The error that a service answered with.
    init(status: Int, body: JSONValue?, method: String, url: String) {
        let text = body?["message"]?.string ?? body?["error"]?.string ?? "the service gave no reason"
        self.init(
            status: status,
            code: body?["code"]?.string ?? "HTTP\(status)",
            message: URLText.withoutTrailer(text),
            body: body,
            method: method,
            url: url
        )
    }

    /// One line: what failed, with which status and why.
    public var description: String {
        let line = message.split(separator: "\n", maxSplits: 1).first.map(String.init) ?? message
        return "\(method) \(url): \(status.map { "\($0) " } ?? "")\(code): \(line)"
    }
}
