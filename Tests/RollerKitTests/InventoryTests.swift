// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Postgres
import TestSupport
import Testing

@testable import RollerKit

@Suite(.timeLimit(.minutes(5)))
struct InventoryTests {
    /// Part of a file such as the original service had it.
    static let configuration: JSONValue = {
        var map = JSONObject()
        for cartridge in 1...45 {
            let target = cartridge == 43 ? "0xd5" : "0x" + String(0x80 + 2 * cartridge, radix: 16)
            map["c\(cartridge)n1"] = [.string("-T \(target)"), "-t 0x72"]
        }
        let blade: JSONValue = [
            "fqdn": "t-w1064-ms-016.test.releng.mdc1.mozilla.com", "parent": "moon-chassis-1", "addr": "c16n1",
            "bug_cc": "ops@example.com",
        ]
        return [
            "snmp_community_string": "s3cret-community",
            "types": ["moonshot": ["args": ["-B 0", "-b 7"], "map": .object(map), "commands": [:]]],
            "servers": [
                "T-W1064-MS-016": blade, "t-w1064-ms-016": blade,
                "moon-chassis-1": [
                    "fqdn": "moon-chassis-1.example.com", "user": "admin", "password": "s3cret-bmc", "type": "moonshot",
                ],
                "t-yosemite-r7-001": [
                    "fqdn": "t-yosemite-r7-001.test.releng.mdc2.mozilla.com", "pdu": "pdu1.example.com:ba6",
                    "ssh": ["user": "roller", "key_file": "/keys/roller"],
                ],
            ],
        ]
    }()

    private func apply(_ world: RollerWorld, _ document: InventoryDocument, partial: Bool = false) async throws
        -> InventoryPlan
    {
        var options = InventoryImport(clientID: "tests")
        options.applies = true
        options.allowsPartial = partial
        return try await world.inventory.apply(document, options)
    }

    @Test func `R20: an old configuration gives one machine for both spellings, and the wrong address is named`()
        async throws
    {
        try await RollerWorld.with { world in
            let document = InventoryFormat.workerConfiguration.read(Self.configuration.bytes())
            let plan = try await apply(world, document)
            #expect(plan.problems == [] && plan.create == ["t-w1064-ms-016", "t-yosemite-r7-001"])
            #expect(plan.warnings.contains { $0.contains("c43n1") && $0.contains("0xd5") && $0.contains("0xd6") })
            #expect(plan.warnings.filter { $0.contains("goes to") }.count == 1)
            let blade = try #require(try await world.inventory.machine(name: "T-W1064-MS-016"))
            #expect(blade.machine.name == "t-w1064-ms-016" && blade.aliases == ["T-W1064-MS-016"])
            #expect(blade.machine.kind == .blade && blade.machine.bugCC == "ops@example.com")
            let control = try #require(blade.controls(.ipmi).first)
            #expect(control.locator["addr"] == "c16n1")
            #expect(control.locator["bridge"] == ["-B", "0", "-b", "7", "-T", "0xa0", "-t", "0x72"])
            #expect(
                control.controller.address == "moon-chassis-1.example.com" && control.controller.minimumInterval == 5000
            )
            // A chassis bears two calls at a time.
            #expect(control.controller.maximumConcurrency == 2)
            #expect(document.credentials["ipmi-moon-chassis-1"]?.password == "s3cret-bmc")
            #expect(document.credentials["snmp-community"]?.community == "s3cret-community")
            let mini = try #require(try await world.inventory.machine(name: "t-yosemite-r7-001"))
            #expect(mini.controls.map(\.controller.kind) == [.ssh, .snmp])
            #expect(mini.controls(.snmp).first?.locator == ["outlet": "ba6"])
            // Both names are the same place, and nothing secret is in the database.
            let again = try await apply(world, document)
            #expect(again.unchanged == 2 && again.create.isEmpty && again.update.isEmpty)
            for table in ["machines", "controllers", "machine_controls", "audit_log"] {
                let leaks = try await world.pool.query(
                    "select count(*) as n from roller.\(unsafe: table) t where to_jsonb(t)::text like '%s3cret%'"
                )
                #expect(try leaks.first?.int("n") == 0, "\(table)")
            }
        }
    }

    @Test func `an empty inventory is filled from the old file, one with machines is left alone`() async throws {
        try await withFolder { folder in
            let path = "\(folder)/worker_config.json"
            try CredentialStore(directory: folder).save(
                Credential(Self.configuration.object ?? [:]),
                as: "worker_config"
            )
            try await RollerWorld.with { world in
                let credentials = CredentialStore(directory: folder)
                let imports = FirstImport(inventory: world.inventory, credentials: credentials, path: path)
                let isFilled = try await imports.fill()
                #expect(isFilled)
                #expect(try await world.count("machines") == 2)
                #expect(try await imports.fill() == false)
                #expect(credentials.contains("ipmi-moon-chassis-1"))
            }
        }
    }

    @Test func `R21: fixtures of the first models link machines and workers`() async throws {
        let fixtures: JSONValue = [
            ["model": "api.Machine", "pk": 1, "fields": ["host": "localhost", "ip": "127.0.0.1", "workers": [1]]],
            [
                "model": "api.TaskClusterWorker", "pk": 1,
                "fields": [
                    "tc_provisioner_id": "", "tc_worker_type": "", "tc_worker_group": "", "tc_worker_id": "tc-worker-1",
                ],
            ],
        ]
        try await APIWorld.with { api in
            let imported = try await api.send("POST", "machines/import?mode=apply", fixtures)
            #expect(imported.status == 200 && imported.json["create"] == ["localhost"])
            let answer = try await api.call("POST", "jobs?tc_worker_id=tc-worker-1&task_name=ping")
            let job = try #require(try await api.world.jobs.job(answer.json["task_id"]?.string ?? ""))
            let machine = try #require(try await api.world.inventory.machine(id: job.machine ?? ""))
            #expect(machine.machine.ip == "127.0.0.1" && machine.machine.name == "localhost")
        }
    }

    @Test func `a worker is linked to other machines and called by other names, all or nothing and on record`()
        async throws
    {
        try await APIWorld.with { api in
            try await api.managed("old-box")
            _ = try await api.world.machine("new-box")
            let list = try await api.call("GET", "workers?worker_id=old-box", scopes: ["inventory:read"])
            let number = try #require(list.json["workers"]?[0]?["id"]?.int)
            let path = "workers/\(number)"
            #expect(try await api.send("PATCH", path, [:], scopes: ["inventory:read"]).status == 403)
            let linked = try await api.send("PATCH", path, ["machines": ["NEW-BOX"]], scopes: ["inventory:write"])
            #expect(linked.status == 200 && linked.json["machines"] == ["new-box"])
            #expect(linked.json["worker_group"] == "mdc1" && linked.json["worker_id"] == "old-box")
            let job = try await api.call("POST", "workers/old-box/jobs?task_name=ping")
            let machine = try await api.world.jobs.job(job.json["task_id"]?.string ?? "")?.machine
            #expect(try await api.world.inventory.machine(id: machine ?? "")?.machine.name == "new-box")
            // A mistake keeps everything as it was.
            let unknown = try await api.send("PATCH", path, ["worker_group": "mdc2", "machines": ["new-box", "none"]])
            #expect(unknown.status == 400 && unknown.json["machines"] == ["There is no machine none."])
            let wrong = try await api.send("PATCH", path, ["worker_id": "-x", "machines": "new-box"])
            #expect(wrong.status == 400 && wrong.json.object?.keys.sorted() == ["machines", "worker_id"])
            #expect(try await api.call("GET", path).json == linked.json)
            // Putting it says all of it.
            let put = try await api.send("PUT", path, ["worker_id": "Third", "worker_type": "linux"])
            #expect(put.status == 200 && put.json["worker_id"] == "third" && put.json["machines"] == [])
            #expect(put.json["worker_group"] == .null)
            #expect(try await api.send("PUT", path, ["worker_type": "linux"]).status == 400)
            #expect(try await api.send("PATCH", "workers/999999", [:]).status == 404)
            let audit = try await api.call("GET", "audit?object=worker:old-box", scopes: ["audit:read"])
            let entry = try #require(audit.json["entries"]?[0])
            #expect(entry["verb"] == "worker.patch" && entry["before"]?["machines"] == ["old-box"])
            #expect(entry["after"]?["machines"] == ["new-box"])
        }
    }

    @Test func `the settings of old say where Xen machines are and how iLO boards are spoken to`() {
        let old: JSONValue = [
            "types": [:],
            "servers": [
                "vm-1": ["xen": ["reboot": ["11111111-2222-3333-4444-555555555555"]]],
                "own": ["ilo": ["own-ilo.example.com", ["--login=me", "--password=mine-alone"]]],
                "bare": ["ilo": ["bare-ilo.example.com", []]],
            ],
        ]
        let environment = [
            "XEN_URL": "http://xen.example.com:8080", "XEN_USERNAME": "root", "XEN_PASSWORD": "xen-s3cret",
            "ILO_USERNAME": "admin", "ILO_PASSWORD": "ilo-s3cret",
        ]
        let seeds = SeedControllers(settings: Settings(environment: environment))
        let document = seeds.completed(InventoryFormat.workerConfiguration.read(old.bytes()))
        #expect(document.problems == [])
        func controller(_ name: String) -> JSONObject? { document.controllers.first { $0.name == name }?.members }
        let xen = controller("xen")
        #expect(xen?["address"] == "xen.example.com" && xen?["port"] == 8080)
        #expect(
            xen?["options"] == ["scheme": "http", "allow_plain_http": true] && xen?["credential_ref"] == "seed-xenapi"
        )
        #expect(controller("ilo-bare-ilo.example.com")?["credential_ref"] == "seed-ilo")
        #expect(controller("ilo-own-ilo.example.com")?["credential_ref"] == "ilo-own")
        #expect(document.credentials["seed-xenapi"]?.password == "xen-s3cret")
        #expect(document.credentials["seed-ilo"]?.username == "admin")
        let half = Settings(environment: ["XEN_URL": "nowhere", "ILO_USERNAME": "admin"])
        _ = SeedControllers(settings: half)
        #expect(throws: ConfigurationError.self) { try half.check() }
    }

    @Test func `R22: a worker id in two groups needs its group`() async throws {
        try await APIWorld.with { api in
            for group in ["mdc1", "mdc2"] {
                let id = try await api.world.machine("machine-\(group)")
                _ = try await api.world.pool.execute(
                    """
                    with w as (insert into roller.tc_workers (worker_group, worker_id) values (\(group), 'twin') returning id)
                    insert into roller.worker_machines select id, \(id)::uuid from w
                    """
                )
            }
            let vague = try await api.call("POST", "workers/twin/jobs?task_name=reboot")
            #expect(vague.status == 409 && vague.json["detail"] == "Ambiguous worker id")
            let groups = vague.json["candidates"]?.array?.compactMap { $0["worker_group"]?.string }.sorted()
            #expect(groups == ["mdc1", "mdc2"])
            let exact = try await api.call("POST", "workers/twin/group/mdc2/jobs?task_name=reboot")
            #expect(exact.status == 201)
            let job = try #require(try await api.world.jobs.job(exact.json["task_id"]?.string ?? ""))
            #expect(try await api.world.inventory.machine(id: job.machine ?? "")?.machine.name == "machine-mdc2")
        }
    }

    @Test func `R23: one bad row of a table keeps all from being written, and is named`() async throws {
        let table = """
            \u{FEFF}name,fqdn,ip,worker_id,worker_group,pdu_host,pdu_port,groups,properties\r
            host-1,host-1.test.releng.mdc1.mozilla.com,10.0.0.1,w1,mdc1,pdu1,aa1,"linux|racked","{""verify"": ""ssh""}"\r
            host-2,,not an address,w2,mdc1,pdu1,aa2,,\r
            "host-3",,10.0.0.3,w3,mdc1,pdu1,aa3,linux,a=b|c=d
            """
        try await APIWorld.with { api in
            let bytes = Array(table.utf8)
            let plan = try await api.call("POST", "machines/import?format=csv", body: bytes)
            #expect(plan.status == 200 && plan.json["applied"] == false)
            #expect(plan.json["errors"]?.array?.count == 1)
            #expect(plan.json["errors"]?[0]?["row"] == 3 && plan.json["errors"]?[0]?["field"] == "ip")
            let refused = try await api.call("POST", "machines/import?format=csv&mode=apply", body: bytes)
            #expect(refused.status == 400 && refused.json["errors"]?[0]?["row"] == 3)
            #expect(try await api.world.count("machines") == 0)
            let partial = try await api.call("POST", "machines/import?format=csv&mode=apply&partial=1", body: bytes)
            #expect(partial.status == 200 && partial.json["create"] == ["host-1", "host-3"])
            let machine = try #require(try await api.world.inventory.machine(name: "HOST-1"))
            #expect(machine.groups.map(\.name) == ["linux", "racked"] && machine.properties["verify"] == "ssh")
            #expect(try await api.world.inventory.machine(name: "host-3")?.properties == ["a": "b", "c": "d"])
            // An empty cell leaves things alone, a dash clears them.
            let change = "name,fqdn,groups\nhost-1,-,\n"
            let changed = try await api.call("POST", "machines/import?format=csv&mode=apply", body: Array(change.utf8))
            #expect(changed.json["update"]?[0]?["changes"]?["fqdn"]?["after"] == .null)
            #expect(try await api.world.inventory.machine(name: "host-1")?.groups.count == 2)
            let prune = "machines/import?format=csv&mode=apply&prune=1"
            #expect(try await api.call("POST", prune, body: Array("name\nhost-1\n".utf8)).status == 400)
            let pruned = try await api.call("POST", prune + "&group=linux", body: Array("name\nhost-1\n".utf8))
            #expect(pruned.json["delete"] == ["host-3"])
        }
    }

    @Test func `R24: long names of hosts are names of hosts`() {
        let long = "t-linux64-ms-001.a-rather-long-part-of-a-name.test.releng.mdc1.division.mozilla.com"
        #expect(long.utf8.count > 80 && HostName.isValid(long) && HostName.isValid(long + "."))
        for odd in ["-f", "a..b", "a b", "a\n", "", String(repeating: "a", count: 64), "a-.b", ".", "h;id"] {
            #expect(!HostName.isValid(odd), "\(odd)")
        }
        #expect(HostName.isValid("::1") && HostName.isValid("10.0.0.1"))
    }

    @Test func `two machines cannot hang on one outlet, unless it feeds one machine twice`() async throws {
        try await APIWorld.with { api in
            #expect(
                try await api.send("PUT", "controllers/pdu1", ["kind": "snmp_pdu", "address": "pdu1"]).status == 201
            )
            let control: JSONValue = ["controller": "PDU1", "locator": ["outlet": "AA1"]]
            #expect(try await api.send("PUT", "machines/one", ["controls": [control]]).status == 201)
            let other: JSONValue = ["controls": [["controller": "pdu1", "locator": ["outlet": "aa1"]]]]
            let refused = try await api.send("PUT", "machines/two", other)
            #expect(refused.status == 400 && refused.json["controls"]?[0]?.string?.contains("share the place") == true)
            #expect(try await api.send("PUT", "machines/two", ["controls": [["controller": "none"]]]).status == 400)
            #expect(try await api.call("DELETE", "controllers/pdu1").status == 409)
            let secret = try await api.send("PATCH", "controllers/pdu1", ["options": ["password": "x"]])
            #expect(secret.status == 400)
        }
    }

    @Test func `properties of groups hold for machines, which may say otherwise`() async throws {
        try await APIWorld.with { api in
            #expect(
                try await api.send("PUT", "groups/linux", ["priority": 1, "properties": ["a": 1, "b": 1]]).status == 201
            )
            #expect(
                try await api.send("PUT", "groups/racked", ["priority": 2, "properties": ["b": 2, "c": 2]]).status
                    == 201
            )
            let machine: JSONValue = ["groups": ["racked", "linux"], "properties": ["c": 3, "password": "hidden"]]
            #expect(try await api.send("PUT", "machines/m", machine).status == 201)
            let view = try await api.call("GET", "machines/M", scopes: ["inventory:read"]).json
            #expect(view["effective_properties"] == ["a": 1, "b": 2, "c": 3, "password": "***"])
            #expect(view["groups"] == ["linux", "racked"])
            #expect(try await api.send("PATCH", "machines/m", ["properties": ["c": nil]]).status == 200)
            #expect(try await api.world.inventory.machine(name: "m")?.properties["c"] == 2)
            #expect(try await api.send("PATCH", "machines/nobody", ["ip": "10.0.0.1"]).status == 404)
            #expect(try await api.send("PUT", "machines/m", ["colour": "red"]).json["colour"] != nil)
            #expect(try await api.call("DELETE", "machines/m", scopes: ["inventory:read"]).status == 403)
            #expect(try await api.call("DELETE", "machines/m").status == 204)
            #expect(try await api.call("GET", "machines/m").status == 404)
        }
    }

    @Test func `texts that no database can store are refused, wherever they are`() async throws {
        try await APIWorld.with { api in
            for body: JSONValue in [["os": "a\0"], ["properties": ["a": ["\0"]]], ["properties": ["\0": 1]]] {
                #expect(try await api.send("PUT", "machines/m", body).status == 400)
            }
            let list: JSONValue = [["name": "n", "os": "\0"]]
            #expect(try await api.send("POST", "machines/import?mode=apply", list).status == 400)
            let table = Array("name,bug_cc\nn,a\0b\n".utf8)
            #expect(try await api.call("POST", "machines/import?format=csv&mode=apply", body: table).status == 400)
            let search = try await api.call("GET", "machines?search=%00")
            #expect(search.status == 400)
            #expect(try await api.world.count("machines") == 0)
        }
    }

    @Test func `what is exported can be imported`() async throws {
        try await RollerWorld.with { world in
            _ = try await apply(world, InventoryFormat.workerConfiguration.read(Self.configuration.bytes()))
            let exported = try await world.inventory.export()
            let again = try await apply(world, InventoryFormat.json.read(exported.bytes()))
            #expect(again.problems == [] && again.unchanged == 2 && again.update.isEmpty)
        }
    }

    @Test func `what is exported as a table or as the old file is the same inventory elsewhere`() async throws {
        let table = """
            name,fqdn,ip,groups,worker_id,worker_group,ipmi_host,ipmi_port,ipmi_user,ipmi_credential,ipmi_bridge,pdu_host,pdu_port,snmp_credential,ssh_user,ssh_key,properties
            m1,m1.test.releng.mdc1.mozilla.com,10.0.0.1,a|b,m1,mdc1,bmc1,624,admin,bmc-key,-b 0 -t 0x82,pdu1,aa6,pdus,roller,key,"{""x"":""a,b""}"
            m2,,10.0.0.2,,,,,,,,,,,,,,
            """
        let read = [
            "csv": InventoryFormat.csv.read(Array((table + "\n").utf8)),
            "worker_config": InventoryFormat.workerConfiguration.read(Self.configuration.bytes()),
        ]
        for (format, document) in read {
            let text = try await APIWorld.with { api in
                _ = try await apply(api.world, document)
                let answer = try await api.call("GET", "machines/export?format=\(format)", scopes: ["inventory:read"])
                #expect(answer.status == 200 && answer.headers["X-Roller-Omitted"] == "0", "\(format)")
                #expect(!answer.text.contains("s3cret"))
                #expect(try await api.call("GET", "machines/export?format=xml").status == 400)
                // To whom it belongs, it says nothing new.
                let kind = try #require(InventoryFormat(rawValue: format))
                let again = try await apply(api.world, kind.read(answer.bytes))
                #expect(again.problems == [] && again.unchanged == 2 && again.controllers == [], "\(again)")
                return answer.text
            }
            try await RollerWorld.with { world in
                let kind = try #require(InventoryFormat(rawValue: format))
                let plan = try await apply(world, kind.read(Array(text.utf8)))
                #expect(plan.problems == [] && plan.create.count == 2)
                let controls = try await world.count("machine_controls")
                #expect(controls == 3)
            }
        }
    }

    @Test func `R71: every change is in the audit log with who, from where, before and after`() async throws {
        try await APIWorld.with { api in
            _ = try await api.send("PUT", "machines/m", ["ip": "10.0.0.1"])
            _ = try await api.send(
                "PATCH",
                "machines/m",
                ["state": "maintenance", "properties": ["snmp_password": "hush"]]
            )
            let answer = try await api.call("POST", "workers/m/jobs?task_name=ping")
            _ = try await api.call("POST", "jobs/\(answer.json["task_id"]?.string ?? "")/cancel")
            _ = try await api.send("POST", "machines/import?mode=apply", [["name": "n"]])
            let entries = try #require(
                try await api.call("GET", "audit", scopes: ["audit:read"]).json["entries"]?.array
            )
            let verbs = entries.compactMap { $0["verb"]?.string }
            #expect(verbs == ["inventory.import", "job.cancel", "job.create", "machine.patch", "machine.put"])
            for entry in entries {
                #expect(entry["client_id"]?.string == APIWorld.sheriff && entry["source_ip"] == "127.0.0.1")
                #expect(entry["request_id"]?.string != nil)
            }
            let patch = entries[3]
            #expect(patch["before"]?["state"] == "active" && patch["after"]?["state"] == "maintenance")
            #expect(patch["after"]?["properties"]?["snmp_password"] == "***")
            #expect(try await api.call("GET", "audit", scopes: ["inventory:read"]).status == 403)
            await #expect(throws: PostgresError.self) {
                try await api.world.pool.execute("update roller.audit_log set verb = 'nothing'")
            }
        }
    }

    @Test func `R72: fifteen hundred machines are imported in one go`() async throws {
        try await RollerWorld.with { world in
            var rows = "name,fqdn,ip,worker_id,worker_group,pdu_host,pdu_port,groups\n"
            for index in 0..<1500 {
                let name = "host-\(index)"
                rows += "\(name),\(name).test.releng.mdc1.mozilla.com,10.1.\(index / 250).\(index % 250),\(name),mdc1,"
                rows += "pdu-\(index / 24),aa\(index % 24),linux\n"
            }
            let plan = try await apply(world, InventoryFormat.csv.read(Array(rows.utf8)))
            #expect(plan.problems == [] && plan.create.count == 1500 && plan.warnings == [])
            #expect(try await world.count("machine_controls") == 1500)
            #expect(try await world.count("audit_log") > 1500)
            let again = try await apply(world, InventoryFormat.csv.read(Array(rows.utf8)))
            #expect(again.unchanged == 1500)
        }
    }
}
