// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

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
                let name = "\(hook["hookGroupId"]?.string ?? "?")/\(hook["hookId"]?.string ?? "?")"
                var notes = hook["schedule"]?.array?.compactMap(\.string) ?? []
                let bindings = hook["bindings"]?.array?.count ?? 0
                if bindings > 0 { notes.append("\(bindings) \(bindings == 1 ? "binding" : "bindings")") }
                return notes.isEmpty ? name : "\(name)  [\(notes.joined(separator: ", "))]"
            }
            output.print(["hooks": .array(found)], text: lines.isEmpty ? "no hooks" : lines.joined(separator: "\n"))
        }
    }
}
