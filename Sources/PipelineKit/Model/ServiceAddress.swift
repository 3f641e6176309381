// SPDX-License-Identifier: MPL-2.0

/// Which addresses steps may be at.
enum ServiceAddress {
    /// What is wrong with an address; nil if nothing is.
    static func problem(_ text: String, allowed: [String]?) -> (code: String, message: String)? {
        let scheme = ["http://", "https://"].first { text.hasPrefix($0) }
        guard let scheme else { return ("scheme", "has to begin with http:// or https://") }
        let rest = text.dropFirst(scheme.count)
        let host = rest.prefix { $0 != "/" }
        guard !host.isEmpty, text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else { return ("host", "names no host") }
        if host.contains("@") { return ("userinfo", "must not hold a user") }
        if text.contains("?") || text.contains("#") { return ("query", "must not hold a query or a fragment") }
        if rest.contains("\\") || rest.split(separator: "/").contains("..") { return ("path", "must not climb") }
        guard let allowed else { return nil }
        // What is spelled otherwise than it is meant could be allowed here and lead elsewhere there.
        let spelled = text.lowercased()
        if ["%2e", "%2f", "%5c"].contains(where: { spelled.contains($0) }) { return ("path", "must not climb") }
        let isAllowed = allowed.contains { prefix in
            var prefix = prefix[...]
            while prefix.last == "/" { prefix.removeLast() }
            return text == prefix || text.hasPrefix("\(prefix)/")
        }
        return isAllowed ? nil : ("not_allowed", "is not one of the step services that are allowed")
    }
}
