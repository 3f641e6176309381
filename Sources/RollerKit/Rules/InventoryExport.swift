// SPDX-License-Identifier: MPL-2.0

import JSON

/// An inventory written down in another spelling, and what that spelling cannot say.
struct InventoryExport: Sendable {
    var text: String
    var contentType: String
    /// One line for each thing that is missing in the text.
    var omitted: [String]

    /// What the writers need to know of a control.
    struct Place {
        let kind: ControllerKind
        let controller: JSONObject
        let locator: JSONObject

        func text(_ member: String) -> String? { controller[member]?.string }

        /// The controls of a machine whose controllers are known, the preferred first.
        static func all(_ machine: JSONObject, _ controllers: [String: JSONObject]) -> [Place] {
            (machine["controls"]?.array ?? []).sorted { ($0["priority"]?.int ?? 0) > ($1["priority"]?.int ?? 0) }
                .compactMap { control in
                    guard let controller = controllers[control["controller"]?.string?.lowercased() ?? ""],
                        let kind = controller["kind"]?.string.flatMap(ControllerKind.init(rawValue:))
                    else { return nil }
                    return Place(kind: kind, controller: controller, locator: control["locator"]?.object ?? [:])
                }
        }
    }

    // MARK: - CSV

    private static let columns = [
        "name", "fqdn", "ip", "mac", "groups", "worker_group", "worker_type", "provisioner_id", "worker_id", "aliases",
        "ipmi_host", "ipmi_port", "ipmi_user", "ipmi_credential", "ipmi_bridge", "pdu_host", "pdu_port", "pdu_profile",
        "snmp_credential", "ssh_user", "ssh_key", "redfish_url", "redfish_system", "xen_uuid", "bug_cc", "state",
        "properties",
    ]

    /// One machine a line, with the columns that imports read.
    static func csv(machines: [JSONObject], controllers: [String: JSONObject]) -> InventoryExport {
        var export = InventoryExport(text: line(columns), contentType: "text/csv; charset=utf-8", omitted: [])
        for machine in machines {
            let cells = export.cells(machine, Place.all(machine, controllers))
            export.text += line(columns.map { cells[$0] ?? "" })
        }
        return export
    }

    private mutating func cells(_ machine: JSONObject, _ places: [Place]) -> [String: String] {
        let name = machine["name"]?.string ?? ""
        var cells: [String: String] = [:]
        for member in ["name", "fqdn", "ip", "mac", "bug_cc", "state"] { cells[member] = machine[member]?.string }
        for member in ["groups", "aliases"] {
            cells[member] = (machine[member]?.array ?? []).compactMap(\.string).joined(separator: "|")
        }
        if let properties = machine["properties"], properties.object?.isEmpty == false {
            cells["properties"] = properties.text(.sorted)
        }
        let workers = machine["workers"]?.array ?? []
        for member in ["worker_id", "worker_group", "worker_type", "provisioner_id"] {
            cells[member] = workers.first?[member]?.string
        }
        if workers.count > 1 { omitted.append("\(name): \(workers.count - 1) more workers") }
        for place in places where !fill(&cells, place) {
            omitted.append("\(name): the \(place.kind.rawValue) control \(place.text("name") ?? "")")
        }
        return cells
    }

    /// Writes a control into its cells; false where there are none for it, or they are taken.
    private func fill(_ cells: inout [String: String], _ place: Place) -> Bool {
        let options = place.controller["options"]?.object ?? [:]
        let credential = place.text("credential_ref")
        let port = place.controller["port"]?.int
        switch (place.kind, place.text("address")) {
        case (.ipmi, let host?) where cells["ipmi_host"] == nil:
            cells["ipmi_host"] = host
            cells["ipmi_port"] = port.map(String.init)
            cells["ipmi_user"] = options["username"]?.string
            cells["ipmi_credential"] = credential
            cells["ipmi_bridge"] = place.locator["bridge"]?.array?.compactMap(\.string).joined(separator: " ")
        case (.snmp, let host?) where cells["pdu_host"] == nil && port == nil:
            cells["pdu_host"] = host
            cells["pdu_port"] = place.locator["outlet"]?.string
            cells["pdu_profile"] = place.text("type")
            cells["snmp_credential"] = credential
        case (.ssh, nil) where cells["ssh_user"] == nil:
            cells["ssh_user"] = options["login"]?.string ?? "roller"
            cells["ssh_key"] = credential
        case (.redfish, let host?)
        where cells["redfish_url"] == nil && [nil, credential].contains(cells["ipmi_credential"]):
            cells["redfish_url"] = "https://\(host)" + (port.map { ":\($0)" } ?? "")
            cells["redfish_system"] = place.locator["system"]?.string
            cells["ipmi_credential"] = credential
        case (.xen, _) where cells["xen_uuid"] == nil && place.text("name") == "xen":
            cells["xen_uuid"] = place.locator["vm_uuid"]?.string
        default:
            return false
        }
        return true
    }

    private static func line(_ cells: [String]) -> String {
        cells.map { cell in
            guard cell.contains(where: { ",\"".contains($0) || $0.isNewline }) else { return cell }
            return "\"" + cell.replacing("\"", with: "\"\"") + "\""
        }.joined(separator: ",") + "\r\n"
    }

    // MARK: - The file of the original service

    /// The file of the original service; instead of its passwords it names credentials, which our importer understands.
    static func workerConfiguration(machines: [JSONObject], controllers: [String: JSONObject]) -> InventoryExport {
        var writer = WorkerConfigurationWriter()
        for machine in machines { writer.add(machine, Place.all(machine, controllers)) }
        var document: JSONObject = ["types": .object(writer.types), "servers": .object(writer.servers)]
        if let name = writer.community { document["snmp_credential"] = .string(name) }
        return InventoryExport(
            text: JSONValue.object(document).text(.pretty) + "\n",
            contentType: "application/json",
            omitted: writer.omitted
        )
    }
}

/// Collects machines in the spelling of the original service.
private struct WorkerConfigurationWriter {
    var types = JSONObject()
    var servers = JSONObject()
    var community: String?
    var omitted: [String] = []

    mutating func add(_ machine: JSONObject, _ places: [InventoryExport.Place]) {
        let name = machine["name"]?.string ?? ""
        var entry = JSONObject()
        for member in ["fqdn", "bug_cc"] {
            if let text = machine[member]?.string { entry[member] = .string(text) }
        }
        for place in places where !fill(&entry, place) {
            omitted.append("\(name): the \(place.kind.rawValue) control \(place.text("name") ?? "")")
        }
        servers[name] = .object(entry)
        for alias in (machine["aliases"]?.array ?? []).compactMap(\.string) {
            // The original had a key for each spelling of a name, and knew no other aliases.
            if alias.lowercased() == name.lowercased() {
                servers[alias] = .object(entry)
            } else {
                omitted.append("\(name): the alias \(alias)")
            }
        }
    }

    private mutating func fill(_ entry: inout JSONObject, _ place: InventoryExport.Place) -> Bool {
        let credential = place.text("credential_ref")
        switch place.kind {
        case .ipmi:
            guard entry["parent"] == nil, entry["credential"] == nil, let credential else { return false }
            guard let bridge = place.locator["bridge"], bridge.array?.isEmpty == false else {
                entry["credential"] = .string(credential)
                if let host = place.text("address") { entry["ipmi_host"] = .string(host) }
                if let type = place.text("type") { entry["type"] = .string(type) }
                return true
            }
            let words = (bridge.array ?? []).compactMap(\.string)
            let address = place.locator["addr"]?.string ?? words.joined(separator: " ")
            entry["parent"] = .string(chassis(place, credential, address, bridge))
            entry["addr"] = .string(address)
        case .snmp:
            guard entry["pdu"] == nil, place.controller["port"]?.int == nil,
                [nil, "sentry3"].contains(place.text("type")), let host = place.text("address"),
                let outlet = place.locator["outlet"]?.string
            else { return false }
            if community == nil { community = credential }
            guard community == credential else { return false }
            entry["pdu"] = .string("\(host):\(outlet)")
        case .ssh:
            guard entry["ssh"] == nil, place.text("address") == nil, let credential else { return false }
            let login = place.controller["options"]?["login"]?.string ?? "roller"
            entry["ssh"] = ["user": .string(login), "credential": .string(credential)]
        case .xen:
            guard let id = place.locator["vm_uuid"] else { return false }
            entry["xen"] = ["reboot": .array((entry["xen"]?["reboot"]?.array ?? []) + [id])]
        default:
            return false
        }
        return true
    }

    /// Notes a chassis and the way to one of its blades; answers the key of the chassis.
    private mutating func chassis(
        _ place: InventoryExport.Place,
        _ credential: String,
        _ address: String,
        _ bridge: JSONValue
    ) -> String {
        let controller = place.text("name") ?? ""
        let key = controller.hasPrefix("ipmi-") ? String(controller.dropFirst("ipmi-".count)) : controller
        var type = place.text("type") ?? key
        // Chassis of one type may be wired differently; such a one gets a type of its own.
        if let known = types[type]?["map"]?[address], known != bridge { type = "\(type)-\(key)" }
        var map = types[type]?["map"]?.object ?? [:]
        map[address] = bridge
        types[type] = ["args": [], "map": .object(map), "commands": [:]]
        var entry: JSONObject = ["credential": .string(credential), "type": .string(type)]
        if let host = place.text("address") { entry["fqdn"] = .string(host) }
        servers[key] = .object(entry)
        return key
    }
}
