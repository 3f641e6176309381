// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import Taskcluster
import TaskclusterClient

/// Commands about groups of tasks.
struct GroupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "group",
        abstract: "List, seal and cancel groups of tasks.",
        subcommands: [List.self, Show.self, Seal.self, Cancel.self, Priority.self]
    )

    /// Prints the tasks of a group, and how many there are in each state.
    static func list(_ group: String, _ client: TaskclusterClient, _ output: OutputOptions) async throws {
        let tasks = try await client.queue.allTasks(ofGroup: group)
        var counts: [String: Int] = [:]
        let rows = tasks.map { task in
            counts[task["status"]?["state"]?.string ?? "?", default: 0] += 1
            return TaskLine.words(task["status"] ?? [:]) + [task["task"]?["metadata"]?["name"]?.string ?? ""]
        }
        let summary = counts.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        output.print(
            ["taskGroupId": .string(group), "tasks": .array(tasks)],
            text: Columns.text(rows, nothing: "no tasks") + "\n\(summary)"
        )
    }
}

/// The group a command is about.
struct GroupOptions: ParsableArguments {
    @Argument(help: "The id of the group.")
    var groupID: String

    func validate() throws {
        guard Slugid.isValid(groupID) else {
            throw ValidationError("'\(groupID)' is not the id of a group; one looks like VdYnEtzpQs6ZdoNrVAj9Mw.")
        }
    }
}

extension GroupCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the tasks of a group with their states.",
            discussion: "Examples:\n  slipway group list VdYnEtzpQs6ZdoNrVAj9Mw\n  slipway group list VdYn… --json"
        )

        @OptionGroup var group: GroupOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await GroupCommand.list(group.groupID, try Session().client, output)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a group: its scheduler, its expiry and whether it is sealed.",
            discussion: "Examples:\n  slipway group show VdYnEtzpQs6ZdoNrVAj9Mw\n  slipway group show VdYn… --json"
        )

        @OptionGroup var group: GroupOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.call("queue", "GET", ["task-group", group.groupID])
            let lines = [
                "group        \(group.groupID)", "scheduler    \(answer["schedulerId"]?.string ?? "?")",
                "expires      \(answer["expires"]?.string ?? "?")",
                "sealed       \(answer["sealed"]?.string ?? "no, it takes more tasks")",
            ]
            output.print(answer, text: lines.joined(separator: "\n"))
        }
    }

    struct Seal: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a group take no more tasks.",
            discussion: "Examples:\n  slipway group seal VdYnEtzpQs6ZdoNrVAj9Mw"
        )

        @OptionGroup var group: GroupOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.queue.sealTaskGroup(group.groupID)
            output.print(answer, text: "sealed  \(answer["sealed"]?.string ?? "")")
        }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Seal a group and cancel those of its tasks that are not resolved.",
            discussion: """
                The group is sealed first, so that nothing is added behind your back; --no-seal demands that it is sealed already.

                Examples:
                  slipway group cancel VdYnEtzpQs6ZdoNrVAj9Mw
                """
        )

        @OptionGroup var group: GroupOptions
        @Flag(inversion: .prefixedNo, help: "Seal the group first.")
        var seal = true
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let client = try Session().client
            if seal { _ = try await client.queue.sealTaskGroup(group.groupID) }
            let answer = try await client.call(
                "queue",
                "POST",
                ["task-group", group.groupID, "cancel"],
                timeout: .seconds(300)
            )
            let count = answer["cancelledCount"]?.int ?? 0
            output.print(answer, text: "cancelled  \(count) of \(answer["taskGroupSize"]?.int ?? 0) tasks")
        }
    }

    struct Priority: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make the open tasks of a group more or less urgent.",
            discussion: "Examples:\n  slipway group priority VdYnEtzpQs6ZdoNrVAj9Mw high"
        )

        @OptionGroup var group: GroupOptions
        @Argument(help: "lowest, very-low, low, medium, high, very-high or highest.")
        var priority: String
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.call(
                "queue",
                "POST",
                ["task-group", group.groupID, "priority"],
                body: ["newPriority": .string(priority)],
                timeout: .seconds(300)
            )
            output.print(answer, text: "changed  \(answer["tasksAffected"]?.int ?? 0) tasks")
        }
    }
}
