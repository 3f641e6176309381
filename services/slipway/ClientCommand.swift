// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON
import Schedules
import TaskclusterClient

/// Commands about clients.
struct ClientCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "client",
        abstract: "List, show and change clients.",
        subcommands: [
            List.self, Show.self, Create.self, Update.self, ResetToken.self, Enable.self, Disable.self, Remove.self,
        ]
    )

    fileprivate static func text(_ client: JSONValue) -> String {
        var lines = ["client       \(client["clientId"]?.string ?? "?")"]
        if let text = client["description"]?.string, !text.isEmpty { lines.append("for          \(text)") }
        lines.append("state        \(client["disabled"]?.bool == true ? "disabled" : "enabled")")
        lines.append("expires      \(client["expires"]?.string ?? "?")")
        lines.append("last used    \(client["lastDateUsed"]?.string ?? "?")")
        lines += (client["scopes"]?.array ?? []).map { "scope        \($0.string ?? "")" }
        return lines.joined(separator: "\n")
    }
}

/// The client a command is about.
struct ClientOptions: ParsableArguments {
    @Argument(help: "The name of the client.")
    var client: String

    @OptionGroup var output: OutputOptions

    /// Does something to the client and prints how it is afterwards.
    func change(_ verb: String) async throws {
        let answer = try await Session().client.call("auth", "POST", ["clients", client, verb])
        output.print(answer, text: "\(verb)d  \(client)")
    }
}

extension ClientCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List clients, or those whose names begin with a prefix.",
            discussion: "Examples:\n  slipway client list\n  slipway client list project/releng/ --json"
        )

        @Argument(help: "What the names begin with.")
        var prefix = ""
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let query = prefix.isEmpty ? [] : [("prefix", prefix)]
            let clients = try await Session().client.all("auth", ["clients"], list: "clients", query: query)
            let rows = clients.map { client in
                [
                    client["clientId"]?.string ?? "?", client["disabled"]?.bool == true ? "disabled" : "enabled",
                    "expires \(client["expires"]?.string ?? "?")",
                ]
            }
            output.print(["clients": .array(clients)], text: Columns.text(rows, nothing: "no clients"))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a client and its scopes.",
            discussion: "Examples:\n  slipway client show project/releng/nightly"
        )

        @OptionGroup var options: ClientOptions

        func run() async throws {
            let answer = try await Session().client.call("auth", "GET", ["clients", options.client])
            options.output.print(answer, text: ClientCommand.text(answer))
        }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a client and print its access token, which nobody can look up later.",
            discussion: """
                Examples:
                  slipway client create project/releng/nightly --scope assume:hook-id:project-releng/nightly --for 90d
                  umask 077; slipway client create worker/one --scope queue:claim-work:slipway/script --json > one.json
                """
        )

        @OptionGroup var options: ClientOptions
        @Option(name: .customLong("scope"), help: "A scope it is granted; may be given often.")
        var scopes: [String] = []
        @Option(help: "What it is for.")
        var description = ""
        @Option(name: .customLong("for"), help: "For how long its credentials work, such as 12h or 90d.")
        var period = "365d"
        @Flag(help: "Remove the client once it has expired.")
        var deleteOnExpiration = false

        func validate() throws {
            if Period(period) == nil { throw ValidationError("'\(period)' is not a time such as 12h or 90d.") }
        }

        func run() async throws {
            guard let period = Period(period) else { throw Failure(usage: "--for needs a time such as 90d") }
            let answer = try await Session().client.call(
                "auth",
                "PUT",
                ["clients", options.client],
                body: [
                    "scopes": .array(scopes.map { .string($0) }), "description": .string(description),
                    "expires": .string((Timestamp.now() + period.duration).iso8601),
                    "deleteOnExpiration": .bool(deleteOnExpiration),
                ],
                // A repetition would find the client there and never tell the token.
                retry: RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
            )
            options.output.print(answer, text: answer["accessToken"]?.string ?? "")
        }
    }

    struct Update: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change what a client may do, what it is for, or when it expires.",
            discussion: """
                What is not named stays. --scope replaces all scopes the client has; --no-scopes takes all away.

                Examples:
                  slipway client update project/releng/nightly --for 90d
                  slipway client update project/releng/nightly --scope queue:status:* --scope queue:get-task:* --json
                """
        )

        @OptionGroup var options: ClientOptions
        @Option(name: .customLong("scope"), help: "A scope it is granted; may be given often.")
        var scopes: [String] = []
        @Flag(name: .customLong("no-scopes"), help: "Grant it nothing.")
        var withoutScopes = false
        @Option(help: "What it is for.")
        var description: String?
        @Option(name: .customLong("for"), help: "For how long from now its credentials work, such as 12h or 90d.")
        var period: String?

        func validate() throws {
            if let period, Period(period) == nil {
                throw ValidationError("'\(period)' is not a time such as 12h or 90d.")
            }
            if withoutScopes, !scopes.isEmpty {
                throw ValidationError("--scope and --no-scopes contradict each other.")
            }
        }

        func run() async throws {
            let client = try Session().client
            let old = try await client.call("auth", "GET", ["clients", options.client])
            var expires = old["expires"] ?? .null
            if let period = period.flatMap({ Period($0) }) {
                expires = .string((Timestamp.now() + period.duration).iso8601)
            }
            var body: JSONValue = [
                "description": description.map { .string($0) } ?? old["description"] ?? "", "expires": expires,
                "deleteOnExpiration": old["deleteOnExpiration"] ?? false,
            ]
            if withoutScopes || !scopes.isEmpty { body["scopes"] = .array(scopes.map { .string($0) }) }
            let answer = try await client.call("auth", "POST", ["clients", options.client], body: body)
            options.output.print(answer, text: ClientCommand.text(answer))
        }
    }

    struct ResetToken: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "reset-token",
            abstract: "Give a client a new access token and print it; the old one stops working at once.",
            discussion: "Examples:\n  slipway client reset-token project/releng/nightly"
        )

        @OptionGroup var options: ClientOptions

        func run() async throws {
            let answer = try await Session().client.call("auth", "POST", ["clients", options.client, "reset"])
            options.output.print(answer, text: answer["accessToken"]?.string ?? "")
        }
    }

    struct Enable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a disabled client in again.",
            discussion: "Examples:\n  slipway client enable project/releng/nightly"
        )

        @OptionGroup var options: ClientOptions

        func run() async throws { try await options.change("enable") }
    }

    struct Disable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Refuse a client from now on.",
            discussion: "Examples:\n  slipway client disable project/releng/nightly"
        )

        @OptionGroup var options: ClientOptions

        func run() async throws { try await options.change("disable") }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove a client; one that is not there counts as removed.",
            discussion: "Examples:\n  slipway client remove project/releng/nightly"
        )

        @OptionGroup var options: ClientOptions

        func run() async throws {
            _ = try await Session().client.call("auth", "DELETE", ["clients", options.client])
            let gone: JSONValue = ["clientId": .string(options.client), "result": "removed"]
            options.output.print(gone, text: "removed  \(options.client)")
        }
    }
}
