// SPDX-License-Identifier: MPL-2.0

/// What to tell the queue about a run that is over.
public enum TaskResolution: Sendable, Hashable, CustomStringConvertible {
    /// The work was done.
    case completed
    /// The work was tried and failed.
    case failed
    /// The work could not properly be tried, for this reason.
    case exception(String)

    /// The words for a log.
    public var description: String {
        switch self {
        case .completed: "complete"
        case .failed: "failed"
        case .exception(let reason): "exception \(reason)"
        }
    }

    /// The last segment of the queue's method.
    var segment: String {
        switch self {
        case .completed: "completed"
        case .failed: "failed"
        case .exception: "exception"
        }
    }

    /// What the queue calls a run in this state.
    var state: String { segment }
}
