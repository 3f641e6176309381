// SPDX-License-Identifier: MPL-2.0

/// How far a step has come.
///
/// ```
/// pending → starting → running → completed | failed | exception | cancelled
///                      running → stopping → cancelled
/// ```
/// The states of the second line of the first arrow are final.
public enum StepState: String, Sendable, Hashable, CaseIterable {
    case pending
    case starting
    case running
    case stopping
    /// The work was done.
    case completed
    /// The work ran and did not succeed.
    case failed
    /// The work could not be carried out.
    case exception
    case cancelled

    /// Whether the state is final.
    public var isTerminal: Bool {
        switch self {
        case .pending, .starting, .running, .stopping: false
        case .completed, .failed, .exception, .cancelled: true
        }
    }

    /// The same in the coarser words that every consumer understands.
    public var status: StepStatus {
        switch self {
        case .pending, .starting, .running, .stopping: .inProgress
        case .completed: .success
        case .failed, .exception: .failure
        case .cancelled: .cancelled
        }
    }
}

/// What consumers decide by: whether a step goes on, and how it ended.
public enum StepStatus: String, Sendable, Hashable, CaseIterable {
    case inProgress = "in_progress"
    case success
    case failure
    case cancelled

    /// The states that a status stands for.
    public var states: [StepState] { StepState.allCases.filter { $0.status == self } }
}
