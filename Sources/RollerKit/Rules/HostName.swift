// SPDX-License-Identifier: MPL-2.0

import Core

/// Names of hosts that may be handed to programs and resolvers.
package enum HostName {
    /// Whether a text is an IP address or a name of labels.
    ///
    /// Labels are letters, digits, `-` and `_`, none longer than 63, none beginning or ending with `-`; the name has at
    /// most 253. One dot at the end does no harm.
    package static func isValid(_ text: String) -> Bool {
        if AddressRange.isAddress(text) { return true }
        var name = text[...]
        if name.hasSuffix(".") { name.removeLast() }
        guard (1...253).contains(name.utf8.count) else { return false }
        return name.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            let bytes = label.utf8
            guard let first = bytes.first, let last = bytes.last, bytes.count <= 63 else { return false }
            return first != dash && last != dash
                && bytes.allSatisfy { Names.isAlphanumeric($0) || $0 == dash || $0 == UInt8(ascii: "_") }
        }
    }

    private static let dash = UInt8(ascii: "-")

    /// The name without the dot at its end.
    package static func plain(_ text: String) -> String {
        text.hasSuffix(".") ? String(text.dropLast()) : text
    }
}

/// Hardware addresses.
enum HardwareAddress {
    /// Six bytes with colons in lower case; nil for what is none.
    static func canonical(_ text: String) -> String? {
        let digits = text.lowercased().filter { $0 != ":" && $0 != "-" && $0 != "." }
        guard digits.utf8.count == 12, digits.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) }) else {
            return nil
        }
        let characters = Array(digits)
        return stride(from: 0, to: 12, by: 2).map { String(characters[$0...($0 + 1)]) }.joined(separator: ":")
    }
}
