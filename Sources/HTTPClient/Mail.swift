// SPDX-License-Identifier: MPL-2.0

/// A mail server, and how to treat it.
public struct MailServer: Sendable {
    /// Its address: `smtp://host:port`, or `smtps://host:port` for TLS from the beginning.
    public var url: String
    /// Whether nothing may be said before the connection is encrypted.
    public var requiresTLS: Bool
    /// The account, if the server wants one.
    public var user: String?
    /// The account's password.
    public var password: String?
    /// A PEM file of the authorities that are trusted, instead of the system's.
    public var authorities: String?
    /// The limit of handing over a message.
    public var timeout: Duration

    /// A server from its parts.
    public init(
        url: String,
        requiresTLS: Bool = true,
        user: String? = nil,
        password: String? = nil,
        authorities: String? = nil,
        timeout: Duration = .seconds(30)
    ) {
        self.url = url
        self.requiresTLS = requiresTLS
        self.user = user
        self.password = password
        self.authorities = authorities
        self.timeout = timeout
    }
}

/// A message in the form in which it travels.
public struct MailMessage: Sendable {
    /// The address that undeliverable messages return to.
    public var sender: String
    /// The addresses it goes to.
    public var recipients: [String]
    /// Header and text, with lines ended by carriage return and line feed.
    public var contents: [UInt8]

    /// A message from its parts.
    public init(sender: String, recipients: [String], contents: [UInt8]) {
        self.sender = sender
        self.recipients = recipients
        self.contents = contents
    }
}

/// What libcurl has to know of a message besides its contents.
struct MailEnvelope: Sendable {
    let sender: String
    let recipients: [String]
    let requiresTLS: Bool
    let user: String?
    let password: String?
    let authorities: String?
}
