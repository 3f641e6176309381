// SPDX-License-Identifier: MPL-2.0

/// Removes secrets from texts that people will read.
public enum Redaction {
    /// Replaces the password of a URL, if it has one, by three dots.
    public static func url(_ text: String) -> String {
        guard let scheme = text.range(ofSeparator: "://") else { return text }
        let rest = text[scheme...]
        let end = rest.firstIndex { $0 == "/" || $0 == "?" || $0 == "#" } ?? rest.endIndex
        guard let at = rest[..<end].lastIndex(of: "@"), let colon = rest[..<at].firstIndex(of: ":") else { return text }
        return text[...colon] + "..." + text[at...]
    }

    /// Whether a metadata key names something that must not be written down.
    public static func isSecret(key: String) -> Bool {
        let last = key.split(separator: ".").last.map(String.init) ?? key
        return secretKeys.contains(last.lowercased())
    }

    private static let secretKeys: Set<String> = [
        "accesstoken", "authorization", "bewit", "certificate", "credentials", "password", "secret", "secretaccesskey",
        "secrets", "token",
    ]
}

extension String {
    /// The index just after the first occurrence of a separator.
    fileprivate func range(ofSeparator separator: String) -> String.Index? {
        var index = startIndex
        while index < endIndex {
            if self[index...].hasPrefix(separator) { return self.index(index, offsetBy: separator.count) }
            index = self.index(after: index)
        }
        return nil
    }
}
