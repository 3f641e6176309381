// SPDX-License-Identifier: MPL-2.0

extension Hawk {
    /// The attributes of an `Authorization: Hawk …` header.
    public struct Header: Sendable, Hashable {
        /// The name of the client.
        public var id: String
        /// Seconds since 1970, as sent.
        public var timestamp: String
        /// A random text.
        public var nonce: String
        /// The signature.
        public var mac: String
        /// The hash of the payload.
        public var hash: String?
        /// The extension text.
        public var ext: String?
        /// The Oz application.
        public var app: String?
        /// The Oz delegation.
        public var dlg: String?

        /// A header without the Oz attributes.
        public init(id: String, timestamp: String, nonce: String, mac: String, hash: String? = nil, ext: String? = nil)
        {
            self.id = id
            self.timestamp = timestamp
            self.nonce = nonce
            self.mac = mac
            self.hash = hash
            self.ext = ext
        }

        /// Reads a header; throws a rejection with the reference's wording.
        public init(_ text: String, limit: Int = Hawk.headerLimit) throws(HawkRejection) {
            guard text.utf8.count <= limit else { throw .badRequest("Header length too long") }
            var attributes = Attributes(text)
            try attributes.scheme()
            var values: [Name: String] = [:]
            while let (name, value) = try attributes.next() {
                guard values.updateValue(value, forKey: name) == nil else {
                    throw .badRequest("Duplicate attribute: \(name.rawValue)")
                }
            }
            guard let id = values[.id], let timestamp = values[.ts], let nonce = values[.nonce], let mac = values[.mac]
            else { throw .badRequest("Missing attributes") }
            self.init(id: id, timestamp: timestamp, nonce: nonce, mac: mac, hash: values[.hash], ext: values[.ext])
            app = values[.app]
            dlg = values[.dlg]
        }

        /// The text of the header.
        public var text: String {
            var result = "Hawk id=\"\(id)\", ts=\"\(timestamp)\", nonce=\"\(nonce)\""
            if let hash { result += ", hash=\"\(hash)\"" }
            if let ext { result += ", ext=\"\(ext)\"" }
            result += ", mac=\"\(mac)\""
            if let app { result += ", app=\"\(app)\"" }
            if let dlg { result += ", dlg=\"\(dlg)\"" }
            return result
        }

        enum Name: String {
            case id, ts, nonce, hash, ext, mac, app, dlg
        }
    }

    /// The reference refuses longer `Authorization` headers and signed resources.
    public static let headerLimit = 4096
}

/// Why a signature was refused; the description is what the client gets to read.
public struct HawkRejection: Error, Sendable, Hashable, CustomStringConvertible {
    /// One line without secrets.
    public let description: String

    init(_ description: String) {
        self.description = description
    }

    static func badRequest(_ problem: String) -> HawkRejection { HawkRejection("Bad Request: \(problem)") }
    static func unauthorized(_ problem: String) -> HawkRejection { HawkRejection("Unauthorized: \(problem)") }
}

/// A scanner of `name="value"` pairs separated by commas.
private struct Attributes {
    private var rest: ArraySlice<UInt8>

    init(_ text: String) {
        rest = Array(text.utf8)[...]
    }

    mutating func scheme() throws(HawkRejection) {
        let word = rest.prefix { $0.isAlphanumeric || $0 == UInt8(ascii: "_") }
        let after = rest.dropFirst(word.count)
        guard after.first.map(Self.isSpace) ?? true else { throw .badRequest("Invalid header syntax") }
        guard String(decoding: word, as: UTF8.self).lowercased() == "hawk" else {
            throw .unauthorized("only the Hawk authorization scheme is supported")
        }
        rest = after.drop(while: Self.isSpace)
        if rest.isEmpty { throw .badRequest("Invalid header syntax") }
    }

    mutating func next() throws(HawkRejection) -> (Hawk.Header.Name, String)? {
        guard !rest.isEmpty else { return nil }
        let word = rest.prefix { $0.isAlphanumeric || $0 == UInt8(ascii: "_") }
        rest = rest.dropFirst(word.count)
        guard !word.isEmpty, rest.starts(with: Array("=\"".utf8)) else { throw .badRequest("Bad header format") }
        let text = String(decoding: word, as: UTF8.self)
        guard let name = Hawk.Header.Name(rawValue: text) else { throw .badRequest("Unknown attribute: \(text)") }
        rest = rest.dropFirst(2)
        let value = rest.prefix { $0 != UInt8(ascii: "\"") }
        guard !value.isEmpty, value.allSatisfy({ $0.isPrintable && $0 != UInt8(ascii: "\\") }) else {
            throw .badRequest("Bad attribute value: \(text)")
        }
        rest = rest.dropFirst(value.count)
        guard !rest.isEmpty else { throw .badRequest("Bad header format") }
        rest = rest.dropFirst().drop(while: Self.isSpace)
        if let separator = rest.first {
            guard separator == UInt8(ascii: ",") else { throw .badRequest("Bad header format") }
            rest = rest.dropFirst().drop(while: Self.isSpace)
        }
        return (name, String(decoding: value, as: UTF8.self))
    }

    private static func isSpace(_ character: UInt8) -> Bool { character == 0x20 || character == 0x09 }
}
