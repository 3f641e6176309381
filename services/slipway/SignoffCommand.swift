// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON

/// Commands about steps that wait for people.
struct SignoffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "signoff",
        abstract: "See what waits for people, and sign it.",
        discussion: """
            The service is at SHIPIT_SIGNOFF_URL. Signing needs a token of yours in SHIPIT_TOKEN; Taskcluster credentials are \
            not enough.
            """,
        subcommands: [
            List.self, Show.self, Token.self, Sign.self, Unsign.self, Reject.self, Revoke.self, Events.self,
        ]
    )

    static func session() throws -> StepSession { try StepSession("SHIPIT_SIGNOFF_URL") }

    static func token() throws -> String {
        guard let token = ServiceSession.value("SHIPIT_TOKEN") else {
            throw Failure(
                usage:
                    "SHIPIT_TOKEN is not set; export an access token of yours (docs/shipit.md, Approve, says how to get one)"
            )
        }
        return token
    }

    /// The lines that tell what a step waits for.
    static func text(_ status: JSONValue) -> String { text(status, [:]) }

    /// The same, with what it is that the step approves.
    static func text(_ status: JSONValue, _ approved: JSONObject) -> String {
        let info = status["info"] ?? [:]
        var lines = ["\(status["uid"]?.string ?? "?")  \(status["state"]?.string ?? "?")"]
        lines += approved.map { "  \($0.key): \($0.value.string ?? $0.value.text())" }
        for signature in info["signatures"]?.array ?? [] {
            let group = signature["group"]?.string ?? ""
            lines.append(
                "  signed by \(signature["name"]?.string ?? "?") for \(group), \(signature["created"]?.string ?? "")"
            )
        }
        if status["status"] == "in_progress" { lines.append("  missing   \(missing(info))") }
        lines.append("  digest    \(info["digest"]?.string ?? "")")
        return lines.joined(separator: "\n")
    }

    static func missing(_ info: JSONValue) -> String {
        let ways = (info["missing"]?.array ?? []).map { way in
            (way.object ?? [:]).map { "\($0.value.int ?? 0) of \($0.key)" }.joined(separator: " and ")
        }
        return ways.joined(separator: ", or ")
    }
}

/// The step a command is about.
struct SignoffOptions: ParsableArguments {
    @Argument(help: "The name of the step.")
    var uid: String

    @OptionGroup var output: OutputOptions
}

extension SignoffCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the steps that wait for people.",
            discussion: "Examples:\n  slipway signoff list\n  slipway signoff list --mine"
        )

        @Flag(help: "Only what you could sign yourself.")
        var mine = false
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let session = try SignoffCommand.session()
            let answer =
                mine
                ? try await session.call("GET", ["pending"], query: [("for", "me")], token: SignoffCommand.token())
                : try await session.call("GET", [], query: [("status", "in_progress"), ("limit", "500")])
            StepSession.list(answer.json, output, nothing: "nothing waits") { step, info in
                [step["uid"]?.string ?? "", step["created"]?.string ?? "", SignoffCommand.missing(info)]
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show what a step approves, who has signed it and who is missing.",
            discussion: "Examples:\n  slipway signoff show firefox-130.0b3-build1.approve"
        )

        @OptionGroup var step: SignoffOptions

        func run() async throws {
            let session = try SignoffCommand.session()
            let status = try await session.call("GET", [step.uid, "status"]).json
            let definition = try await session.call("GET", [step.uid, "definition"]).json
            step.output.print(status, text: SignoffCommand.text(status, definition["parameters"]?.object ?? [:]))
        }
    }

    struct Token: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print a token of somebody, from the issuer for tests that make up starts.",
            discussion: """
                Elsewhere people get theirs by logging in. The issuer is at SHIPIT_OIDC_URL; releng1, releng2, relman1 and \
                relman2 are among the people it knows.

                Examples:
                  export SHIPIT_TOKEN=$(slipway signoff token releng1)
                """
        )

        @Argument(help: "The name of the person.")
        var user: String

        func run() async throws {
            let answer = try await StepSession("SHIPIT_OIDC_URL").call("POST", ["token"], body: ["user": .string(user)])
            print(answer.json["access_token"]?.string ?? "")
        }
    }

    struct Sign: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sign a step for one of your groups.",
            discussion: """
                What is signed is the step as it is now: its digest goes with the signature, or the one you have seen and name.

                Examples:
                  slipway signoff sign approve --group releng
                  slipway signoff sign approve --group releng --digest 7f83b165…
                """
        )

        @OptionGroup var step: SignoffOptions
        @Option(help: "The group you sign for.")
        var group: String
        @Option(help: "The digest of what you approve, as show tells it.")
        var digest: String?

        func run() async throws {
            let session = try SignoffCommand.session()
            let token = try SignoffCommand.token()
            var body: JSONValue = ["group": .string(group)]
            if let digest {
                body["digest"] = .string(digest)
            } else {
                let status = try await session.call("GET", [step.uid, "status"], token: token)
                body["digest"] = status.json["info"]?["digest"]
            }
            _ = try await session.call("PUT", [step.uid, "sign"], body: body, token: token)
            try await session.show(step.uid, step.output, token: token, SignoffCommand.text)
        }
    }

    struct Unsign: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take your signature back while the step goes on.",
            discussion: "Examples:\n  slipway signoff unsign firefox-130.0b3-build1.approve --group releng"
        )

        @OptionGroup var step: SignoffOptions
        @Option(help: "The group you have signed for.")
        var group: String

        func run() async throws {
            let session = try SignoffCommand.session()
            let token = try SignoffCommand.token()
            _ = try await session.call("DELETE", [step.uid, "sign"], body: ["group": .string(group)], token: token)
            try await session.show(step.uid, step.output, token: token, SignoffCommand.text)
        }
    }
}
