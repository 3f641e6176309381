// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Taskcluster

/// Keeps secrets unreadable in the database: AES-256 in Galois/counter mode, with the key's name beside the text.
///
/// The last key encrypts and every key decrypts. To replace a key, append the new one and restart; once
/// ``HookStore/rotateSecrets(batch:)`` has run, the old one can be removed.
package struct SecretBox: Sendable {
    /// A configuration or a stored text that cannot be used; says which key, never its content.
    package struct Failure: Error, Sendable, CustomStringConvertible {
        package let description: String
    }

    private let keys: [(id: String, key: SymmetricKey)]

    /// Reads keys from the text of `DB_CRYPTO_KEYS`: a list of `{id, algo: "aes-256", key: base64 of 32 bytes}`.
    package init(configuration text: String) throws(Failure) {
        guard let entries = (try? JSONValue(parsing: text))?.array, !entries.isEmpty else {
            throw Failure(description: "must be a JSON list of at least one key")
        }
        var keys: [(id: String, key: SymmetricKey)] = []
        for (index, entry) in entries.enumerated() {
            guard let id = entry["id"]?.string, !id.isEmpty, !id.contains("|") else {
                throw Failure(description: "key \(index) needs an id without a vertical bar")
            }
            guard entry["algo"]?.string == "aes-256" else {
                throw Failure(description: "key \(id) must have the algo aes-256")
            }
            guard let bytes = entry["key"]?.string.flatMap({ Base64.decoded($0) }), bytes.count == 32 else {
                throw Failure(description: "key \(id) must be the base64 form of 32 bytes")
            }
            guard !keys.contains(where: { $0.id == id }) else {
                throw Failure(description: "key \(id) is listed twice")
            }
            keys.append((id, SymmetricKey(data: bytes)))
        }
        self.keys = keys
    }

    private init() {
        keys = []
    }

    /// A box without keys, which refuses everything.
    static let unusable = SecretBox()

    /// The name of the key that encrypts; it begins every text that ``seal(_:for:)`` makes.
    var newestKey: String { keys.last?.id ?? "" }

    /// Encrypts a text for one hook; the result cannot be moved to another one.
    package func seal(_ secret: String, for name: HookName) throws -> String {
        guard let (id, key) = keys.last else { throw Failure(description: "there is no key") }
        let box = try AES.GCM.seal(Array(secret.utf8), using: key, authenticating: Array(name.description.utf8))
        guard let combined = box.combined else { throw Failure(description: "the cipher gave no text") }
        return "\(id)|\(Base64.encoded(Array(combined)))"
    }

    /// Decrypts what ``seal(_:for:)`` made for the same hook.
    package func open(_ text: String, for name: HookName) throws -> String {
        guard let bar = text.firstIndex(of: "|") else { throw Failure(description: "a stored secret is malformed") }
        let id = String(text[..<bar])
        guard let key = keys.last(where: { $0.id == id })?.key else {
            throw Failure(description: "a stored secret needs the key \(id), which is not configured")
        }
        guard let combined = Base64.decoded(text[text.index(after: bar)...]) else {
            throw Failure(description: "a stored secret is malformed")
        }
        let box = try AES.GCM.SealedBox(combined: combined)
        let bytes = try AES.GCM.open(box, using: key, authenticating: Array(name.description.utf8))
        return String(decoding: Array(bytes), as: UTF8.self)
    }
}
