// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit
import Testing

@testable import RollerActionsKit

struct RebootPlanTests {
    private let everything = ActionTarget(
        name: "box",
        address: "192.0.2.1",
        controls: [.ssh, .ipmi, .snmp].map { Control(controllerID: "c", name: "c", kind: $0, address: "192.0.2.2") }
    )

    private func plan(
        _ target: ActionTarget,
        _ mode: RebootPlan.Mode = .escalate,
        softLimit: Duration = .seconds(6000)
    ) throws -> RebootPlan {
        var settings = ActionSettings()
        settings.softLimit = softLimit
        return try RebootPlan(
            target,
            mode: mode,
            settings: settings,
            registry: .standard,
            downTimeout: .seconds(60),
            upTimeout: .seconds(300)
        )
    }

    private func used(_ plan: RebootPlan) -> [String] {
        plan.entries.filter { $0.skipped == nil }.map(\.step.method)
    }

    @Test func `53: methods without their control are left out with a reason`() throws {
        let plan = try plan(everything)
        #expect(used(plan) == ["ssh_reboot", "ipmi_reset", "ipmi_cycle", "snmp_rebootdelay", "ipmi_on"])
        let redfish = plan.entries.first { $0.step.method == "redfish_reset" }
        #expect(redfish?.skipped == "the machine has no redfish control")
    }

    @Test func `soft and hard modes keep to their kind`() throws {
        #expect(used(try plan(everything, .soft)) == ["ssh_reboot"])
        #expect(used(try plan(everything, .hard)) == ["ipmi_reset", "ipmi_cycle", "snmp_rebootdelay", "ipmi_on"])
    }

    @Test func `what cannot end before the soft limit is left out from the end`() throws {
        let plan = try plan(everything, softLimit: .seconds(900))
        #expect(used(plan) == ["ssh_reboot", "ipmi_reset"])
        let only = try self.plan(everything, softLimit: .seconds(1))
        #expect(used(only) == ["ssh_reboot"])
    }

    @Test func `a policy of the machine wins over the settings`() throws {
        var target = everything
        target.properties["reboot_policy"] = [
            "ipmi_cycle", ["method": "snmp_rebootdelay", "delay": 5], "no_such_method",
        ]
        let plan = try plan(target)
        #expect(used(plan) == ["ipmi_cycle", "snmp_rebootdelay"])
        #expect(plan.entries[1].step.delay == .seconds(5))
        #expect(plan.entries[2].skipped == "there is no such method")
        target.properties["reboot_policy"] = "ipmi_cycle"
        #expect(throws: ActionError.self) { try self.plan(target) }
    }

    @Test func `the list of older settings is understood`() {
        let steps = RebootStep.list("ssh_reboot, snmp_rebootdelay,ipmi_reset")
        #expect(steps.map(\.method) == ["ssh_reboot", "snmp_rebootdelay", "ipmi_reset"])
        #expect(steps[0].onlyIfReachable && steps[1].delay == .seconds(60))
    }
}
