// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// Takes known secrets, and what looks like one, out of texts before they leave the process.
package final class Redactor: Sendable {
    private let secrets = Mutex<Set<String>>([])

    /// Creates a redactor that knows no secret yet.
    package init() {}

    /// Learns secrets; values below four characters would mutilate every text and are left to the patterns.
    package func learn(_ values: [String?]) {
        let values = values.compactMap { $0 }.filter { $0.utf8.count >= 4 }
        secrets.withLock { $0.formUnion(values) }
    }

    /// The text without secrets.
    package func clean(_ text: String) -> String {
        let known = secrets.withLock { $0 }.sorted { $0.utf8.count > $1.utf8.count }
        var result = text
        for secret in known where result.contains(secret) { result = Self.replace(secret, in: result) }
        return Self.withoutPatterns(result)
    }

    private static func replace(_ secret: String, in text: String) -> String {
        var rest = Substring(text)
        var result = ""
        while let range = rest.firstRange(of: secret) {
            result += rest[..<range.lowerBound] + "***"
            rest = rest[range.upperBound...]
        }
        return result + rest
    }

    /// Hides what follows words that announce a secret, and passwords in URLs.
    private static func withoutPatterns(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { line -> String in
            var words = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
            var hidesRest = false
            for index in words.indices {
                if hidesRest {
                    words[index] = words[index].isEmpty ? "" : "***"
                    continue
                }
                let lower = words[index].lowercased()
                if index > 0, ["-P", "-c"].contains(words[index - 1]), Int(words[index]) == nil {
                    words[index] = "***"
                }
                if lower.hasPrefix("authorization:") { hidesRest = true }
                for key in ["password=", "passwd=", "token=", "community="] {
                    guard let range = lower.firstRange(of: key) else { continue }
                    words[index] =
                        String(words[index].prefix(lower.distance(from: lower.startIndex, to: range.upperBound)))
                        + "***"
                    break
                }
                if let scheme = words[index].firstRange(of: "://"),
                    let at = words[index][scheme.upperBound...].firstIndex(of: "@"),
                    !words[index][scheme.upperBound..<at].contains("/")
                {
                    words[index] = words[index][..<scheme.upperBound] + "***" + words[index][at...]
                }
            }
            return words.joined(separator: " ")
        }.joined(separator: "\n")
    }
}
