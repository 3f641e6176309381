// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit

/// Reading and restoring the power of a machine by whatever control it has.
struct PowerAccess {
    let context: ActionContext
    let control: Control

    /// The kinds that can tell the power state.
    static let readable: Set<ControllerKind> = [.ipmi, .redfish, .snmp, .ilo, .proxmox]
    /// The kinds that can switch a machine on.
    static let restoring: Set<ControllerKind> = [.ipmi, .redfish, .snmp, .ilo, .xen, .proxmox]

    /// What the control shows.
    func power() async throws(ActionError) -> PowerState {
        switch control.kind {
        case .ipmi: try await IPMIClient(context: context, control: control).power()
        case .redfish: try await RedfishClient(context: context, control: control).power()
        case .snmp: try await SNMPClient(context, control).power()
        case .ilo: try await RIBCL(context: context, control: control).power()
        case .proxmox: try await ProxmoxClient(context, control).power()
        default: .unknown
        }
    }

    /// Switches on, again and again if need be.
    func restore() async throws(ActionError) {
        let context = context.restoring()
        switch control.kind {
        case .ipmi:
            _ = try await IPMIClient(context: context, control: control).perform(.on, method: "ipmi_on")
        case .redfish:
            try await RedfishAction.restore(RedfishClient(context: context, control: control), "redfish_on")
        case .snmp:
            try await SNMPAction.restore([SNMPClient(context, control)], method: "snmp_on")
        case .ilo:
            try await ILOReboot.restore(RIBCL(context: context, control: control))
        case .proxmox:
            try await ProxmoxReboot.restore(ProxmoxClient(context, control))
        case .xen:
            var client = XenClient(context, control)
            try await client.logIn()
            do throws(ActionError) {
                let id = try XenAPIReboot.machine(control)
                if case .success(let machine) = try await client.callInSession("VM.get_by_uuid", [.text(id)]) {
                    try await XenAPIReboot.start(&client, machine, context)
                }
                await client.logOut()
            } catch {
                await client.logOut()
                throw error
            }
        default:
            throw ActionError(.unsupported, "a \(control.kind.rawValue) control cannot switch a machine on")
        }
    }
}
