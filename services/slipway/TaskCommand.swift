// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import HTTPClient
import JSON
import Taskcluster
import TaskclusterClient

/// Commands about tasks.
struct TaskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "task",
        abstract: "Create, show, cancel and rerun tasks; read their logs and artifacts.",
        subcommands: [
            Create.self, Show.self, Status.self, Log.self, Artifacts.self, Download.self, Cancel.self, Rerun.self,
            Retrigger.self, Schedule.self, Priority.self, Dependents.self, Group.self,
        ]
    )
}

/// The task and, for some commands, the run a command is about.
struct TaskOptions: ParsableArguments {
    @Argument(help: "The id of the task.")
    var taskID: String

    func validate() throws {
        guard Slugid.isValid(taskID) else {
            throw ValidationError("'\(taskID)' is not a task id; one looks like VdYnEtzpQs6ZdoNrVAj9Mw.")
        }
    }
}

extension TaskCommand {
    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a task: its name, state and runs.",
            discussion: "Examples:\n  slipway task show VdYnEtzpQs6ZdoNrVAj9Mw\n  slipway task show VdYn… --json"
        )

        @OptionGroup var task: TaskOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let queue = try Session().client.queue
            let definition = try await queue.task(task.taskID)
            let status = try await queue.status(task.taskID)["status"] ?? [:]
            var lines = ["\(task.taskID)  \(definition["metadata"]?["name"]?.string ?? "")"]
            lines.append("state     \(status["state"]?.string ?? "?")")
            lines.append("queue     \(definition["taskQueueId"]?.string ?? "?")")
            lines.append("group     \(status["taskGroupId"]?.string ?? "?")")
            for run in status["runs"]?.array ?? [] {
                let parts = ["state", "reasonResolved", "workerId", "started", "resolved"].compactMap {
                    run[$0]?.string
                }
                lines.append("run \(run["runId"]?.int ?? 0)     \(parts.joined(separator: "  "))")
            }
            output.print(["task": definition, "status": status], text: lines.joined(separator: "\n"))
        }
    }

    struct Log: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the log of a task's last run, or of a given one.",
            discussion: "Examples:\n  slipway task log VdYnEtzpQs6ZdoNrVAj9Mw\n  slipway task log VdYn… --run 0"
        )

        @OptionGroup var task: TaskOptions
        @OptionGroup var output: OutputOptions

        @Option(help: "The run; the last one when left out.")
        var run: Int?

        func run() async throws {
            let session = try Session()
            // The backing log is there for good; the live one is all there is while the task runs.
            for name in ["public/logs/live_backing.log", "public/logs/live.log"] {
                let url = await session.client.queue.artifactURL(task.taskID, run: run, name: name)
                guard let log = try await fetch(url, session.transport) else { continue }
                let text = String(decoding: log, as: UTF8.self)
                if output.json {
                    let json: JSONValue = ["taskId": .string(task.taskID), "name": .string(name), "log": .string(text)]
                    print(json.text(.pretty))
                } else {
                    try Bytes.write(log)
                }
                return
            }
            throw Failure("the task has no log yet; `slipway task show \(task.taskID)` tells its state")
        }

        /// The log behind a URL; nil when there is none.
        private func fetch(_ url: String, _ transport: CurlTransport) async throws -> [UInt8]? {
            var request = HTTPRequest(url: url, timeout: .seconds(600))
            request.redirects = 5
            request.acceptCompressed = true
            request.sink = .memory(limit: 512 << 20)
            let response: HTTPResponse
            do {
                response = try await transport.send(request)
            } catch {
                throw Failure("cannot fetch the log: \(error)")
            }
            if response.status == 404 { return nil }
            guard response.status == 200 else {
                let reason =
                    (try? response.json())?["message"]?.string?.split(separator: "\n").first ?? "no reason given"
                throw Failure("cannot fetch the log: \(response.status) \(reason)")
            }
            return response.body
        }
    }

    struct Artifacts: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the artifacts of a task's last run, or of a given one.",
            discussion:
                "Examples:\n  slipway task artifacts VdYnEtzpQs6ZdoNrVAj9Mw\n  slipway task artifacts VdYn… --run 0 --json"
        )

        @OptionGroup var task: TaskOptions
        @OptionGroup var output: OutputOptions

        @Option(help: "The run; the last one when left out.")
        var run: Int?

        func run() async throws {
            let artifacts = try await Session().client.queue.allArtifacts(task.taskID, run: run)
            let names = artifacts.compactMap { $0["name"]?.string }
            output.print(
                ["artifacts": .array(artifacts)],
                text: names.isEmpty ? "no artifacts" : names.joined(separator: "\n")
            )
        }
    }
}
