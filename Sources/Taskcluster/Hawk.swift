// SPDX-License-Identifier: MPL-2.0

import Crypto

/// The Hawk scheme: requests signed with a shared key over method, resource, host, port and, optionally, body.
public enum Hawk {
    /// What a client signs with; temporary credentials carry their certificate as JSON text.
    public struct Credentials: Sendable, Hashable, CustomStringConvertible {
        /// The name of the client.
        public let clientID: String
        /// The shared key.
        public let accessToken: String
        /// The certificate of temporary credentials, as JSON text.
        public let certificate: String?

        /// Credentials from their three parts.
        public init(clientID: String, accessToken: String, certificate: String? = nil) {
            self.clientID = clientID
            self.accessToken = accessToken
            self.certificate = certificate
        }

        /// The client's name; keys stay out of logs.
        public var description: String { clientID }
    }

    /// The lines of a signature: which kind of thing is signed decides the first one.
    public enum Kind: String, Sendable {
        /// An `Authorization` header.
        case header = "hawk.1.header"
        /// A signed URL.
        case bewit = "hawk.1.bewit"
    }

    /// Everything a signature covers.
    public struct Artifacts: Sendable, Hashable {
        /// Seconds since 1970, as sent; of a signed URL its expiry.
        public var timestamp: String
        /// The nonce; empty for a signed URL.
        public var nonce: String
        /// The method in any case.
        public var method: String
        /// Where the request goes.
        public var target: Target
        /// The payload hash, if the client sent one.
        public var hash: String?
        /// The extension text, if any.
        public var ext: String?
        /// The Oz application, if any.
        public var app: String?
        /// The Oz delegation, if any.
        public var dlg: String?

        /// Artifacts without the Oz attributes.
        public init(
            timestamp: String,
            nonce: String,
            method: String,
            target: Target,
            hash: String? = nil,
            ext: String? = nil
        ) {
            self.timestamp = timestamp
            self.nonce = nonce
            self.method = method
            self.target = target
            self.hash = hash
            self.ext = ext
        }
    }

    /// The hash of a body and its media type, as the `hash` attribute carries it.
    public static func payloadHash(contentType: String, body: [UInt8]) -> String {
        var hasher = SHA256()
        hasher.update(data: Array("hawk.1.payload\n".utf8))
        hasher.update(data: mediaType(contentType) + [newline])
        hasher.update(data: body)
        hasher.update(data: [newline])
        return Base64.encoded(Array(hasher.finalize()))
    }

    /// Whether a hash sent by a client fits a received body.
    ///
    /// The reference hashes the empty text when the body is not JSON; that hash is accepted too.
    public static func isPayloadHash(_ hash: String, contentType: String, body: [UInt8]) -> Bool {
        if constantTimeEqual(hash, payloadHash(contentType: contentType, body: body)) { return true }
        guard !body.isEmpty, mediaType(contentType) != Array("application/json".utf8) else { return false }
        return constantTimeEqual(hash, payloadHash(contentType: contentType, body: []))
    }

    /// The signature: base64 of HMAC-SHA256 over the normalised text.
    public static func mac(_ kind: Kind = .header, _ artifacts: Artifacts, key: String) -> String {
        let key = SymmetricKey(data: Array(key.utf8))
        return String(decoding: macBytes(kind, artifacts, key: key), as: UTF8.self)
    }

    static func macBytes(_ kind: Kind, _ artifacts: Artifacts, key: SymmetricKey) -> [UInt8] {
        Base64.standardBytes(hmac(normalized(kind, artifacts), key: key))
    }

    static func hmac(_ text: [UInt8], key: SymmetricKey) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: text, using: key))
    }

    static func hmac(_ text: String, key: String) -> [UInt8] {
        hmac(Array(text.utf8), key: SymmetricKey(data: Array(key.utf8)))
    }

    /// Compares without revealing where the difference is.
    static func constantTimeEqual(_ first: some Collection<UInt8>, _ second: some Collection<UInt8>) -> Bool {
        guard first.count == second.count else { return false }
        return zip(first, second).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }

    static func constantTimeEqual(_ first: String, _ second: String) -> Bool {
        constantTimeEqual(first.utf8, second.utf8)
    }

    private static let newline = UInt8(ascii: "\n")

    private static func normalized(_ kind: Kind, _ artifacts: Artifacts) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(160 + artifacts.target.resource.utf8.count + (artifacts.ext?.utf8.count ?? 0))
        func line(_ value: some Sequence<UInt8>) {
            text.append(contentsOf: value)
            text.append(newline)
        }
        line(kind.rawValue.utf8)
        line(artifacts.timestamp.utf8)
        line(artifacts.nonce.utf8)
        line(artifacts.method.utf8.lazy.map { $0.isLowercase ? $0 - 32 : $0 })
        line(artifacts.target.resource.utf8)
        line(artifacts.target.host.utf8.lazy.map { (0x41...0x5a).contains($0) ? $0 + 32 : $0 })
        line(String(artifacts.target.port).utf8)
        line((artifacts.hash ?? "").utf8)
        for character in (artifacts.ext ?? "").utf8 {
            switch character {
            case UInt8(ascii: "\\"): text.append(contentsOf: Array("\\\\".utf8))
            case newline: text.append(contentsOf: Array("\\n".utf8))
            default: text.append(character)
            }
        }
        text.append(newline)
        if let app = artifacts.app {
            line(app.utf8)
            line((artifacts.dlg ?? "").utf8)
        }
        return text
    }

    private static func mediaType(_ contentType: String) -> [UInt8] {
        let type = contentType.utf8.prefix { $0 != UInt8(ascii: ";") }
        let isSpace: (UInt8) -> Bool = { $0 == 0x20 || $0 == 0x09 }
        let trimmed = type.drop(while: isSpace).reversed().drop(while: isSpace).reversed()
        return trimmed.map { (0x41...0x5a).contains($0) ? $0 + 32 : $0 }
    }
}
