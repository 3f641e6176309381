// SPDX-License-Identifier: MPL-2.0

public import Schedules

/// A named set of scopes that whoever holds `assume:<id>` has too.
public struct Role: Sendable, Hashable {
    /// The name; a trailing `*` makes it a prefix role.
    public var id: String
    /// The scopes; in a prefix role `<..>` stands for what the `*` matched.
    public var scopes: [String]
    /// A text for people.
    public var description: String
    /// When the role was made.
    public var created: Timestamp
    /// When the role was changed last.
    public var lastModified: Timestamp

    /// A role from its parts.
    public init(
        id: String,
        scopes: [String],
        description: String = "",
        created: Timestamp = Timestamp(milliseconds: 0),
        lastModified: Timestamp = Timestamp(milliseconds: 0)
    ) {
        self.id = id
        self.scopes = scopes
        self.description = description
        self.created = created
        self.lastModified = lastModified
    }
}
