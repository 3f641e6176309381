// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Schedules

/// What things of the inventory look like, and what is wrong with wishes for them.
enum InventoryRules {
    /// All members of a machine, in their order, with the values of one that nobody has described.
    static let blankMachine: JSONObject = [
        "name": .null, "fqdn": .null, "ip": .null, "mac": .null, "kind": "physical", "hw_model": .null, "os": .null,
        "state": "active", "state_reason": .null, "state_until": .null, "bug_cc": .null, "boot_seconds_hint": .null,
        "properties": [:], "groups": [], "aliases": [], "workers": [], "controls": [],
    ]

    /// All members of a controller.
    static func blankController(_ kind: ControllerKind?) -> JSONObject {
        [
            "name": .null, "kind": .null, "address": .null, "port": .null, "type": .null, "options": [:],
            "credential_ref": .null, "pool": "default",
            "max_concurrency": JSONValue(kind?.defaultConcurrency ?? 4),
            "min_interval_ms": JSONValue(kind?.defaultInterval ?? 0),
        ]
    }

    /// All members of a group.
    static let blankGroup: JSONObject = ["name": .null, "priority": 0, "properties": [:]]

    /// A thing with wishes fulfilled; null gives a member the value of a blank one.
    static func merged(_ base: JSONObject, _ wishes: JSONObject, blank: JSONObject) -> JSONObject {
        var merged = base
        for (key, value) in wishes {
            if value.isNull {
                merged[key] = blank[key] ?? .null
            } else if key == "properties" || key == "options", let changes = value.object {
                var members = base[key]?.object ?? [:]
                for (name, member) in changes {
                    if member.isNull { members.removeValue(forKey: name) } else { members[name] = member }
                }
                merged[key] = .object(members)
            } else {
                merged[key] = value
            }
        }
        return merged
    }

    // MARK: - Machines

    /// The wishes for a machine in one spelling, or what is wrong with them.
    static func machine(_ entry: InventoryDocument.Entry) -> (wishes: JSONObject, problems: [InventoryProblem]) {
        var problems: [InventoryProblem] = []
        var wishes = entry.members
        func fail(_ field: String, _ message: String) {
            problems.append(InventoryProblem(row: entry.row, field: field, message: message))
        }
        for key in wishes.keys where blankMachine[key] == nil { fail(key, "is not known") }
        if !isShortName(entry.name) {
            fail("name", "must be a name of letters, digits, '-' and '_' without dots")
        }
        text("fqdn") { HostName.isValid($0) ? HostName.plain($0) : nil }
        text("ip") { AddressRange.isAddress($0) ? $0 : nil }
        text("mac", HardwareAddress.canonical)
        text("kind") { Machine.Kind(rawValue: $0)?.rawValue }
        text("state") { Machine.State(rawValue: $0)?.rawValue }
        text("state_until") { Timestamp($0)?.iso8601 }
        for name in ["hw_model", "os", "state_reason", "bug_cc"] { text(name) { $0.utf8.count <= 1024 ? $0 : nil } }
        func text(_ field: String, _ canonical: (String) -> String?) {
            guard let value = wishes[field], !value.isNull else { return }
            if let known = value.string.flatMap(canonical) {
                wishes[field] = .string(known)
            } else {
                fail(field, "is not valid")
            }
        }
        if let seconds = wishes["boot_seconds_hint"], !seconds.isNull, !(0...86_400).contains(seconds.int ?? -1) {
            fail("boot_seconds_hint", "must be a whole number of seconds, at most a day")
        }
        if let properties = wishes["properties"], !properties.isNull, properties.object == nil {
            fail("properties", "must be an object")
        }
        for field in ["groups", "aliases"] {
            guard let value = wishes[field], !value.isNull else { continue }
            let names = value.array?.compactMap(\.string) ?? []
            if names.count != value.array?.count || !names.allSatisfy(Names.isInventoryName) {
                fail(field, "must be a list of names")
            } else {
                wishes[field] = JSONValue(Set(names).sorted())
            }
        }
        if let workers = wishes["workers"], !workers.isNull {
            let known = (workers.array ?? []).compactMap(worker)
            if known.count == workers.array?.count {
                wishes["workers"] = .array(known.sorted { $0.text(.sorted) < $1.text(.sorted) })
            } else {
                fail(
                    "workers",
                    "must be a list of objects with worker_id and perhaps worker_group, provisioner_id, worker_type"
                )
            }
        }
        if let controls = wishes["controls"], !controls.isNull {
            let known = (controls.array ?? []).compactMap(control)
            if known.count == controls.array?.count {
                wishes["controls"] = .array(known.sorted { $0.text(.sorted) < $1.text(.sorted) })
            } else {
                fail("controls", "must be a list of objects with controller and perhaps locator, priority, feed_group")
            }
        }
        return (wishes, problems)
    }

    static func isShortName(_ text: String) -> Bool {
        Names.isWorkerWord(text) && !text.hasPrefix("-") && !text.hasPrefix("_")
    }

    /// A worker with all four members; nil for what is none.
    private static func worker(_ value: JSONValue) -> JSONValue? {
        guard let object = value.object, let id = object["worker_id"]?.string, Names.isWorkerWord(id),
            !id.hasPrefix("-")
        else { return nil }
        var worker = JSONObject()
        for name in ["provisioner_id", "worker_type", "worker_group"] {
            let text = object[name]?.string
            guard text != nil || object[name] == nil || object[name]?.isNull == true else { return nil }
            if let text, !Names.isWorkerWord(text) { return nil }
            worker[name] = JobView.text(text)
        }
        worker["worker_id"] = .string(id.lowercased())
        return .object(worker)
    }

    /// A control with all its members; nil for what is none.
    private static func control(_ value: JSONValue) -> JSONValue? {
        guard let object = value.object, let controller = object["controller"]?.string,
            Names.isInventoryName(controller)
        else { return nil }
        let locator = object["locator"] ?? [:]
        let priority = object["priority"] ?? 0
        guard locator.object != nil, priority.int != nil else { return nil }
        return [
            "controller": .string(controller.lowercased()), "locator": locator, "priority": priority,
            "feed_group": JobView.text(object["feed_group"]?.string),
        ]
    }

    // MARK: - Controllers and groups

    static func controller(_ entry: InventoryDocument.Entry) -> [InventoryProblem] {
        var problems: [InventoryProblem] = []
        func fail(_ field: String, _ message: String) {
            problems.append(
                InventoryProblem(row: entry.row, field: "\(entry.name): \(field)", message: message)
            )
        }
        let members = entry.members
        for key in members.keys where blankController(nil)[key] == nil { fail(key, "is not known") }
        if !Names.isInventoryName(entry.name) { fail("name", "must be a name") }
        if let kind = members["kind"], ControllerKind(rawValue: kind.string ?? "") == nil {
            fail("kind", "must be one of " + ControllerKind.allCases.map(\.rawValue).joined(separator: ", "))
        }
        if let address = members["address"], !address.isNull, !HostName.isValid(address.string ?? "") {
            fail("address", "must be a host name or an IP address")
        }
        if let port = members["port"], !port.isNull, !(1...65_535).contains(port.int ?? 0) {
            fail("port", "must be a port, 1 to 65535")
        }
        if let name = members["credential_ref"], !name.isNull, !CredentialName.isValid(name.string ?? "") {
            fail("credential_ref", "must be the name of a credential")
        }
        if let options = members["options"], !options.isNull {
            if options.object == nil {
                fail("options", "must be an object")
            } else if Mask.masked(options) != options {
                fail("options", "must hold no secrets; name a credential instead")
            }
        }
        if let pool = members["pool"], !pool.isNull, !Names.isWorkerWord(pool.string ?? "") {
            fail("pool", "must be a name")
        }
        for (field, range) in [("max_concurrency", 1...1000), ("min_interval_ms", 0...600_000)] {
            guard let value = members[field], !value.isNull else { continue }
            if !range.contains(value.int ?? -1) {
                fail(field, "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
            }
        }
        return problems
    }

    static func group(_ entry: InventoryDocument.Entry) -> [InventoryProblem] {
        var problems: [InventoryProblem] = []
        func fail(_ field: String, _ message: String) {
            problems.append(InventoryProblem(row: entry.row, field: field, message: message))
        }
        for key in entry.members.keys where blankGroup[key] == nil { fail(key, "is not known") }
        if !Names.isInventoryName(entry.name) { fail("name", "must be a name") }
        if let priority = entry.members["priority"], !priority.isNull, priority.int == nil {
            fail("priority", "must be a whole number")
        }
        if let properties = entry.members["properties"], !properties.isNull, properties.object == nil {
            fail("properties", "must be an object")
        }
        return problems
    }

    // MARK: - All together

    /// What looks wrong when all machines are seen together, of those that are about to change.
    static func lint(
        machines: [String: JSONObject],
        changed: Set<String>,
        rows: [String: Int],
        controllers: [String: JSONObject]
    ) -> (problems: [InventoryProblem], warnings: [String]) {
        var problems: [InventoryProblem] = []
        var warnings: [String] = []
        func fail(_ name: String, _ field: String, _ message: String) {
            problems.append(InventoryProblem(row: rows[name] ?? 0, field: field, message: message))
        }
        var names: [String: String] = [:]
        var seen: [String: [String: String]] = [:]
        var places: [String: String] = [:]
        for (key, machine) in machines.sorted(by: { $0.key < $1.key }) {
            let name = machine["name"]?.string ?? key
            var own: Set<String> = [key]
            own.formUnion((machine["aliases"]?.array ?? []).compactMap { $0.string?.lowercased() })
            for word in own {
                if let other = names[word], changed.contains(key) || changed.contains(other.lowercased()) {
                    fail(key, "name", "\(word) is a name of \(other) as well as of \(name)")
                }
                names[word] = name
            }
            for field in ["fqdn", "ip", "mac"] {
                guard let value = machine[field]?.string?.lowercased() else { continue }
                if let other = seen[field]?[value], changed.contains(key) || changed.contains(other.lowercased()) {
                    if field == "fqdn" {
                        fail(key, field, "\(value) is \(other)'s as well as \(name)'s")
                    } else {
                        warnings.append("\(name) and \(other) share the \(field) \(value)")
                    }
                }
                seen[field, default: [:]][value] = name
            }
            for control in machine["controls"]?.array ?? [] {
                let controller = control["controller"]?.string ?? ""
                guard let known = controllers[controller] else {
                    if changed.contains(key) { fail(key, "controls", "there is no controller \(controller)") }
                    continue
                }
                let locator = control["locator"]?.object ?? [:]
                if changed.contains(key) { warnings += strange(name, known, locator) }
                guard control["feed_group"]?.string == nil else { continue }
                let place = "\(controller) \(Locator.key(locator))"
                if let other = places[place], changed.contains(key) || changed.contains(other.lowercased()) {
                    fail(key, "controls", "\(name) and \(other) share the place \(place)")
                }
                places[place] = name
            }
            if changed.contains(key) { warnings += strange(name, machine) }
        }
        return (problems, warnings)
    }

    private static func strange(_ name: String, _ machine: JSONObject) -> [String] {
        var warnings: [String] = []
        let labels = (machine["fqdn"]?.string ?? "").split(separator: ".")
        for worker in machine["workers"]?.array ?? [] {
            if let group = worker["worker_group"]?.string, labels.count > 3,
                labels[3].lowercased() != group.lowercased()
            {
                warnings.append("\(name) is called \(labels.joined(separator: ".")) and its worker is in \(group)")
            }
        }
        return warnings
    }

    private static func strange(_ name: String, _ controller: JSONObject, _ locator: JSONObject) -> [String] {
        var warnings: [String] = []
        if controller["kind"]?.string == ControllerKind.snmp.rawValue,
            controller["type"]?.string ?? "sentry3" == "sentry3",
            let outlet = locator["outlet"]?.string, !WorkerConfiguration.isOutlet(outlet)
        {
            warnings.append("\(name): \(outlet) is no outlet such as aa6")
        }
        let suites = controller["options"]?["cipher_suites"]?.array?.compactMap(\.int) ?? []
        if suites.contains(where: { [0, 1, 2, 6, 7, 11, 15, 16].contains($0) }) {
            warnings.append(
                "\(controller["name"]?.string ?? "?"): the cipher suite lacks authentication or confidentiality"
            )
        }
        return warnings
    }
}
