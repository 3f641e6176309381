// SPDX-License-Identifier: MPL-2.0

import Expressions

/// The parts of a URL that decide whether it is trusted.
struct SourceURL: Sendable, Hashable {
    let text: String
    let scheme: String
    /// Host, port and whatever stands before an `@`, exactly as written.
    let authority: String
    /// The path as written, without query and fragment.
    let path: String

    init?(_ text: String) {
        let bytes = text.utf8
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")), bytes[colon...].starts(with: "://".utf8) else {
            return nil
        }
        self.text = text
        scheme = text[..<colon].lowercased()
        let rest = bytes[bytes.index(colon, offsetBy: 3)...].prefix {
            $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#")
        }
        let host = rest.prefix { $0 != UInt8(ascii: "/") }
        guard !scheme.isEmpty, !host.isEmpty else { return nil }
        authority = String(decoding: host, as: UTF8.self)
        path = String(decoding: rest[host.endIndex...], as: UTF8.self)
    }

    /// The host alone, in lower case.
    var host: String {
        let host = authority.split(separator: "@").last ?? ""
        return host.prefix { $0 != ":" }.lowercased()
    }

    /// The path with percent escapes undone.
    var decodedPath: String { PercentText.decoded(path) }

    /// Whether the path means what it looks like: no dot segments, no empty ones, no escaped slashes.
    var isPlain: Bool {
        let escapes = path.lowercased()
        guard !escapes.contains("%2f"), !escapes.contains("%5c"), !path.contains("\\") else { return false }
        let segments = decodedPath.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        for (index, segment) in segments.enumerated() {
            if segment == "." || segment == ".." { return false }
            if segment.isEmpty, index < segments.count - 1 { return false }
        }
        return true
    }

    /// The segments of the decoded path that are not empty.
    var segments: [String] { decodedPath.split(separator: "/").map(String.init) }
}

/// Percent escapes.
enum PercentText {
    static func decoded(_ text: String) -> String {
        guard text.utf8.contains(UInt8(ascii: "%")) else { return text }
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(2)
            if byte == UInt8(ascii: "%"), digits.count == 2,
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// A rule of the form `{schemes, netlocs, path_regexes}`.
struct URLRule: Sendable, Hashable {
    var schemes: Set<String>
    var hosts: Set<String>
    var patterns: [RegularExpression]
    /// Repositories under this rule cannot be looked at without a secret.
    var needsSecret = false

    /// The named groups of the first pattern that matches, when scheme and host are listed.
    func groups(of url: SourceURL) throws(RegularExpression.Undecided) -> [String: String]? {
        guard schemes.contains(url.scheme), hosts.contains(url.authority) else { return nil }
        for pattern in patterns {
            if let match = try pattern.firstMatch(in: url.decodedPath) { return match.named }
        }
        return nil
    }
}
