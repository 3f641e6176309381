// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

/// Prints the audit of one pipeline or sign-off, or checks that nobody has changed it.
struct AuditOptions: ParsableArguments {
    @Flag(help: "Only check that nobody has changed what was written; the exit status is 1 if somebody has.")
    var verify = false
    @Flag(help: "Of one that was deleted, for administrators.")
    var deleted = false
    @OptionGroup var output: OutputOptions

    func print(_ path: [String], of session: StepSession) async throws {
        let query = deleted ? [("deleted", "true")] : []
        if verify {
            let answer = try await session.call("GET", path, query: query + [("verify", "true")]).json
            guard answer["verified"] == true else {
                let place = answer["broken_at"]?.int.map { " from entry \($0) on" } ?? ""
                throw Failure("the audit is not what was written\(place); compare it with a backup of the database")
            }
            output.print(answer, text: "nobody has changed the audit")
            return
        }
        let events = try await session.all(path, query: query, list: "events")
        let rows = events.map { event in
            [
                event["ts"]?.string ?? "", event["actor"]?.string ?? "", event["kind"]?.string ?? "",
                event["step"]?.string ?? "", Self.words(event["data"]?.object ?? [:]),
            ]
        }
        output.print(.array(events), text: Columns.text(rows, nothing: "nothing has happened"))
    }

    /// The particulars of an event on one line, texts without quotes.
    private static func words(_ data: JSONObject) -> String {
        data.map { "\($0.key)=\($0.value.string ?? $0.value.text())" }.joined(separator: " ")
    }
}

extension PipelineCommand {
    struct Events: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print what has happened to a pipeline, and who did it.",
            discussion: """
                Without a name: what concerns no single pipeline, such as freezes, templates and broken locks.

                Examples:
                  slipway pipeline events firefox-130.0b3-build1
                  slipway pipeline events firefox-130.0b3-build1 --verify
                  slipway pipeline events
                """
        )

        @Argument(help: "The name of the pipeline.")
        var uid: String?
        @OptionGroup var audit: AuditOptions

        func run() async throws {
            try await audit.print((uid.map { [$0] } ?? []) + ["events"], of: PipelineCommand.session())
        }
    }
}

extension SignoffCommand {
    struct Events: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print who has signed a step, and whatever else has happened to it.",
            discussion: """
                Examples:
                  slipway signoff events approve
                  slipway signoff events approve --verify
                """
        )

        @Argument(help: "The name of the step.")
        var uid: String
        @OptionGroup var audit: AuditOptions

        func run() async throws {
            try await audit.print([uid, "events"], of: SignoffCommand.session())
        }
    }

    struct Reject: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "End a step as a failure, if its policy lets signers do so.",
            discussion: "Examples:\n  slipway signoff reject approve --group releng --reason 'crashes at start'"
        )

        @OptionGroup var step: SignoffOptions
        @Option(help: "The group you speak for.")
        var group: String
        @Option(help: "Why; it goes into the audit.")
        var reason: String

        func run() async throws {
            let session = try SignoffCommand.session()
            let token = try SignoffCommand.token()
            let body: JSONValue = ["group": .string(group), "reason": .string(reason)]
            _ = try await session.call("POST", [step.uid, "reject"], body: body, token: token)
            try await session.show(step.uid, step.output, token: token, SignoffCommand.text)
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a person's signatures count no more where people are still signing.",
            discussion: """
                For those who have left, or whose login was stolen. Steps that are completed stay so and are listed. It needs \
                the scope admin/revoke.

                Examples:
                  slipway signoff revoke --email jane@example.com --reason 'has left'
                """
        )

        @Option(help: "The person's address.")
        var email: String?
        @Option(help: "Instead of an address: the subject of their tokens.")
        var sub: String?
        @Option(help: "Why; it goes into the audit.")
        var reason: String
        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard (email == nil) != (sub == nil) else { throw Failure(usage: "say --email or --sub") }
            var body: JSONValue = ["reason": .string(reason)]
            body["email"] = email.map { .string($0) }
            body["sub"] = sub.map { .string($0) }
            let answer = try await SignoffCommand.session().call("POST", ["admin", "revocations"], body: body).json
            let rows = [("revoked", "revoked"), ("unchanged", "stays")].flatMap { list, word in
                (answer[list]?.array ?? []).map { [word, $0.string ?? $0.text()] }
            }
            output.print(answer, text: Columns.text(rows, nothing: "no signatures of that person"))
        }
    }
}
