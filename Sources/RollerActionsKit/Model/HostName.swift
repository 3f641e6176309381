// SPDX-License-Identifier: MPL-2.0

import Glibc

/// Names and addresses that may be handed to programs and put into URLs.
package enum HostName {
    /// The host without a trailing dot; throws unless it is a plain name or a literal address, whole and without controls.
    package static func validated(_ text: String) throws(ActionError) -> String {
        var host = text
        if host.hasSuffix(".") { host.removeLast() }
        guard isName(host) || isAddress(host) else {
            throw ActionError(.config, "the name of a host or its address is not well formed")
        }
        return host
    }

    /// Whether the text is an IPv4 or IPv6 address.
    package static func isAddress(_ text: String) -> Bool {
        var four = in_addr()
        var six = in6_addr()
        return inet_pton(AF_INET, text, &four) == 1 || inet_pton(AF_INET6, text, &six) == 1
    }

    /// The host as it stands in a URL.
    static func inURL(_ host: String) -> String { host.contains(":") ? "[\(host)]" : host }

    private static func isName(_ text: String) -> Bool {
        guard !text.isEmpty, text.utf8.count <= 253 else { return false }
        return text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).allSatisfy { label in
            guard let first = label.first, let last = label.last, label.count <= 63 else { return false }
            let dash = UInt8(ascii: "-")
            return first != dash && last != dash
                && label.allSatisfy { byte in
                    switch byte {
                    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
                    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), dash: true
                    default: false
                    }
                }
        }
    }
}
