// SPDX-License-Identifier: MPL-2.0

public import JSON

/// Something to tell somebody.
public struct Notice: Sendable, Hashable {
    /// A way to tell.
    public enum Channel: String, Sendable, Hashable {
        case email
        case matrix
        case slack
        case webhook
        /// Somebody else delivers it; it is only remembered that it was told.
        case bus
    }

    /// The same for everything that is to be told once.
    public var key: String
    /// How.
    public var channel: Channel
    /// Whom: an address, a room, a channel, a URL.
    public var target: String
    /// In short.
    public var subject: String
    /// In full.
    public var text: String
    /// For programs.
    public var document: JSONValue

    /// Makes a notice of its parts.
    public init(
        key: String,
        channel: Channel,
        target: String,
        subject: String,
        text: String,
        document: JSONValue
    ) {
        self.key = key
        self.channel = channel
        self.target = target
        self.subject = subject
        self.text = text
        self.document = document
    }
}
