// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Schedules

/// What made a hook fire, in the words of the wire.
package enum FiredBy: String, Sendable {
    case schedule
    case triggerHook
    case triggerHookWithToken
    case pulseMessage

    /// Whether nobody waits for the outcome, so that a fire may be repeated for as long as the queue is unwell.
    package var mayBeRepeated: Bool { self == .schedule || self == .pulseMessage }
}

/// A fire that was written down and is to be performed.
///
///     accepted ──► pending ──► done (created, failed, declined, dropped)
///                   │   ▲
///                   ▼   │
///                retried later
package struct Fire: Sendable {
    package let id: Int
    package let name: HookName
    package let taskID: String
    package let firedBy: FiredBy
    /// The instant the task's times are relative to.
    package let created: Timestamp
    /// The text of the definition to send; stored before the first attempt, so that all attempts send the same.
    package let definition: String
    /// The members of the template's context beyond the usual ones.
    package let context: JSONObject
    /// Why it fires now.
    package let origin: FireOrigin
    /// After this instant an error that may pass is final; nil for fires that are never repeated.
    package let giveUp: Timestamp?
    /// The fencing number: whoever took the fire later has a higher one.
    package let lease: Int
    /// How many attempts were begun, the present one included.
    package let attempts: Int
    /// How many attempts failed in a way that may pass.
    package let failures: Int
}

extension Fire {
    /// Whether nobody waits for the outcome.
    var mayBeRepeated: Bool { firedBy.mayBeRepeated || origin == .trigger }
}

/// Why a fire happens at its time.
package enum FireOrigin: String, Sendable {
    /// Its schedule came due.
    case schedule
    /// Its schedule came due while nobody could fire, and it is made up for.
    case catchUp = "catch-up"
    /// Somebody asked for the instants of a range.
    case backfill
    /// A request of the API or a call with a token.
    case request
    /// A message of the bus.
    case message
    /// Something that was observed elsewhere and written down; nobody waits, so it may be repeated.
    case trigger

    /// The usual origin of what fires this way.
    init(_ firedBy: FiredBy) {
        switch firedBy {
        case .schedule: self = .schedule
        case .triggerHook, .triggerHookWithToken: self = .request
        case .pulseMessage: self = .message
        }
    }
}

/// A fire about to be written down, with everything that can be decided before the queue is asked.
package struct FireDraft: Sendable {
    package var name: HookName
    package var taskID: String
    package var firedBy: FiredBy
    package var context: JSONObject
    /// The instant the task's times are relative to.
    package var created: Timestamp
    /// When the fire began, as the history shows it.
    package var started: Timestamp
    package var rendering: Rendering
    /// A text that no two accepted fires share; nil if nothing identifies this one.
    package var deduplicationKey: String?
    /// What a repeated request with the same key must agree on.
    package var requestHash: String?
    /// Where a message came from, for messages that carry no identity of their own.
    package var delivery: DeliveryTrace?
    /// When the event happened, if that is known to be before the fire began.
    package var due: Timestamp?
    /// When the template had been rendered.
    package var rendered: Timestamp?
    /// Why there will be no task, for drafts that decline.
    package var reason: String?
    /// Why it fires now, unless `firedBy` says it all.
    package var origin: FireOrigin?
    /// How long to wait before the fire may be performed.
    package var delay: Duration = .zero
}

/// How a message without an identity can be recognised when the broker delivers it again.
package struct DeliveryTrace: Sendable {
    package let queue: String
    package let consumer: String
    package let contentHash: String
}

/// What became of a fire.
package enum FireOutcome: Sendable {
    /// The task exists.
    case created
    /// The template rendered to nothing.
    case declined
    /// There will be no task.
    case failed(FireFailure)
    /// The hook does not exist any more.
    case dropped
    /// The queue is unwell; the fire will be repeated.
    case postponed(FireFailure)
}
