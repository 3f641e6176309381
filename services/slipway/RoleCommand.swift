// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

/// Commands about roles.
struct RoleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "role",
        abstract: "List, show and change roles.",
        subcommands: [List.self, Show.self, Apply.self, Remove.self]
    )
}

extension RoleCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List roles, or those whose names begin with a prefix.",
            discussion: "Examples:\n  slipway role list\n  slipway role list hook-id: --json"
        )

        @Argument(help: "What the names begin with.")
        var prefix = ""
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let all = try await Session().client.all("auth", ["roles2"], list: "roles")
            let roles = all.filter { $0["roleId"]?.string?.hasPrefix(prefix) ?? false }
            let rows = roles.map { role in
                [
                    role["roleId"]?.string ?? "?", "\(role["scopes"]?.array?.count ?? 0) scopes",
                    role["description"]?.string?.split(separator: "\n").first.map(String.init) ?? "",
                ]
            }
            output.print(["roles": .array(roles)], text: Columns.text(rows, nothing: "no roles"))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a role and what it comes to.",
            discussion: "Examples:\n  slipway role show hook-id:project-releng/nightly"
        )

        @Argument(help: "The name of the role.")
        var role: String
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.call("auth", "GET", ["roles", role])
            output.print(answer, text: RoleCommand.text(answer))
        }
    }

    struct Apply: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a role be what the arguments say, whether or not it exists.",
            discussion: """
                Scopes that are not named are taken away.

                Examples:
                  slipway role apply hook-id:demo/ship --scope queue:create-task:low:slipway/script --scope queue:scheduler-id:-
                """
        )

        @Argument(help: "The name of the role.")
        var role: String
        @Option(name: .customLong("scope"), help: "A scope it grants; may be given often.")
        var scopes: [String] = []
        @Option(help: "What it is for.")
        var description = ""
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let client = try Session().client
            let body: JSONValue = ["scopes": .array(scopes.map { .string($0) }), "description": .string(description)]
            let exists = try await client.all("auth", ["roleids"], list: "roleIds").contains(.string(role))
            var answer = try await client.call("auth", exists ? "POST" : "PUT", ["roles", role], body: body)
            let result = exists ? "updated" : "created"
            answer["result"] = .string(result)
            output.print(answer, text: "\(result)  \(role)")
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove a role; one that is not there counts as removed.",
            discussion: "Examples:\n  slipway role remove hook-id:demo/ship"
        )

        @Argument(help: "The name of the role.")
        var role: String
        @OptionGroup var output: OutputOptions

        func run() async throws {
            _ = try await Session().client.call("auth", "DELETE", ["roles", role])
            output.print(["roleId": .string(role), "result": "removed"], text: "removed  \(role)")
        }
    }

    private static func text(_ role: JSONValue) -> String {
        var lines = ["role         \(role["roleId"]?.string ?? "?")"]
        if let description = role["description"]?.string, !description.isEmpty {
            lines.append("for          \(description)")
        }
        lines.append("modified     \(role["lastModified"]?.string ?? "?")")
        lines += (role["scopes"]?.array ?? []).map { "scope        \($0.string ?? "")" }
        let granted = Set((role["scopes"]?.array ?? []).compactMap(\.string))
        for scope in (role["expandedScopes"]?.array ?? []).compactMap(\.string) where !granted.contains(scope) {
            lines.append("by roles     \(scope)")
        }
        return lines.joined(separator: "\n")
    }
}
