// SPDX-License-Identifier: MPL-2.0

public import Schedules

/// A client of the deployment: a name, a key and what it may do.
public struct Client: Sendable, Hashable {
    /// The name.
    public var id: String
    /// The shared key requests are signed with.
    public var accessToken: String
    /// The scopes as granted, roles not expanded.
    public var scopes: [String]
    /// When the client ceases to work.
    public var expires: Timestamp
    /// Whether the client is switched off.
    public var disabled: Bool

    /// A client from its parts.
    public init(
        id: String,
        accessToken: String,
        scopes: [String],
        expires: Timestamp = .farFuture,
        disabled: Bool = false
    ) {
        self.id = id
        self.accessToken = accessToken
        self.scopes = scopes
        self.expires = expires
        self.disabled = disabled
    }
}
