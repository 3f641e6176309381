// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// What an artifact is made of.
public enum ArtifactContent: Sendable, Hashable {
    /// Bytes in our own blob store.
    case blob
    /// Bytes in the object service, under a name that follows from the artifact's.
    case object(projectID: String, uploadID: String)
    /// Bytes at another address.
    case reference(url: String)
    /// Another artifact of the same run, which need not exist.
    case link(artifact: String)
    /// A reason why there is no content.
    case error(reason: String, message: String)

    /// The storage type on the wire.
    public var storageType: String {
        switch self {
        case .blob: "s3"
        case .object: "object"
        case .reference: "reference"
        case .link: "link"
        case .error: "error"
        }
    }

    /// What is stored beside the storage type.
    var details: JSONValue {
        switch self {
        case .blob: .object([:])
        case .object(let projectID, let uploadID):
            ["projectId": JSONValue(projectID), "uploadId": JSONValue(uploadID)]
        case .reference(let url): ["url": JSONValue(url)]
        case .link(let artifact): ["artifact": JSONValue(artifact)]
        case .error(let reason, let message): ["reason": JSONValue(reason), "message": JSONValue(message)]
        }
    }

    init?(storageType: String, details: JSONValue) {
        switch storageType {
        case "s3": self = .blob
        case "object":
            self = .object(projectID: details["projectId"]?.string ?? "", uploadID: details["uploadId"]?.string ?? "")
        case "reference": self = .reference(url: details["url"]?.string ?? "")
        case "link": self = .link(artifact: details["artifact"]?.string ?? "")
        case "error":
            self = .error(reason: details["reason"]?.string ?? "", message: details["message"]?.string ?? "")
        default: return nil
        }
    }
}

/// A named result of a run.
public struct Artifact: Sendable, Hashable {
    /// The task.
    public let taskID: String
    /// The run.
    public let runID: Int
    /// The name, often a path.
    public let name: String
    /// What it is made of.
    public var content: ArtifactContent
    /// The media type.
    public var contentType: String
    /// The length its author announced.
    public var contentLength: Int?
    /// When it may be forgotten.
    public var expires: Timestamp
    /// Where its bytes are, if they are ours.
    public var blobID: String?

    /// Describes an artifact.
    public init(
        taskID: String,
        runID: Int,
        name: String,
        content: ArtifactContent,
        contentType: String,
        contentLength: Int? = nil,
        expires: Timestamp,
        blobID: String? = nil
    ) {
        self.taskID = taskID
        self.runID = runID
        self.name = name
        self.content = content
        self.contentType = contentType
        self.contentLength = contentLength
        self.expires = expires
        self.blobID = blobID
    }

    /// The name of its content in the object service.
    public var objectName: String { "t/\(taskID)/\(runID)/\(name)" }

    /// The entry of a listing.
    public var json: JSONValue {
        [
            "storageType": JSONValue(content.storageType), "name": JSONValue(name),
            "expires": JSONValue(expires.iso8601), "contentType": JSONValue(contentType),
        ]
    }

    /// The entry with the length, if it is known.
    public var info: JSONValue {
        var object = json
        if let contentLength { object["contentLength"] = JSONValue(contentLength) }
        return object
    }
}
