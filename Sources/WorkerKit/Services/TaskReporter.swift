// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Schedules
import TaskclusterClient

/// Tells the queue how a run ended; nothing the queue answers is fatal.
public struct TaskReporter: Sendable {
    /// How a report went.
    public enum Outcome: Sendable, Hashable {
        /// The queue took it, as this resolution.
        case reported(TaskResolution)
        /// The queue had resolved the run before, in another way.
        case alreadyResolved
        /// The queue refuses, for this reason.
        case refused(String)
        /// The queue could not be reached while the claim lasted.
        case unreachable(String)
    }

    private let keeper: ClaimKeeper
    private let onProblem: @Sendable (String) -> Void

    /// Creates a reporter for a claim.
    public init(_ keeper: ClaimKeeper, onProblem: @escaping @Sendable (String) -> Void) {
        self.keeper = keeper
        self.onProblem = onProblem
    }

    /// Reports, and tries again while the queue cannot be reached and the claim lasts.
    public func report(_ resolution: TaskResolution) async -> Outcome {
        var pause = Duration.seconds(1)
        var mayRepeat = true
        while true {
            do {
                try await send(resolution)
                return .reported(resolution)
            } catch {
                switch error.status {
                case 409:
                    return await isResolved(as: resolution) ? .reported(resolution) : .alreadyResolved
                case 400 where resolution == .exception("superseded"):
                    // Current queues no longer know this reason.
                    onProblem("the queue does not take the reason superseded; reporting failed instead")
                    return await report(.failed)
                case 401 where mayRepeat:
                    // The answer may just have told that our clock is wrong.
                    mayRepeat = false
                case .some(let status) where (400..<500).contains(status) && status != 408 && status != 429:
                    return .refused("\(error)")
                default:
                    onProblem("cannot report yet: \(error)")
                    guard keeper.takenUntil > .now() + pause, !Task.isCancelled else {
                        return .unreachable("\(error)")
                    }
                    try? await Task.sleep(for: pause)
                    pause = min(pause * 2, .seconds(30))
                }
            }
        }
    }

    private func send(_ resolution: TaskResolution) async throws(TaskclusterError) {
        var body: JSONValue?
        if case .exception(let reason) = resolution { body = ["reason": .string(reason)] }
        _ = try await keeper.client.call("queue", "POST", keeper.claim.path(resolution.segment), body: body)
    }

    /// Whether an earlier report of ours, whose answer was lost, has done it.
    private func isResolved(as resolution: TaskResolution) async -> Bool {
        let path = ["task", keeper.claim.taskID, "status"]
        guard let answer = try? await keeper.client.call("queue", "GET", path, retry: .once) else { return false }
        return answer["status"]?["runs"]?[keeper.claim.runID]?["state"]?.string == resolution.state
    }
}
