// SPDX-License-Identifier: MPL-2.0

import Glibc

/// The packet that wakes a network card.
struct WakeUpPacket: Hashable {
    var bytes: [UInt8]

    /// A packet for a card; the optional password is six bytes written like an address.
    init(mac: String, password: String? = nil) throws(ActionError) {
        let address = try Self.address(mac)
        bytes = Array(repeating: 0xff, count: 6)
        for _ in 0..<16 { bytes += address }
        if let password { bytes += try Self.address(password) }
    }

    private static func address(_ text: String) throws(ActionError) -> [UInt8] {
        let parts = text.split { $0 == ":" || $0 == "-" }
        let bytes = parts.compactMap { $0.utf8.count == 2 ? UInt8($0, radix: 16) : nil }
        guard parts.count == 6, bytes.count == 6 else {
            throw ActionError(.config, "a hardware address is six hexadecimal bytes")
        }
        return bytes
    }

    /// Sends the packet; a datagram does not block.
    func send(to host: String, port: Int) throws(ActionError) {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        guard let port = UInt16(exactly: port), inet_pton(AF_INET, host, &address.sin_addr) == 1 else {
            throw ActionError(.config, "the broadcast address is not an IPv4 address and port")
        }
        address.sin_port = port.bigEndian
        let socket = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { throw ActionError(.tooling, "cannot open a socket") }
        defer { close(socket) }
        var yes: Int32 = 1
        setsockopt(socket, SOL_SOCKET, SO_BROADCAST, &yes, socklen_t(MemoryLayout<Int32>.size))
        let sent = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                sendto(socket, bytes, bytes.count, 0, pointer, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard sent == bytes.count else { throw ActionError(.unreachable, "the packet could not be sent") }
    }
}
