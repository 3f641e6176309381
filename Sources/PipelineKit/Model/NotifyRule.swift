// SPDX-License-Identifier: MPL-2.0

import JSON

/// Who is told of which events of a pipeline, and how.
struct NotifyRule: Sendable, Hashable {
    /// A way to tell.
    enum Channel: String, Sendable {
        case email
        case matrix
        case slack
        case pulse
        case webhook
    }

    /// What can be told.
    enum Event: String, Sendable, CaseIterable {
        case pipelineStarted = "pipeline_started"
        case pipelineCompleted = "pipeline_completed"
        case pipelineFailed = "pipeline_failed"
        case pipelineCancelled = "pipeline_cancelled"
        case pipelineStuck = "pipeline_stuck"
        case stepFailed = "step_failed"
        case unreachable
        case freezeBlocked = "freeze_blocked"
        case signoffNeeded = "signoff_needed"
        case signoffReminder = "signoff_reminder"
        case signed
        case unsigned
        case releaseCreated = "release_created"
        case releasePhase = "release_phase"
        case releaseSigned = "release_signed"
        case releaseUnsigned = "release_unsigned"
        case releaseOverridden = "release_overridden"
        case releaseShipped = "release_shipped"
        case releaseAborted = "release_aborted"
    }

    /// The word of the first design for a pipeline that failed.
    static let shortWords: [String: Event] = [
        "started": .pipelineStarted, "completed": .pipelineCompleted, "failed": .pipelineFailed,
        "cancelled": .pipelineCancelled, "stuck": .pipelineStuck,
    ]

    /// Whether a text has the two parts of a mail address.
    static func isAddress(_ text: String) -> Bool {
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        return parts.count == 2 && parts.allSatisfy { !$0.isEmpty }
    }

    var events: [Event]
    var channel: Channel
    var target: String
    /// The seconds between reminders.
    var interval = 86_400
    /// How many seconds things are collected that are told in one piece; nil tells each at once.
    var digest: Int?

    var json: JSONValue {
        var json: JSONValue = [
            "on": JSONValue(events.map(\.rawValue)), "type": .string(channel.rawValue), "target": .string(target),
        ]
        if events.contains(.signoffReminder) { json["every_s"] = JSONValue(interval) }
        if let digest { json["digest_s"] = JSONValue(digest) }
        return json
    }
}
