// SPDX-License-Identifier: MPL-2.0

package import JSON

/// One step of a reboot: a method, and what it needs to know.
package struct RebootStep: Sendable, Hashable {
    /// The name of the method.
    package var method: String
    /// The pause between off and on, for methods that know one.
    package var delay: Duration?
    /// Whether the method is left out when the machine does not answer.
    package var onlyIfReachable: Bool

    /// A step from its parts.
    package init(_ method: String, delay: Duration? = nil, onlyIfReachable: Bool = false) {
        self.method = method
        self.delay = delay
        self.onlyIfReachable = onlyIfReachable
    }

    /// From the gentlest to the hardest, then a person is asked for.
    package static let standard: [RebootStep] = [
        RebootStep("ssh_reboot", onlyIfReachable: true),
        RebootStep("redfish_reset"),
        RebootStep("ipmi_reset"),
        RebootStep("ipmi_cycle"),
        RebootStep("xenapi_reboot"),
        RebootStep("proxmox_reboot"),
        RebootStep("ilo_reboot"),
        RebootStep("snmp_rebootdelay", delay: .seconds(60)),
        RebootStep("ipmi_on"),
        RebootStep("file_bugzilla_bug"),
    ]

    /// The steps of a policy as it stands in the properties of a machine or group.
    package static func parse(_ json: JSONValue) throws(ActionError) -> [RebootStep] {
        guard let list = json.array else { throw ActionError(.config, "a reboot policy is an array of steps") }
        var steps: [RebootStep] = []
        for item in list {
            guard let method = item.string ?? item["method"]?.string else {
                throw ActionError(.config, "a step of a reboot policy names no method")
            }
            let delay = item["delay"]?.double.map { Duration.milliseconds(Int64(min(max($0, 0), 3600) * 1000)) }
            steps.append(RebootStep(method, delay: delay, onlyIfReachable: item["if"]?.string == "reachable"))
        }
        return steps
    }

    /// The steps of a list of names, as older settings have them.
    package static func list(_ text: String) -> [RebootStep] {
        text.split(separator: ",").map { name in
            let name = name.filter { $0 != " " }
            return RebootStep(
                name,
                delay: name == "snmp_rebootdelay" ? .seconds(60) : nil,
                onlyIfReachable: name == "ssh_reboot"
            )
        }
    }
}
