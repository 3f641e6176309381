// SPDX-License-Identifier: MPL-2.0

import JSON

/// Reads inventories as comma-separated values.
///
/// An empty cell leaves a member as it is, `-` clears it, `|` separates the elements of lists.
enum CSVInventory {
    static let columns: Set<String> = [
        "name", "fqdn", "ip", "mac", "groups", "worker_group", "worker_type", "provisioner_id", "worker_id", "aliases",
        "ipmi_host", "ipmi_port", "ipmi_user", "ipmi_credential", "ipmi_bridge", "pdu_host", "pdu_port", "pdu_profile",
        "snmp_credential", "ssh_user", "ssh_key", "redfish_url", "redfish_system", "xen_uuid", "bug_cc", "state",
        "properties",
    ]

    static func read(_ bytes: [UInt8]) -> InventoryDocument {
        var document = InventoryDocument()
        guard var text = String(validating: bytes, as: UTF8.self) else {
            document.problems.append(InventoryProblem(row: 0, field: "", message: "is not UTF-8"))
            return document
        }
        if text.unicodeScalars.first == "\u{FEFF}" { text.unicodeScalars.removeFirst() }
        guard let rows = split(text) else {
            document.problems.append(InventoryProblem(row: 0, field: "", message: "a quotation mark is not closed"))
            return document
        }
        guard let header = rows.first?.map({ $0.trimmed.lowercased() }), header.contains("name") else {
            document.problems.append(
                InventoryProblem(row: 1, field: "name", message: "the first row must name the columns, name among them")
            )
            return document
        }
        for column in header where !columns.contains(column) {
            document.problems.append(InventoryProblem(row: 1, field: column, message: "is no column"))
        }
        var controllers: [String: InventoryDocument.Entry] = [:]
        for (index, cells) in rows.enumerated().dropFirst() where cells != [""] {
            let row = index + 1
            guard cells.count == header.count else {
                document.problems.append(
                    InventoryProblem(row: row, field: "", message: "has \(cells.count) cells, not \(header.count)")
                )
                continue
            }
            let given = Dictionary(zip(header, cells.map(\.trimmed)), uniquingKeysWith: { first, _ in first })
            var reader = RowReader(row: row, cells: given)
            document.machines.append(InventoryDocument.Entry(row: row, reader.machine()))
            document.problems += reader.problems
            for controller in reader.controllers {
                if let known = controllers[controller.name], known.members != controller.members {
                    document.warnings.append(
                        "row \(row): \(controller.name) was described otherwise in row \(known.row), which counts"
                    )
                } else {
                    controllers[controller.name] = controller
                }
            }
        }
        document.controllers = controllers.values.sorted { ($0.row, $0.name) < ($1.row, $1.name) }
        return document
    }

    /// The cells of all rows by RFC 4180; nil if a quotation mark is never closed.
    static func split(_ text: String) -> [[String]]? {
        var rows: [[String]] = []
        var row: [String] = []
        var cell = ""
        var isQuoted = false
        var scalars = text.unicodeScalars.makeIterator()
        var next = scalars.next()
        while let scalar = next {
            next = scalars.next()
            if isQuoted {
                if scalar == "\"", next == "\"" {
                    cell.unicodeScalars.append("\"")
                    next = scalars.next()
                } else if scalar == "\"" {
                    isQuoted = false
                } else {
                    cell.unicodeScalars.append(scalar)
                }
                continue
            }
            switch scalar {
            case "\"" where cell.isEmpty: isQuoted = true
            case ",":
                row.append(cell)
                cell = ""
            case "\r" where next == "\n": break
            case "\n":
                rows.append(row + [cell])
                row = []
                cell = ""
            default: cell.unicodeScalars.append(scalar)
            }
        }
        guard !isQuoted else { return nil }
        if !row.isEmpty || !cell.isEmpty { rows.append(row + [cell]) }
        return rows
    }
}

/// Makes a machine and its controllers of one row.
private struct RowReader {
    let row: Int
    let cells: [String: String]
    var problems: [InventoryProblem] = []
    var controllers: [InventoryDocument.Entry] = []
    private var controls: [JSONValue] = []

    init(row: Int, cells: [String: String]) {
        self.row = row
        self.cells = cells
    }

    /// A cell that holds something; nil for an empty one and for one that clears.
    private func cell(_ name: String) -> String? {
        cells[name].flatMap { $0.isEmpty || $0 == "-" ? nil : $0 }
    }

    mutating func machine() -> JSONObject {
        var members = JSONObject()
        for name in ["name", "fqdn", "ip", "mac", "bug_cc", "state"] {
            guard let text = cells[name], !text.isEmpty else { continue }
            members[name] = text == "-" ? .null : .string(text)
        }
        for name in ["groups", "aliases"] {
            guard let text = cells[name], !text.isEmpty else { continue }
            members[name] = .array(text == "-" ? [] : text.split(separator: "|").map { .string($0.trimmed) })
        }
        if let text = cells["properties"], !text.isEmpty { members["properties"] = properties(text) }
        if let id = cell("worker_id") {
            var worker: JSONObject = ["worker_id": .string(id)]
            for name in ["worker_group", "worker_type", "provisioner_id"] {
                if let text = cell(name) { worker[name] = .string(text) }
            }
            members["workers"] = [.object(worker)]
        } else if cells["worker_id"] == "-" {
            members["workers"] = []
        }
        addControls(cell("name") ?? "")
        let columns = ["ipmi_host", "pdu_host", "ssh_user", "redfish_url", "xen_uuid"]
        if columns.contains(where: { !(cells[$0] ?? "").isEmpty }) { members["controls"] = .array(controls) }
        return members
    }

    private mutating func addControls(_ machine: String) {
        if let host = cell("ipmi_host") {
            let port = number("ipmi_port")
            var locator = JSONObject()
            if let bridge = cell("ipmi_bridge") {
                locator["bridge"] = .array(
                    bridge.split(whereSeparator: { $0 == " " || $0 == "|" }).map { .string(String($0)) }
                )
            }
            add(
                "ipmi-\(host)" + (port.map { "-\($0)" } ?? ""),
                kind: .ipmi,
                address: host,
                port: port,
                options: cell("ipmi_user").map { ["username": .string($0)] } ?? [:],
                credential: cell("ipmi_credential"),
                locator: locator,
                priority: 30
            )
        }
        if let host = cell("pdu_host") {
            if cell("pdu_port") == nil {
                problems.append(InventoryProblem(row: row, field: "pdu_port", message: "is missing"))
            }
            add(
                "pdu-\(host)",
                kind: .snmp,
                address: host,
                type: cell("pdu_profile") ?? "sentry3",
                credential: cell("snmp_credential"),
                locator: ["outlet": .string(cell("pdu_port") ?? "")],
                priority: 10
            )
        }
        if let user = cell("ssh_user") {
            add(
                "ssh-\(machine)",
                kind: .ssh,
                address: nil,
                options: ["login": .string(user)],
                credential: cell("ssh_key"),
                locator: [:],
                priority: 50
            )
        }
        if let url = cell("redfish_url") {
            let bare = url.hasPrefix("https://") ? url.dropFirst(8) : url[...]
            let (host, port) = RequestGate.split(String(bare.prefix { $0 != "/" }))
            if !url.hasPrefix("https://") {
                problems.append(InventoryProblem(row: row, field: "redfish_url", message: "must begin with https://"))
            }
            add(
                "redfish-\(host)" + (port.map { "-\($0)" } ?? ""),
                kind: .redfish,
                address: host,
                port: port,
                credential: cell("ipmi_credential"),
                locator: cell("redfish_system").map { ["system": .string($0)] } ?? [:],
                priority: 40
            )
        }
        if let uuid = cell("xen_uuid") {
            controls.append(["controller": "xen", "locator": ["vm_uuid": .string(uuid)], "priority": 20])
        }
    }

    private mutating func add(
        _ name: String,
        kind: ControllerKind,
        address: String?,
        port: Int? = nil,
        type: String? = nil,
        options: JSONObject = [:],
        credential: String?,
        locator: JSONObject,
        priority: Int
    ) {
        var members: JSONObject = ["name": .string(name), "kind": .string(kind.rawValue)]
        if let address { members["address"] = .string(address) }
        if let port { members["port"] = JSONValue(port) }
        if let type { members["type"] = .string(type) }
        if !options.isEmpty { members["options"] = .object(options) }
        if let credential { members["credential_ref"] = .string(credential) }
        controllers.append(InventoryDocument.Entry(row: row, members))
        controls.append(
            ["controller": .string(name), "locator": .object(locator), "priority": JSONValue(priority)]
        )
    }

    private mutating func number(_ name: String) -> Int? {
        guard let text = cell(name) else { return nil }
        if let number = Int(text), (1...65_535).contains(number) { return number }
        problems.append(InventoryProblem(row: row, field: name, message: "must be a port, 1 to 65535"))
        return nil
    }

    /// A JSON object, or `name=value` pairs.
    private mutating func properties(_ text: String) -> JSONValue {
        if text == "-" { return [:] }
        if text.hasPrefix("{"), let value = try? JSONValue(parsing: text), value.object != nil { return value }
        var members = JSONObject()
        for pair in text.split(separator: "|") {
            let parts = pair.split(separator: "=", maxSplits: 1)
            guard parts.count == 2 else {
                problems.append(
                    InventoryProblem(row: row, field: "properties", message: "must be JSON or name=value pairs")
                )
                return .null
            }
            members[parts[0].trimmed] = .string(parts[1].trimmed)
        }
        return .object(members)
    }
}
