// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// A dot-separated path of the index.
public struct IndexPath: Sendable, Hashable {
    /// Everything before the last dot; empty at the root.
    public let namespace: String
    /// The last word.
    public let name: String

    /// Reads a path of one or more words of the allowed alphabet.
    public init?(_ text: String) {
        guard Self.isValid(text) else { return nil }
        guard let dot = text.lastIndex(of: ".") else {
            namespace = ""
            name = text
            return
        }
        namespace = String(text[..<dot])
        name = String(text[text.index(after: dot)...])
    }

    /// The whole path.
    public var text: String { namespace.isEmpty ? name : "\(namespace).\(name)" }

    /// Every namespace that must exist for this path, as parent and name, outermost first.
    public var namespaces: [(parent: String, name: String)] {
        var parent = ""
        var found: [(parent: String, name: String)] = []
        for word in namespace.split(separator: ".") {
            found.append((parent, String(word)))
            parent = parent.isEmpty ? String(word) : "\(parent).\(word)"
        }
        return found
    }

    /// Whether a text is a path; the words consist of letters, digits and `_!~*'()%-`.
    public static func isValid(_ text: String) -> Bool {
        guard !text.isEmpty, text.utf8.count <= 255 else { return false }
        let words = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        return words.allSatisfy { word in !word.isEmpty && word.allSatisfy(isWordByte) }
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "_!~*'()%-".utf8.contains(byte)
        }
    }
}

/// A task found by its index path.
public struct IndexedTask: Sendable, Hashable {
    /// Where it is.
    public let path: IndexPath
    /// The task.
    public let taskID: String
    /// An entry is replaced only by one of the same or a higher rank.
    public let rank: Double
    /// Whatever its author wants to say.
    public let data: JSONValue
    /// When the entry is forgotten.
    public let expires: Timestamp

    /// Describes an entry.
    public init(path: IndexPath, taskID: String, rank: Double, data: JSONValue, expires: Timestamp) {
        self.path = path
        self.taskID = taskID
        self.rank = rank
        self.data = data
        self.expires = expires
    }

    /// The entry as clients see it.
    public var json: JSONValue {
        [
            "namespace": JSONValue(path.text), "taskId": JSONValue(taskID), "rank": JSONValue(rank), "data": data,
            "expires": JSONValue(expires.iso8601),
        ]
    }
}
