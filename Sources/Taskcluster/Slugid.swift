// SPDX-License-Identifier: MPL-2.0

/// Identifiers of tasks and groups: version 4 UUIDs in URL-safe base64, 22 characters long.
public enum Slugid {
    /// The regular expression a slugid matches, as the public schemas spell it.
    public static let pattern = "^[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$"

    /// A fresh "nice" slugid: its first character is a letter, so it never looks like a command-line option.
    public static func make() -> String {
        var generator = SystemRandomNumberGenerator()
        return make(using: &generator)
    }

    /// A nice slugid from a given source of randomness.
    public static func make(using generator: inout some RandomNumberGenerator) -> String {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(16)
        for _ in 0..<2 {
            var word: UInt64 = generator.next()
            for _ in 0..<8 {
                bytes.append(UInt8(truncatingIfNeeded: word))
                word >>= 8
            }
        }
        bytes[0] &= 0x7f
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        return Base64.urlEncoded(bytes)
    }

    /// Whether `text` is a slugid, nice or not.
    public static func isValid(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard bytes.count == 22, bytes.allSatisfy(\.isSlugidCharacter) else { return false }
        return (UInt8(ascii: "Q")...UInt8(ascii: "T")).contains(bytes[8])
            && "CGKOSWaeimquy26-".utf8.contains(bytes[10])
            && "AQgw".utf8.contains(bytes[21])
    }
}

extension UInt8 {
    /// Whether this is a character of URL-safe base64.
    var isSlugidCharacter: Bool { isAlphanumeric || self == UInt8(ascii: "-") || self == UInt8(ascii: "_") }

    /// Whether this is an ASCII letter or digit.
    var isAlphanumeric: Bool { isLetter || isDigit }

    /// Whether this is an ASCII letter.
    var isLetter: Bool { isLowercase || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(self) }

    /// Whether this is a lower-case ASCII letter.
    var isLowercase: Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(self) }

    /// Whether this is an ASCII digit.
    var isDigit: Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self) }

    /// Whether this is a printable ASCII character, the space included.
    var isPrintable: Bool { (0x20...0x7e).contains(self) }
}
