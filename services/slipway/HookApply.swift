// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

extension HookCommand {
    struct Apply: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create or update hooks so that they are what a file says.",
            discussion: """
                The file holds one hook definition, or an array of them, each with hookGroupId and hookId. Applying the same file
                again changes nothing.

                Examples:
                  slipway hook apply nightly.json
                  slipway hook apply --dry-run all-hooks.json
                  slipway hook show g/h --json | slipway hook apply -
                """
        )

        @Argument(help: "A JSON file, - for standard input.", completion: .file(extensions: ["json"]))
        var file: String

        @Flag(help: "Only tell what would be done.")
        var dryRun = false

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let json = try Bytes.json(file)
            let definitions = json.array ?? [json]
            let names = try definitions.map(name)
            let hooks = try Session().client.hooks
            var results: [JSONValue] = []
            for (definition, name) in zip(definitions, names) {
                let outcome = try await apply(definition, name, hooks)
                results.append([
                    "hookGroupId": .string(name.group), "hookId": .string(name.hook), "result": .string(outcome),
                ])
                if !output.json { print("\(outcome)  \(name)") }
            }
            if output.json { print(JSONValue.array(results).text(.pretty)) }
        }

        private func name(of definition: JSONValue) throws -> HookName {
            guard let group = definition["hookGroupId"]?.string, let hook = definition["hookId"]?.string,
                let name = HookName(argument: "\(group)/\(hook)")
            else { throw Failure(usage: "\(file): every hook needs the members hookGroupId and hookId") }
            return name
        }

        private func apply(_ definition: JSONValue, _ name: HookName, _ hooks: HooksAPI) async throws -> String {
            let current: JSONValue
            do throws(TaskclusterError) {
                current = try await hooks.hook(name.group, name.hook)
            } catch {
                guard error.status == 404 else { throw error }
                if !dryRun { _ = try await hooks.createHook(name.group, name.hook, definition) }
                return "created"
            }
            let desired = Self.completed(definition)
            guard desired != Self.completed(current) else { return "unchanged" }
            guard !dryRun else { return "updated" }
            // A schedule of the older form is known to be the same only after the service has translated it.
            return try await hooks.updateHook(name.group, name.hook, desired) == current ? "unchanged" : "updated"
        }

        /// The definition with what the service fills in; omitted bindings mean none, so that the file is the whole truth.
        static func completed(_ definition: JSONValue) -> JSONValue {
            var result = definition
            if result["bindings"] == nil { result["bindings"] = [] }
            if result["schedule"] == nil { result["schedule"] = [] }
            if result["triggerSchema"] == nil {
                result["triggerSchema"] = ["type": "object", "additionalProperties": false]
            }
            if result["metadata"]?["emailOnError"] == nil, result["metadata"]?.object != nil {
                result["metadata"]?["emailOnError"] = true
            }
            return result
        }
    }
}
