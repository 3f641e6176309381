// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import Schedules
import TaskclusterClient

extension HookCommand {
    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Stop the schedules of hooks until they are resumed.",
            discussion: """
                Triggers and messages fire a paused hook all the same. The instants of the pause are skipped; backfill makes up
                for them.

                Example:
                  slipway hook pause project-releng/nightly
                """
        )

        @Argument(help: "The hooks as GROUP/HOOK.")
        var names: [HookName]

        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await HookCommand.change(names, "pause", output) { status in
                "paused since \(status["paused"]?["since"]?.string ?? "?")"
            }
        }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let paused schedules of hooks go on.",
            discussion: """
                Example:
                  slipway hook resume project-releng/nightly
                """
        )

        @Argument(help: "The hooks as GROUP/HOOK.")
        var names: [HookName]

        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await HookCommand.change(names, "resume", output) { status in
                "next fire \(status["nextScheduledDate"]?.string ?? "-")"
            }
        }
    }

    struct Backfill: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Fire the instants of a range that made no task when they were due.",
            discussion: """
                These are the instants that were skipped, that failed, or that the schedule did not have at the time. Each fires
                once, however often you ask; the template finds the instant in `scheduledFor`.

                Examples:
                  slipway hook backfill project-releng/nightly --from 2024-02-01T00:00:00Z --to 2024-02-08T00:00:00Z --dry-run
                  slipway hook backfill project-releng/nightly --from 2024-02-01T00:00:00Z --to 2024-02-08T00:00:00Z
                """
        )

        @OptionGroup var hook: HookOptions

        @Option(help: "Beginning of the range, an RFC 3339 date-time.")
        var from: String

        @Option(help: "End of the range, not included; now when left out.")
        var to: String?

        @Option(help: "How many may begin in a second.")
        var perSecond = 5

        @Flag(help: "Only tell what would fire.")
        var dryRun = false

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard 1...100 ~= perSecond else { throw Failure(usage: "--per-second must be between 1 and 100") }
            let body: JSONValue = [
                "from": .string(from), "to": .string(to ?? Timestamp.now().iso8601), "perSecond": JSONValue(perSecond),
                "dryRun": JSONValue(dryRun),
            ]
            let answer = try await Session().client.call(
                "hooks",
                "POST",
                ["hooks", hook.name.group, hook.name.hook, "backfill"],
                body: body
            )
            let lines = (answer["fires"]?.array ?? []).map { fire in
                "\(fire["due"]?.string ?? "?")  \(fire["taskId"]?.string ?? "?")"
            }
            let settled = answer["settled"]?.int ?? 0
            output.print(answer, text: (lines + ["\(lines.count) to fire, \(settled) settled"]).joined(separator: "\n"))
        }
    }

    struct Ledger: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List what became of every event that could have fired a hook, newest first.",
            discussion: """
                Columns: when the event happened, what it was, what became of it, how long that took, the task, and why not.

                Examples:
                  slipway hook ledger project-releng/nightly
                  slipway hook ledger project-releng/nightly --from 2024-02-10T00:00:00Z --to 2024-02-11T00:00:00Z --json
                """
        )

        @OptionGroup var hook: HookOptions

        @Option(help: "Beginning of the range, an RFC 3339 date-time.")
        var from: String?

        @Option(help: "End of the range, not included.")
        var to: String?

        @Option(help: "How many entries to list at most.")
        var limit = 50

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard limit > 0 else { throw Failure(usage: "--limit must be at least 1") }
            let client = try Session().client
            var entries: [JSONValue] = []
            var token: String?
            repeat {
                var query = [("limit", String(min(limit - entries.count, 1000)))]
                if let from { query.append(("from", from)) }
                if let to { query.append(("to", to)) }
                if let token { query.append(("continuationToken", token)) }
                let page = try await client.call(
                    "hooks",
                    "GET",
                    ["hooks", hook.name.group, hook.name.hook, "ledger"],
                    query: query
                )
                entries += page["entries"]?.array ?? []
                token = page["continuationToken"]?.string
            } while token != nil && entries.count < limit
            let lines = entries.map(Self.line)
            output.print(
                ["entries": .array(entries)],
                text: lines.isEmpty ? "nothing happened" : lines.joined(separator: "\n")
            )
        }

        private static func line(_ entry: JSONValue) -> String {
            func text(_ key: String) -> String? { entry[key]?.string }
            let due = text("due") ?? "?"
            if text("outcome") == "skipped" {
                let count = entry["skipped"]?.int ?? 1
                let since = text("since") ?? due
                let run = count == 1 ? due : "\(since) to \(due), \(count) instants"
                return "\(run)  skipped: \(text("reason") ?? "")"
            }
            var columns = [due, text("origin") ?? text("firedBy") ?? "?", text("outcome") ?? "?"]
            if let total = entry["latency"]?["total"]?.int { columns.append("\(total) ms") }
            columns += [text("taskId"), text("reason")].compactMap { $0 }
            return columns.joined(separator: "  ")
        }
    }

    /// Posts to a route of each hook and prints a line of its status.
    private static func change(
        _ names: [HookName],
        _ verb: String,
        _ output: OutputOptions,
        _ line: (JSONValue) -> String
    ) async throws {
        let client = try Session().client
        var statuses: [JSONValue] = []
        for name in names {
            let status = try await client.call("hooks", "POST", ["hooks", name.group, name.hook, verb])
            statuses.append(status)
            if !output.json { print("\(name)  \(line(status))") }
        }
        if output.json { print(JSONValue.array(statuses).text(.pretty)) }
    }
}
