// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

extension MachineCommand {
    struct Window: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List maintenance windows, open one, or take one away.",
            discussion: """
                While a window is open nothing destructive is done to its machine, its group, or to anything if it names \
                neither.

                Examples:
                  slipway machine window
                  slipway machine window --group rack1 --until 2030-01-01T00:00:00Z --reason 'new power supply'
                  slipway machine window --remove 3
                """
        )

        @Option(help: "For one machine.")
        var machine: String?

        @Option(help: "For the machines of a group.")
        var group: String?

        @Option(name: .customLong("from"), help: "When it begins, as in RFC 3339; now if not given.")
        var start: String?

        @Option(help: "When it ends, as in RFC 3339.")
        var until: String?

        @Option(help: "Why.")
        var reason: String?

        @Option(help: "The number of a window to take away.")
        var remove: Int?

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let session = try RollerSession()
            if let remove {
                _ = try await session.call("DELETE", ["windows", String(remove)])
                output.print(["removed": JSONValue(remove)], text: "window \(remove) is gone")
                return
            }
            guard until != nil || reason != nil else {
                let answer = try await session.call("GET", ["windows"])
                let rows = (answer["windows"]?.array ?? []).map(Self.row)
                output.print(answer, text: Columns.text(rows, nothing: "no windows"))
                return
            }
            guard let until, let reason else { throw Failure(usage: "a window needs --until and --reason") }
            var body: JSONValue = ["ends": .string(until), "reason": .string(reason)]
            if let machine { body["machine"] = .string(machine) }
            if let group { body["group"] = .string(group) }
            if let start { body["starts"] = .string(start) }
            let window = try await session.call("POST", ["windows"], body: body)
            output.print(window, text: Columns.text([Self.row(window)], nothing: ""))
        }

        private static func row(_ window: JSONValue) -> [String] {
            let place = window["machine"]?.string ?? window["group"]?.string.map { "group \($0)" } ?? "everything"
            return [
                String(window["id"]?.int ?? 0), place, window["starts"]?.string ?? "?", window["ends"]?.string ?? "?",
                window["reason"]?.string ?? "",
            ]
        }
    }

    struct Audit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List who changed what, newest first.",
            discussion: "Examples:\n  slipway machine audit\n  slipway machine audit t-linux64-ms-001 --json"
        )

        @Argument(help: "A machine; without it everything.")
        var name: String?

        @Option(help: "How many.")
        var limit = 20

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let session = try RollerSession()
            var query: [(String, String)] = []
            if let name { query.append(("object", "machine:\(name)")) }
            let entries = try await session.all(["audit"], list: "entries", query: query, limit: limit)
            let rows = entries.map { entry in
                ["at", "client_id", "source_ip", "verb", "object"].map { entry[$0]?.string ?? "-" }
            }
            output.print(.array(entries), text: Columns.text(rows, nothing: "nothing yet"))
        }
    }
}
