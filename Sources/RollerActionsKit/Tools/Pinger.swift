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

/// Whether a TCP port is open.
enum TCPPort {
    /// Tries to connect; blocking, so it runs on a thread of its own.
    static func isOpen(_ host: String, _ port: Int, within limit: Duration) async -> Bool {
        await withCheckedContinuation { continuation in
            startThread(named: "connect") {
                continuation.resume(returning: connects(host, port, milliseconds: Int32(limit / .milliseconds(1))))
            }
        }
    }

    private static func connects(_ host: String, _ port: Int, milliseconds: Int32) -> Bool {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, String(port), &hints, &list) == 0, let first = list else { return false }
        defer { freeaddrinfo(first) }
        let kind = first.pointee.ai_socktype | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let socket = Glibc.socket(first.pointee.ai_family, kind, 0)
        guard socket >= 0 else { return false }
        defer { close(socket) }
        if connect(socket, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0 { return true }
        guard errno == EINPROGRESS else { return false }
        var descriptor = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
        guard poll(&descriptor, 1, milliseconds) == 1 else { return false }
        var failure: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(socket, SOL_SOCKET, SO_ERROR, &failure, &length)
        return failure == 0
    }
}
