// SPDX-License-Identifier: MPL-2.0

import JSON

/// Reads the configuration file of the original service, and the files by facility that came before it.
///
/// Passwords and communities become credentials; the inventory keeps no more than their names.
enum WorkerConfiguration {
    static func read(_ value: JSONValue) -> InventoryDocument {
        guard let object = value.object else {
            var document = InventoryDocument()
            document.problems.append(InventoryProblem(row: 0, field: "", message: "must be an object"))
            return document
        }
        if let servers = object["servers"]?.object {
            var reader = Reader(types: object["types"]?.object ?? [:], servers: servers)
            reader.read(
                community: object["snmp_community_string"]?.string,
                credential: object["snmp_credential"]?.string
            )
            return reader.document
        }
        // Files by facility: the key is a full name, the value what the facility needs.
        var servers = JSONObject()
        for (name, entry) in object {
            guard var members = entry.object else { continue }
            members["fqdn"] = .string(name)
            if let access = members["ipmi"]?.object {
                members["user"] = access["user"] ?? .null
                members["password"] = access["password"] ?? .null
                members["own"] = true
            }
            if let uuid = members["xen_uuid"]?.string { members["xen"] = ["reboot": [.string(uuid)]] }
            servers[name] = .object(members)
        }
        var reader = Reader(types: [:], servers: servers)
        reader.read(community: nil, credential: nil)
        return reader.document
    }

    /// The split of an outlet's address: everything before the last colon is the host.
    static func outlet(_ text: String) -> (host: String, outlet: String)? {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let host = String(text[..<colon])
        let outlet = String(text[text.index(after: colon)...]).lowercased()
        return host.isEmpty ? nil : (host, outlet)
    }

    /// Tower and infeed as letters, then the number of the outlet.
    static func isOutlet(_ text: String) -> Bool {
        let characters = Array(text.lowercased().utf8)
        guard (3...4).contains(characters.count) else { return false }
        return characters.prefix(2).allSatisfy { (UInt8(ascii: "a")...UInt8(ascii: "c")).contains($0) }
            && characters.dropFirst(2).allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }

    /// Tokens of a command line, where an element may hold several.
    static func tokens(_ value: JSONValue?) -> [String] {
        (value?.array ?? []).compactMap(\.string).flatMap { $0.split(separator: " ").map(String.init) }
    }
}

private struct Reader {
    let types: JSONObject
    let servers: JSONObject
    var document = InventoryDocument()
    private var controllers: [String: JSONObject] = [:]

    init(types: JSONObject, servers: JSONObject) {
        self.types = types
        self.servers = servers
    }

    /// Reads all; our own exports name credentials where the original held secrets.
    mutating func read(community: String?, credential: String?) {
        for (name, type) in types { checkAddresses(name, type["map"]?.object ?? [:]) }
        let parents = Set(servers.compactMap { $0.value["parent"]?.string?.lowercased() })
        // Names that differ in case only are one machine.
        var order: [String] = []
        var spellings: [String: [(key: String, row: Int, entry: JSONObject)]] = [:]
        for (row, (key, value)) in servers.enumerated() {
            guard let entry = value.object else {
                document.problems.append(InventoryProblem(row: row + 1, field: key, message: "must be an object"))
                continue
            }
            if spellings[key.lowercased()] == nil { order.append(key.lowercased()) }
            spellings[key.lowercased(), default: []].append((key, row + 1, entry))
        }
        if let community { document.credentials["snmp-community"] = Credential(["community": .string(community)]) }
        let communityName = community == nil ? credential : "snmp-community"
        for name in order where !parents.contains(name) {
            addMachine(name, spellings[name] ?? [], community: communityName)
        }
        let lower = Set(order)
        for (row, (key, value)) in servers.enumerated() {
            guard let parent = value["parent"]?.string, !lower.contains(parent.lowercased()) else { continue }
            problem(row + 1, key, "names the parent \(parent), which is not there")
        }
        document.controllers = controllers.sorted { $0.key < $1.key }.map { InventoryDocument.Entry(row: 0, $0.value) }
    }

    private mutating func problem(_ row: Int, _ field: String, _ message: String) {
        document.problems.append(InventoryProblem(row: row, field: field, message: message))
    }

    // MARK: - Machines

    private mutating func addMachine(
        _ name: String,
        _ spellings: [(key: String, row: Int, entry: JSONObject)],
        community: String?
    ) {
        guard let base = spellings.first(where: { $0.key == name }) ?? spellings.first else { return }
        for other in spellings where other.key != base.key && other.entry != base.entry {
            let isSame = (other.entry["parent"], other.entry["addr"]) == (base.entry["parent"], base.entry["addr"])
            if !isSame {
                problem(other.row, other.key, "differs from \(base.key) in more than the case of its name")
            }
        }
        let short = String(base.key.prefix { $0 != "." })
        var members: JSONObject = [
            "name": .string(short),
            "aliases": .array(spellings.map(\.key).filter { $0 != short }.map(JSONValue.string)),
        ]
        if let fqdn = base.entry["fqdn"]?.string { members["fqdn"] = .string(fqdn) }
        if let cc = base.entry["bug_cc"]?.string, !cc.isEmpty { members["bug_cc"] = .string(cc) }
        var controls: [JSONValue] = []
        func control(_ controller: String, _ locator: JSONObject, _ priority: Int) {
            controls.append(
                ["controller": .string(controller), "locator": .object(locator), "priority": JSONValue(priority)]
            )
        }
        if let parent = base.entry["parent"]?.string {
            members["kind"] = "blade"
            if let (controller, locator) = blade(base.entry, parent: parent, base.row, base.key) {
                control(controller, locator, 30)
            }
        } else if base.entry["credential"]?.string != nil
            || base.entry["user"]?.string != nil && base.entry["password"]?.string != nil
        {
            control(management(base.key, base.entry), [:], 30)
        }
        if let text = base.entry["pdu"]?.string {
            if let (host, outlet) = WorkerConfiguration.outlet(text), WorkerConfiguration.isOutlet(outlet) {
                add(
                    "pdu-\(host)",
                    .snmp,
                    ["address": .string(host), "type": "sentry3"],
                    community
                )
                control("pdu-\(host)", ["outlet": .string(outlet)], 10)
            } else {
                problem(base.row, base.key, "pdu \(text) is not host:outlet such as pdu1.example.com:aa6")
            }
        }
        if let access = base.entry["ssh"]?.object, let user = access["user"]?.string,
            let credential = access["credential"]?.string
        {
            add("ssh-\(short)", .ssh, ["options": ["login": .string(user)]], credential)
            control("ssh-\(short)", [:], 50)
        } else if let access = base.entry["ssh"]?.object, let user = access["user"]?.string,
            let key = access["key_file"]?.string
        {
            let file = key.split(separator: "/").last.map(String.init) ?? key
            let name = "ssh-\(user)-\(file)"
            let credential = CredentialName.isValid(name) ? name : "ssh-\(short)"
            document.credentials[credential] = Credential(
                ["username": .string(user), "privateKeyFile": .string(key)]
            )
            add("ssh-\(short)", .ssh, ["options": ["login": .string(user)]], credential)
            control("ssh-\(short)", [:], 50)
        }
        for uuid in base.entry["xen"]?["reboot"]?.array ?? [] {
            guard let uuid = uuid.string else { continue }
            members["kind"] = "vm"
            add("xen", .xen, [:], nil)
            control("xen", ["vm_uuid": .string(uuid)], 20)
        }
        addILO(base.entry, short) { control($0, [:], 35) }
        members["controls"] = .array(controls)
        document.machines.append(InventoryDocument.Entry(row: base.row, members))
    }

    private mutating func addILO(_ entry: JSONObject, _ short: String, _ control: (String) -> Void) {
        guard let list = entry["ilo"]?.array, let host = list.first?.string else { return }
        let arguments = list.count > 1 ? WorkerConfiguration.tokens(list[1]) : []
        func value(_ option: String) -> String? {
            for (index, argument) in arguments.enumerated() {
                if argument.hasPrefix("\(option)=") { return String(argument.dropFirst(option.count + 1)) }
                if argument == option, index + 1 < arguments.count { return arguments[index + 1] }
            }
            return nil
        }
        var credential: String?
        if let user = value("--login"), let password = value("--password") {
            credential = "ilo-\(short)"
            document.credentials["ilo-\(short)"] = Credential(
                ["username": .string(user), "password": .string(password)]
            )
        }
        add("ilo-\(host)", .ilo, ["address": .string(host)], credential)
        control("ilo-\(host)")
    }

    // MARK: - Controllers

    private mutating func add(_ name: String, _ kind: ControllerKind, _ members: JSONObject, _ credential: String?) {
        var all: JSONObject = ["name": .string(name), "kind": .string(kind.rawValue)]
        for (key, value) in members { all[key] = value }
        if let credential { all["credential_ref"] = .string(credential) }
        controllers[name] = all
    }

    /// The management controller of a server or chassis; answers its name.
    private mutating func management(_ key: String, _ entry: JSONObject, isChassis: Bool = false) -> String {
        let short = String(key.lowercased().prefix { $0 != "." })
        var members: JSONObject = ["address": .string(entry["ipmi_host"]?.string ?? entry["fqdn"]?.string ?? key)]
        // The controller of a chassis has little to think with; an inventory of ours has settled the matter.
        if isChassis, entry["own"] == nil { members["max_concurrency"] = 2 }
        if let type = entry["type"]?.string {
            members["type"] = .string(type)
            if types[type] == nil {
                document.problems.append(
                    InventoryProblem(row: 0, field: key, message: "has the type \(type), which is not there")
                )
            }
        } else if entry["own"] == nil, entry["credential"] == nil {
            document.warnings.append("\(key) has no type; it is taken for a plain IPMI controller")
        }
        var credential = entry["credential"]?.string
        if credential == nil, let user = entry["user"]?.string, let password = entry["password"]?.string {
            credential = "ipmi-\(short)"
            document.credentials["ipmi-\(short)"] = Credential(
                ["username": .string(user), "password": .string(password)]
            )
            if password.utf8.count > 20 {
                document.warnings.append("\(key): IPMI 2.0 knows no passwords of more than 20 bytes")
            }
        }
        add("ipmi-\(short)", .ipmi, members, credential)
        return "ipmi-\(short)"
    }

    /// The chassis of a blade, and the way to it.
    private mutating func blade(
        _ entry: JSONObject,
        parent: String,
        _ row: Int,
        _ key: String
    ) -> (String, JSONObject)? {
        guard
            let (parentKey, chassis) = servers.first(where: { $0.key.lowercased() == parent.lowercased() })
                .flatMap({ found in found.value.object.map { (found.key, $0) } })
        else { return nil }
        let controller = management(parentKey, chassis, isChassis: true)
        guard let address = entry["addr"]?.string else {
            problem(row, key, "has a parent and no addr")
            return nil
        }
        let type = chassis["type"]?.string.flatMap { types[$0] }
        guard let way = type?["map"]?[address] else {
            problem(row, key, "has the addr \(address), which the type of \(parent) does not map")
            return nil
        }
        let bridge = WorkerConfiguration.tokens(type?["args"]) + WorkerConfiguration.tokens(way)
        return (controller, ["addr": .string(address), "bridge": JSONValue(bridge)])
    }

    /// Finds addresses that break the pattern of all others: node 1 of cartridge K is behind 0x80 + 2K.
    private mutating func checkAddresses(_ type: String, _ map: JSONObject) {
        var wrong: [String] = []
        var right = 0
        for (address, way) in map {
            let parts = address.lowercased().dropFirst().split(separator: "n")
            guard address.lowercased().hasPrefix("c"), parts.count == 2, let cartridge = Int(parts[0]) else { continue }
            let tokens = WorkerConfiguration.tokens(way)
            guard let option = tokens.firstIndex(of: "-T"), option + 1 < tokens.count else { continue }
            let target = tokens[option + 1].lowercased()
            let number = target.hasPrefix("0x") ? Int(target.dropFirst(2), radix: 16) : Int(target)
            if number == 0x80 + 2 * cartridge {
                right += 1
            } else {
                let expected = String(0x80 + 2 * cartridge, radix: 16)
                wrong.append(
                    "type \(type): \(address) goes to \(target), by the pattern of the others it is 0x\(expected)"
                )
            }
        }
        if right > wrong.count { document.warnings += wrong }
    }
}
