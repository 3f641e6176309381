// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

extension HookCommand {
    struct History: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the fires of a hook, newest first, with the states of their tasks.",
            discussion: """
                "success" means that the task was created; how it went is told by its state.

                Examples:
                  slipway hook history project-releng/nightly
                  slipway hook history project-releng/nightly --limit 500 --json
                """
        )

        @OptionGroup var hook: HookOptions

        @Option(help: "How many fires to list at most.")
        var limit = 20

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard limit > 0 else { throw Failure(usage: "--limit must be at least 1") }
            let client = try Session().client
            var fires: [JSONValue] = []
            var token: String?
            repeat {
                var query = [("limit", String(min(limit - fires.count, 1000)))]
                if let token { query.append(("continuationToken", token)) }
                let page = try await client.call(
                    "hooks",
                    "GET",
                    ["hooks", hook.name.group, hook.name.hook, "last-fires"],
                    query: query
                )
                fires += page["lastFires"]?.array ?? []
                token = page["continuationToken"]?.string
            } while token != nil && fires.count < limit
            output.print(["lastFires": .array(fires)], text: fires.map(Self.line).joined(separator: "\n"))
        }

        private static func line(_ fire: JSONValue) -> String {
            let columns = ["taskCreateTime", "taskId", "firedBy", "result", "taskState"].map { fire[$0]?.string ?? "?" }
            let error = fire["error"]?.string ?? ""
            guard !error.isEmpty else { return columns.joined(separator: "  ") }
            let message = (try? JSONValue(parsing: error))?["message"]?.string ?? error
            let first = message.split(separator: "\n").first.map(String.init) ?? ""
            return (columns + [first]).joined(separator: "  ")
        }
    }
}
