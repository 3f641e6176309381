// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `ping`: asks the host for a few echoes; all must come back.
package struct PingAction: RollerAction {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "ping",
        title: "Ping",
        summary: "Sends a few ICMP echoes and reports how many came back.",
        isDestructive: false,
        isReadOnly: true,
        needsMachine: false
    )

    /// An action without settings of its own.
    package init() {}

    /// The one program.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        [try invocation(job, target.host()).arguments.joined(separator: " ")]
    }

    /// Runs `ping`.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let invocation = try invocation(context.job, context.target.host())
        return try await context.attempt("ping", nil, changes: false, arguments: invocation.arguments) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            let output = try await context.tools.run(invocation)
            if output.timedOut { throw ActionError(.unreachable, "no echo came back in time") }
            let report = PingOutput(output.text)
            if let failure = PingOutput.failure(code: output.code, text: output.text) {
                guard let report else { throw failure }
                throw ActionError(failure.kind, "\(report.received) of \(report.transmitted) echoes came back")
            }
            guard let report else { throw ActionError(.tooling, "ping printed no summary") }
            let summary = "\(report.received) of \(report.transmitted) echoes came back"
            guard report.lost == 0 else { throw ActionError(.unreachable, summary) }
            return (
                ActionResult(summary, report.json), AttemptEnd(.ok, exitCode: 0, summary: summary, output: output.text)
            )
        }
    }

    private func invocation(_ job: ActionJob, _ host: String) throws(ActionError) -> ToolInvocation {
        Pinger.invocation(
            host,
            count: try job.integer("count", in: 1...20) ?? 4,
            wait: try job.integer("wait", in: 1...60) ?? 5
        )
    }
}

extension ActionJob {
    /// A whole number among the parameters, given as such or as text.
    func integer(_ name: String, in range: ClosedRange<Int>) throws(ActionError) -> Int? {
        guard let value = params[name] else { return nil }
        guard let number = value.int ?? value.string.flatMap({ Int($0) }), range.contains(number) else {
            throw ActionError(.config, "the parameter \(name) must be from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }
}
