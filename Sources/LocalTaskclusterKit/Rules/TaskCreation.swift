// SPDX-License-Identifier: MPL-2.0
public import Schedules
public import Taskcluster

/// The rules for new tasks that need no look at other tasks.
public struct TaskCreation: Sendable, Hashable {
    /// How far ahead a deadline may lie.
    public var longestDeadline: Duration
    /// How many tasks one task may wait for.
    public var mostDependencies: Int
    /// How wrong a client's clock may be.
    public var drift: Duration = .seconds(15 * 60)

    /// Sets the limits.
    public init(longestDeadline: Duration = .seconds(5 * 24 * 3600), mostDependencies: Int = 10_000) {
        self.longestDeadline = longestDeadline
        self.mostDependencies = mostDependencies
    }

    /// Refuses a task with too many dependencies.
    public func checkSize(_ task: TaskDefinition) throws(QueueProblem) {
        guard task.dependencies.count <= mostDependencies else {
            throw QueueProblem(
                .input,
                "The task has \(task.dependencies.count) dependencies; at most \(mostDependencies) are allowed."
            )
        }
    }

    /// Refuses dates out of order or out of range, and scopes that end in two stars.
    public func check(_ task: TaskDefinition, now: Timestamp) throws(QueueProblem) {
        guard task.created > now - drift, task.created < now + drift else {
            throw QueueProblem(.input, "`created` must be within 15 minutes of now; is the clock right?")
        }
        guard task.deadline >= task.created else {
            throw QueueProblem(.input, "`deadline` must not be before `created`.")
        }
        guard task.deadline > now else {
            throw QueueProblem(.input, "`deadline` must not be in the past.")
        }
        guard task.deadline <= now + longestDeadline + drift else {
            throw QueueProblem(
                .input,
                "`deadline` must be at most \(longestDeadline.components.seconds / 86_400) days ahead."
            )
        }
        guard task.expires >= task.deadline else {
            throw QueueProblem(.input, "`expires` must not be before `deadline`.")
        }
        if let scope = task.scopes.first(where: { $0.hasSuffix("**") }) {
            throw QueueProblem(.input, "Scope `\(scope)` must not end with two stars.")
        }
    }

    /// What the creator of a task must be allowed to do.
    public static func requiredScopes(_ task: TaskDefinition) -> ScopeExpression {
        let queue = task.taskQueueID
        return .allOf(
            task.scopes.map { .scope($0) }
                + task.routes.map { .scope("queue:route:\($0)") }
                + [
                    .scope("queue:create-task:project:\(task.projectID)"),
                    .scope("queue:scheduler-id:\(task.schedulerID)"),
                    .anyOf(task.priority.sufficient.map { .scope("queue:create-task:\($0.name):\(queue)") }),
                ]
        )
    }
}
