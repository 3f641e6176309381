// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc

/// Asks hosts whether they are there.
struct Pinger {
    let tools: ToolRunner

    static func invocation(_ host: String, count: Int, wait: Int) -> ToolInvocation {
        ToolInvocation(
            ["ping", "-n", "-q", "-c", "\(count)", "-w", "\(wait)", "--", host],
            limit: .seconds(wait + 2)
        )
    }

    /// Whether one echo came back within a second; throws when `ping` cannot be used at all.
    func answers(_ host: String) async throws(ActionError) -> Bool {
        let output = try await tools.run(
            ToolInvocation(["ping", "-n", "-q", "-c", "1", "-W", "1", "--", host], limit: .seconds(4))
        )
        if let failure = PingOutput.failure(code: output.code, text: output.text), failure.kind == .tooling {
            throw failure
        }
        return output.code == 0
    }
}

/// What a TCP port shows of itself.
enum TCPPort {
    /// Tries to connect; blocking, so it runs on a thread of its own.
    static func isOpen(_ host: String, _ port: Int, within limit: Duration) async -> Bool {
        await withCheckedContinuation { continuation in
            startThread(named: "connect") {
                let socket = connected(host, port, milliseconds: Int32(limit / .milliseconds(1)))
                if socket >= 0 { close(socket) }
                continuation.resume(returning: socket >= 0)
            }
        }
    }

    /// The first line that the other side says by itself, as SSH servers do; nil if it says nothing in time.
    static func greeting(_ host: String, _ port: Int, within limit: Duration) async -> String? {
        await withCheckedContinuation { continuation in
            startThread(named: "greeting") {
                let socket = connected(host, port, milliseconds: Int32(limit / .milliseconds(1)))
                defer { if socket >= 0 { close(socket) } }
                continuation.resume(returning: socket >= 0 ? line(socket, limit) : nil)
            }
        }
    }

    private static func line(_ socket: Int32, _ limit: Duration) -> String? {
        let end = ContinuousClock.now + limit
        var bytes: [UInt8] = []
        while bytes.count < 255, !bytes.contains(UInt8(ascii: "\n")) {
            let left = Int32((end - ContinuousClock.now) / .milliseconds(1))
            var descriptor = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
            guard left > 0, poll(&descriptor, 1, left) == 1 else { return nil }
            var piece = [UInt8](repeating: 0, count: 255)
            let count = read(socket, &piece, piece.count)
            guard count > 0 else { return nil }
            bytes += piece[..<count]
        }
        let text = String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        return text.isEmpty ? nil : text
    }

    /// A connected socket, or a negative number.
    private static func connected(_ host: String, _ port: Int, milliseconds: Int32) -> Int32 {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, String(port), &hints, &list) == 0, let first = list else { return -1 }
        defer { freeaddrinfo(first) }
        let kind = first.pointee.ai_socktype | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let socket = Glibc.socket(first.pointee.ai_family, kind, 0)
        guard socket >= 0 else { return -1 }
        if connect(socket, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0 { return socket }
        var descriptor = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
        var failure: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard errno == EINPROGRESS, poll(&descriptor, 1, milliseconds) == 1,
            getsockopt(socket, SOL_SOCKET, SO_ERROR, &failure, &length) == 0, failure == 0
        else {
            close(socket)
            return -1
        }
        return socket
    }
}
