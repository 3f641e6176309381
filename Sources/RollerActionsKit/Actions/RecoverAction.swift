// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `recover`: gives a machine its power back that a vanished worker had taken away; the system itself asks for it.
package struct RecoverAction: RollerAction {
    /// The name in the history.
    package let description = ActionDescription(
        "recover",
        title: "Restore power",
        summary: "Switches a machine on that a vanished worker may have left without power.",
        isDestructive: false
    )

    /// An action without settings of its own.
    package init() {}

    /// The controls, in the order in which they are tried.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        Self.controls(job, target).map { "switch on by \($0.label)" }
    }

    /// Switches on by the first control that can, and looks whether the machine comes up.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        var last = ActionError(.config, "the machine has no control that could switch it on")
        for control in Self.controls(context.job, context.target) {
            let access = PowerAccess(context: context, control: control)
            do throws(ActionError) {
                let state = try await look(access, context)
                if state != .on { try await access.restore() }
                await context.conduct.fulfilPower(context.target)
                let summary = state == .on ? "the machine had power" : "the machine has power again"
                let answers = try await isBack(context, wasOn: state == .on)
                return ActionResult(
                    "\(summary) (\(control.label))",
                    ["power": "on", "found": JSONValue(state.rawValue), "answers": answers]
                )
            } catch {
                if error.endsJob { throw error }
                last = error
            }
        }
        throw last
    }

    /// What the control shows; one that shows nothing may still be able to switch on, which is what this is about.
    private func look(_ access: PowerAccess, _ context: ActionContext) async throws(ActionError) -> PowerState {
        do throws(ActionError) {
            return try await access.power()
        } catch {
            if error.endsJob { throw error }
            let number = try await context.conduct.begin("power", control: access.control.label, arguments: [])
            let summary = "the power state is unknown, so it is switched on: \(error.message)"
            await context.conduct.end(
                number,
                AttemptEnd(error.outcome, errorClass: error.kind.name, summary: summary)
            )
            return .unknown
        }
    }

    /// Whether it answers in the end; that it does not is for people, the power is there.
    private func isBack(_ context: ActionContext, wasOn: Bool) async throws(ActionError) -> JSONValue {
        guard context.target.address != nil || context.target.fqdn != nil else { return nil }
        let limits = RebootLimits(context.target, context.settings)
        let end = ContinuousClock.now + limits.up
        while ContinuousClock.now < end {
            try await context.conduct.checkpoint()
            if try await Pinger(tools: context.tools).answers(try context.target.host()) { return true }
            try await context.pause(.seconds(1))
        }
        return false
    }

    /// The control that took the power first, then every other that could give it back.
    private static func controls(_ job: ActionJob, _ target: ActionTarget) -> [Control] {
        let able = target.controls.filter { PowerAccess.restoring.contains($0.kind) }
        guard let used = job.params["controller"]?.string else { return able }
        return able.filter { $0.controllerID == used } + able.filter { $0.controllerID != used }
    }
}
