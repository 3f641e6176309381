// SPDX-License-Identifier: MPL-2.0

import JSON

/// Reads inventories in the spelling of the API: a list of machines, or an object of all three lists.
enum JSONInventory {
    static func read(_ value: JSONValue) -> InventoryDocument {
        var document = InventoryDocument()
        func entries(_ list: JSONValue?, _ field: String) -> [InventoryDocument.Entry] {
            guard let list else { return [] }
            guard let elements = list.array else {
                document.problems.append(InventoryProblem(row: 0, field: field, message: "must be a list"))
                return []
            }
            return elements.enumerated().compactMap { index, element in
                guard let members = element.object else {
                    document.problems.append(
                        InventoryProblem(row: index + 1, field: field, message: "must be an object")
                    )
                    return nil
                }
                return InventoryDocument.Entry(row: index + 1, members)
            }
        }
        if value.array != nil {
            document.machines = entries(value, "machines")
        } else if let object = value.object {
            for key in object.keys where !["controllers", "groups", "machines"].contains(key) {
                document.problems.append(InventoryProblem(row: 0, field: key, message: "is not known"))
            }
            document.controllers = entries(object["controllers"], "controllers")
            document.groups = entries(object["groups"], "groups")
            document.machines = entries(object["machines"], "machines")
        } else {
            document.problems.append(InventoryProblem(row: 0, field: "", message: "must be a list or an object"))
        }
        return document
    }
}

/// Reads the fixtures of the first generation's models.
enum DjangoFixtures {
    static func areFixtures(_ value: JSONValue) -> Bool {
        guard let elements = value.array, !elements.isEmpty else { return false }
        return elements.allSatisfy { $0["model"]?.string != nil && $0["fields"]?.object != nil }
    }

    static func read(_ value: JSONValue) -> InventoryDocument {
        var document = InventoryDocument()
        var workers: [Int: JSONObject] = [:]
        for (index, element) in (value.array ?? []).enumerated() {
            let model = element["model"]?.string?.lowercased()
            guard let fields = element["fields"]?.object else { continue }
            if model == "api.taskclusterworker", let key = element["pk"]?.int {
                workers[key] = worker(fields)
            } else if model != "api.machine", model != "api.job" {
                document.warnings.append("element \(index + 1): the model \(model ?? "?") is not imported")
            }
        }
        for (index, element) in (value.array ?? []).enumerated()
        where element["model"]?.string?.lowercased() == "api.machine" {
            let host = element["fields"]?["host"]?.string ?? ""
            var members: JSONObject = ["name": .string(host.prefix { $0 != "." } + "")]
            if host.contains(".") { members["fqdn"] = .string(host) }
            if let address = element["fields"]?["ip"]?.string { members["ip"] = .string(address) }
            let linked = (element["fields"]?["workers"]?.array ?? []).compactMap { key -> JSONValue? in
                guard let number = key.int else { return nil }
                guard let worker = workers[number] else {
                    document.problems.append(
                        InventoryProblem(row: index + 1, field: "workers", message: "there is no worker \(number)")
                    )
                    return nil
                }
                return .object(worker)
            }
            members["workers"] = .array(linked)
            document.machines.append(InventoryDocument.Entry(row: index + 1, members))
        }
        return document
    }

    private static func worker(_ fields: JSONObject) -> JSONObject {
        var worker = JSONObject()
        for (from, to) in [
            ("tc_provisioner_id", "provisioner_id"), ("tc_worker_type", "worker_type"),
            ("tc_worker_group", "worker_group"), ("tc_worker_id", "worker_id"),
        ] {
            if let text = fields[from]?.string, !text.isEmpty { worker[to] = .string(text) }
        }
        return worker
    }
}
