// SPDX-License-Identifier: MPL-2.0

public import JSON

/// A request as it goes over the wire; nothing in it is encoded again.
public struct HTTPRequest: Sendable {
    /// What is sent after the headers.
    public enum Body: Sendable, Hashable {
        /// Nothing.
        case none
        /// These bytes.
        case bytes([UInt8])
        /// The contents of a file, read while they are sent.
        case file(path: String)
    }

    /// Where the response's body goes.
    public enum Sink: Sendable, Hashable {
        /// Into `HTTPResponse.body`; a longer one fails the transfer with `tooLarge`.
        case memory(limit: Int)
        /// Into a file, replaced if it exists and removed if the transfer fails; only bodies of 2xx responses go there.
        case file(path: String)
        /// Into `HTTPResponse.body` as long as it is small, otherwise into a file.
        ///
        /// The file is kept when the transfer fails. A request for the range from `offset` on can continue it: an answer 206 is
        /// written behind what is there, any other 2xx from the beginning.
        case spool(path: String, memory: Int, offset: Int)
    }

    /// The method in upper case.
    public var method: String
    /// The absolute URL, already percent-encoded.
    public var url: String
    /// The header fields.
    public var headers: HTTPHeaders
    /// What is sent after the headers.
    public var body: Body
    /// The limit of the whole transfer.
    public var timeout: Duration
    /// The limit of connecting, name lookup and TLS included.
    public var connectTimeout: Duration = .seconds(5)
    /// How long a transfer may stand still before it fails; libcurl looks at the last five seconds, so it may notice later.
    public var stallTimeout: Duration?
    /// How many redirects to follow; they never leave http and https.
    public var redirects = 0
    /// The path of a unix socket to connect to instead of the URL's host.
    public var unixSocket: String?
    /// The proxy's URL; nil for the one in the environment, empty for none.
    public var proxy: String?
    /// A file of certificate authorities to trust instead of the system's.
    public var certificateAuthorities: String?
    /// The only public key to accept, as `sha256//` and the base64 of its digest; no authority is asked then.
    public var pinnedKey: String?
    /// Where the response's body goes.
    public var sink: Sink = .memory(limit: 64 << 20)
    /// Sees the head of the final response before its body; what it returns ends the transfer.
    public var onHead: (@Sendable (HTTPResponse) -> HTTPClientError?)?
    /// Sees runs of bytes in their order; the pointer is good during the call only.
    public typealias Witness = @Sendable (UnsafeRawBufferPointer) -> Void
    /// Learns that the sink's file is open and from which offset on the body is written into it.
    ///
    /// The witness it returns sees the body on a thread of its own, the first time no bytes at all; the response comes only after it has
    /// seen everything. When the transfer fails it may see less.
    public var onFile: (@Sendable (_ offset: Int) -> Witness?)?
    /// Whether to ask for a compressed body and undo the compression.
    public var acceptCompressed = false

    /// A request with the usual limits.
    public init(
        method: String = "GET",
        url: String,
        headers: HTTPHeaders = [:],
        body: Body = .none,
        timeout: Duration = .seconds(30)
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.timeout = timeout
    }
}

/// The answer to a request.
public struct HTTPResponse: Sendable {
    /// The status code.
    public var status: Int
    /// The header fields of the last response, redirects not included.
    public var headers: HTTPHeaders
    /// The body; empty when it went to a file.
    public var body: [UInt8]

    /// A response from its parts.
    public init(status: Int, headers: HTTPHeaders = [:], body: [UInt8] = []) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// The body as JSON.
    public func json() throws -> JSONValue { try JSONValue(parsing: body) }
}
