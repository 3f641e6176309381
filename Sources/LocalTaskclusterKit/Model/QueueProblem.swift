// SPDX-License-Identifier: MPL-2.0

/// A request that the queue's rules do not allow.
public struct QueueProblem: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of answer the caller deserves.
    public enum Code: Sendable, Hashable {
        case input, notFound, conflict, expired, unacceptable, denylisted
    }

    /// The kind of problem.
    public let code: Code
    /// What is wrong and with what, for people.
    public let description: String

    /// Describes a problem.
    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }

    /// The answer to a task nobody created.
    public static func noTask(_ taskID: String) -> QueueProblem {
        QueueProblem(.notFound, "There is no task \(taskID). Has it been created, or has it expired?")
    }

    /// Turns a refused transition into an answer.
    public init(_ refusal: TransitionRefusal) {
        self.init(refusal.code == .runMissing ? .notFound : .conflict, refusal.description)
    }
}
