// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import Schedules
import Taskcluster
import TaskclusterClient

/// Commands about workers.
struct WorkerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker",
        abstract: "List workers, keep them from getting work, and end what dead ones were running.",
        subcommands: [List.self, Show.self, Quarantine.self, Remove.self, Queues.self]
    )
}

/// The queue whose workers a command is about.
struct TaskQueueOptions: ParsableArguments {
    @Argument(help: "The task queue as PROVISIONER/WORKER-TYPE.")
    var queue: String

    func validate() throws {
        guard TaskQueueID(queue) != nil else {
            throw ValidationError("'\(queue)' is not a task queue; one looks like slipway/script.")
        }
    }

    /// The segments before those of a worker.
    var path: [String] {
        let parts = queue.split(separator: "/").map(String.init)
        return ["provisioners", parts[0], "worker-types", parts[1], "workers"]
    }
}

/// The worker a command is about.
struct WorkerOptions: ParsableArguments {
    @OptionGroup var queue: TaskQueueOptions

    @Argument(help: "The worker as GROUP/ID.")
    var worker: String

    func validate() throws {
        guard worker.split(separator: "/", omittingEmptySubsequences: false).count == 2 else {
            throw ValidationError("'\(worker)' is not a worker; one looks like local/local-1.")
        }
    }

    var path: [String] { queue.path + worker.split(separator: "/").map(String.init) }
}

extension WorkerCommand {
    struct Queues: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the task queues that workers have asked about.",
            discussion: "Examples:\n  slipway worker queues\n  slipway worker queues --json"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let client = try Session().client
            var rows: [[String]] = []
            let queues = try await client.all("queue", ["task-queues"], list: "taskQueues")
            for queue in queues where !output.json {
                let id = queue["taskQueueId"]?.string ?? "?"
                let counts = try await client.call("queue", "GET", ["task-queues", id, "counts"])
                rows.append([
                    id, "\(counts["pendingTasks"]?.int ?? 0) pending", "\(counts["claimedTasks"]?.int ?? 0) running",
                    "active \(queue["lastDateActive"]?.string ?? "?")",
                ])
            }
            output.print(["taskQueues": .array(queues)], text: Columns.text(rows, nothing: "no task queues"))
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the workers of a task queue.",
            discussion:
                "Examples:\n  slipway worker list slipway/script\n  slipway worker list slipway/script --quarantined"
        )

        @OptionGroup var queue: TaskQueueOptions
        @Flag(help: "Only those in quarantine.")
        var quarantined = false
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let workers = try await Session().client.all(
                "queue",
                queue.path,
                list: "workers",
                query: quarantined ? [("quarantined", "true")] : []
            )
            let rows = workers.map { worker in
                var row = [
                    "\(worker["workerGroup"]?.string ?? "?")/\(worker["workerId"]?.string ?? "?")",
                    "active \(worker["lastDateActive"]?.string ?? "?")",
                    worker["latestTask"]?["taskId"]?.string ?? "no task yet",
                ]
                if let until = worker["quarantineUntil"]?.string { row.append("quarantined until \(until)") }
                return row
            }
            output.print(["workers": .array(workers)], text: Columns.text(rows, nothing: "no workers"))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a worker: its last tasks and its quarantines.",
            discussion: "Examples:\n  slipway worker show slipway/script local/local-1"
        )

        @OptionGroup var worker: WorkerOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.call("queue", "GET", worker.path)
            var lines = [
                "worker       \(worker.worker) of \(worker.queue.queue)",
                "first seen   \(answer["firstClaim"]?.string ?? "?")",
                "last seen    \(answer["lastDateActive"]?.string ?? "?")",
            ]
            for run in (answer["recentTasks"]?.array ?? []).reversed() {
                lines.append("task         \(run["taskId"]?.string ?? "?") run \(run["runId"]?.int ?? 0)")
            }
            for entry in answer["quarantineDetails"]?.array ?? [] {
                let until = entry["quarantineUntil"]?.string ?? "?"
                let author = entry["clientId"]?.string ?? "?"
                lines.append("quarantine   until \(until) by \(author): \(entry["quarantineInfo"]?.string ?? "")")
            }
            output.print(answer, text: lines.joined(separator: "\n"))
        }
    }

    struct Quarantine: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Keep a worker from getting work, or let it work again.",
            discussion: """
                Examples:
                  slipway worker quarantine slipway/script local/local-1 --for 2d --reason 'disk is failing'
                  slipway worker quarantine slipway/script local/local-1 --lift
                """
        )

        @OptionGroup var worker: WorkerOptions
        @Option(name: .customLong("for"), help: "For how long, such as 30m, 3h or 2d.")
        var period = "1d"
        @Option(help: "Why, for whoever finds it.")
        var reason: String?
        @Flag(help: "End the quarantine.")
        var lift = false
        @OptionGroup var output: OutputOptions

        func validate() throws {
            if Period(period) == nil { throw ValidationError("'\(period)' is not a time such as 30m, 3h or 2d.") }
        }

        func run() async throws {
            guard let period = Period(period) else { throw Failure(usage: "--for needs a time such as 2d") }
            let now = Timestamp.now()
            let until = lift ? now : now + period.duration
            var body: JSONValue = ["quarantineUntil": .string(until.iso8601)]
            if let reason { body["quarantineInfo"] = .string(reason) }
            let answer = try await Session().client.call("queue", "PUT", worker.path, body: body)
            output.print(answer, text: lift ? "lifted" : "quarantined until \(until.iso8601)")
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "End what a worker that is gone was running; its tasks are tried again at once.",
            discussion: """
                Without this they would wait for the end of the worker's claims, twenty minutes by default.

                Examples:
                  slipway worker remove slipway/script local/local-1
                  slipway worker remove slipway/script local/local-1 --json
                """
        )

        @OptionGroup var worker: WorkerOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let name = worker.worker.split(separator: "/").map(String.init)
            _ = try await Session().client.call(
                "worker-manager",
                "DELETE",
                ["workers", worker.queue.queue, name[0], name[1]]
            )
            let gone: JSONValue = [
                "taskQueueId": .string(worker.queue.queue), "worker": .string(worker.worker), "result": "removed",
            ]
            output.print(gone, text: "removed  \(worker.worker)")
        }
    }
}
