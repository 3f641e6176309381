// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `reboot`: the gentlest method that works, seen to have worked.
package struct RebootAction: RollerAction {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "reboot",
        title: "Reboot",
        summary: """
            Reboots the machine by the gentlest means that works, from SSH to the power outlet, and looks whether it \
            really went down and came back. When nothing helps, a bug asks people to look after it.
            """,
        isDestructive: true,
        parameters: [
            "type": "object",
            "properties": ["mode": ["type": "string", "enum": ["escalate", "soft", "hard"]]],
        ]
    )

    /// An action without settings of its own.
    package init() {}

    /// The methods in order, and those that are left out.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let registry = ActionRegistry.standard
        let limits = RebootLimits(target, settings)
        let plan = try RebootPlan(
            target,
            mode: RebootPlan.mode(job),
            settings: settings,
            registry: registry,
            downTimeout: limits.down,
            upTimeout: limits.up
        )
        var lines: [String] = []
        for entry in plan.entries {
            if let reason = entry.skipped {
                lines.append("\(entry.step.method): skipped, \(reason)")
                continue
            }
            var job = job
            if let delay = entry.step.delay { job.params["delay"] = JSONValue(Int(delay / .seconds(1))) }
            let steps = try entry.method?.plan(job, target, settings) ?? []
            lines += steps.map { "\(entry.step.method): \($0)" }
        }
        return lines
    }

    /// Tries one method after the other.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let limits = RebootLimits(context.target, context.settings)
        let plan = try RebootPlan(
            context.target,
            mode: RebootPlan.mode(context.job),
            settings: context.settings,
            registry: context.registry,
            downTimeout: limits.down,
            upTimeout: limits.up
        )
        let verifier = RebootVerifier(context: context, limits: limits)
        var tried: [String] = []
        for entry in plan.entries {
            try await context.conduct.checkpoint()
            let name = entry.step.method
            guard let method = entry.method, entry.skipped == nil else {
                try await skip(name, entry.skipped ?? "", context)
                continue
            }
            if let bugs = method as? FileBugzillaBug { try await giveUp(bugs, tried, context) }
            let mark = try await verifier.mark()
            if let reason = await Self.isPointless(entry.step, mark, context) {
                try await skip(name, reason, context)
                continue
            }
            let monitor = verifier.listen()
            var heard: [Bool] = []
            do throws(ActionError) {
                try await fire(method, entry.step, context)
                heard = monitor?.stop() ?? []
            } catch {
                heard = monitor?.stop() ?? []
                if error.endsJob { throw error }
                if error.outcome != .unverified {
                    if error.outcome == .skipped { try await skip(name, error.message, context) }
                    tried.append("\(name): \(error.kind.name)")
                    continue
                }
            }
            do throws(ActionError) {
                let how = try await verifier.verify(mark, method: name, heard: heard)
                await context.conduct.fulfilPower(context.target)
                return success(name, how, mark, tried)
            } catch {
                if error.endsJob { throw error }
                tried.append("\(name): \(error.message)")
                // Without any evidence a harder method might hit a machine that is booting.
                if error.kind == .unverified { throw failure(tried, bug: nil, problem: nil) }
            }
        }
        throw failure(tried, bug: nil, problem: nil)
    }

    private func fire(_ method: any RebootMethod, _ step: RebootStep, _ context: ActionContext)
        async throws(ActionError)
    {
        var job = context.job
        if let delay = step.delay { job.params["delay"] = JSONValue(Int(delay / .seconds(1))) }
        _ = try await method.run(context.with(job))
    }

    /// Methods that only switch on cannot reboot a machine that runs, and one that does not answer cannot be asked.
    private static func isPointless(
        _ step: RebootStep,
        _ mark: RebootWatch.Mark,
        _ context: ActionContext
    ) async -> String? {
        if ["ipmi_on", "redfish_on", "wol"].contains(step.method), mark.wasReachable {
            return "the machine answers, so it has power"
        }
        guard step.onlyIfReachable, !mark.wasReachable, let host = try? context.target.host() else { return nil }
        let port = context.target.controls(.ssh).first?.port ?? 22
        return await TCPPort.isOpen(host, port, within: .seconds(3)) ? nil : "the machine answers neither ping nor SSH"
    }

    private func skip(_ method: String, _ reason: String, _ context: ActionContext) async throws(ActionError) {
        let number = try await context.conduct.begin(method, control: nil, arguments: [])
        await context.conduct.end(number, AttemptEnd(.skipped, summary: reason))
    }

    private func success(
        _ method: String,
        _ how: RebootVerifier.Finding,
        _ mark: RebootWatch.Mark,
        _ tried: [String]
    ) -> ActionResult {
        var details: JSONObject = [
            "method": JSONValue(method), "verification": JSONValue(how.evidence),
            "already_down": JSONValue(!mark.wasReachable), "failed": JSONValue(tried),
        ]
        if let seconds = how.seconds { details["seconds"] = JSONValue(seconds) }
        let verb = mark.wasReachable ? "rebooted" : "came up"
        let proof = how.isVerified ? "verified by \(how.evidence)" : "unverified, as the machine's inventory wants it"
        return ActionResult("\(method): the machine \(verb), \(proof)", details, isVerified: how.isVerified)
    }

    private func giveUp(_ bugs: FileBugzillaBug, _ tried: [String], _ context: ActionContext) async throws(ActionError)
    {
        do throws(ActionError) {
            let result = try await bugs.file(context, log: tried.joined(separator: "; "))
            throw failure(tried, bug: result.details["bug_url"]?.string, problem: nil)
        } catch {
            if error.bugURL != nil || error.endsJob { throw error }
            throw failure(tried, bug: nil, problem: error)
        }
    }

    private func failure(_ tried: [String], bug: String?, problem: ActionError?) -> ActionError {
        let account = tried.isEmpty ? "no method could be used" : tried.joined(separator: "; ")
        let onlyUnverified = !tried.isEmpty && tried.allSatisfy { $0.hasSuffix(RebootVerifier.noEvidence) }
        var error =
            problem.map { ActionError(.bugFilingFailed, "\(account); and no bug could be filed: \($0.message)") }
            ?? ActionError(onlyUnverified ? .unverified : .other, account)
        error.bugURL = bug
        error.details = ["failed": JSONValue(tried)]
        if let bug { error.details["bug_url"] = JSONValue(bug) }
        return error
    }
}
