// SPDX-License-Identifier: MPL-2.0

package import RollerKit

/// All actions of this build; a new one is added to the list here.
package struct ActionRegistry: Sendable {
    /// The actions, in the order in which they are shown.
    package let actions: [any RollerAction]
    private let byName: [String: any RollerAction]

    /// A registry of some actions.
    package init(_ actions: [any RollerAction]) {
        self.actions = actions
        byName = Dictionary(actions.map { ($0.description.name, $0) }) { $1 }
    }

    /// What the API tells about the actions.
    package var catalogue: ActionCatalogue { ActionCatalogue(actions.map(\.description)) }

    /// The action of a name.
    package subscript(_ name: String) -> (any RollerAction)? { byName[name] }

    /// The method of `reboot` of a name.
    func method(_ name: String) -> (any RebootMethod)? { byName[name] as? any RebootMethod }

    /// All there are.
    package static let standard = ActionRegistry(
        [
            PingAction(), StatusAction(), ProbeAction(), UptimeAction(), HostKeyScan(), RebootAction(), SSHReboot(),
            XenAPIReboot(), ProxmoxReboot(),
            ILOReboot(), WakeOnLAN(), ExecReboot(), FileBugzillaBug(), RecoverAction(), LoanAction(),
        ] + IPMIAction.all + RedfishAction.all + SNMPAction.all + ReimageAction.all + QuarantineAction.all
    )
}
