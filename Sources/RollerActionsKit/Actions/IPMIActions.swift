// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `ipmi_status`, `ipmi_on`, `ipmi_reset` and their kin: one command to the management controller.
package struct IPMIAction: RebootMethod {
    /// The name in requests and the text of the button.
    package let description: ActionDescription
    private let command: IPMICommand

    private init(_ name: String, _ command: IPMICommand, _ title: String, _ summary: String) {
        self.command = command
        description = ActionDescription(
            name,
            title: title,
            summary: summary,
            isDestructive: [.off, .soft, .reset, .cycle, .on].contains(command),
            isReadOnly: !command.changes,
            controls: [.ipmi]
        )
    }

    /// All of them.
    package static let all = [
        IPMIAction("ipmi_list", .list, "IPMI event log", "Shows the last entries of the controller's event log."),
        IPMIAction("ipmi_status", .status, "IPMI power status", "Asks the controller whether the machine has power."),
        IPMIAction("ipmi_reset", .reset, "IPMI reset", "Presses the reset button through the controller."),
        IPMIAction(
            "ipmi_cycle",
            .cycle,
            "IPMI power cycle",
            "Takes the power away for a moment through the controller."
        ),
        IPMIAction("ipmi_off", .off, "IPMI power off", "Switches the machine off; it stays off."),
        IPMIAction("ipmi_on", .on, "IPMI power on", "Switches the machine on."),
        IPMIAction(
            "ipmi_soft",
            .soft,
            "IPMI soft off",
            "Asks the operating system to shut down, as the power button does."
        ),
        IPMIAction("ipmi_bootdev_pxe", .bootdevPXE, "IPMI boot from network", "The next boot comes from the network."),
        IPMIAction("ipmi_sol_info", .solInfo, "IPMI serial console", "Shows how the serial console is set up."),
    ]

    /// Soft off leaves it to the operating system.
    package var isHard: Bool { command != .soft }

    /// The limit of the command.
    package func budget(_ target: ActionTarget) -> Duration { command.limit }

    /// The one program.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let control = try target.control(.ipmi)
        let suite = try IPMIClient.suites(control, settings)[0]
        return [try IPMIClient.arguments(command, control, suite: suite, user: "<user>").joined(separator: " ")]
    }

    /// Sends the command; where it makes no sense because the power is off, switches on.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let client = IPMIClient(context: context, control: try context.target.control(.ipmi))
        let name = description.name
        switch command {
        case .status:
            let power = try await client.power(method: name)
            return ActionResult("the power is \(power.rawValue)", ["power": JSONValue(power.rawValue)])
        case .reset, .cycle:
            // A controller may accept a reset of a machine without power, and do nothing.
            if try await client.power() == .off { return try await switchOn(client) }
            do throws(ActionError) {
                _ = try await client.perform(command, method: name)
            } catch  where error.message == IPMIClient.wrongState {
                return try await switchOn(client)
            }
            return ActionResult("the controller accepted \(name)", isVerified: false)
        case .off, .soft:
            _ = try await client.perform(command, method: name)
            return ActionResult("the controller accepted \(name)", isVerified: false)
        case .on:
            return try await switchOn(client)
        case .list, .info, .solInfo, .bootdevPXE:
            let output = try await client.perform(command, method: name)
            let lines = IPMIReply.lines(output.text).map { JSONValue(String($0)) }
            return ActionResult("\(lines.count) lines", ["lines": .array(lines)])
        }
    }

    private func switchOn(_ client: IPMIClient) async throws(ActionError) -> ActionResult {
        _ = try await client.perform(.on, method: "ipmi_on")
        let power = try await client.power()
        if power == .on { await client.context.conduct.fulfilPower(client.context.target) }
        return ActionResult(
            "the power is \(power.rawValue)",
            ["power": JSONValue(power.rawValue)],
            isVerified: power == .on
        )
    }
}
