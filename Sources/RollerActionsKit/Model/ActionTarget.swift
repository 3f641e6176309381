// SPDX-License-Identifier: MPL-2.0

package import JSON
package import RollerKit

/// The machine an action is about, with everything that is known of how to reach it.
package struct ActionTarget: Sendable, Hashable {
    /// The id of the machine in the inventory; nil for a host that is only named by the request.
    package var machineID: String?
    /// The short name.
    package var name: String
    /// The name in DNS.
    package var fqdn: String?
    /// The IP address.
    package var address: String?
    /// The hardware address of the network card.
    package var mac: String?
    /// Who gets a copy of bugs.
    package var bugCC: String?
    /// How long the machine usually takes to boot.
    package var bootTime: Duration?
    /// The properties of the machine and its groups together.
    package var properties: JSONObject
    /// The ways to control the machine, the preferred first.
    package var controls: [Control]

    /// A target from its parts.
    package init(
        machineID: String? = nil,
        name: String,
        fqdn: String? = nil,
        address: String? = nil,
        mac: String? = nil,
        bugCC: String? = nil,
        bootTime: Duration? = nil,
        properties: JSONObject = [:],
        controls: [Control] = []
    ) {
        self.machineID = machineID
        self.name = name
        self.fqdn = fqdn
        self.address = address
        self.mac = mac
        self.bugCC = bugCC
        self.bootTime = bootTime
        self.properties = properties
        self.controls = controls
    }

    /// Where to send packets: the address, else the name in DNS, else the short name.
    package func host() throws(ActionError) -> String {
        try HostName.validated(address ?? fqdn ?? name)
    }

    /// The controls of a kind.
    package func controls(_ kind: ControllerKind) -> [Control] { controls.filter { $0.kind == kind } }

    /// The preferred control of a kind, which the action cannot do without.
    package func control(_ kind: ControllerKind) throws(ActionError) -> Control {
        guard let control = controls.first(where: { $0.kind == kind }) else {
            throw ActionError(.config, "no \(kind.rawValue) control is configured for \(name)", outcome: .skipped)
        }
        return control
    }
}

/// One way to control a machine: a controller, and where the machine is at it.
package struct Control: Sendable, Hashable {
    /// The id of the controller; controls of machines at one PDU or chassis share it.
    package var controllerID: String
    /// The name of the controller.
    package var name: String
    /// The protocol.
    package var kind: ControllerKind
    /// The host of the controller.
    package var address: String?
    /// The port, if not the usual one.
    package var port: Int?
    /// The model, where it matters.
    package var type: String?
    /// Options of the controller.
    package var options: JSONObject
    /// Where the machine is at the controller: an outlet, a blade, a virtual machine.
    package var locator: JSONObject
    /// The name of the credential; the credential itself is read when it is needed.
    package var credential: String?
    /// How many calls at the same time the controller bears.
    package var maximumConcurrency: Int
    /// The pause between two calls that change something.
    package var minimumInterval: Duration
    /// What workers found out about the controller, such as the cipher suite that works.
    package var learned: JSONObject

    /// A control from its parts.
    package init(
        controllerID: String,
        name: String,
        kind: ControllerKind,
        address: String? = nil,
        port: Int? = nil,
        type: String? = nil,
        options: JSONObject = [:],
        locator: JSONObject = [:],
        credential: String? = nil,
        maximumConcurrency: Int = 4,
        minimumInterval: Duration = .zero,
        learned: JSONObject = [:]
    ) {
        self.controllerID = controllerID
        self.name = name
        self.kind = kind
        self.address = address
        self.port = port
        self.type = type
        self.options = options
        self.locator = locator
        self.credential = credential
        self.maximumConcurrency = maximumConcurrency
        self.minimumInterval = minimumInterval
        self.learned = learned
    }

    /// The host of the controller, which it cannot do without.
    package func host() throws(ActionError) -> String {
        guard let address else { throw ActionError(.config, "the controller \(name) has no address") }
        return try HostName.validated(address)
    }

    /// A value of the locator, else of the options.
    func setting(_ name: String) -> JSONValue? { locator[name] ?? options[name] }

    /// What the control is called in attempts.
    var label: String { "\(kind.rawValue):\(name)" }
}
