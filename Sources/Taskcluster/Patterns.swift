// SPDX-License-Identifier: MPL-2.0

/// A rule for the spelling of an identifier: its regular expression for messages, a hand-written matcher for speed.
public struct IdentifierPattern: Sendable {
    /// The regular expression as the public API documents it.
    public let regularExpression: String
    private let matcher: @Sendable ([UInt8]) -> Bool

    /// A pattern from its two forms, which must agree.
    public init(_ regularExpression: String, _ matcher: @escaping @Sendable ([UInt8]) -> Bool) {
        self.regularExpression = regularExpression
        self.matcher = matcher
    }

    /// Whether the whole of `text` matches.
    public func matches(_ text: String) -> Bool { matcher(Array(text.utf8)) }
}

/// The spelling of identifiers in URLs and bodies.
public enum Patterns {
    /// Tasks and task groups.
    public static let slugid = IdentifierPattern(Slugid.pattern) {
        Slugid.isValid(String(decoding: $0, as: UTF8.self))
    }

    /// Provisioners, worker types, groups and ids.
    public static let identifier = IdentifierPattern("^[a-zA-Z0-9-_]{1,38}$") {
        (1...38).contains($0.count) && $0.allSatisfy(\.isSlugidCharacter)
    }

    /// Groups of workers.
    public static let workerGroup = identifier

    /// Workers.
    public static let workerID = identifier

    /// Task queues: provisioner and worker type.
    public static let taskQueueID = IdentifierPattern("^[a-zA-Z0-9-_]{1,38}/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$") { text in
        let parts = text.split(separator: UInt8(ascii: "/"), maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, (1...38).contains(parts[0].count), parts[0].allSatisfy(\.isSlugidCharacter),
            (1...38).contains(parts[1].count), parts[1].first?.isLowercase == true,
            parts[1].last != UInt8(ascii: "-")
        else { return false }
        return parts[1].allSatisfy { $0.isLowercase || $0.isDigit || $0 == UInt8(ascii: "-") }
    }

    /// Runs of a task.
    public static let runID = IdentifierPattern("^[1-9]*[0-9]+$") { !$0.isEmpty && $0.allSatisfy(\.isDigit) }

    /// Clients.
    public static let clientID = IdentifierPattern("^[A-Za-z0-9!@/:.+|_-]+$") {
        !$0.isEmpty && $0.allSatisfy { $0.isAlphanumeric || "!@/:.+|_-".utf8.contains($0) }
    }

    /// Roles.
    public static let roleID = IdentifierPattern("^[\\x20-\\x7e]+$") { !$0.isEmpty && $0.allSatisfy(\.isPrintable) }

    /// Artifacts.
    public static let artifactName = roleID

    /// Access tokens.
    public static let accessToken = IdentifierPattern("^[a-zA-Z0-9_-]{22,66}$") {
        (22...66).contains($0.count) && $0.allSatisfy(\.isSlugidCharacter)
    }

    /// Namespaces of the index: words separated by dots.
    public static let indexPath = IdentifierPattern("^([a-zA-Z0-9_!~*'()%-]+\\.)*[a-zA-Z0-9_!~*'()%-]+$") {
        $0.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).allSatisfy {
            !$0.isEmpty && $0.allSatisfy { $0.isAlphanumeric || "_!~*'()%-".utf8.contains($0) }
        }
    }
}

/// A task queue: the pair of a provisioner and a worker type.
public struct TaskQueueID: Sendable, Hashable, CustomStringConvertible {
    /// The part before the slash.
    public let provisionerID: String
    /// The part after the slash.
    public let workerType: String

    /// Reads `provisioner/worker-type`; nil when it is not spelled like one.
    public init?(_ text: String) {
        guard Patterns.taskQueueID.matches(text), let slash = text.firstIndex(of: "/") else { return nil }
        provisionerID = String(text[..<slash])
        workerType = String(text[text.index(after: slash)...])
    }

    /// A queue from its parts, unchecked.
    public init(provisionerID: String, workerType: String) {
        self.provisionerID = provisionerID
        self.workerType = workerType
    }

    /// The spelling with the slash.
    public var description: String { "\(provisionerID)/\(workerType)" }
}
