// SPDX-License-Identifier: MPL-2.0

import JSON
import Taskcluster
import TaskclusterClient

/// Contents that came together in one answer, before anybody has looked at them.
public struct SmallArtifacts: Sendable {
    /// An artifact of the last run of a task.
    public struct Name: Sendable, Hashable {
        /// The task.
        public let taskID: String
        /// The artifact.
        public let name: String

        /// Names an artifact.
        public init(_ taskID: String, _ name: String) {
            self.taskID = taskID
            self.name = name
        }
    }

    struct Content: Sendable {
        let bytes: [UInt8]
        let isCompressed: Bool
    }

    private(set) var contents: [Name: Content] = [:]

    /// Nothing.
    public static let none = SmallArtifacts()

    /// How many bytes they are together.
    private(set) var size = 0

    /// How many there are.
    public var count: Int { contents.count }

    /// The bytes of an artifact that came and is not packed; nobody has looked at them unless `download` has.
    public func bytes(_ name: Name) -> [UInt8]? {
        guard let content = contents[name], !content.isCompressed else { return nil }
        return content.bytes
    }

    /// Adds what came in another answer.
    public mutating func formUnion(_ other: SmallArtifacts) {
        contents.merge(other.contents) { _, new in new }
        size += other.size
    }

    /// Takes what an answer holds; what makes no sense is left for being asked again.
    mutating func add(_ answer: JSONValue) {
        for entry in answer["artifacts"]?.array ?? [] {
            guard let taskID = entry["taskId"]?.string, let name = entry["name"]?.string,
                let bytes = entry["content"]?.string.flatMap({ Base64.decoded($0) })
            else { continue }
            let encoding = entry["contentEncoding"]?.string?.lowercased()
            guard encoding == nil || encoding == "gzip" || encoding == "x-gzip" else { continue }
            size += bytes.count
            contents[Name(taskID, name)] = Content(bytes: bytes, isCompressed: encoding != nil)
        }
    }
}

extension ArtifactDownloader {
    /// Asks for many artifacts at once; a queue that cannot do that, and artifacts it leaves out, are asked for one by one later.
    ///
    /// What comes back is as unchecked as any transfer: it goes through `download` like everything else.
    public func small(_ names: [SmallArtifacts.Name]) async -> SmallArtifacts {
        var small = SmallArtifacts()
        guard names.count > 1 else { return small }
        // All of it stays in memory until it was checked, so there is an end to it.
        for start in stride(from: 0, to: names.count, by: 256) where small.size < 4 << 20 {
            let wanted: [JSONValue] = names[start..<min(start + 256, names.count)].map {
                ["taskId": .string($0.taskID), "name": .string($0.name)]
            }
            let body: JSONValue = ["artifacts": .array(wanted)]
            do {
                small.add(try await client.call("queue", "POST", ["artifacts", "read"], body: body, retry: .once))
            } catch {
                return small
            }
        }
        return small
    }
}
