// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import Schedules
import Taskcluster
import TaskclusterClient

extension TaskCommand {
    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a task from a definition and print its id.",
            discussion: """
                The definition is JSON as the queue wants it. `created` and `deadline` may be missing: then the task is made now
                and must be done within --within. Creating the same task under the same id twice is harmless.

                Examples:
                  slipway task create build.json
                  slipway task create build.json --within 3h --json
                  generate | slipway task create - --task-id VdYnEtzpQs6ZdoNrVAj9Mw
                """
        )

        @Argument(help: "The file with the definition, or - for standard input.")
        var file: String

        @Option(name: .customLong("task-id"), help: "The id to use; a new one when left out.")
        var taskID: String?

        @Option(help: "How long the task may take when the definition has no deadline, such as 30m, 3h or 2d.")
        var within = "1h"

        @OptionGroup var output: OutputOptions

        func validate() throws {
            if let taskID, !Slugid.isValid(taskID) { throw ValidationError("'\(taskID)' is not a task id.") }
            if Period(within) == nil { throw ValidationError("'\(within)' is not a time such as 30m, 3h or 2d.") }
        }

        func run() async throws {
            var definition = try Bytes.json(file)
            guard definition.object != nil, let within = Period(within) else {
                throw Failure(usage: "\(file) does not hold a JSON object")
            }
            let now = Timestamp.now()
            if definition["created"] == nil { definition["created"] = .string(now.iso8601) }
            if definition["deadline"] == nil { definition["deadline"] = .string((now + within.duration).iso8601) }
            let id = taskID ?? Slugid.make()
            let answer = try await Session().client.call("queue", "PUT", ["task", id], body: definition)
            output.print(answer, text: id)
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the state of tasks, one line each.",
            discussion: """
                Examples:
                  slipway task status VdYnEtzpQs6ZdoNrVAj9Mw
                  slipway task status VdYnEtzpQs6ZdoNrVAj9Mw --json
                """
        )

        @OptionGroup var tasks: TasksOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await tasks.each(output) { client, id throws(TaskclusterError) in
                try await client.call("queue", "GET", ["task", id, "status"])
            }
        }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Cancel tasks; those that are resolved already stay as they are.",
            discussion: "Examples:\n  slipway task cancel VdYnEtzpQs6ZdoNrVAj9Mw"
        )

        @OptionGroup var tasks: TasksOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await tasks.each(output) { client, id throws(TaskclusterError) in
                try await client.queue.cancelTask(id)
            }
        }
    }

    struct Rerun: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run tasks again that are resolved; those that wait or run stay as they are.",
            discussion: "Examples:\n  slipway task rerun VdYnEtzpQs6ZdoNrVAj9Mw"
        )

        @OptionGroup var tasks: TasksOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await tasks.each(output) { client, id throws(TaskclusterError) in
                try await client.queue.rerunTask(id)
            }
        }
    }

    struct Schedule: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let tasks run although others they depend on have not completed.",
            discussion: "Examples:\n  slipway task schedule VdYnEtzpQs6ZdoNrVAj9Mw"
        )

        @OptionGroup var tasks: TasksOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await tasks.each(output) { client, id throws(TaskclusterError) in
                try await client.queue.scheduleTask(id)
            }
        }
    }

    struct Group: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the tasks of the group that a task belongs to.",
            discussion: "Examples:\n  slipway task group VdYnEtzpQs6ZdoNrVAj9Mw"
        )

        @OptionGroup var task: TaskOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let client = try Session().client
            let status = try await client.queue.status(task.taskID)["status"]
            let group = status?["taskGroupId"]?.string ?? task.taskID
            try await GroupCommand.list(group, client, output)
        }
    }
}

/// The tasks that a command is about.
struct TasksOptions: ParsableArguments {
    @Argument(help: "The ids of the tasks.")
    var taskIDs: [String]

    func validate() throws {
        for id in taskIDs where !Slugid.isValid(id) {
            throw ValidationError("'\(id)' is not a task id; one looks like VdYnEtzpQs6ZdoNrVAj9Mw.")
        }
    }

    /// Does something to each task and prints the status it has afterwards.
    func each(
        _ output: OutputOptions,
        _ body: (TaskclusterClient, String) async throws(TaskclusterError) -> JSONValue
    ) async throws {
        let client = try Session().client
        var statuses: [JSONValue] = []
        for id in taskIDs {
            let status = try await body(client, id)["status"] ?? [:]
            statuses.append(status)
            if !output.json { print(TaskLine.text(status)) }
        }
        if output.json { print(JSONValue.object(["statuses": .array(statuses)]).text(.pretty)) }
    }
}

/// A task on one line.
enum TaskLine {
    /// Its id, its state, and how its last run ended if that says more.
    static func text(_ status: JSONValue) -> String {
        words(status).joined(separator: "  ")
    }

    static func words(_ status: JSONValue) -> [String] {
        let state = status["state"]?.string ?? "?"
        let reason = status["runs"]?.array?.last?["reasonResolved"]?.string
        return [status["taskId"]?.string ?? "?", state] + (reason == nil || reason == state ? [] : [reason ?? ""])
    }
}

/// A length of time as people write it: 30m, 3h, 2d.
struct Period {
    let duration: Duration

    init?(_ text: String) {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        guard let last = text.last, let unit = units[last], let count = Int64(text.dropLast()), count >= 0,
            count <= 100_000_000
        else { return nil }
        duration = .seconds(count * unit)
    }
}
