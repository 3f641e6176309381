// SPDX-License-Identifier: MPL-2.0

import Glibc
import Synchronization

/// A TCP relay in front of the broker that can cut its connections.
public final class Relay: Sendable {
    /// Where it listens, on 127.0.0.1.
    public let port: Int
    private let listener: Int32
    private let target: (host: String, port: Int)
    private let open = Mutex<[Int32]>([])
    private let isRefusing = Atomic<Bool>(false)
    /// Connections accepted before this one lose what the client sends.
    private let firstHeard = Atomic<Int>(0)
    private let accepted = Atomic<Int>(0)

    /// Begins to relay to an address.
    public init(to host: String, _ targetPort: Int) throws {
        target = (host, targetPort)
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = listener
        let status = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(listener, address, length) == 0 && listen(listener, 16) == 0
                    && getsockname(listener, address, &length) == 0
            }
        }
        guard status else { throw EventuallyError(description: "no relay: \(String(cString: strerror(errno)))") }
        port = Int(UInt16(bigEndian: address.sin_port))
        Self.thread { [self] in accept() }
    }

    /// Cuts every connection.
    public func cut() {
        open.withLock { open in
            for descriptor in open { shutdown(descriptor, Int32(SHUT_RDWR)) }
        }
    }

    /// Cuts new connections at once while refusing.
    public func refuse(_ refusing: Bool) {
        isRefusing.store(refusing, ordering: .releasing)
        if refusing { cut() }
    }

    /// From now on the present connections stay open, and nothing that the client says arrives any more.
    public func deafen() {
        firstHeard.store(accepted.load(ordering: .acquiring), ordering: .releasing)
    }

    private func accept() {
        while true {
            let client = Glibc.accept(listener, nil, nil)
            guard client >= 0 else { return }
            let server = isRefusing.load(ordering: .acquiring) ? -1 : dial()
            guard server >= 0 else {
                close(client)
                continue
            }
            open.withLock { $0 += [client, server] }
            let number = accepted.add(1, ordering: .acquiringAndReleasing).oldValue
            Self.thread { [self] in
                Self.copy(client, server) { firstHeard.load(ordering: .acquiring) > number }
            }
            Self.thread { Self.copy(server, client) { false } }
        }
    }

    private func dial() -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(target.port).bigEndian
        inet_pton(AF_INET, target.host == "localhost" ? "127.0.0.1" : target.host, &address.sin_addr)
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return status == 0 ? descriptor : -1
    }

    private static func copy(_ from: Int32, _ to: Int32, isDeaf: () -> Bool) {
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(from, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            if isDeaf() { continue }
            var sent = 0
            while sent < count {
                let more = buffer.withUnsafeBytes {
                    send(to, $0.baseAddress.map { $0 + sent }, count - sent, Int32(MSG_NOSIGNAL))
                }
                guard more > 0 else { break }
                sent += more
            }
        }
        shutdown(from, Int32(SHUT_RDWR))
        shutdown(to, Int32(SHUT_RDWR))
    }

    private static func thread(_ body: @escaping @Sendable () -> Void) {
        final class Box: Sendable {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var thread = pthread_t()
        pthread_create(
            &thread,
            nil,
            { context in
                if let context { Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body() }
                return nil
            },
            Unmanaged.passRetained(Box(body)).toOpaque()
        )
        pthread_detach(thread)
    }
}
