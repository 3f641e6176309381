// SPDX-License-Identifier: MPL-2.0

import HTTPTypes
import HummingbirdCore
import NIOCore

/// A route outside the APIs whose bodies are streams of bytes: blobs go up and down without passing through memory.
///
/// Raw routes are looked at before everything else; the first whose prefix fits answers. They authenticate nobody: the
/// address itself has to be the secret, so queries of raw routes never reach a log.
public struct RawRoute: Sendable {
    /// The function that answers.
    public typealias Handler = @Sendable (RawRequest) async throws -> RawResponse

    /// The request method; nil is every method there is.
    ///
    /// A `GET` answers `HEAD` as well.
    public let method: HTTPMethodName?
    /// What the path begins with, byte for byte.
    public let prefix: String
    /// The name in metrics, logs and error bodies.
    public let name: String
    /// The function that answers.
    public let handler: Handler

    /// Declares a raw route.
    public init(_ method: HTTPMethodName, prefix: String, name: String, handler: @escaping Handler) {
        self.method = method
        self.prefix = prefix
        self.name = name
        self.handler = handler
    }

    /// Declares a raw route that answers every method itself.
    public init(anyMethod prefix: String, name: String, handler: @escaping Handler) {
        method = nil
        self.prefix = prefix
        self.name = name
        self.handler = handler
    }

    func answers(_ method: String) -> Bool {
        guard let own = self.method?.rawValue else { return true }
        return own == (method == "HEAD" ? "GET" : method)
    }
}

/// A request to a raw route, whose body has not been read yet.
public struct RawRequest: Sendable {
    let head: RequestHead
    /// The request method.
    public let method: String
    /// The path after the route's prefix, undecoded.
    public let rest: String
    /// The body, piece by piece; it can be read once.
    public let body: RawBody

    init(head: RequestHead, prefix: String) {
        self.head = head
        self.method = head.method
        self.rest = String(head.path.dropFirst(prefix.count))
        self.body = RawBody(
            body: head.request.body,
            use: head.bodyUse,
            length: head.contentLength,
            isPresent: head.hasBody
        )
    }

    /// The target of the request line, byte for byte.
    public var resource: String { head.target }

    /// The first value of a header field, whatever the case of its name.
    public func header(_ name: String) -> String? { head.field(name) }

    /// The length of the body, if the client announced it.
    public var contentLength: Int? { head.contentLength }

    /// The address of the caller, or of the caller's proxy.
    public var remoteAddress: String? { head.remoteAddress() }

    /// The address at the other end of the connection, whatever a proxy says.
    public var peerAddress: String? { head.peerAddress }

    /// The path of the target, undecoded.
    public var path: Substring { head.path }

    /// The query of the target, undecoded.
    public var rawQuery: Substring? { head.rawQuery }

    /// Decodes a piece of a path once; nil for a broken escape or for bytes that are not UTF-8.
    public static func decoded(_ piece: Substring) -> String? { PercentEncoding.decode(piece) }

    /// Decodes a key or value of a query once, where a plus sign is a blank.
    public static func decoded(query piece: Substring) -> String? { PercentEncoding.decodeQuery(piece) }

    /// Runs a long operation that is cancelled as soon as the client goes away.
    public func withDisconnect<Value: Sendable>(
        _ operation: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await head.withDisconnect(operation)
    }

    /// The decoded value of a query option; nil if it is absent or malformed.
    public func query(_ name: String) -> String? {
        for piece in (head.rawQuery ?? "").split(separator: "&") {
            let parts = piece.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let key = parts.first, PercentEncoding.decodeQuery(key) == name else { continue }
            return parts.count > 1 ? PercentEncoding.decodeQuery(parts[1]) : ""
        }
        return nil
    }
}

/// The bytes of a request body in the pieces they arrive in.
///
/// A body that ends before its announced length throws.
public struct RawBody: AsyncSequence, Sendable {
    /// A piece of the body.
    public typealias Element = [UInt8]

    let body: RequestBody
    let use: BodyUse
    let length: Int?
    let isPresent: Bool

    /// Reads the pieces in order.
    public struct AsyncIterator: AsyncIteratorProtocol {
        var iterator: RequestBody.AsyncIterator?
        let length: Int?
        var received = 0

        /// The next piece; nil after the last.
        @concurrent
        public mutating func next() async throws -> [UInt8]? {
            guard iterator != nil else { return nil }
            guard let buffer = try await iterator?.next() else {
                iterator = nil
                if let length, received != length {
                    throw APIError(.inputError, "the body ended after \(received) of \(length) bytes")
                }
                return nil
            }
            received += buffer.readableBytes
            return Array(buffer.readableBytesView)
        }
    }

    /// Begins to read; possible once.
    public func makeAsyncIterator() -> AsyncIterator {
        use.begin()
        return AsyncIterator(iterator: isPresent ? body.makeAsyncIterator() : nil, length: length)
    }
}

/// The answer of a raw route.
public struct RawResponse: Sendable {
    /// Where the bytes of the answer come from.
    public enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// A file, streamed; with status 200, ranges and `If-None-Match` are honoured.
        case file(path: String)
        /// Bytes as they come, until there are no more or the client is gone.
        case stream(APIResponse.NextPiece)
    }

    /// The status.
    public var status: Int
    /// Header fields beyond those that every answer carries.
    public var headers: [(name: String, value: String)]
    /// The body.
    public var body: Body

    /// Makes an answer.
    public init(status: Int = 200, headers: [(name: String, value: String)] = [], body: Body = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }
}

extension HTTPFields {
    /// Makes fields of names and values, leaving out names that cannot be sent.
    init(pairs: some Sequence<(name: String, value: String)>) {
        self.init()
        for (name, value) in pairs {
            if let name = HTTPField.Name(name) {
                append(HTTPField(name: name, value: value))
            }
        }
    }
}
