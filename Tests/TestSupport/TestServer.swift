// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import Synchronization

/// A server of few words on a loopback port or a unix socket: one thread per connection, raw bytes as answers.
package final class TestServer: Sendable {
    /// What somebody sent.
    package struct Request: Sendable {
        package var head: String
        package var body: [UInt8]

        /// The first line.
        package var line: String { head.split(separator: "\r\n").first.map(String.init) ?? "" }
    }

    /// What is done about a request.
    package enum Reaction: Sendable {
        case answer(String)
        /// A head announcing this many bytes, then as many bytes of 0x61.
        case stream(Int)
        /// Some bytes, then nothing for ever.
        case hang(String)
        /// Some bytes, then one more now and then, for ever.
        case drip(String)
        /// Some bytes, then the end of the connection.
        case hangUp(String)
    }

    package let port: Int
    private let listener: Int32
    private let handler: @Sendable (Request) -> Reaction
    private let state = Mutex((connections: 0, requests: [Request]()))

    package var connections: Int { state.withLock { $0.connections } }
    package var requests: [Request] { state.withLock { $0.requests } }

    package init(unixSocket: String? = nil, _ handler: @escaping @Sendable (Request) -> Reaction) {
        self.handler = handler
        (listener, port) = unixSocket.map(Self.unixSocket) ?? Self.loopback()
        listen(listener, 64)
        startThread(named: "test-server") { [self] in accept() }
    }

    private static func unixSocket(_ path: String) -> (Int32, Int) {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return (descriptor, 0)
    }

    private static func loopback() -> (Int32, Int) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(descriptor, $0, size)
                _ = getsockname(descriptor, $0, &size)
            }
        }
        return (descriptor, Int(UInt16(bigEndian: address.sin_port)))
    }

    package func url(_ path: String) -> String { "http://127.0.0.1:\(port)\(path)" }

    package func close() {
        shutdown(listener, Int32(SHUT_RDWR))
    }

    private func accept() {
        while true {
            let connection = Glibc.accept(listener, nil, nil)
            if connection < 0 { break }
            state.withLock { $0.connections += 1 }
            startThread(named: "test-connection") { [self] in serve(connection) }
        }
        Glibc.close(listener)
    }

    private func serve(_ connection: Int32) {
        var buffer: [UInt8] = []
        while let request = read(connection, &buffer) {
            state.withLock { $0.requests.append(request) }
            switch handler(request) {
            case .answer(let text):
                write(connection, Array(text.utf8))
            case .stream(let size):
                write(connection, Array("HTTP/1.1 200 OK\r\nContent-Length: \(size)\r\n\r\n".utf8))
                let chunk = [UInt8](repeating: 0x61, count: 1 << 16)
                var left = size
                while left > 0, write(connection, Array(chunk.prefix(left))) { left -= min(left, chunk.count) }
            case .hang(let text):
                write(connection, Array(text.utf8))
            case .drip(let text):
                var isHeard = write(connection, Array(text.utf8))
                while isHeard {
                    usleep(50_000)
                    isHeard = write(connection, [UInt8(ascii: " ")])
                }
            case .hangUp(let text):
                write(connection, Array(text.utf8))
                Glibc.close(connection)
                return
            }
        }
        Glibc.close(connection)
    }

    private func read(_ connection: Int32, _ buffer: inout [UInt8]) -> Request? {
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        func more() -> Bool {
            let count = Glibc.recv(connection, &chunk, chunk.count, 0)
            if count > 0 { buffer += chunk[..<count] }
            return count > 0
        }
        let end = Array("\r\n\r\n".utf8)
        var head: [UInt8]?
        while head == nil {
            if let index = buffer.indices.first(where: { buffer[$0...].starts(with: end) }) {
                head = Array(buffer[..<index])
                buffer.removeFirst(index + 4)
            } else if !more() {
                return nil
            }
        }
        let text = String(decoding: head ?? [], as: UTF8.self)
        let length =
            text.split(separator: "\r\n").first { $0.lowercased().hasPrefix("content-length:") }
            .flatMap { Int($0.split(separator: " ")[1]) } ?? 0
        while buffer.count < length {
            if !more() { return nil }
        }
        let body = Array(buffer[..<length])
        buffer.removeFirst(length)
        return Request(head: text, body: body)
    }

    @discardableResult
    private func write(_ connection: Int32, _ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count <= 0 { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }
}

/// A file name nobody else uses, removed by the caller.
package func temporaryPath() -> String { "/tmp/slipway-http-\(getpid())-\(UInt64.random(in: 0..<(.max)))" }

/// An answer that all is well.
package func ok(_ body: String, _ headers: String = "") -> TestServer.Reaction {
    .answer("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\(headers)\r\n\(body)")
}
