// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

/// A kind of thing that machines belong to or hang on, with a name of its own.
protocol InventoryKind {
    /// Its list in the API.
    static var list: String { get }
    /// One of it, in a sentence.
    static var word: String { get }
    /// An example of what may be said of one.
    static var example: String { get }
    /// What a line of its table shows.
    static func row(_ thing: JSONValue) -> [String]
}

/// Groups of machines.
enum GroupKind: InventoryKind {
    static let list = "groups"
    static let word = "group"
    static let example = "rack1 priority=10 properties.verify=power"

    static func row(_ thing: JSONValue) -> [String] {
        [
            thing["name"]?.string ?? "?", "priority \(thing["priority"]?.int ?? 0)",
            thing["properties"]?.text() ?? "{}",
        ]
    }
}

/// Controllers.
enum ControllerKind: InventoryKind {
    static let list = "controllers"
    static let word = "controller"
    static let example = "bmc-rack1 kind=ipmi address=10.0.0.9 credential_ref=bmc-rack1"

    static func row(_ thing: JSONValue) -> [String] {
        let port = thing["port"]?.int.map { ":\($0)" } ?? ""
        return [
            thing["name"]?.string ?? "?", thing["kind"]?.string ?? "?", (thing["address"]?.string ?? "-") + port,
            thing["credential_ref"]?.string ?? "-",
        ]
    }
}

extension MachineCommand {
    typealias GroupThings = Things<GroupKind>
    typealias ControllerThings = Things<ControllerKind>

    /// Commands about one kind of thing.
    struct Things<Kind: InventoryKind>: ParsableCommand {
        static var configuration: CommandConfiguration {
            CommandConfiguration(
                commandName: Kind.word,
                abstract: "List, show, set and remove \(Kind.list).",
                subcommands: [List.self, Show.self, Set.self, Remove.self]
            )
        }

        struct List: AsyncParsableCommand {
            static var configuration: CommandConfiguration { CommandConfiguration(abstract: "List \(Kind.list).") }

            @OptionGroup var output: OutputOptions

            func run() async throws {
                let things = try await RollerSession().call("GET", [Kind.list])[Kind.list]?.array ?? []
                output.print(.array(things), text: Columns.text(things.map(Kind.row), nothing: "no \(Kind.list)"))
            }
        }

        struct Show: AsyncParsableCommand {
            static var configuration: CommandConfiguration { CommandConfiguration(abstract: "Show a \(Kind.word).") }

            @Argument(help: "Its name.")
            var name: String

            @OptionGroup var output: OutputOptions

            func run() async throws {
                let thing = try await RollerSession().call("GET", [Kind.list, name])
                output.print(thing, text: thing.text(.pretty))
            }
        }

        struct Set: AsyncParsableCommand {
            static var configuration: CommandConfiguration {
                CommandConfiguration(
                    abstract: "Change a \(Kind.word), or add one.",
                    discussion: "Example:\n  slipway machine \(Kind.word) set \(Kind.example)"
                )
            }

            @Argument(help: "Its name.")
            var name: String

            @OptionGroup var wishes: AssignmentOptions
            @OptionGroup var output: OutputOptions

            func run() async throws {
                let members = try Assignments.members(wishes.assignments)
                let session = try RollerSession()
                let changed = try await session.send("PATCH", [Kind.list, name], body: members.bytes())
                let thing: JSONValue
                if changed.status == 404 {
                    thing = try await session.call("PUT", [Kind.list, name], body: members)
                } else if changed.isGood {
                    thing = changed.json
                } else {
                    throw RollerSession.failure(changed)
                }
                output.print(thing, text: Columns.text([Kind.row(thing)], nothing: ""))
            }
        }

        struct Remove: AsyncParsableCommand {
            static var configuration: CommandConfiguration {
                CommandConfiguration(commandName: "remove", abstract: "Forget a \(Kind.word).", aliases: ["rm"])
            }

            @Argument(help: "Its name.")
            var name: String

            @OptionGroup var output: OutputOptions

            func run() async throws {
                _ = try await RollerSession().call("DELETE", [Kind.list, name])
                output.print(["removed": .string(name)], text: "\(name) is forgotten")
            }
        }
    }
}
