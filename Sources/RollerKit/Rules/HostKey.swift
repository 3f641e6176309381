// SPDX-License-Identifier: MPL-2.0

import Crypto
package import JSON
import Taskcluster

/// The public key by which a machine proves at SSH who it is.
package struct HostKey: Sendable, Hashable {
    /// The algorithm, such as `ssh-ed25519`.
    package let type: String
    /// The key in base64.
    package let base64: String
    /// What people compare, as OpenSSH prints it.
    package let fingerprint: String

    /// Reads `TYPE BASE64`; nil for anything else.
    package init?(_ line: String) {
        let words = line.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
        guard words.count >= 2, words[0].utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }), words[0].utf8.count <= 64,
            let bytes = Base64.decoded(words[1]), bytes.count >= 16
        else { return nil }
        type = words[0]
        base64 = words[1]
        var digest = Base64.encoded(Array(SHA256.hash(data: bytes)))
        while digest.hasSuffix("=") { digest.removeLast() }
        fingerprint = "SHA256:" + digest
    }

    /// As it stands in the inventory.
    package var line: String { "\(type) \(base64)" }

    /// The keys of a list of lines; what is none is left out.
    package static func list(_ value: JSONValue?) -> [HostKey] {
        (value?.array ?? []).compactMap { $0.string.flatMap(HostKey.init) }
    }

    /// The keys that were accepted for a machine.
    package static func pinned(_ properties: JSONObject) -> [HostKey] { list(properties[property]) }

    /// The property of a machine that holds them.
    package static let property = "ssh.host_keys"
}
