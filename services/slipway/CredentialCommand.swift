// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import Schedules

/// Commands about the secrets that controllers want.
struct CredentialCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "credential",
        abstract: "Store the secrets of controllers, and see which are old, missing or shared.",
        discussion: "What is in them is never shown. The service is named by ROLLER_URL.",
        subcommands: [Set.self, List.self, Remove.self, RotateCheck.self]
    )

    struct Set: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Store a credential from standard input.",
            discussion: """
                Standard input is a JSON object: username and password, community, snmpV3, token or privateKeyFile.

                Example:
                  slipway credential set bmc-rack1 <bmc.json
                """
        )

        @Argument(help: "Its name, to which controllers refer.")
        var name: String

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let members = try Bytes.json("-")
            guard members.object != nil else { throw Failure(usage: "standard input is no JSON object") }
            let answer = try await RollerSession().call("PUT", ["credentials", name], body: members)
            let names = answer["members"]?.array?.compactMap(\.string).joined(separator: ", ") ?? ""
            output.print(answer, text: "\(name) is stored with \(names)")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List credentials and who needs them.",
            discussion: "Example:\n  slipway credential list"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await RollerSession().call("GET", ["credentials"])
            let rows = (answer["credentials"]?.array ?? []).map { one in
                [
                    one["name"]?.string ?? "?", one["modified_at"]?.string ?? "-", words(one["members"]),
                    words(one["controllers"]), one["problem"]?.string ?? "",
                ]
            }
            let missing = (answer["missing"]?.array ?? []).map { one in
                [one["name"]?.string ?? "?", "-", "-", words(one["controllers"]), "is not there"]
            }
            output.print(answer, text: Columns.text(rows + missing, nothing: "no credentials"))
        }

        private func words(_ value: JSONValue?) -> String {
            let words = value?.array?.compactMap(\.string).joined(separator: ",") ?? ""
            return words.isEmpty ? "-" : words
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove credentials that no controller needs any more.",
            discussion: "Example:\n  slipway credential remove bmc-rack1"
        )

        @Argument(help: "Their names.")
        var names: [String]

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let session = try RollerSession()
            for name in names {
                _ = try await session.call("DELETE", ["credentials", name])
                if !output.json { print("\(name) is removed") }
            }
            if output.json { output.print(["removed": JSONValue(names)], text: "") }
        }
    }

    struct RotateCheck: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "rotate-check",
            abstract: "Name credentials that should be replaced: old, shared, unusable, missing or needed by nobody.",
            discussion: "Exit status 1 if there are any.\n\nExample:\n  slipway credential rotate-check --days 180"
        )

        @Option(help: "After how many days a credential is old.")
        var days = 365

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await RollerSession().call("GET", ["credentials"])
            var findings: [(name: String, finding: String)] = []
            let now = Timestamp.now()
            for one in answer["credentials"]?.array ?? [] {
                let name = one["name"]?.string ?? "?"
                if let problem = one["problem"]?.string { findings.append((name, problem)) }
                if let modified = one["modified_at"]?.string.flatMap({ Timestamp($0) }) {
                    let age = Int((now - modified).components.seconds / 86_400)
                    if age >= days { findings.append((name, "is \(age) days old")) }
                }
                let twins = one["shared_with"]?.array?.compactMap(\.string) ?? []
                if !twins.isEmpty { findings.append((name, "has a secret of \(twins.joined(separator: ", "))")) }
                if one["controllers"]?.array?.isEmpty == true { findings.append((name, "is needed by no controller")) }
            }
            for one in answer["missing"]?.array ?? [] {
                let needed = one["controllers"]?.array?.compactMap(\.string).joined(separator: ", ") ?? ""
                findings.append((one["name"]?.string ?? "?", "is not there; needed by \(needed)"))
            }
            let list = findings.map { ["name": .string($0.name), "finding": .string($0.finding)] as JSONValue }
            let lines = findings.map { "\($0.name): \($0.finding)" }
            output.print(.array(list), text: lines.isEmpty ? "nothing to replace" : lines.joined(separator: "\n"))
            if !findings.isEmpty { throw ExitCode(1) }
        }
    }
}
