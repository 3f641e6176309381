// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

extension HookCommand {
    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove hooks, with their tokens and histories.",
            discussion: """
                A hook that is not there counts as removed. Tasks that it made are not touched.

                Examples:
                  slipway hook remove project-releng/nightly
                  slipway hook remove project-releng/nightly project-releng/ship
                """
        )

        @Argument(help: "The hooks as GROUP/HOOK.")
        var names: [HookName]

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let hooks = try Session().client.hooks
            for name in names {
                try await hooks.removeHook(name.group, name.hook)
                if !output.json { print("removed  \(name)") }
            }
            guard output.json else { return }
            let removed = names.map { name -> JSONValue in
                ["hookGroupId": .string(name.group), "hookId": .string(name.hook), "result": "removed"]
            }
            print(JSONValue.array(removed).text(.pretty))
        }
    }

    struct Token: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the secret with which a hook can be triggered without credentials.",
            discussion: """
                Whoever knows it can fire the hook by a POST to …/hooks/GROUP/HOOK/trigger/TOKEN. --reset makes a new one, and
                the old one stops working at once.

                Examples:
                  slipway hook token project-releng/ship
                  slipway hook token project-releng/ship --reset
                """
        )

        @OptionGroup var hook: HookOptions

        @Flag(help: "Replace the token by a new one first.")
        var reset = false

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let hooks = try Session().client.hooks
            let (group, name) = (hook.name.group, hook.name.hook)
            let answer =
                reset ? try await hooks.resetTriggerToken(group, name) : try await hooks.triggerToken(group, name)
            output.print(answer, text: answer["token"]?.string ?? "")
        }
    }
}
