// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

extension PipelineCommand {
    struct Graph: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Draw the steps of a pipeline with their states.",
            discussion: """
                Examples:
                  slipway pipeline graph firefox-130.0b3-build1 > release.svg
                  slipway pipeline graph firefox-130.0b3-build1 --format dot | dot -Tpng > release.png
                """
        )

        @Argument(help: "The name of the pipeline.")
        var uid: String
        @Option(help: "svg, dot or json.")
        var format = "svg"

        func run() async throws {
            guard ["svg", "dot", "json"].contains(format) else { throw Failure(usage: "--format is svg, dot or json") }
            let session = try PipelineCommand.session()
            try Bytes.write(await session.bytes([uid, "graph"], query: [("format", format)]))
        }
    }

    /// Commands about the names that one step at a time holds.
    struct Lock: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "See which steps hold and want which locks, and take one away.",
            subcommands: [List.self, Break.self]
        )

        struct List: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "List who holds a lock and who waits for one, in the order of their turns.",
                discussion: "Examples:\n  slipway pipeline lock list"
            )

            @OptionGroup var output: OutputOptions

            func run() async throws {
                let answer = try await PipelineCommand.session().call("GET", ["locks"]).json
                let rows = Self.rows(answer["held"], "held by") + Self.rows(answer["wanted"], "wanted by")
                output.print(answer, text: Columns.text(rows, nothing: "nothing is locked"))
            }

            private static func rows(_ locks: JSONValue?, _ words: String) -> [[String]] {
                (locks?.array ?? []).map { lock in
                    let since = lock["since"]?.string ?? ""
                    let names = ["name", "pipeline", "step"].map { lock[$0]?.string ?? "" }
                    return [names[0], words, names[1], names[2], "since \(since)"]
                }
            }
        }

        struct Break: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Take a lock from the step that holds it; the next one in line gets it.",
                discussion: """
                    The step itself goes on: cancel it first if the two must not meet.

                    Examples:
                      slipway pipeline lock break balrog --reason 'its task hangs'
                    """
            )

            @Argument(help: "The name of the lock.")
            var name: String
            @Option(help: "Why; it goes into the audit.")
            var reason: String
            @OptionGroup var output: OutputOptions

            func run() async throws {
                let lock = try await PipelineCommand.session().call(
                    "DELETE",
                    ["locks", name],
                    body: ["reason": .string(reason)]
                ).json
                let holder = "\(lock["step"]?.string ?? "") of \(lock["pipeline"]?.string ?? "")"
                output.print(lock, text: "\(name) was held by \(holder)")
            }
        }
    }
}

extension FreezeCommand {
    struct Override: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Start a step in spite of a freeze.",
            discussion: """
                Examples:
                  slipway pipeline freeze override firefox-130.0b3-build1 publish --reason 'fixes a zero-day'
                """
        )

        @OptionGroup var pipeline: PipelineOptions
        @Argument(help: "The step.")
        var step: String
        @Option(help: "Why; it goes into the audit.")
        var reason: String

        func run() async throws {
            try await pipeline.post(["steps", step, "override-freeze"], ["reason": .string(reason)])
        }
    }
}
