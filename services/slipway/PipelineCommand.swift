// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import Glibc
import JSON

/// Commands about pipelines.
struct PipelineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pipeline",
        abstract: "Create pipelines, watch them, and decide about their steps.",
        discussion: "The service is at SHIPIT_PIPELINE_URL; the credentials are those of the other commands.",
        subcommands: [
            Create.self, List.self, Show.self, Watch.self, Explain.self, Graph.self, Events.self, Pause.self,
            Resume.self,
            Start.self, Skip.self, Retry.self, Cancel.self, Resolve.self, Parameters.self, TemplateCommand.self,
            FreezeCommand.self,
            Lock.self,
        ]
    )

    static func session() throws -> StepSession { try StepSession("SHIPIT_PIPELINE_URL") }

    /// The lines that tell how far a pipeline is.
    static func text(_ status: JSONValue) -> String {
        let info = status["info"] ?? [:]
        let isPaused = info["paused"] == true ? ", paused" : ""
        var head = "\(status["uid"]?.string ?? "?")  \(status["state"]?.string ?? "?")\(isPaused)"
        if let total = info["steps_total"]?.int, total > 0 {
            head += "  \(info["steps_done"]?.int ?? 0) of \(total) steps"
        }
        let steps = info["steps"]?.array ?? []
        // What a step has said stands in its own line.
        let message = status["message"]?.string ?? ""
        let said = steps.compactMap { $0["message"]?.string }.filter { !$0.isEmpty }
        if !message.isEmpty, !said.contains(where: message.contains) { head += "  \(Self.line(message))" }
        let rows = steps.map { step -> [String] in
            let attempt = step["attempt"]?.int ?? 1
            let reason = Self.line(step["waiting_for"]?["detail"]?.string ?? step["message"]?.string ?? "")
            return [
                "  \(Self.mark(step["state"]?.string ?? ""))", step["uid"]?.string ?? "",
                step["state"]?.string ?? "", attempt > 1 ? "attempt \(attempt)" : "", reason,
            ]
        }
        return rows.isEmpty ? head : "\(head)\n" + Columns.text(rows, nothing: "")
    }

    /// A message as part of a line; the whole of it is in JSON.
    private static func line(_ text: String) -> String {
        let words = text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        return words.count > 200 ? words.prefix(199) + "…" : words
    }

    private static func mark(_ state: String) -> String {
        switch state {
        case "completed": "+"
        case "failed", "exception": "!"
        case "cancelled", "skipped": "-"
        case "pending": "."
        default: ">"
        }
    }
}

/// The pipeline a command is about.
struct PipelineOptions: ParsableArguments {
    @Argument(help: "The name of the pipeline.")
    var uid: String

    @OptionGroup var output: OutputOptions

    /// Sends what an operator wants and prints the pipeline as it is then.
    func post(_ action: [String], _ body: JSONValue = [:]) async throws {
        let answer = try await PipelineCommand.session().call("POST", [uid] + action, body: body)
        output.print(answer.json, text: PipelineCommand.text(answer.json))
    }
}

extension PipelineCommand {
    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a pipeline from a file or a template; the same pipeline again is no error.",
            discussion: """
                The name is the file's uid unless --uid says otherwise. --dry-run tells the order of the steps and stores nothing. \
                The value of a parameter is JSON, or else text.

                Examples:
                  slipway pipeline create release.json
                  slipway pipeline create release.json --uid firefox-130.0b3-build1 --dry-run
                  slipway pipeline create --template beta --uid firefox-130.0b3-build1 --parameter revision=abc123
                """
        )

        @Argument(help: "The definition, - for standard input.")
        var file: String?
        @Option(help: "The name of the pipeline.")
        var uid: String?
        @Option(help: "The template to fill in.")
        var template: String?
        @Option(help: "A parameter of the template, as name=value; may be repeated.")
        var parameter: [String] = []
        @Flag(help: "Check the definition and tell its order.")
        var dryRun = false
        @OptionGroup var output: OutputOptions

        func run() async throws {
            if let template { return try await fillIn(template) }
            guard let file else { throw Failure(usage: "name a file, or a template with --template") }
            var definition = try Bytes.json(file)
            guard let name = uid ?? definition["uid"]?.string else {
                throw Failure(usage: "\(file) has no uid; name the pipeline with --uid")
            }
            definition["uid"] = .string(name)
            let answer = try await PipelineCommand.session().call(
                "PUT",
                [name],
                query: dryRun ? [("dry_run", "true")] : [],
                body: definition
            )
            guard dryRun else {
                output.print(["uid": .string(name)], text: name)
                return
            }
            let waves = answer.json["order"]?.array ?? []
            let lines = waves.map { wave in wave.array?.compactMap(\.string).joined(separator: "  ") ?? "" }
            let warnings = answer.json["warnings"]?.array?.compactMap(\.string) ?? []
            output.print(answer.json, text: (lines + warnings.map { "warning: \($0)" }).joined(separator: "\n"))
        }

        private func fillIn(_ template: String) async throws {
            guard let uid, file == nil else { throw Failure(usage: "with --template goes --uid, and no file") }
            var parameters: JSONObject = [:]
            for pair in parameter {
                let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                guard parts.count == 2 else { throw Failure(usage: "\(pair) is not name=value") }
                // What is no JSON is meant as text.
                parameters[parts[0]] = (try? JSONValue(parsing: parts[1])) ?? .string(parts[1])
            }
            let answer = try await PipelineCommand.session().call(
                "POST",
                ["templates", template, "instantiate"],
                query: dryRun ? [("dry_run", "true")] : [],
                body: ["uid": .string(uid), "parameters": .object(parameters)]
            )
            output.print(answer.json, text: dryRun ? answer.json.text(.pretty) : uid)
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List pipelines, newest first.",
            discussion: "Examples:\n  slipway pipeline list\n  slipway pipeline list --status in_progress"
        )

        @Option(help: "in_progress, success, failure or cancelled; several with commas.")
        var status: String?
        @Option(help: "What names begin with.")
        var prefix: String?
        @Option(help: "A label, as key:value.")
        var label: String?
        @OptionGroup var output: OutputOptions

        func run() async throws {
            var query = [("limit", "500")]
            if let status { query.append(("status", status)) }
            if let prefix { query.append(("uid_prefix", prefix)) }
            if let label { query.append(("label", label)) }
            let answer = try await PipelineCommand.session().call("GET", [], query: query)
            StepSession.list(answer.json, output, nothing: "no pipelines") { step, info in
                [
                    step["uid"]?.string ?? "", step["state"]?.string ?? "",
                    "\(info["steps_done"]?.int ?? 0)/\(info["steps_total"]?.int ?? 0)",
                    info["current"]?.array?.compactMap(\.string).joined(separator: " ") ?? "",
                ]
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show how far a pipeline is.",
            discussion: """
                Each step has a line: whether it is done (+), goes on (>), waits (.), has failed (!) or was left out (-), and why.

                Examples:
                  slipway pipeline show firefox-130.0b3-build1
                """
        )

        @OptionGroup var pipeline: PipelineOptions

        func run() async throws {
            try await PipelineCommand.session().show(pipeline.uid, pipeline.output, PipelineCommand.text)
        }
    }

    struct Watch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show how far a pipeline is until it has ended.",
            discussion: """
                On a terminal the picture is drawn over the last one; elsewhere each change is a new one. The exit status is 1 \
                if the pipeline does not succeed. A service that is away for up to five minutes is waited for.

                Examples:
                  slipway pipeline watch firefox-130.0b3-build1
                """
        )

        @OptionGroup var pipeline: PipelineOptions

        func run() async throws {
            let session = try PipelineCommand.session()
            let isTerminal = isatty(STDOUT_FILENO) == 1 && !pipeline.output.json
            var tag: String?
            var height = 0
            var shown = ""
            var lost: ContinuousClock.Instant?
            while true {
                let answer: (status: Int, json: JSONValue, tag: String?)
                do {
                    var news = try await session.call(
                        "GET",
                        [pipeline.uid, "status"],
                        query: tag == nil ? [] : [("wait", "5")],
                        headers: tag.map { ["If-None-Match": $0] } ?? [:],
                        timeout: .seconds(30)
                    )
                    // What services say of steps, such as who has signed, is no change of the pipeline.
                    if news.status != 200 { news = try await session.call("GET", [pipeline.uid, "status"]) }
                    answer = news
                } catch let failure as Failure where failure.isPassing && tag != nil {
                    // It has answered before, so it is more likely to be restarted than misspelled.
                    let since = lost ?? .now
                    lost = since
                    guard ContinuousClock.now - since < .seconds(300) else { throw failure }
                    try await Task.sleep(for: .seconds(1))
                    continue
                }
                lost = nil
                tag = answer.tag ?? tag
                let text = PipelineCommand.text(answer.json)
                guard text != shown else { continue }
                shown = text
                // Back to the first line of the last picture, and everything below it away.
                if isTerminal, height > 0 { Swift.print("\u{1B}[\(height)A\u{1B}[J", terminator: "") }
                height = text.count { $0 == "\n" } + 1
                pipeline.output.print(answer.json, text: text)
                fflush(nil)
                let status = answer.json["status"]?.string
                if status == "success" { return }
                if status != "in_progress" {
                    throw Failure("\(pipeline.uid) is \(answer.json["state"]?.string ?? "over")")
                }
            }
        }
    }

    struct Explain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say why each step of a pipeline waits.",
            discussion: "Examples:\n  slipway pipeline explain firefox-130.0b3-build1"
        )

        @OptionGroup var pipeline: PipelineOptions

        func run() async throws {
            let session = try PipelineCommand.session()
            let answer = try await session.call("GET", [pipeline.uid, "explain"])
            let rows = (answer.json["steps"]?.array ?? []).flatMap { step in
                (step["reasons"]?.array ?? []).map { reason in
                    [step["uid"]?.string ?? "", reason["kind"]?.string ?? "", reason["detail"]?.string ?? ""]
                }
            }
            guard rows.isEmpty else { return pipeline.output.print(answer.json, text: Columns.text(rows, nothing: "")) }
            let status = try await session.call("GET", [pipeline.uid, "status"]).json
            pipeline.output.print(answer.json, text: "nothing waits\n\(PipelineCommand.text(status))")
        }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a pipeline start nothing new.",
            discussion: "What goes on goes on.\n\nExamples:\n  slipway pipeline pause firefox-130.0b3-build1"
        )

        @OptionGroup var pipeline: PipelineOptions

        func run() async throws { try await pipeline.post(["pause"]) }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a paused pipeline go on.",
            discussion: "Examples:\n  slipway pipeline resume firefox-130.0b3-build1"
        )

        @OptionGroup var pipeline: PipelineOptions

        func run() async throws { try await pipeline.post(["resume"]) }
    }

    struct Start: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Call for a step that waits for somebody to do so.",
            discussion: "Examples:\n  slipway pipeline start firefox-130.0b3-build1 announce"
        )

        @OptionGroup var pipeline: PipelineOptions
        @Argument(help: "The step.")
        var step: String

        func run() async throws { try await pipeline.post(["steps", step, "start"]) }
    }

    struct Skip: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Leave a step out that has not been started; what requires it goes on without it.",
            discussion:
                "Examples:\n  slipway pipeline skip firefox-130.0b3-build1 repack --reason 'no partners this time'"
        )

        @OptionGroup var pipeline: PipelineOptions
        @Argument(help: "The step.")
        var step: String
        @Option(help: "Why; it goes into the audit.")
        var reason: String?

        func run() async throws {
            try await pipeline.post(["steps", step, "skip"], reason.map { ["reason": .string($0)] } ?? [:])
        }
    }

    struct Retry: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run failed steps again, with everything that waits for them.",
            discussion: """
                Each runs under another name at its service. With --paused nothing runs before slipway pipeline resume.

                Examples:
                  slipway pipeline retry firefox-130.0b3-build1
                  slipway pipeline retry firefox-130.0b3-build1 --step build
                  slipway pipeline retry firefox-130.0b3-build1 --paused
                """
        )

        @OptionGroup var pipeline: PipelineOptions
        @Option(help: "A step to run again, whether or not it failed; may be repeated.")
        var step: [String] = []
        @Flag(help: "Leave the pipeline paused, so that the parameters of a step can be changed before it runs.")
        var paused = false

        func run() async throws {
            var body: JSONValue = [:]
            if !step.isEmpty { body["steps"] = JSONValue(step) }
            if paused { body["pause"] = true }
            try await pipeline.post(["retry"], body)
        }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Cancel a pipeline, or one step of it.",
            discussion:
                "Examples:\n  slipway pipeline cancel p --reason 'wrong revision'\n  slipway pipeline cancel p --step b"
        )

        @OptionGroup var pipeline: PipelineOptions
        @Option(help: "The one step to cancel.")
        var step: String?
        @Option(help: "Why; it goes into the audit.")
        var reason: String?

        func run() async throws {
            let action = step.map { ["steps", $0, "cancel"] } ?? ["cancel"]
            try await pipeline.post(action, reason.map { ["reason": .string($0)] } ?? [:])
        }
    }

    struct Resolve: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say how a step has ended, whatever its service says.",
            discussion: """
                A step that has failed can be resolved as a success, too: its pipeline goes on.

                Examples:
                  slipway pipeline resolve firefox-130.0b3-build1 build success --reason 'built by hand'
                """
        )

        @OptionGroup var pipeline: PipelineOptions
        @Argument(help: "The step.")
        var step: String
        @Argument(help: "success or failure.")
        var status: String
        @Option(help: "Why; it goes into the audit.")
        var reason: String

        func run() async throws {
            let body: JSONValue = ["status": .string(status), "reason": .string(reason)]
            try await pipeline.post(["steps", step, "resolve"], body)
        }
    }
}
