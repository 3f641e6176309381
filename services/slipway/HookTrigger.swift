// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import Taskcluster
import TaskclusterClient

/// What a hook is told when it fires.
struct PayloadOptions: ParsableArguments {
    @Option(help: "What the hook gets to know, as JSON.")
    var payload: String?

    @Option(help: "A file with the payload, - for standard input.")
    var payloadFile: String?

    func validate() throws {
        guard payload == nil || payloadFile == nil else {
            throw ValidationError("Give --payload or --payload-file, not both.")
        }
    }

    /// The payload; nil if none was given.
    func read() throws -> JSONValue? {
        if let payloadFile { return try Bytes.json(payloadFile) }
        guard let payload else { return nil }
        do {
            return try JSONValue(parsing: payload)
        } catch {
            throw Failure(usage: "--payload is not JSON: \(error)")
        }
    }
}

extension HookCommand {
    struct Trigger: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Fire a hook and print the id of its task.",
            discussion: """
                With --task-id the same command may be repeated: the hook fires once. Its trigger schema must admit the
                member taskId.

                Examples:
                  slipway hook trigger project-releng/nightly
                  slipway hook trigger project-releng/ship --payload '{"version": "120.0"}'
                  slipway hook trigger project-releng/ship --payload-file payload.json --json
                """
        )

        @OptionGroup var hook: HookOptions

        @OptionGroup var payload: PayloadOptions

        @Option(help: "The id that the task is to get; it becomes a member of the payload.")
        var taskID: String?

        @OptionGroup var output: OutputOptions

        func validate() throws {
            if let taskID, !Slugid.isValid(taskID) { throw ValidationError("'\(taskID)' is not a task id.") }
        }

        func run() async throws {
            var payload = try payload.read() ?? [:]
            guard payload.object != nil else { throw Failure(usage: "the payload must be a JSON object") }
            if let taskID { payload["taskId"] = .string(taskID) }
            let answer = try await Session().client.hooks.triggerHook(
                hook.name.group,
                hook.name.hook,
                payload: payload
            )
            guard let taskID = answer["status"]?["taskId"]?.string ?? answer["taskId"]?.string else {
                return output.print(answer, text: "the hook declined to create a task")
            }
            output.print(answer, text: taskID)
        }
    }
}
