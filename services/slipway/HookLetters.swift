// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

extension HookCommand {
    struct DeadLetters: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "dead-letters",
            abstract: "List the messages that could not be turned into a fire, newest first.",
            discussion: """
                They are no JSON, were pushed out of a full queue, or broke their consumer again and again.

                Examples:
                  slipway hook dead-letters project-releng/on-push
                  slipway hook dead-letters project-releng/on-push --limit 1000 --json
                """
        )

        @OptionGroup var hook: HookOptions

        @Option(help: "How many letters to list at most.")
        var limit = 20

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard limit > 0 else { throw Failure(usage: "--limit must be at least 1") }
            let letters = try await Self.letters(of: hook.name, limit: limit, try Session().client)
            let lines = letters.map { letter in
                let columns = ["received", "letterId", "reason", "exchange", "routingKey"]
                let task = letter["taskId"]?.string ?? (letter["replayed"] == nil ? "" : "replayed")
                return (columns.map { letter[$0]?.string ?? "?" } + [task]).joined(separator: "  ")
            }
            output.print(
                ["deadLetters": .array(letters)],
                text: lines.isEmpty ? "no dead letters" : lines.joined(separator: "\n")
            )
        }

        /// The newest letters of a hook, page by page.
        static func letters(of name: HookName, limit: Int, _ client: TaskclusterClient) async throws -> [JSONValue] {
            try await client.rows(
                "hooks",
                ["hooks", name.group, name.hook, "dead-letters"],
                list: "deadLetters",
                limit: limit
            )
        }
    }

    struct Replay: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Fire a hook with dead letters, as if the messages had just come.",
            discussion: """
                A letter that was replayed before is not fired again; its task is told.

                Examples:
                  slipway hook replay project-releng/on-push 4711 4712
                  slipway hook replay project-releng/on-push --all
                """
        )

        @OptionGroup var hook: HookOptions

        @Argument(help: "The letters, as dead-letters lists them.")
        var letters: [String] = []

        @Flag(help: "Replay every letter that was not replayed yet, oldest first.")
        var all = false

        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard all == letters.isEmpty else { throw ValidationError("Give letters, or --all.") }
        }

        func run() async throws {
            let client = try Session().client
            var ids = letters
            if all {
                ids = try await DeadLetters.letters(of: hook.name, limit: .max, client)
                    .filter { $0["replayed"] == nil }.compactMap { $0["letterId"]?.string }.reversed()
            }
            var answers: [JSONValue] = []
            var lines: [String] = []
            var refused = 0
            for id in ids {
                let path = ["hooks", hook.name.group, hook.name.hook, "dead-letters", id, "replay"]
                do throws(TaskclusterError) {
                    let answer = try await client.call("hooks", "POST", path)
                    answers.append(["letterId": JSONValue(id), "taskId": answer["taskId"] ?? .null])
                    lines.append("\(id)  \(answer["taskId"]?.string ?? "the hook declined to create a task")")
                } catch {
                    // One that cannot be used does not keep the others from being replayed.
                    guard all, error.status == 400 else { throw error }
                    refused += 1
                    answers.append(["letterId": JSONValue(id), "error": JSONValue(error.message)])
                    lines.append("\(id)  \(error.message.split(separator: "\n").first ?? "refused")")
                }
            }
            output.print(
                ["replayed": .array(answers)],
                text: lines.isEmpty ? "nothing to replay" : lines.joined(separator: "\n")
            )
            if refused > 0 { throw Failure("\(refused) letters cannot be replayed") }
        }
    }

    struct Unfired: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the last messages that a filter declined or the trigger schema rejected.",
            discussion: "Examples:\n  slipway hook unfired project-releng/on-push\n  slipway hook unfired g/h --json"
        )

        @OptionGroup var hook: HookOptions

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let path = ["hooks", hook.name.group, hook.name.hook, "unfired-messages"]
            let answer = try await Session().client.call("hooks", "GET", path)
            let lines = (answer["messages"]?.array ?? []).map { message in
                ["received", "kind", "exchange", "routingKey", "reason"].map { message[$0]?.string ?? "?" }
                    .joined(separator: "  ")
            }
            output.print(answer, text: lines.isEmpty ? "no such messages" : lines.joined(separator: "\n"))
        }
    }
}
