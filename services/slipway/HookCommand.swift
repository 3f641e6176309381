// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

/// Commands about hooks.
struct HookCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hook",
        abstract: "List, show, apply and trigger hooks.",
        subcommands: [List.self, Show.self, Apply.self, Trigger.self]
    )
}

/// The name of a hook: its group up to the first slash, and the rest.
struct HookName: ExpressibleByArgument, CustomStringConvertible {
    let group: String
    let hook: String

    init?(argument: String) {
        let parts = argument.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
        group = String(parts[0])
        hook = String(parts[1])
    }

    var description: String { "\(group)/\(hook)" }
}

extension HookCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the hooks of a group, or of all groups.",
            discussion: "Examples:\n  slipway hook list\n  slipway hook list project-releng --json"
        )

        @Argument(help: "The hook group; all groups when left out.")
        var group: String?

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let hooks = try Session().client.hooks
            var groups: [String] = []
            if let group {
                groups = [group]
            } else {
                groups = try await hooks.listHookGroups()["groups"]?.array?.compactMap(\.string) ?? []
            }
            var found: [JSONValue] = []
            for group in groups { found += try await hooks.listHooks(group)["hooks"]?.array ?? [] }
            let lines = found.map { hook in
                let schedule = hook["schedule"]?.array?.compactMap(\.string).joined(separator: ", ") ?? ""
                let name = "\(hook["hookGroupId"]?.string ?? "?")/\(hook["hookId"]?.string ?? "?")"
                return schedule.isEmpty ? name : "\(name)  [\(schedule)]"
            }
            output.print(["hooks": .array(found)], text: lines.isEmpty ? "no hooks" : lines.joined(separator: "\n"))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a hook: what it is, when it fires and how the last fire went.",
            discussion: "Examples:\n  slipway hook show project-releng/nightly\n  slipway hook show g/h --json > h.json"
        )

        @Argument(help: "The hook as GROUP/HOOK.")
        var name: HookName

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let hooks = try Session().client.hooks
            let hook = try await hooks.hook(name.group, name.hook)
            if output.json { return print(hook.text(.pretty)) }
            let status = try await hooks.status(name.group, name.hook)
            var lines = ["\(name)  \(hook["metadata"]?["name"]?.string ?? "")"]
            lines.append("owner      \(hook["metadata"]?["owner"]?.string ?? "-")")
            let schedule = hook["schedule"]?.array?.compactMap(\.string) ?? []
            lines.append("schedule   \(schedule.isEmpty ? "-" : schedule.joined(separator: ", "))")
            if let next = status["nextScheduledDate"]?.string { lines.append("next fire  \(next)") }
            for binding in hook["bindings"]?.array ?? [] {
                let exchange = binding["exchange"]?.string ?? ""
                lines.append("listens    \(exchange) \(binding["routingKeyPattern"]?.string ?? "")")
            }
            if let fire = status["lastFire"] {
                let parts = [fire["result"], fire["time"], fire["taskId"]].compactMap { $0?.string }
                lines.append("last fire  \(parts.joined(separator: "  "))")
            }
            print(lines.joined(separator: "\n"))
        }
    }

    struct Trigger: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Fire a hook and print the id of its task.",
            discussion: """
                Examples:
                  slipway hook trigger project-releng/nightly
                  slipway hook trigger project-releng/ship --payload '{"version": "120.0"}'
                  slipway hook trigger project-releng/ship --payload-file payload.json --json
                """
        )

        @Argument(help: "The hook as GROUP/HOOK.")
        var name: HookName

        @Option(help: "What the hook gets to know, as JSON.")
        var payload: String?

        @Option(help: "A file with the payload, - for standard input.")
        var payloadFile: String?

        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard payload == nil || payloadFile == nil else {
                throw ValidationError("Give --payload or --payload-file, not both.")
            }
        }

        func run() async throws {
            let answer = try await Session().client.hooks.triggerHook(name.group, name.hook, payload: try readPayload())
            guard let taskID = answer["status"]?["taskId"]?.string ?? answer["taskId"]?.string else {
                return output.print(answer, text: "the hook declined to create a task")
            }
            output.print(answer, text: taskID)
        }

        private func readPayload() throws -> JSONValue {
            if let payloadFile { return try Bytes.json(payloadFile) }
            guard let payload else { return [:] }
            do {
                return try JSONValue(parsing: payload)
            } catch {
                throw Failure(usage: "--payload is not JSON: \(error)")
            }
        }
    }
}
