// SPDX-License-Identifier: MPL-2.0
import Crypto
public import JSON
import Taskcluster

/// The ways to notify somebody.
public enum NotificationKind: String, Sendable, Hashable, CaseIterable {
    case email, pulse, irc
    case matrix = "matrix-room"
    case slack = "slack-channel"
}

/// Something to tell somebody.
public struct Notification: Sendable, Hashable {
    /// How.
    public let kind: NotificationKind
    /// Whom: a mail address, a room, a channel.
    public let address: String
    /// What, as the request said it.
    public let body: JSONValue

    /// Describes a notification.
    public init(kind: NotificationKind, address: String, body: JSONValue) {
        self.kind = kind
        self.address = address
        self.body = body
    }

    /// The same for notifications that say the same to the same address.
    public var fingerprint: String {
        let parts = ["address", "subject", "content", "link", "replyTo"].map { body[$0] ?? .null }
        let identity: JSONValue = kind == .email ? .array(parts) : [JSONValue(kind.rawValue), body]
        return Base64.urlEncoded(Array(SHA256.hash(data: identity.bytes(.sorted))))
    }
}
