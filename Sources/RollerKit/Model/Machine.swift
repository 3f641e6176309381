// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Schedules

/// A computer that can be asked to do something.
package struct Machine: Sendable, Hashable {
    /// What kind of thing it is.
    package enum Kind: String, Sendable, Hashable, CaseIterable {
        case physical, vm, blade
    }

    /// Whether it may be touched.
    package enum State: String, Sendable, Hashable, CaseIterable {
        case active, maintenance, loaned, retired
    }

    package var id: String
    /// The short name.
    package var name: String
    package var fqdn: String?
    package var ip: String?
    package var kind: Kind
    package var hardwareModel: String?
    package var operatingSystem: String?
    package var mac: String?
    package var state: State
    package var stateReason: String?
    package var stateUntil: Timestamp?
    package var bugCC: String?
    package var bootSeconds: Int?
    package var properties: JSONObject
    package var created: Timestamp
    package var updated: Timestamp

    /// The name or address that reaches it: the address of the inventory if there is one.
    package var host: String { ip ?? fqdn ?? name }

    /// Whether work may be done at a moment; a state with an end is over then.
    package func isOutOfService(at now: Timestamp) -> Bool {
        guard state != .active else { return false }
        return stateUntil.map { now < $0 } ?? true
    }
}

/// A set of machines that share properties and a limit on how many are worked on at once.
package struct MachineGroup: Sendable, Hashable {
    package var name: String
    /// The group of higher priority wins where two set the same property.
    package var priority: Int
    package var properties: JSONObject

    package init(name: String, priority: Int = 0, properties: JSONObject = [:]) {
        self.name = name
        self.priority = priority
        self.properties = properties
    }
}

/// How a machine hangs on a controller.
package struct MachineControl: Sendable, Hashable {
    package var id: Int
    package var controller: Controller
    /// Where on the controller: an outlet, a blade's address, the identifier of a virtual machine.
    package var locator: JSONObject
    /// The one of higher priority is tried first.
    package var priority: Int
    /// Controls of one feed group power one machine together.
    package var feedGroup: String?
}

/// A machine with all that hangs on it.
package struct MachineDetail: Sendable, Hashable {
    package var machine: Machine
    package var aliases: [String]
    /// By rising priority.
    package var groups: [MachineGroup]
    /// By falling priority.
    package var controls: [MachineControl]
    package var workers: [WorkerName]

    /// The properties of the groups, and over them those of the machine.
    package var properties: JSONObject {
        var all = JSONObject()
        for group in groups {
            for (key, value) in group.properties { all[key] = value }
        }
        for (key, value) in machine.properties { all[key] = value }
        return all
    }

    /// The controls of one kind, best first.
    package func controls(_ kind: ControllerKind) -> [MachineControl] {
        controls.filter { $0.controller.kind == kind }
    }

    /// The worker pool whose processes can reach its controllers.
    package var pool: String {
        properties["pool"]?.string ?? controls.first { $0.controller.pool != "default" }?.controller.pool ?? "default"
    }
}

/// Spellings of places on controllers.
package enum Locator {
    /// Members that name a place by themselves; others say how to get there.
    private static let identities = ["addr", "outlet", "vm_uuid", "vmid", "system", "mac"]

    /// One spelling for every way to write a locator.
    package static func key(_ locator: JSONObject) -> String {
        for name in identities {
            if let value = locator[name], !value.isNull {
                return "\(name)=\(value.string ?? value.text())".lowercased()
            }
        }
        return JSONValue.object(locator).text(.sorted).lowercased()
    }
}
