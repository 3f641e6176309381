// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import HTTPClient
import JSON
import Schedules
import Taskcluster
import TaskclusterClient

extension TaskCommand {
    struct Priority: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make tasks that are not resolved more or less urgent.",
            discussion: """
                Examples:
                  slipway task priority highest VdYnEtzpQs6ZdoNrVAj9Mw
                  slipway task priority low VdYnEtzpQs6ZdoNrVAj9Mw --json
                """
        )

        @Argument(help: "lowest, very-low, low, medium, high, very-high or highest.")
        var priority: String
        @OptionGroup var tasks: TasksOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await tasks.each(output) { client, id throws(TaskclusterError) in
                try await client.call(
                    "queue",
                    "POST",
                    ["task", id, "priority"],
                    body: ["newPriority": .string(priority)]
                )
            }
        }
    }

    struct Retrigger: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a task like another one, made now, and print its id.",
            discussion: """
                The new task has as much time as the old one had. It keeps its group and waits for nobody; routes are left out
                unless --routes is given, so that an index or a mailbox is not filled twice by accident.

                Examples:
                  slipway task retrigger VdYnEtzpQs6ZdoNrVAj9Mw
                  slipway task retrigger VdYnEtzpQs6ZdoNrVAj9Mw --routes --json
                """
        )

        @OptionGroup var task: TaskOptions
        @Flag(help: "Keep the routes.")
        var routes = false
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let client = try Session().client
            var definition = try await client.queue.task(task.taskID)
            guard let created = definition["created"]?.string.flatMap({ Timestamp($0) }) else {
                throw Failure("the definition of \(task.taskID) has no date of creation")
            }
            let now = Timestamp.now()
            for key in ["deadline", "expires"] {
                guard let date = definition[key]?.string.flatMap({ Timestamp($0) }) else { continue }
                definition[key] = .string((now + (date - created)).iso8601)
            }
            definition["created"] = .string(now.iso8601)
            definition["dependencies"] = []
            if !routes { definition["routes"] = [] }
            let id = Slugid.make()
            let answer = try await client.call("queue", "PUT", ["task", id], body: definition)
            output.print(answer, text: id)
        }
    }

    struct Dependents: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the tasks that wait for a task, with their states.",
            discussion:
                "Examples:\n  slipway task dependents VdYnEtzpQs6ZdoNrVAj9Mw\n  slipway task dependents VdYn… --json"
        )

        @OptionGroup var task: TaskOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let tasks = try await Session().client.all("queue", ["task", task.taskID, "dependents"], list: "tasks")
            let rows = tasks.map {
                TaskLine.words($0["status"] ?? [:]) + [$0["task"]?["metadata"]?["name"]?.string ?? ""]
            }
            output.print(["tasks": .array(tasks)], text: Columns.text(rows, nothing: "nothing waits for it"))
        }
    }

    struct Download: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Download an artifact of a task's last run, or of a given one.",
            discussion: """
                What was stored compressed is unpacked. Without --output the bytes go to standard output.

                Examples:
                  slipway task download VdYnEtzpQs6ZdoNrVAj9Mw public/build/target.tar.xz --output target.tar.xz
                  slipway task download VdYnEtzpQs6ZdoNrVAj9Mw public/build/sums --run 0
                  slipway task download VdYnEtzpQs6ZdoNrVAj9Mw private/key --output key --json
                """
        )

        @OptionGroup var task: TaskOptions
        @Argument(help: "The name of the artifact.")
        var name: String
        @Option(help: "The run; the last one when left out.")
        var run: Int?
        @Option(name: .shortAndLong, help: "The file to write.")
        var output: String?
        @OptionGroup var form: OutputOptions

        func validate() throws {
            if form.json, output == nil {
                throw ValidationError("--json needs --output: both would go to standard output.")
            }
        }

        func run() async throws {
            let session = try Session()
            let part = output.map { $0 + ".part" }
            var request = HTTPRequest(
                url: await session.client.queue.artifactURL(task.taskID, run: run, name: name),
                timeout: .seconds(3600)
            )
            request.redirects = 5
            request.acceptCompressed = true
            request.sink = part.map { .file(path: $0) } ?? .memory(limit: 512 << 20)
            let answer: HTTPResponse
            do {
                answer = try await session.transport.send(request)
            } catch {
                Files.remove(part)
                throw Failure("cannot download \(name): \(error)")
            }
            guard answer.status == 200 else {
                Files.remove(part)
                throw Failure("cannot download \(name): the answer was \(answer.status)")
            }
            guard let output, let part else { return try Bytes.write(answer.body) }
            try Files.move(part, to: output)
            let size = try Files.size(output)
            form.print(
                [
                    "taskId": .string(task.taskID), "name": .string(name), "file": .string(output),
                    "size": JSONValue(size),
                ],
                text: "\(output)  \(size) bytes"
            )
        }
    }
}
