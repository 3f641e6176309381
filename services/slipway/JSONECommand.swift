// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import JSONE
import Schedules

/// `slipway jsone`: try templates without a hook.
struct JSONECommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "jsone",
        abstract: "Work with JSON-e templates.",
        subcommands: [Render.self, Batch.self]
    )

    struct Render: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Render a template with a context, as the hooks service does.",
            discussion: """
                Example:
                  slipway jsone render --template task.json --context context.json --now 2024-02-10T12:00:00Z
                """
        )

        @Option(help: "The file with the template, - for standard input.")
        var template: String

        @Option(help: "The file with the context, a JSON object; - for standard input.")
        var context: String?

        @Option(help: "The instant that counts as now, an RFC 3339 date-time.")
        var now: String?

        @Flag(help: "Print the result without line breaks, and failures as JSON too.")
        var json = false

        func run() async throws {
            guard template != "-" || context != "-" else {
                throw Failure(usage: "only one of --template and --context can be standard input")
            }
            let template = try Bytes.json(template)
            let variables = try context.map { try Bytes.json($0) } ?? [:]
            guard case .object(let variables) = variables else { throw Failure(usage: "the context must be an object") }
            guard let instant = now.map({ Timestamp($0) }) ?? Timestamp.now() else {
                throw Failure(usage: "--now must be a date-time such as 2024-02-10T12:00:00Z")
            }
            do throws(JSONEError) {
                let result = try JSONE.render(template, context: variables, now: instant)
                print(result.text(json ? .compact : .pretty))
            } catch {
                if json { print(JSONValue.object(["error": .string(error.description)]).text()) }
                throw Failure(error.description)
            }
        }
    }

    struct Batch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Render many templates in one go, a line of JSON each.",
            discussion: """
                Each line of standard input is an object with a template and, as needed, a context and now. Each line of \
                standard output answers it: an object with a result or an error. Example:
                  echo '{"template": {"$eval": "a + 1"}, "context": {"a": 1}}' | slipway jsone batch
                """
        )

        func run() async throws {
            try Lines.answer { line in
                guard let template = line["template"] else { throw Failure(usage: "no template") }
                guard case .object(let context) = line["context"] ?? [:] else {
                    throw Failure(usage: "the context must be an object")
                }
                guard let now = line["now"].map({ Timestamp($0.string ?? "") }) ?? Timestamp.now() else {
                    throw Failure(usage: "now must be a date-time such as 2024-02-10T12:00:00Z")
                }
                do throws(JSONEError) {
                    return ["result": try JSONE.render(template, context: context, now: now)]
                } catch {
                    return ["error": .string(error.description)]
                }
            }
        }
    }
}
