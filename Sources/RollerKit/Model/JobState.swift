// SPDX-License-Identifier: MPL-2.0

/// Where a job is in its life.
///
/// ```
/// queued ⇄ waiting → claimed → running → verifying → succeeded
///    └────────┴──────────┴─────────┴──────────┴────→ failed, canceled, expired, lost
/// ```
package enum JobState: String, Sendable, Hashable, CaseIterable {
    /// Nobody has taken it yet.
    case queued
    /// Somebody looked at it and found its machine busy or a limit reached.
    case waiting
    /// A worker has it and has not begun.
    case claimed
    /// A worker is at it.
    case running
    /// The worker has acted and looks whether it helped.
    case verifying
    case succeeded
    case failed
    case canceled
    /// Its time was over before anybody could begin.
    case expired
    /// Its worker vanished; what it had done by then may have had effects.
    case lost

    /// Whether nothing happens to the job any more.
    package var isTerminal: Bool {
        switch self {
        case .queued, .waiting, .claimed, .running, .verifying: false
        case .succeeded, .failed, .canceled, .expired, .lost: true
        }
    }

    /// What clients are told.
    package var status: JobStatus {
        switch self {
        case .queued, .waiting, .claimed: .pending
        case .running, .verifying: .running
        case .succeeded: .complete
        case .failed, .expired, .lost: .failed
        case .canceled: .canceled
        }
    }
}

/// The state of a job in the words of the API.
package enum JobStatus: String, Sendable, Hashable, CaseIterable {
    case pending = "PENDING"
    case running = "RUNNING"
    case complete = "COMPLETE"
    case failed = "FAILED"
    case canceled = "CANCELED"

    /// The states that are called so.
    package var states: [JobState] {
        JobState.allCases.filter { $0.status == self }
    }
}

/// Who asked for a job, and how.
package enum JobSource: String, Sendable, Hashable {
    case apiFirst = "api-g1"
    case apiSecond = "api-g2"
    case api = "api-h"
    case commandLine = "cli"
    case web
    case schedule
    /// The system itself, to put right what a lost job left behind.
    case recovery
}

/// How one attempt at something ended.
package enum AttemptOutcome: String, Sendable, Hashable, CaseIterable {
    case ok
    case failed
    case timeout
    /// Not even tried, because it would not have been safe.
    case refused
    /// Not tried, because it does not apply.
    case skipped
    /// Nobody can say whether it worked; the machine has to be asked.
    case unverified
}
