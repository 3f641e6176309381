// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `snmp_reboot`, `snmp_rebootdelay`: switches the outlets of a machine; all of them, where it has several feeds.
package struct SNMPAction: RebootMethod {
    /// The name in requests and the text of the button.
    package let description: ActionDescription
    private let pausesBetween: Bool

    private init(_ name: String, pausesBetween: Bool, _ title: String, _ summary: String) {
        self.pausesBetween = pausesBetween
        description = ActionDescription(
            name,
            title: title,
            summary: summary,
            isDestructive: true,
            controls: [.snmp]
        )
    }

    /// Both of them.
    package static let all = [
        SNMPAction("snmp_reboot", pausesBetween: false, "Outlet reboot", "Lets the power outlet restart the machine."),
        SNMPAction(
            "snmp_rebootdelay",
            pausesBetween: true,
            "Outlet off and on",
            "Switches the power outlet off, waits and switches it on again."
        ),
    ]

    /// The pause, and a minute around it.
    package func budget(_ target: ActionTarget) -> Duration { pausesBetween ? .seconds(120) : .seconds(60) }

    /// One line for each change.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        _ = try target.control(.snmp)
        let outlets = target.controls(.snmp)
        let verbs: [SNMPClient.Verb] = pausesBetween || outlets.count > 1 ? [.off, .on] : [.reboot]
        var lines: [String] = []
        for verb in verbs {
            for control in outlets { lines.append(try SNMPClient.plan(verb, control)) }
            if verb == .off { lines.append("wait \(try delay(job)) s") }
        }
        return lines
    }

    /// Switches.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        _ = try context.target.control(.snmp)
        var outlets: [SNMPClient] = []
        for control in context.target.controls(.snmp) { outlets.append(try SNMPClient(context, control)) }
        let delay = try delay(context.job)
        // A unit that does not answer, or knows no such outlet, is found out before anything is switched.
        for outlet in outlets { _ = try await outlet.power() }
        if !pausesBetween, outlets.count == 1, outlets[0].outlet.profile.reboot != nil {
            try await context.conduct.intendPower(context.target, by: outlets[0].control)
            try await Self.letReboot(outlets[0], method: description.name)
        } else {
            try await switchOffAndOn(outlets, delay: .seconds(delay), context)
        }
        await context.conduct.fulfilPower(context.target)
        return ActionResult("the outlet was off and is on again", ["power": "on", "delay": JSONValue(delay)])
    }

    private func delay(_ job: ActionJob) throws(ActionError) -> Int {
        try job.integer("delay", in: 0...600) ?? (pausesBetween ? 60 : 5)
    }

    private static func letReboot(_ outlet: SNMPClient, method: String) async throws(ActionError) {
        do throws(ActionError) {
            try await outlet.set(.reboot, method: method)
        } catch  where error.outcome == .unverified && error.kind != .pduUnreachable {
            // Whether it rebooted shows at the machine; that it is on again, here.
        }
        let context = outlet.context
        try await context.uninterrupted { () async throws(ActionError) in
            try await Self.restore([outlet], method: method)
        }
    }

    private func switchOffAndOn(
        _ outlets: [SNMPClient],
        delay: Duration,
        _ context: ActionContext
    ) async throws(ActionError) {
        let method = description.name
        try await context.conduct.intendPower(context.target, by: outlets[0].control)
        var failure: ActionError?
        do throws(ActionError) {
            for outlet in outlets {
                do throws(ActionError) {
                    try await outlet.set(.off, method: method)
                } catch  where error.kind == .pduUnreachable {
                    // The unit may have done it nevertheless; what it shows decides.
                    if try await outlet.power() != .off { throw error }
                }
                try await outlet.verify(.off, method: method)
            }
            try await context.pause(delay)
        } catch {
            failure = error
        }
        // Whatever happened: what may be off is switched on, and nothing interrupts that.
        do throws(ActionError) {
            try await context.uninterrupted { () async throws(ActionError) in
                try await Self.restore(outlets, method: method)
            }
        } catch {
            throw failure ?? error
        }
        if let failure {
            await context.conduct.fulfilPower(context.target)
            throw failure
        }
    }

    /// Switches on and looks, five times if need be.
    static func restore(_ outlets: [SNMPClient], method: String) async throws(ActionError) {
        for var outlet in outlets {
            outlet.context = outlet.context.restoring()
            var last = ActionError(.unverifiedOutlet, "the outlet was not switched on", outcome: .unverified)
            var isOn = false
            for attempt in 1...5 {
                try await outlet.context.conduct.checkOwnership()
                do throws(ActionError) {
                    try await outlet.set(.on, method: method)
                    try await outlet.verify(.on, method: method)
                    isOn = true
                    break
                } catch {
                    last = error
                }
                if attempt < 5 { try await outlet.context.pause(.seconds(2)) }
            }
            guard isOn else { throw last }
        }
    }
}
