// SPDX-License-Identifier: MPL-2.0

package import JSON

/// What a controller or machine wants to know before it obeys; it never shows itself in logs.
package struct Credential: Sendable, Hashable, CustomStringConvertible, CustomReflectable {
    /// The members of the stored object: `username`, `password`, `community`, `privateKeyFile`, `token` and whatever
    /// else a kind of controller needs.
    private let members: JSONObject

    package init(_ members: JSONObject) {
        self.members = members
    }

    /// The value of a member, nil if it is absent or no text.
    package subscript(_ member: String) -> String? { members[member]?.string }

    /// A member that is an object itself, such as `snmpV3`.
    package func object(_ member: String) -> JSONObject? { members[member]?.object }

    /// The account.
    package var username: String? { self["username"] }
    /// The password of the account.
    package var password: String? { self["password"] }
    /// The community of SNMP versions 1 and 2c.
    package var community: String? { self["community"] }
    /// The path of an SSH key.
    package var privateKeyFile: String? { self["privateKeyFile"] }
    /// A token instead of an account.
    package var token: String? { self["token"] }
    /// The second key that some IPMI controllers want.
    package var kgKey: String? { self["kgKey"] }

    /// All texts that must not be seen anywhere: everything but user names, paths and names of algorithms.
    package var secrets: [String] { Self.secrets(in: .object(members)) }

    private static let open: Set<String> = [
        "username", "privateKeyFile", "authProtocol", "privProtocol", "securityLevel",
    ]

    private static func secrets(in value: JSONValue) -> [String] {
        switch value {
        case .string(let text): text.isEmpty ? [] : [text]
        case .array(let elements): elements.flatMap(secrets(in:))
        case .object(let members): members.flatMap { open.contains($0.key) ? [] : secrets(in: $0.value) }
        case .null, .bool, .number: []
        }
    }

    /// The stored form.
    package var json: JSONValue { .object(members) }

    package var description: String { "..." }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// The names of credentials.
package enum CredentialName {
    /// Letters, digits, `_`, `.` and `-`, at most 128, beginning with a letter or digit: no path, no option.
    package static func isValid(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        guard let first = bytes.first, bytes.count <= 128, isPlain(first) else { return false }
        return bytes.allSatisfy { isPlain($0) || "_.-".utf8.contains($0) }
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
}
