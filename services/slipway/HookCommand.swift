// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

/// Commands about hooks.
struct HookCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hook",
        abstract: "List, show, change, try out and trigger hooks.",
        discussion: """
            A hook is a task template with a name. It makes a task when its schedule says so, when a message on the bus
            matches its bindings, when somebody triggers it, or when the holder of its token calls its address.
            """,
        subcommands: [
            List.self, Show.self, Apply.self, Remove.self, Render.self, Trigger.self, Status.self, History.self,
            Token.self, DeadLetters.self,
            Replay.self, Unfired.self, Pause.self, Resume.self, Backfill.self, Ledger.self,
        ]
    )
}

/// The hook that a command is about.
struct HookOptions: ParsableArguments {
    @Argument(help: "The hook as GROUP/HOOK; the first slash ends the group.")
    var name: HookName
}

/// The name of a hook: its group up to the first slash, and the rest.
struct HookName: ExpressibleByArgument, CustomStringConvertible {
    let group: String
    let hook: String

    init?(argument: String) {
        let parts = argument.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
        group = String(parts[0])
        hook = String(parts[1])
    }

    var description: String { "\(group)/\(hook)" }
}
