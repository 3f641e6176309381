// SPDX-License-Identifier: MPL-2.0

import Glibc

/// An IP address, or a network of them.
///
/// An IPv4 address that is written as IPv6, as a listener for both families tells its callers' (`::ffff:10.0.0.1`), is the
/// IPv4 address.
public struct AddressRange: Sendable, Hashable {
    private let bytes: [UInt8]
    private let bits: Int

    /// Reads `10.0.0.1`, `10.0.0.0/8`, `::1` or `fd00::/8`; nil for anything else.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let written = Self.written(String(first)) else { return nil }
        var bits = written.count * 8
        if parts.count == 2 {
            guard !parts[1].isEmpty, parts[1].utf8.allSatisfy({ (48...57).contains($0) }), let length = Int(parts[1]),
                length <= bits
            else { return nil }
            bits = length
        }
        bytes = Self.plain(written, bits)
        self.bits = bits - (written.count - bytes.count) * 8
    }

    /// Whether an address is in it.
    public func contains(_ address: String) -> Bool {
        guard let other = Self.bytes(address), other.count == bytes.count else { return false }
        let whole = bits / 8
        guard bytes[..<whole] == other[..<whole] else { return false }
        let rest = bits % 8
        guard rest > 0 else { return true }
        let mask = UInt8(truncatingIfNeeded: 0xFF << (8 - rest))
        return bytes[whole] & mask == other[whole] & mask
    }

    /// Whether a text is an address of either family.
    public static func isAddress(_ text: String) -> Bool { bytes(text) != nil }

    private static func bytes(_ text: String) -> [UInt8]? { written(text).map { plain($0, 128) } }

    /// Four bytes of an IPv4 address that was written as IPv6, where at least the part that says so counts.
    private static func plain(_ bytes: [UInt8], _ bits: Int) -> [UInt8] {
        let mark: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
        return bytes.count == 16 && bits >= 96 && Array(bytes[..<12]) == mark ? Array(bytes[12...]) : bytes
    }

    private static func written(_ text: String) -> [UInt8]? {
        var four = [UInt8](repeating: 0, count: 4)
        if inet_pton(AF_INET, text, &four) == 1 { return four }
        var sixteen = [UInt8](repeating: 0, count: 16)
        return inet_pton(AF_INET6, text, &sixteen) == 1 ? sixteen : nil
    }
}
