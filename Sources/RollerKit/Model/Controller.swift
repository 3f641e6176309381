// SPDX-License-Identifier: MPL-2.0

package import JSON

/// What kind of thing turns machines on and off.
package enum ControllerKind: String, Sendable, Hashable, CaseIterable {
    case ipmi
    case redfish
    case snmp = "snmp_pdu"
    case ssh
    case xen = "xenapi"
    case proxmox
    case ilo
    case wakeOnLAN = "wol"
    case exec

    /// How many calls a controller takes at once unless it says otherwise: outlets switch one after the other.
    package var defaultConcurrency: Int { self == .snmp ? 1 : 4 }

    /// How far apart calls are unless it says otherwise, in milliseconds.
    package var defaultInterval: Int {
        switch self {
        case .ipmi: 5000
        case .snmp: 1000
        case .redfish, .ssh, .xen, .proxmox, .ilo, .wakeOnLAN, .exec: 0
        }
    }
}

/// Something that turns machines on and off, or a way to reach into them.
package struct Controller: Sendable, Hashable {
    package var id: String
    package var name: String
    package var kind: ControllerKind
    package var address: String?
    package var port: Int?
    /// A profile within the kind, such as `sentry3` or `moonshot`.
    package var type: String?
    package var options: JSONObject
    /// The name under which the credential store has the secrets.
    package var credential: String?
    /// The worker pool that can reach it.
    package var pool: String
    package var maximumConcurrency: Int
    package var minimumInterval: Int
    /// What workers found out about it.
    package var learned: JSONObject
}
