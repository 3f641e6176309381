// SPDX-License-Identifier: MPL-2.0
public import Schedules

/// What is known about stored bytes.
public struct BlobFacts: Sendable, Hashable {
    /// How many bytes there are.
    public let length: Int
    /// Their SHA-256 in hexadecimal, if it was computed.
    public let sha256: String?
    /// Their SHA-512 in hexadecimal, if it was computed.
    public let sha512: String?

    /// Describes stored bytes.
    public init(length: Int, sha256: String? = nil, sha512: String? = nil) {
        self.length = length
        self.sha256 = sha256
        self.sha512 = sha512
    }
}

/// Where the bytes of artifacts and objects are; what they mean is the database's business.
///
/// Bytes are stored as they come, their content encoding included, completely or not at all.
public protocol BlobStore: Sendable {
    /// An address where whoever has it can PUT the bytes of a blob, with the given content type.
    func uploadURL(_ blobID: String, contentType: String, until expires: Timestamp) -> String
    /// An address where whoever has it can GET the bytes of a blob.
    func downloadURL(_ blobID: String, contentType: String, until expires: Timestamp) -> String
    /// Stores bytes that came with a request.
    func put(_ bytes: [UInt8], blobID: String, contentType: String) async throws
    /// What is stored; nil if nothing was uploaded completely. With `hashing`, the hashes are known afterwards.
    func facts(_ blobID: String, hashing: Bool) async throws -> BlobFacts?
    /// Removes bytes; missing ones are no problem.
    func remove(_ blobIDs: [String]) async throws
    /// The bytes of those artifacts of last runs that are at hand and not too long; none by default.
    func contents(of artifacts: [ArtifactName], longest: Int, now: Timestamp) async throws -> [ArtifactBytes]
}

extension BlobStore {
    /// Nothing is at hand in a store that others keep.
    public func contents(of artifacts: [ArtifactName], longest: Int, now: Timestamp) async throws -> [ArtifactBytes] {
        []
    }
}

/// An artifact of a task's last run.
public struct ArtifactName: Sendable, Hashable {
    /// The task.
    public let taskID: String
    /// The artifact.
    public let name: String
}

/// The bytes of an artifact, as they were uploaded.
public struct ArtifactBytes: Sendable, Hashable {
    /// Whose they are.
    public let artifact: ArtifactName
    /// The bytes.
    public let bytes: [UInt8]
    /// The content encoding they have, if any.
    public let encoding: String?
}
