// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc

/// A connection whose bytes and end can be chosen.
final class RawSocket: Sendable {
    private let descriptor: CInt

    // A small window is how many bytes may arrive before they are read.
    init(port: Int, window: CInt? = nil) throws {
        descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        if var window {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &window, socklen_t(MemoryLayout<CInt>.size))
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw TestSchemas.Failed() }
        // Whoever waits for bytes that never come fails instead of hanging.
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        _ = write(descriptor, bytes, bytes.count)
    }

    /// Everything until the other side closes; nil if it does not within a minute.
    func receiveAll() async -> String? {
        await withCheckedContinuation { continuation in
            // Waiting for the network would block a thread that other tests need.
            startThread(named: "raw-socket") { [descriptor] in
                var received: [UInt8] = []
                var piece = [UInt8](repeating: 0, count: 4096)
                while true {
                    let count = read(descriptor, &piece, piece.count)
                    guard count > 0 else {
                        continuation.resume(returning: count == 0 ? String(decoding: received, as: UTF8.self) : nil)
                        return
                    }
                    received += piece[..<count]
                }
            }
        }
    }

    /// Hangs up at once: what was not read is lost, and the other side is told so.
    func reset() {
        var now = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
        close()
    }

    func close() {
        _ = Glibc.close(descriptor)
    }
}
