// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON
import TaskclusterClient

/// Commands about what comes onto the bus from outside.
struct BridgeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bridge",
        abstract: "Show received webhooks, publish them again, and show watched repositories.",
        subcommands: [Deliveries.self, Show.self, Replay.self, Repositories.self]
    )
}

/// The delivery a command is about.
struct DeliveryOptions: ParsableArguments {
    @Argument(help: "The source, as in its address /webhooks/SOURCE.")
    var source: String

    @Argument(help: "The id of the delivery.")
    var deliveryID: String
}

extension BridgeCommand {
    struct Deliveries: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the webhooks of a source that are remembered, newest first.",
            discussion:
                "Examples:\n  slipway bridge deliveries github\n  slipway bridge deliveries github --limit 100 --json"
        )

        @Argument(help: "The source, as in its address /webhooks/SOURCE.")
        var source: String

        @Option(help: "How many.")
        var limit = 20

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard 1...1000 ~= limit else { throw Failure(usage: "--limit must be between 1 and 1000") }
            let answer = try await Session().client.call(
                "bridges",
                "GET",
                ["deliveries", source],
                query: [("limit", String(limit))]
            )
            let lines = (answer["deliveries"]?.array ?? []).map { delivery in
                let replays = delivery["replays"]?.int ?? 0
                return ["received", "deliveryId", "routingKey"].map { delivery[$0]?.string ?? "?" }
                    .joined(separator: "  ") + (replays > 0 ? "  replayed \(replays)" : "")
            }
            output.print(answer, text: lines.isEmpty ? "no deliveries" : lines.joined(separator: "\n"))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the message made of a webhook.",
            discussion: "Example:\n  slipway bridge show github 72d3162e-cc78-11e3-81ab-4c9367dc0958"
        )

        @OptionGroup var delivery: DeliveryOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.call(
                "bridges",
                "GET",
                ["deliveries", delivery.source, delivery.deliveryID]
            )
            output.print(answer, text: (answer["message"] ?? .null).text(.pretty))
        }
    }

    struct Replay: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Publish the message of a webhook again.",
            discussion: "Example:\n  slipway bridge replay github 72d3162e-cc78-11e3-81ab-4c9367dc0958"
        )

        @OptionGroup var delivery: DeliveryOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            // Sent once: a repeated request would be a further replay.
            let answer = try await Session().client.call(
                "bridges",
                "POST",
                ["deliveries", delivery.source, delivery.deliveryID, "replay"],
                retry: RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
            )
            output.print(answer, text: "replay \(answer["replays"]?.int ?? 0) of \(delivery.deliveryID)")
        }
    }

    struct Repositories: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the watched Mercurial repositories and how watching them goes.",
            discussion: "Example:\n  slipway bridge repositories"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await Session().client.call("bridges", "GET", ["repositories"])
            let lines = (answer["repositories"]?.array ?? []).map { repository in
                let push = repository["lastPushId"]?.int.map { "push \($0)" } ?? "not looked at yet"
                let trouble = repository["error"]?.string.map { "  failing: \($0)" } ?? ""
                return "\(repository["name"]?.string ?? "?")  \(push)\(trouble)"
            }
            output.print(answer, text: lines.isEmpty ? "no repositories" : lines.joined(separator: "\n"))
        }
    }
}
