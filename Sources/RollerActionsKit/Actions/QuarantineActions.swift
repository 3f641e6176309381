// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit
import Schedules

/// `quarantine`, `unquarantine`: keeps the Taskcluster workers of a machine from taking tasks, or lets them again.
package struct QuarantineAction: RollerAction {
    /// The name in requests and the text of the button.
    package let description: ActionDescription
    private let closes: Bool

    private init(_ name: String, closes: Bool, _ title: String, _ summary: String, _ parameters: JSONObject) {
        self.closes = closes
        description = ActionDescription(
            name,
            title: title,
            summary: summary,
            isDestructive: false,
            parameters: ["type": "object", "properties": .object(parameters)]
        )
    }

    /// Both of them.
    package static let all = [
        QuarantineAction(
            "quarantine",
            closes: true,
            "Quarantine",
            "Keeps the workers of the machine from taking tasks, for ever where no end is given.",
            ["reason": ["type": "string", "maxLength": 1000], "until": ["type": "string", "format": "date-time"]]
        ),
        QuarantineAction(
            "unquarantine",
            closes: false,
            "End the quarantine",
            "Lets the workers of the machine take tasks again, whoever had kept them from it.",
            [:]
        ),
    ]

    /// The one call.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        guard closes else { return ["end the quarantine of the workers of \(target.name)"] }
        return ["quarantine the workers of \(target.name) until \(try Self.until(job).iso8601)"]
    }

    /// Calls the queue.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let gate = try context.gate()
        let job = context.job
        let until = try Self.until(job)
        let reason = job.params["reason"]?.string.map { ": \($0)" } ?? ""
        return try await context.attempt(
            description.name,
            nil,
            changes: true,
            arguments: gate.workers.map(\.description)
        ) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            let change =
                closes
                ? try await gate.close(until: until, because: "roller: \(job.clientID)\(reason), job \(job.id)")
                : try await gate.open()
            guard !change.done.isEmpty else {
                throw ActionError(.unsupported, change.skipped.joined(separator: "; "))
            }
            var details = change.json
            if closes { details["until"] = JSONValue(until.iso8601) }
            let summary = "\(description.name) of \(change.done.joined(separator: ", "))"
            return (ActionResult(summary, details), AttemptEnd(.ok, summary: summary))
        }
    }

    /// The end that the request names, or one that nobody lives to see.
    static func until(_ job: ActionJob) throws(ActionError) -> Timestamp {
        guard let text = job.params["until"]?.string else { return .farFuture }
        guard let until = Timestamp(text) else {
            throw ActionError(.config, "the parameter until is no moment in RFC 3339")
        }
        return until
    }
}

extension ActionContext {
    /// The workers on the machine; on the command line there is no queue to speak to.
    func gate() throws(ActionError) -> WorkerGate {
        guard let workers else { throw ActionError(.config, "this runs as a job only: it needs a Taskcluster queue") }
        return workers
    }
}
