// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules
import Taskcluster

/// A client as people manage it; its access token is kept elsewhere.
public struct ClientRecord: Sendable, Hashable {
    /// The name.
    public let clientID: String
    /// What it is for.
    public var description: String
    /// What it was granted; roles are not expanded.
    public var scopes: [String]
    /// When its credentials stop working.
    public var expires: Timestamp
    /// When it was made.
    public let created: Timestamp
    /// When it was last changed.
    public var lastModified: Timestamp
    /// When it was last used, give or take six hours.
    public var lastDateUsed: Timestamp
    /// When it last got a new token.
    public var lastRotated: Timestamp
    /// Whether it goes away with its expiry.
    public var deleteOnExpiration: Bool
    /// Whether its credentials are refused.
    public var disabled: Bool

    /// Describes a client.
    public init(
        clientID: String,
        description: String,
        scopes: [String],
        expires: Timestamp,
        created: Timestamp,
        deleteOnExpiration: Bool = false
    ) {
        self.clientID = clientID
        self.description = description
        self.scopes = scopes
        self.expires = expires
        self.created = created
        lastModified = created
        lastDateUsed = created
        lastRotated = created
        self.deleteOnExpiration = deleteOnExpiration
        disabled = false
    }

    /// Whether it comes from the configuration and cannot be changed through the API.
    public var isStatic: Bool { Self.isStatic(clientID) }

    /// Whether clients of this name come from the configuration.
    public static func isStatic(_ clientID: String) -> Bool { clientID.hasPrefix("static/") }

    /// The client as others see it, given what its scopes come to.
    public func json(expandedScopes: [String]) -> JSONValue {
        [
            "clientId": JSONValue(clientID), "description": JSONValue(description),
            "expires": JSONValue(expires.iso8601), "created": JSONValue(created.iso8601),
            "lastModified": JSONValue(lastModified.iso8601), "lastDateUsed": JSONValue(lastDateUsed.iso8601),
            "lastRotated": JSONValue(lastRotated.iso8601), "deleteOnExpiration": JSONValue(deleteOnExpiration),
            "scopes": JSONValue(scopes), "expandedScopes": JSONValue(expandedScopes), "disabled": JSONValue(disabled),
        ]
    }
}

/// An entry of the record of changes.
public struct AuditEntry: Sendable, Hashable {
    /// The position in the record.
    public let id: Int
    /// `client`, `role` or `secret`.
    public let entityType: String
    /// What was changed.
    public let entityID: String
    /// Who changed it.
    public let clientID: String
    /// What was done.
    public let action: String
    /// When.
    public let created: Timestamp

    /// The entry as clients see it.
    public var json: JSONValue {
        [
            "entityType": JSONValue(entityType), "entityId": JSONValue(entityID), "clientId": JSONValue(clientID),
            "actionType": JSONValue(action), "created": JSONValue(created.iso8601),
        ]
    }
}
