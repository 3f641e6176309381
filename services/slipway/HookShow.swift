// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

extension HookCommand {
    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a hook: what it is, when it fires and how the last fire went.",
            discussion: """
                With --json, the definition as `slipway hook apply` takes it.

                Examples:
                  slipway hook show project-releng/nightly
                  slipway hook show project-releng/nightly --json > nightly.json
                """
        )

        @OptionGroup var hook: HookOptions

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let name = hook.name
            let hooks = try Session().client.hooks
            let hook = try await hooks.hook(name.group, name.hook)
            if output.json { return print(hook.text(.pretty)) }
            let status = try await hooks.status(name.group, name.hook)
            var lines = ["\(name)  \(hook["metadata"]?["name"]?.string ?? "")"]
            lines.append("owner      \(hook["metadata"]?["owner"]?.string ?? "-")")
            if let language = hook["templateLanguage"]?.string { lines.append("template   \(language)") }
            let schedule = hook["schedule"]?.array?.compactMap(\.string) ?? []
            lines.append("schedule   \(schedule.isEmpty ? "-" : schedule.joined(separator: ", "))")
            for binding in hook["bindings"]?.array ?? [] {
                let parts = ["exchange", "routingKeyPattern"].compactMap { binding[$0]?.string }
                let filter = binding["filter"]?.string.map { "  if \($0)" } ?? ""
                lines.append("listens    \(parts.joined(separator: " "))\(filter)")
            }
            print((lines + Status.lines(status)).joined(separator: "\n"))
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tell how the last fire went, when the next one is due, and how the bindings fare.",
            discussion: "Examples:\n  slipway hook status project-releng/nightly\n  slipway hook status g/h --json"
        )

        @OptionGroup var hook: HookOptions

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let status = try await Session().client.hooks.status(hook.name.group, hook.name.hook)
            output.print(status, text: Self.lines(status).joined(separator: "\n"))
        }

        static func lines(_ status: JSONValue) -> [String] {
            let paused = status["paused"]?["since"]?.string.map { "none, paused since \($0)" }
            var lines = ["next fire  \(paused ?? status["nextScheduledDate"]?.string ?? "-")"]
            if let fire = status["lastFire"] {
                let parts = [fire["result"], fire["time"], fire["taskId"]].compactMap { $0?.string }
                lines.append("last fire  \(parts.joined(separator: "  "))")
                if let message = fire["error"]?["message"]?.string {
                    lines += message.split(separator: "\n").map { "           \($0)" }
                }
            }
            return lines + listening(status["listener"] ?? .null)
        }

        /// What the broker makes of the bindings, and how many messages fired nothing.
        private static func listening(_ listener: JSONValue) -> [String] {
            var lines: [String] = []
            for binding in listener["bindings"]?.array ?? [] {
                let state = binding["state"]?.string ?? "-"
                let place = [binding["exchange"], binding["routingKeyPattern"]].compactMap { $0?.string }
                let column = state + String(repeating: " ", count: max(1, 11 - state.count))
                lines.append(column + place.joined(separator: " "))
                if let reason = binding["reason"]?.string { lines.append("           \(reason)") }
                if let retry = binding["nextRetry"]?.string { lines.append("           next try \(retry)") }
            }
            if let problem = listener["problem"]?.string { lines.append("queue      \(problem)") }
            let counts = ["declined", "rejected", "dead"].compactMap { kind -> String? in
                guard let count = listener["messages"]?[kind]?.int, count > 0 else { return nil }
                return "\(count) \(kind)"
            }
            if !counts.isEmpty { lines.append("messages   \(counts.joined(separator: ", "))") }
            return lines
        }
    }
}
