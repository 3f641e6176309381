// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

/// How far a step of a pipeline has come.
///
/// ```
/// pending → starting → running → completed | failed | exception
///    │          └──────────┴──→ stopping → cancelled | exception
///    └→ skipped
/// ```
enum RunState: String, Sendable, Hashable {
    case pending
    /// The intent is stored, and its service has been told or will be.
    case starting
    case running
    case stopping
    case completed
    case failed
    case exception
    case cancelled
    /// It will not be started.
    case skipped

    var isTerminal: Bool {
        switch self {
        case .pending, .starting, .running, .stopping: false
        case .completed, .failed, .exception, .cancelled, .skipped: true
        }
    }

    /// Whether its service knows of it, or may.
    var isRemote: Bool { self == .starting || self == .running || self == .stopping }

    /// The coarser word of the contract; what was skipped has none of its own.
    var status: String {
        switch self {
        case .skipped: "skipped"
        default: (StepState(rawValue: rawValue) ?? .running).status.rawValue
        }
    }
}

/// One step of a pipeline on its way.
struct StepRun: Sendable, Hashable {
    let uid: String
    let position: Int
    var state = RunState.pending
    var attempt = 1
    /// Its name at its service; nil before it is started.
    var remoteUID: String?
    /// What its service was asked for, computed when it was started.
    var request: JSONObject?
    /// Replaces the parameters of the definition.
    var parameters: JSONObject?
    var message = ""
    var output: JSONObject = [:]
    /// What its service says of it beyond its state.
    var remoteInfo: JSONObject = [:]
    /// When everything it waits for was there.
    var readySince: Timestamp?
    /// When the intent to start it was stored.
    var intended: Timestamp?
    var started: Timestamp?
    var finished: Timestamp?
    /// When its service is asked next, or told again.
    var nextCall: Timestamp?
    /// How often its service was said to have news of it.
    var hints = 0
    /// How long to wait between questions.
    var pollInterval = Duration.seconds(1)
    /// How many calls in a row came to nothing.
    var failures = 0
    var unreachableSince: Timestamp?
    var unreachableTold = false
    /// How often, and since when, its service has denied knowing it.
    var vanished = 0
    var vanishedSince: Timestamp?
    /// Whether its service has said that it ended, and of which moment that was.
    var remoteEnded = false
    var remoteUpdated: Timestamp?
    /// Whether the audit says that its service took that back.
    var regressTold = false
    /// What it becomes when it has stopped.
    var ending: RunState?
    /// When stopping it was begun, and whether its service has been told.
    var stopSince: Timestamp?
    var stopTold = false
    /// Not before this is it tried again.
    var retryAt: Timestamp?
    var freezeOverridden = false
    /// Whether somebody has called for it, where it waits for that.
    var isCalledFor = false
    /// Whether an operator decided that it is skipped.
    var skippedByHand = false

    /// Whether it differs in nothing but in when its service is asked.
    func differsInSchedule(from other: StepRun) -> Bool {
        var same = self
        same.nextCall = other.nextCall
        same.pollInterval = other.pollInterval
        same.hints = other.hints
        return self != other && same == other
    }
}
