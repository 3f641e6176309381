// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// The name and the terms of an upload to the object service.
public struct ObjectReservation: Sendable, Hashable {
    /// The name of the object.
    public let name: String
    /// The project it belongs to.
    public let projectID: String
    /// The upload that may fill it.
    public let uploadID: String
    /// When it is forgotten.
    public let expires: Timestamp

    /// Describes an upload.
    public init(name: String, projectID: String, uploadID: String, expires: Timestamp) {
        self.name = name
        self.projectID = projectID
        self.uploadID = uploadID
        self.expires = expires
    }
}

/// The hashes of an object that somebody has stated.
public struct ObjectHashes: Sendable, Hashable {
    /// The names of the algorithms we know.
    private static let names = ["sha256", "sha512"]

    private var values: [String: String]

    /// Reads `{sha256?, sha512?}`.
    public init(json: JSONValue?) {
        values = [:]
        for name in Self.names { values[name] = json?[name]?.string }
    }

    /// The hashes of stored bytes.
    public init(_ facts: BlobFacts) {
        values = [:]
        values["sha256"] = facts.sha256
        values["sha512"] = facts.sha512
    }

    /// Whether no hash is known.
    public var isEmpty: Bool { values.isEmpty }

    /// Whether both name the same algorithm and disagree.
    public func contradicts(_ other: ObjectHashes) -> Bool {
        values.contains { name, value in other.values[name].map { $0 != value } ?? false }
    }

    /// Whether every hash here is there as well.
    public func isSubset(of other: ObjectHashes) -> Bool {
        values.allSatisfy { other.values[$0.key] == $0.value }
    }

    /// Both together; where they disagree, the other's count.
    public func merging(_ other: ObjectHashes) -> ObjectHashes {
        var merged = self
        merged.values.merge(other.values) { $1 }
        return merged
    }

    /// The hashes as clients see them.
    public var json: JSONValue {
        var object = JSONObject()
        for name in Self.names { object[name] = values[name].map { JSONValue($0) } }
        return .object(object)
    }
}

/// An object: immutable content under a name.
public struct StoredObject: Sendable, Hashable {
    /// The terms it was uploaded under.
    public let reservation: ObjectReservation
    /// Where its bytes are.
    public let blobID: String
    /// The media type of the bytes.
    public let contentType: String
    /// What the bytes hash to.
    public let hashes: ObjectHashes
    /// Whether the upload is complete.
    public let isFinished: Bool

    /// The name of the object.
    public var name: String { reservation.name }
}
