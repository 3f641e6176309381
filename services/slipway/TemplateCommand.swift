// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

/// Commands about the templates of pipelines.
struct TemplateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "template",
        abstract: "Keep the templates that pipelines are made from.",
        subcommands: [List.self, Show.self, Save.self, Remove.self]
    )

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List templates.",
            discussion: "Examples:\n  slipway pipeline template list"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await PipelineCommand.session().call("GET", ["templates"])
            let rows = (answer.json["templates"]?.array ?? []).map { template in
                ["name", "version", "updated", "created_by"].map { template[$0]?.string ?? "" }
            }
            output.print(answer.json, text: Columns.text(rows, nothing: "no templates"))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print a template.",
            discussion: "Examples:\n  slipway pipeline template show beta > beta.json"
        )

        @Argument(help: "The name of the template.")
        var name: String

        func run() async throws {
            print(try await PipelineCommand.session().call("GET", ["templates", name]).json.text(.pretty))
        }
    }

    struct Save: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Store a template; another content needs another version.",
            discussion: "Examples:\n  slipway pipeline template save beta beta.json"
        )

        @Argument(help: "The name of the template.")
        var name: String
        @Argument(help: "A file with version, schema and definition; - for standard input.")
        var file: String

        func run() async throws {
            _ = try await PipelineCommand.session().call("PUT", ["templates", name], body: Bytes.json(file))
            print(name)
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Forget a template; what was made from it stays as it is.",
            discussion: "Examples:\n  slipway pipeline template remove beta"
        )

        @Argument(help: "The name of the template.")
        var name: String

        func run() async throws {
            _ = try await PipelineCommand.session().call("DELETE", ["templates", name])
        }
    }
}

/// Commands about times during which nothing starts.
struct FreezeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "freeze",
        abstract: "Keep the times during which no step starts.",
        subcommands: [List.self, Save.self, Override.self, Remove.self]
    )

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List freezes.",
            discussion: "Examples:\n  slipway pipeline freeze list"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await PipelineCommand.session().call("GET", ["freezes"])
            let rows = (answer.json["freezes"]?.array ?? []).map { freeze in
                [
                    freeze["uid"]?.string ?? "", freeze["start"]?.string ?? freeze["cron_start"]?.string ?? "",
                    freeze["end"]?.string ?? freeze["cron_end"]?.string ?? "", freeze["tz"]?.string ?? "",
                    freeze["reason"]?.string ?? "",
                ]
            }
            output.print(answer.json, text: Columns.text(rows, nothing: "no freezes"))
        }
    }

    struct Save: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let nothing start for a while, or again and again.",
            discussion: """
                A file says when, what and why, such as
                  {"start": "2026-12-24T00:00:00Z", "end": "2026-12-27T00:00:00Z", "reason": "nobody is here",
                   "match": {"labels": {"product": "firefox"}, "step_uid_glob": "publish*"}}

                Examples:
                  slipway pipeline freeze save weekend weekend.json
                """
        )

        @Argument(help: "The name of the freeze.")
        var name: String
        @Argument(
            help: "A file with reason, start and end or cron_start and cron_end, and match; - for standard input."
        )
        var file: String

        func run() async throws {
            _ = try await PipelineCommand.session().call("PUT", ["freezes", name], body: Bytes.json(file))
            print(name)
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "End a freeze.",
            discussion: "Examples:\n  slipway pipeline freeze remove weekend"
        )

        @Argument(help: "The name of the freeze.")
        var name: String

        func run() async throws {
            _ = try await PipelineCommand.session().call("DELETE", ["freezes", name])
        }
    }
}
