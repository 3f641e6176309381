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
        /// It is said in the log.
        case log
        /// Somebody else delivers it; it is only remembered that it was told.
        case bus

        /// The ways in which people are told, who want few messages; programs want each.
        static let ofPeople: [Channel] = [.email, .matrix, .slack]
    }

    /// An address and what it is called.
    public struct Link: Sendable, Hashable {
        /// The address.
        public var url: String
        /// What it is called.
        public var text: String

        /// Makes a link of its parts.
        public init(url: String, text: String) {
            self.url = url
            self.text = text
        }
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
    /// Where a mail leads to, and in which words; queues that do not know links leave it out.
    public var link: Link?
    /// How long it may wait for others to the same target, to be told with them; nil does not wait.
    public var digest: Duration?

    /// Makes a notice of its parts.
    public init(
        key: String,
        channel: Channel,
        target: String,
        subject: String,
        text: String,
        document: JSONValue,
        link: Link? = nil,
        digest: Duration? = nil
    ) {
        self.key = key
        self.channel = channel
        self.target = target
        self.subject = subject
        self.text = text
        self.document = document
        self.link = link
        self.digest = digest
    }

    /// How many bytes of text go out at once; what rooms and mails are refused for is longer.
    private static let longest = 30_000

    /// Several notices to one target as one; what gets too long is counted and not told.
    static func together(_ notices: [Notice]) -> Notice? {
        guard var notice = notices.first else { return nil }
        guard notices.count > 1 else { return notice }
        notice.subject = "\(notices.count) things: \(notice.subject.prefix(200)) and more"
        var texts: [String] = []
        var left = longest
        for text in notices.map(\.text) {
            left -= text.utf8.count + 9
            guard left >= 0 || texts.isEmpty else { break }
            texts.append(text)
        }
        if texts.count < notices.count { texts.append("and \(notices.count - texts.count) more") }
        notice.text = texts.joined(separator: "\n\n---\n\n")
        notice.document = .array(notices.map(\.document))
        return notice
    }
}
