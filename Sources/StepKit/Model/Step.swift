// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Schedules

/// One piece of work of a step service.
public struct Step: Sendable, Hashable {
    /// Where to read more about a step.
    public struct Link: Sendable, Hashable {
        /// What it is to the step.
        public var rel: String
        /// Its address.
        public var href: String
        /// What people read.
        public var title: String

        /// Describes a link.
        public init(rel: String, href: String, title: String) {
            self.rel = rel
            self.href = href
            self.title = title
        }
    }

    /// The number of the row; a name that is used again gets another one.
    public let id: Int
    /// The name its creator chose.
    public let uid: String
    /// How many steps of this name there have been, this one included.
    public let incarnation: Int
    /// What was asked for, defaults filled in; null where it was not read.
    public let definition: JSONValue
    /// The digest of the definition's canonical text.
    public let digest: [UInt8]
    /// The pipeline it was created for.
    public let pipeline: String?
    /// How deep it is nested in pipelines.
    public let depth: Int
    /// The pipelines it is nested in, outermost first.
    public let ancestors: [String]
    /// Who created it.
    public let createdBy: String
    /// On whose behalf, if its creator said so.
    public let requester: String?
    /// When it was created.
    public let created: Timestamp
    /// Counts the changes.
    public internal(set) var version: Int
    /// When it was changed last.
    public internal(set) var updated: Timestamp

    /// How far it has come; changed with ``StepTransaction/move(to:message:)``.
    public internal(set) var state: StepState
    /// What people read about the state.
    public var message: String
    /// How often it was begun.
    public var attempt: Int
    /// What later steps may use.
    public var output: JSONObject
    /// What the service tells beyond the contract.
    public var info: JSONObject
    /// Where to read more.
    public var links: [Link]
    /// Words to find it by.
    public var labels: JSONObject
    /// When the work began.
    public internal(set) var started: Timestamp?
    /// When it ended.
    public internal(set) var finished: Timestamp?
    /// When the service looks at it next; nil for never.
    public var nextCheck: Timestamp?
    /// How many looks in a row failed.
    public internal(set) var checkFailures: Int
    /// Whether the step is deleted as soon as it has ended.
    var leavesWhenDone: Bool

    var lastSequence: Int
    var lastHash: [UInt8]

    /// The tag of this version for `If-Match` and `If-None-Match`.
    public var entityTag: String { "\"\(version)\"" }

    /// The step as its consumers see it.
    public var status: JSONObject { status(info: info) }

    /// The step as its consumers see it, with details that are not stored with it.
    public func status(info: JSONObject) -> JSONObject {
        var json: JSONObject = [
            "uid": .string(uid),
            "status": .string(state.status.rawValue),
            "state": .string(state.rawValue),
            "message": .string(message),
            "created": .string(created.iso8601),
        ]
        json["started"] = started.map { .string($0.iso8601) }
        json["finished"] = finished.map { .string($0.iso8601) }
        if state == .completed { json["completed"] = finished.map { .string($0.iso8601) } }
        json["updated"] = .string(updated.iso8601)
        json["attempt"] = JSONValue(attempt)
        json["output"] = .object(output)
        json["info"] = .object(info)
        json["links"] = .array(
            links.map { ["rel": .string($0.rel), "href": .string($0.href), "title": .string($0.title)] }
        )
        return json
    }
}

/// Who asked for a step, and for what.
public struct StepOrigin: Sendable, Hashable {
    /// Who asks.
    public var actor: String
    /// The pipeline the step belongs to.
    public var pipeline: String?
    /// How deep the step is nested in pipelines.
    public var depth: Int
    /// The pipelines the step is nested in, outermost first.
    public var ancestors: [String]
    /// On whose behalf they ask, if they say so; it is believed only to the disadvantage of whoever is named.
    public var requester: String?

    /// Describes an origin.
    public init(
        actor: String,
        pipeline: String? = nil,
        depth: Int = 0,
        ancestors: [String] = [],
        requester: String? = nil
    ) {
        self.actor = actor
        self.requester = requester
        self.pipeline = pipeline
        self.depth = depth
        self.ancestors = ancestors
    }
}
