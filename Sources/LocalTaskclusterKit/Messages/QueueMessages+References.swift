// SPDX-License-Identifier: MPL-2.0
import APIServer

extension QueueMessages {
    /// How the exchanges are described to clients.
    static let references: [ExchangeReference] = [
        task("task-defined", "A task exists; its run and worker are not known yet."),
        task("task-pending", "A run waits for a worker."),
        task("task-running", "A worker has taken a run."),
        task("artifact-created", "A run has an artifact that needs no upload, or whose upload is complete."),
        task("task-completed", "A run has succeeded."),
        task("task-failed", "A run has failed."),
        task("task-exception", "A run was ended without a result; a retry may follow."),
        group("task-group-resolved", "Every task of a group has been resolved at least once.", "task-group-changed"),
        group("task-group-sealed", "A group takes no more tasks.", "task-group-changed"),
        task("task-priority-changed", "A task has become more or less urgent."),
        group(
            "task-group-priority-changed",
            "The open tasks of a group have become more or less urgent.",
            "task-group-priority-changed"
        ),
    ]

    private static func task(_ exchange: String, _ description: String) -> ExchangeReference {
        reference(
            exchange,
            description,
            exchange,
            [
                kind,
                ExchangeReference.Key("taskId", summary: "The task."),
                ExchangeReference.Key("runId", summary: "The run, if the message is about one.", required: false),
                ExchangeReference.Key("workerGroup", summary: "The group of the worker, if known.", required: false),
                ExchangeReference.Key("workerId", summary: "The worker, if known.", required: false),
                ExchangeReference.Key("provisionerId", summary: "The first half of the queue's name."),
                ExchangeReference.Key("workerType", summary: "The second half of the queue's name."),
                ExchangeReference.Key("schedulerId", summary: "Who schedules the task."),
                ExchangeReference.Key("taskGroupId", summary: "The group of the task."),
                reserved,
            ]
        )
    }

    private static func group(_ exchange: String, _ description: String, _ schema: String) -> ExchangeReference {
        reference(
            exchange,
            description,
            schema,
            [
                kind, ExchangeReference.Key("taskGroupId", summary: "The group."),
                ExchangeReference.Key("schedulerId", summary: "Who schedules its tasks."), reserved,
            ]
        )
    }

    private static func reference(
        _ exchange: String,
        _ description: String,
        _ schema: String,
        _ key: [ExchangeReference.Key]
    ) -> ExchangeReference {
        let words = exchange.split(separator: "-")
        let capitalized = words.map { $0.prefix(1).uppercased() + $0.dropFirst() }
        return ExchangeReference(
            exchange: exchange,
            name: String(words[0]) + capitalized.dropFirst().joined(),
            title: capitalized.joined(separator: " "),
            description: description,
            routingKey: key,
            schema: "v1/\(schema)-message.json"
        )
    }

    private static let kind = ExchangeReference.Key(
        "routingKeyKind",
        summary: "Tells these keys from the routes a task asked for.",
        constant: "primary"
    )
    private static let reserved = ExchangeReference.Key(
        "reserved",
        summary: "Not used; reserved for parts that may be needed one day.",
        multipleWords: true,
        required: false
    )
}
