// SPDX-License-Identifier: MPL-2.0

/// Sends requests and waits for their responses.
public protocol HTTPTransport: Sendable {
    /// The response to a request, whatever its status; cancelling the task aborts the transfer.
    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse
}

/// Why there is no response.
public struct HTTPClientError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of failure it was.
    public struct Code: Sendable, Hashable {
        /// A word for logs.
        public let name: String

        /// No connection: the name is unknown, or nobody listens.
        public static let connect = Code(name: "connect")
        /// A limit of time was reached.
        public static let timeout = Code(name: "timeout")
        /// The peer's certificate or the TLS exchange is bad.
        public static let tls = Code(name: "tls")
        /// The connection broke during the transfer.
        public static let aborted = Code(name: "aborted")
        /// The task was cancelled, or the transport shut down.
        public static let cancelled = Code(name: "cancelled")
        /// The body is longer than the sink allows.
        public static let tooLarge = Code(name: "tooLarge")
        /// The URL or a header cannot be sent.
        public static let invalidURL = Code(name: "invalidURL")
        /// The response led on too often.
        public static let redirect = Code(name: "redirect")
        /// A local file cannot be read or written.
        public static let file = Code(name: "file")
        /// Anything else.
        public static let other = Code(name: "other")
    }

    /// What kind of failure it was.
    public let code: Code
    /// One line without the URL's query, headers or bodies.
    public let message: String

    /// An error from its parts.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// Whether the same request may succeed a little later.
    public var isRetriable: Bool { [.connect, .timeout, .aborted].contains(code) }

    /// The message.
    public var description: String { message }
}
