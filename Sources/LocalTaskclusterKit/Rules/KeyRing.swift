// SPDX-License-Identifier: MPL-2.0
import Crypto
public import JSON
import Taskcluster

/// Keys for what must not be readable in the database: AES-256-GCM, with the name of the key kept beside the text.
///
/// The last key seals and every key opens, so a key is replaced by appending a new one, waiting until everything has been
/// sealed again, and removing the old.
public struct KeyRing: Sendable {
    /// A configuration or a stored value that cannot be used; names the key, never its content.
    public struct Failure: Error, Sendable, CustomStringConvertible {
        /// What is wrong.
        public let description: String
    }

    /// Bytes that only holders of a key can read.
    public struct Sealed: Sendable, Hashable {
        /// The name of the key.
        public let keyID: String
        /// Nonce, text and tag.
        public let bytes: [UInt8]

        /// Puts together what was read from a table.
        public init(keyID: String, bytes: [UInt8]) {
            self.keyID = keyID
            self.bytes = bytes
        }
    }

    /// The name of the key that is made from the deployment's one secret.
    public static let derivedID = "derived"

    private let keys: [(id: String, key: SymmetricKey)]

    /// Uses one key made from the deployment's secret, and those of a list `[{id, algo: "aes-256", key: base64}]`.
    public init(derived: [UInt8], configured: JSONValue = .array([])) throws(Failure) {
        guard let entries = configured.array else {
            throw Failure(description: "the keys must be a JSON list")
        }
        var keys = [(id: Self.derivedID, key: SymmetricKey(data: derived))]
        for (position, entry) in entries.enumerated() {
            guard let id = entry["id"]?.string, !id.isEmpty, !keys.contains(where: { $0.id == id }) else {
                throw Failure(description: "key \(position) needs an id of its own")
            }
            guard entry["algo"]?.string ?? "aes-256" == "aes-256",
                let bytes = entry["key"]?.string.flatMap({ Base64.decoded($0) }), bytes.count == 32
            else {
                throw Failure(description: "key \(id) must be an aes-256 key: the base64 form of 32 bytes")
            }
            keys.append((id, SymmetricKey(data: bytes)))
        }
        self.keys = keys
    }

    /// The name of the key that seals.
    public var currentID: String { keys.last?.id ?? Self.derivedID }

    /// Seals bytes for one place; they cannot be opened as those of another.
    public func seal(_ bytes: [UInt8], for place: String) throws -> Sealed {
        guard let (id, key) = keys.last else { throw Failure(description: "there is no key") }
        let box = try AES.GCM.seal(bytes, using: key, authenticating: Array(place.utf8))
        guard let combined = box.combined else { throw Failure(description: "the cipher gave no text") }
        return Sealed(keyID: id, bytes: Array(combined))
    }

    /// Opens what was sealed for the same place.
    public func open(_ sealed: Sealed, for place: String) throws -> [UInt8] {
        guard let key = keys.last(where: { $0.id == sealed.keyID })?.key else {
            throw Failure(description: "the key \(sealed.keyID) is not configured")
        }
        let box = try AES.GCM.SealedBox(combined: sealed.bytes)
        return Array(try AES.GCM.open(box, using: key, authenticating: Array(place.utf8)))
    }
}
