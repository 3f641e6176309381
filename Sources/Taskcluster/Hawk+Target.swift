// SPDX-License-Identifier: MPL-2.0

/// The part of a URL a signature covers.
public typealias HawkTarget = Hawk.Target

extension Hawk {
    /// The part of a URL a signature covers: host, port, and path with query exactly as sent.
    public struct Target: Sendable, Hashable {
        /// The host name without the port.
        public var host: String
        /// The port, spelled out or not.
        public var port: Int
        /// Path and query as on the request line.
        public var resource: String

        /// A target from its parts.
        public init(host: String, port: Int, resource: String) {
            self.host = host
            self.port = port
            self.resource = resource
        }

        /// The target of an absolute http or https URL; nil when it is not one.
        public init?(url: String) {
            let bytes = Array(url.utf8)
            let lowercased = url.lowercased()
            let scheme: Int
            if lowercased.hasPrefix("https://") {
                (scheme, port) = (8, 443)
            } else if lowercased.hasPrefix("http://") {
                (scheme, port) = (7, 80)
            } else {
                return nil
            }
            let rest = bytes[scheme...].prefix { $0 != UInt8(ascii: "#") }
            let authority = rest.prefix { $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") }
            let path = rest.dropFirst(authority.count)
            // User information is never part of what is signed.
            let place = authority.split(separator: UInt8(ascii: "@"), omittingEmptySubsequences: false).last ?? []
            var name = place
            let closing = place.lastIndex(of: UInt8(ascii: "]")) ?? place.startIndex
            if let colon = place.lastIndex(of: UInt8(ascii: ":")), colon >= closing {
                name = place[..<colon]
                guard let number = Int(String(decoding: place[(colon + 1)...], as: UTF8.self)),
                    (0...65535).contains(number)
                else { return nil }
                port = number
            }
            guard !name.isEmpty else { return nil }
            host = String(decoding: name, as: UTF8.self)
            let text = String(decoding: path, as: UTF8.self)
            resource = text.hasPrefix("/") ? text : "/" + text
        }
    }
}
