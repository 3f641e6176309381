// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import TaskclusterClient

extension HookCommand {
    struct Render: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the task that a hook would make, without making it.",
            discussion: """
                With --file, the template and the trigger schema of a definition that need not be applied yet. The exit status
                is 1 if the payload is refused or the template is wrong; the message names the place.

                Examples:
                  slipway hook render project-releng/ship --payload '{"version": "120.0"}'
                  slipway hook render project-releng/nightly --fired-by schedule --now 2024-02-10T03:00:00Z
                  slipway hook render project-releng/ship --file ship.json --payload-file payload.json
                """
        )

        /// What may make a hook fire.
        enum FiredBy: String, CaseIterable, ExpressibleByArgument {
            case schedule
            case triggerHook
            case triggerHookWithToken
            case pulseMessage
        }

        @OptionGroup var hook: HookOptions

        @OptionGroup var payload: PayloadOptions

        @Option(help: "What would make the hook fire.")
        var firedBy = FiredBy.triggerHook

        @Option(help: "Where the message would come from, with --fired-by pulseMessage.")
        var exchange: String?

        @Option(help: "The routing key of the message, with --fired-by pulseMessage.")
        var routingKey: String?

        @Option(help: "The instant of the fire, an RFC 3339 date-time; the present when left out.")
        var now: String?

        @Option(help: "A definition to try instead of the stored one, - for standard input.")
        var file: String?

        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard firedBy == .pulseMessage || (exchange == nil && routingKey == nil) else {
                throw ValidationError("--exchange and --routing-key go with --fired-by pulseMessage.")
            }
            guard file != "-" || payload.payloadFile != "-" else {
                throw ValidationError("Only one of --file and --payload-file can be standard input.")
            }
        }

        func run() async throws {
            let answer = try await Session().client.call(
                "hooks",
                "POST",
                ["hooks", hook.name.group, hook.name.hook, "render"],
                body: try request()
            )
            if output.json { print(answer.text(.pretty)) }
            switch answer["result"]?.string {
            case "task":
                if !output.json { print((answer["task"] ?? .null).text(.pretty)) }
            case "declined":
                let reason = answer["reason"]?.string.map { ": \($0)" } ?? ""
                if !output.json { print("the hook declines to create a task\(reason)") }
            case "rejected":
                let problems = answer["problems"]?.array?.map { problem in
                    "payload\(problem["path"]?.string ?? "") \(problem["message"]?.string ?? "")"
                }
                throw Failure("the payload is refused: \(problems?.joined(separator: "; ") ?? "")")
            default:
                throw Failure(answer["error"]?["message"]?.string ?? "the answer makes no sense: \(answer.text())")
            }
        }

        private func request() throws -> JSONValue {
            var request: JSONValue = ["firedBy": .string(firedBy.rawValue)]
            if let payload = try payload.read() { request["payload"] = payload }
            if let exchange { request["exchange"] = .string(exchange) }
            if let routingKey { request["routingKey"] = .string(routingKey) }
            if let now { request["now"] = .string(now) }
            guard let file else { return request }
            let definition = try Bytes.json(file)
            guard let task = definition["task"] else {
                throw Failure(usage: "\(file) holds no hook definition: it has no member task")
            }
            request["task"] = task
            request["templateLanguage"] = definition["templateLanguage"] ?? "json-e"
            request["triggerSchema"] = definition["triggerSchema"] ?? ["type": "object", "additionalProperties": false]
            return request
        }
    }
}
