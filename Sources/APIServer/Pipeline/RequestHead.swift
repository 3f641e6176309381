// SPDX-License-Identifier: MPL-2.0

import HTTPTypes
import HummingbirdCore
import NIOCore
import Synchronization

/// What is known of a request before its body is read.
struct RequestHead: Sendable {
    let request: Request
    let channel: any Channel
    let configuration: HTTPServerConfiguration
    /// The target of the request line, byte for byte.
    let target: String
    /// The target up to its query.
    let path: Substring
    /// Whether somebody has begun to read the body, which is possible once.
    let bodyUse = BodyUse()
    /// What to do if the answer cannot be sent.
    let delivery = Delivery()

    init(request: Request, channel: any Channel, configuration: HTTPServerConfiguration) {
        self.request = request
        self.channel = channel
        self.configuration = configuration
        let target = request.head.path ?? "/"
        self.target = target
        path = target[..<(target.utf8.firstIndex(of: UInt8(ascii: "?")) ?? target.endIndex)]
    }

    var method: String { request.method.rawValue }
    var fields: HTTPFields { request.headers }
    var host: String? { request.head.authority }

    /// The target after the question mark, undecoded.
    var rawQuery: Substring? {
        guard let mark = target.utf8.firstIndex(of: UInt8(ascii: "?")) else { return nil }
        return target[target.utf8.index(after: mark)...]
    }

    func field(_ name: String) -> String? {
        if name.lowercased() == "host" { return host }
        return HTTPField.Name(name).flatMap { fields[$0] }
    }

    /// The length a client announced; nil without an announcement.
    var contentLength: Int? { fields[.contentLength].flatMap { Int($0) } }

    var hasBody: Bool { (contentLength ?? 0) > 0 || fields[.transferEncoding] != nil }

    /// The media type in lower case, without parameters; empty if there is none.
    var mediaType: String {
        guard let text = fields[.contentType] else { return "" }
        // What nearly everybody sends needs no second look.
        if text == "application/json" { return text }
        return text.prefix { $0 != ";" }.trimmingBlanks().lowercased()
    }

    /// The `charset` of the content type in lower case, without quotes.
    var charset: String? {
        guard let text = fields[.contentType], text.utf8.contains(UInt8(ascii: ";")) else { return nil }
        let parameters = text.split(separator: ";").dropFirst().map {
            $0.trimmingBlanks().lowercased()
        }
        guard let found = parameters.first(where: { $0.hasPrefix("charset=") }) else { return nil }
        return String(found.dropFirst("charset=".count).filter { $0 != "\"" })
    }

    func remoteAddress() -> String? {
        configuration.trust.caller(peer: peerAddress, forwardedFor: fields[.forwardedFor])
    }

    /// The address at the other end of the connection.
    var peerAddress: String? { channel.remoteAddress?.ipAddress }

    /// The scheme the client used, as a trusted proxy tells it.
    var forwardedScheme: String? {
        guard configuration.trust.believes(peerAddress), let forwarded = fields[.forwardedProto] else { return nil }
        return forwarded.prefix { $0 != "," }.trimmingBlanks().lowercased()
    }

    /// Whether the port and scheme that requests are said to be signed for are taken from the fields of proxies.
    var believesSignedPort: Bool {
        configuration.trust == .nobody
            ? configuration.believesSignedPort : configuration.trust.believes(peerAddress)
    }

    /// The watch over this connection; it costs a turn of the event loop, so only long polls ask for it.
    func connectionWatch() async -> ConnectionWatch? {
        try? await channel.pipeline.handler(type: ConnectionWatch.self).get()
    }

    /// Runs a long operation that is cancelled as soon as the client goes away.
    func withDisconnect<Value: Sendable>(
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        guard let watch = await connectionWatch() else { return try await body() }
        // A task of its own has a handle that the connection can cancel; a thousand long polls pay for one each, not for a group of two.
        let task = Task { try await body() }
        let id = watch.whenGone { task.cancel() }
        defer { watch.forget(id) }
        do {
            return try await withTaskCancellationHandler {
                try await task.value
            } onCancel: {
                task.cancel()
            }
        } catch  where watch.isGone {
            throw ClientLeft()
        }
    }
}

/// Remembers that reading a body has begun.
final class BodyUse: Sendable {
    private let flag = Atomic(false)

    var hasBegun: Bool { flag.load(ordering: .relaxed) }

    func begin() {
        flag.store(true, ordering: .relaxed)
    }
}

extension StringProtocol {
    /// The text without blanks and tabs at its ends.
    func trimmingBlanks() -> String {
        let blank: (Character) -> Bool = { $0 == " " || $0 == "\t" }
        guard let first = firstIndex(where: { !blank($0) }), let last = lastIndex(where: { !blank($0) }) else {
            return ""
        }
        return String(self[first...last])
    }
}

extension HTTPField.Name {
    static let forwardedFor = known("X-Forwarded-For")
    static let forwardedPort = known("X-Forwarded-Port")
    static let forwardedProto = known("X-Forwarded-Proto")
    static let trace = known("x-taskcluster-trace-id")
    static let forTrace = known("x-for-trace-id")
    static let forRequest = known("x-for-request-id")

    static func known(_ text: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(text) else { preconditionFailure("\(text) is no field name") }
        return name
    }
}
