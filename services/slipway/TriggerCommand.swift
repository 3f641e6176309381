// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON
import TaskclusterClient

/// Commands about what the listener watches besides the bindings of hooks.
struct TriggerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trigger",
        abstract: "Show what triggers observed and what came of it, try again, and read dead letters again.",
        subcommands: [List.self, Runs.self, Retry.self, DeadLetters.self, Replay.self, Remove.self]
    )

    /// Does the same to several things, one after the other, and shows what came of each.
    fileprivate static func each(
        _ things: [String],
        _ output: OutputOptions,
        as list: String,
        call: (_ thing: String, _ client: TaskclusterClient) async throws -> JSONValue,
        line: (JSONValue) -> String
    ) async throws {
        let client = try Session().client
        var answers: [JSONValue] = []
        for thing in things { answers.append(try await call(thing, client)) }
        output.print(.object([list: .array(answers)]), text: answers.map(line).joined(separator: "\n"))
    }
}

extension TriggerCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the triggers that run, their hooks, and what is left of others.",
            discussion: "Example:\n  slipway trigger list"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.call("triggers", "GET", ["triggers"])
            let lines = (answer["triggers"]?.array ?? []).map { trigger in
                let hook = "\(trigger["hookGroupId"]?.string ?? "?")/\(trigger["hookId"]?.string ?? "?")"
                return "\(trigger["name"]?.string ?? "?")  \(hook)"
            }
            let leftovers = (answer["leftovers"]?.array ?? []).map { left in
                let parts = [
                    left["queue"]?.string, left["exchange"]?.string, left["routingKey"]?.string,
                    left["messages"]?.int.map { "\($0) messages" }, "in no file since \(left["seen"]?.string ?? "?")",
                ]
                return "left over: \(left["name"]?.string ?? "?")  " + parts.compactMap(\.self).joined(separator: "  ")
            }
            output.print(answer, text: (lines + leftovers).joined(separator: "\n"))
        }
    }

    struct Runs: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List what was observed and what came of it, newest first.",
            discussion: """
                Examples:
                  slipway trigger runs
                  slipway trigger runs code-coverage --state skipped
                  slipway trigger runs --stuck
                """
        )

        @Argument(help: "The trigger; all of them without.")
        var trigger: String?

        @Option(help: "Only those in a state: waiting, firing, fired, declined or skipped.")
        var state: String?

        @Flag(help: "Only those that failed and are tried again.")
        var stuck = false

        @Option(help: "How many.")
        var limit = 20

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard limit > 0 else { throw Failure(usage: "--limit must be at least 1") }
            var query: [(String, String)] = []
            if let trigger { query.append(("trigger", trigger)) }
            if let state { query.append(("state", state)) }
            if stuck { query.append(("stuck", "true")) }
            let runs = try await Session().client.rows("triggers", ["runs"], list: "runs", limit: limit, query: query)
            let lines = runs.map { run in
                let columns = ["created", "runId", "trigger", "subject", "state"].map { run[$0]?.string ?? "?" }
                let task = run["taskId"]?.string.map { "\($0) \(run["taskState"]?.string ?? "")" }
                return (columns + [task ?? "", run["reason"]?.string ?? ""]).filter { !$0.isEmpty }
                    .joined(separator: "  ")
            }
            output.print(["runs": .array(runs)], text: lines.isEmpty ? "no runs" : lines.joined(separator: "\n"))
        }
    }

    struct Retry: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Try again now what failed, and look again at what was skipped.",
            discussion: "Example:\n  slipway trigger retry 4711"
        )

        @Argument(help: "The runs, as runs lists them.")
        var runs: [String]

        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await TriggerCommand.each(runs, output, as: "runs") { run, client in
                try await client.call("triggers", "POST", ["runs", run, "retry"])
            } line: {
                "\($0["runId"]?.string ?? "?")  \($0["state"]?.string ?? "?")"
            }
        }
    }

    struct DeadLetters: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "dead-letters",
            abstract: "List the messages that a trigger could not read, newest first.",
            discussion: "Examples:\n  slipway trigger dead-letters\n  slipway trigger dead-letters code-coverage --json"
        )

        @Argument(help: "The trigger; all of them without.")
        var trigger: String?

        @Option(help: "How many.")
        var limit = 20

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard limit > 0 else { throw Failure(usage: "--limit must be at least 1") }
            let letters = try await Session().client.rows(
                "triggers",
                ["dead-letters"],
                list: "deadLetters",
                limit: limit,
                query: trigger.map { [("trigger", $0)] } ?? []
            )
            let lines = letters.map { letter in
                let columns = ["received", "letterId", "trigger", "routingKey", "error"]
                return (columns.map { letter[$0]?.string ?? "?" } + (letter["replayed"] == nil ? [] : ["replayed"]))
                    .joined(separator: "  ")
            }
            output.print(
                ["deadLetters": .array(letters)],
                text: lines.isEmpty ? "no dead letters" : lines.joined(separator: "\n")
            )
        }
    }

    struct Replay: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read dead letters again, as if the messages had just come.",
            discussion: "Example:\n  slipway trigger replay 4711"
        )

        @Argument(help: "The letters, as dead-letters lists them.")
        var letters: [String]

        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await TriggerCommand.each(letters, output, as: "replayed") { letter, client in
                try await client.call("triggers", "POST", ["dead-letters", letter, "replay"])
            } line: {
                "\($0["letterId"]?.string ?? "?")  \($0["runs"]?.int ?? 0) new"
            }
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove the queues and bindings of triggers that are in no listener's file any more.",
            discussion: """
                First take the trigger out of the configuration file of every listener and start them again. A minute later
                list shows what is left over, and this takes it away, together with the messages that wait and what was
                observed and not dealt with. As long as a listener has the trigger in its file, nothing is removed.

                Example:
                  slipway trigger remove coverage-of-try
                """
        )

        @Argument(help: "The triggers, as list names them.")
        var triggers: [String]

        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await TriggerCommand.each(triggers, output, as: "removed") { trigger, client in
                try await client.call("triggers", "DELETE", ["triggers", trigger])
            } line: { answer in
                let queues = (answer["queues"]?.array ?? []).map { queue in
                    "\(queue["queue"]?.string ?? "?")  deleted with \(queue["messages"]?.int ?? 0) messages"
                }
                let bindings = (answer["bindings"]?.array ?? []).map { binding in
                    let names = ["queue", "exchange", "routingKey"].map { binding[$0]?.string ?? "?" }
                    return "\(names[0])  unbound from \(names[1])  \(names[2])"
                }
                let runs = answer["runs"]?.int ?? 0
                let rest = runs > 0 ? ["\(answer["name"]?.string ?? "?")  \(runs) sightings given up"] : []
                return (queues + bindings + rest).joined(separator: "\n")
            }
        }
    }
}
