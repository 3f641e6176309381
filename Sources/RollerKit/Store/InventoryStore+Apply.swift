// SPDX-License-Identifier: MPL-2.0

package import JSON
import Postgres

/// What an import would change, or has changed.
package struct InventoryPlan: Sendable {
    package var create: [String] = []
    package var update: [(name: String, before: JSONObject, after: JSONObject)] = []
    package var delete: [String] = []
    package var unchanged = 0
    /// Controllers and groups that are new or differ.
    package var controllers: [String] = []
    package var groups: [String] = []
    package var problems: [InventoryProblem] = []
    package var warnings: [String] = []
    /// Whether it was carried out.
    package var isApplied = false

    /// As the API tells it.
    package var json: JSONValue {
        [
            "create": JSONValue(create),
            "update": .array(
                update.map { change in
                    var members = JSONObject()
                    for (key, value) in change.after where change.before[key] != value {
                        members[key] = ["before": change.before[key] ?? .null, "after": value]
                    }
                    return ["name": .string(change.name), "changes": .object(members)]
                }
            ),
            "delete": JSONValue(delete),
            "controllers": JSONValue(controllers),
            "groups": JSONValue(groups),
            "unchanged": JSONValue(unchanged),
            "errors": .array(problems.map(\.json)),
            "warnings": JSONValue(warnings),
            "applied": JSONValue(isApplied),
        ]
    }
}

/// How an import is carried out.
package struct InventoryImport: Sendable {
    /// Whether it is carried out at all.
    package var applies = false
    /// Whether the rows without mistakes are carried out although others have some.
    package var allowsPartial = false
    /// The group whose machines go if the document does not name them.
    package var pruneGroup: String?
    /// Whether members that a document does not mention get the value of a blank thing.
    package var replaces = false
    package var clientID: String
    package var sourceAddress: String?
    package var requestID: String?
    package var verb = "inventory.import"

    package init(clientID: String) {
        self.clientID = clientID
    }
}

extension InventoryStore {
    /// Plans what a document changes, and carries it out in one transaction if that is wanted and nothing is wrong.
    ///
    /// One import goes on at a time; requests for jobs are not kept waiting.
    package func apply(_ document: InventoryDocument, _ options: InventoryImport) async throws -> InventoryPlan {
        try await pool.transaction { connection in
            _ = try await connection.query("select pg_advisory_xact_lock(hashtext('roller.inventory'))")
            var work = ImportWork(
                controllers: try await Self.controllerDocuments(on: connection),
                groups: try await Self.groupDocuments(on: connection),
                machines: try await Self.machineDocuments(on: connection)
            )
            work.plan(document, options)
            guard options.applies, work.result.problems.isEmpty || options.allowsPartial else { return work.result }
            try await Self.write(work, options, on: connection)
            work.result.isApplied = true
            return work.result
        }
    }

    /// Removes a machine; false if there is none.
    package func remove(machine name: String, _ options: InventoryImport) async throws -> Bool {
        guard let detail = try await machine(name: name) else { return false }
        return try await pool.transaction { connection in
            let before = try await Self.machineDocuments(on: connection)[detail.machine.name.lowercased()]
            let deleted = try await connection.execute(
                "delete from roller.machines where id = \(detail.machine.id)::uuid"
            )
            guard deleted == 1 else { return false }
            try await AuditStore.add(
                AuditEntry(
                    clientID: options.clientID,
                    sourceAddress: options.sourceAddress,
                    verb: "machine.delete",
                    object: "machine:\(detail.machine.name)",
                    before: before.map(JSONValue.object),
                    requestID: options.requestID
                ),
                on: connection
            )
            return true
        }
    }

    // MARK: - The inventory as documents

    /// All machines as documents, by their names in lower case.
    static func machineDocuments(
        where condition: SQL = "true",
        on connection: PostgresConnection
    ) async throws -> [String: JSONObject] {
        var documents: [String: JSONObject] = [:]
        for detail in try await details(where: condition, limit: 1_000_000, on: connection) {
            documents[detail.machine.name.lowercased()] = document(detail)
        }
        return documents
    }

    /// A machine in the spelling of imports.
    static func document(_ detail: MachineDetail) -> JSONObject {
        let machine = detail.machine
        var document = InventoryRules.blankMachine
        document["name"] = .string(machine.name)
        document["fqdn"] = JobView.text(machine.fqdn)
        document["ip"] = JobView.text(machine.ip)
        document["mac"] = JobView.text(machine.mac)
        document["kind"] = .string(machine.kind.rawValue)
        document["hw_model"] = JobView.text(machine.hardwareModel)
        document["os"] = JobView.text(machine.operatingSystem)
        document["state"] = .string(machine.state.rawValue)
        document["state_reason"] = JobView.text(machine.stateReason)
        document["state_until"] = JobView.text(machine.stateUntil?.iso8601)
        document["bug_cc"] = JobView.text(machine.bugCC)
        document["boot_seconds_hint"] = machine.bootSeconds.map { JSONValue($0) } ?? .null
        document["properties"] = .object(machine.properties)
        document["groups"] = JSONValue(detail.groups.map(\.name).sorted())
        document["aliases"] = JSONValue(detail.aliases.sorted())
        document["workers"] = .array(detail.workers.map(JobView.worker).sorted { $0.text(.sorted) < $1.text(.sorted) })
        document["controls"] = .array(
            detail.controls.map { control in
                [
                    "controller": .string(control.controller.name.lowercased()), "locator": .object(control.locator),
                    "priority": JSONValue(control.priority), "feed_group": JobView.text(control.feedGroup),
                ]
            }.sorted { (left: JSONValue, right: JSONValue) in left.text(.sorted) < right.text(.sorted) }
        )
        return document
    }

    /// All controllers as documents, by their names in lower case.
    static func controllerDocuments(on connection: PostgresConnection) async throws -> [String: JSONObject] {
        var documents: [String: JSONObject] = [:]
        for row in try await connection.query("select to_jsonb(c) as c from roller.controllers c") {
            let stored = try row.json("c")
            var document = InventoryRules.blankController(nil)
            for key in document.keys { document[key] = stored[key] ?? .null }
            documents[stored["name"]?.string?.lowercased() ?? ""] = document
        }
        return documents
    }

    /// All groups as documents, by their names.
    static func groupDocuments(on connection: PostgresConnection) async throws -> [String: JSONObject] {
        var documents: [String: JSONObject] = [:]
        for row in try await connection.query("select name, priority, properties from roller.groups") {
            let name = try row.string("name")
            documents[name] = [
                "name": .string(name), "priority": JSONValue(try row.int("priority")),
                "properties": try row.json("properties"),
            ]
        }
        return documents
    }

    // MARK: - Writing

    private static func write(
        _ work: ImportWork,
        _ options: InventoryImport,
        on connection: PostgresConnection
    ) async throws {
        if !work.changedControllers.isEmpty {
            let rows = JSONValue.array(
                work.changedControllers.sorted().compactMap { work.controllers[$0] }.map(JSONValue.object)
            )
            _ = try await connection.execute(
                """
                insert into roller.controllers
                    (name, kind, address, port, type, options, credential_ref, pool, max_concurrency, min_interval_ms)
                select name, kind, address, port, type, options, credential_ref, pool, max_concurrency, min_interval_ms
                from jsonb_to_recordset(\(rows)::jsonb) as r(name text, kind text, address text, port int, type text,
                    options jsonb, credential_ref text, pool text, max_concurrency int, min_interval_ms int)
                on conflict (lower(name)) do update set kind = excluded.kind, address = excluded.address, port = excluded.port,
                    type = excluded.type, options = excluded.options, credential_ref = excluded.credential_ref,
                    pool = excluded.pool, max_concurrency = excluded.max_concurrency,
                    min_interval_ms = excluded.min_interval_ms
                """
            )
        }
        if !work.changedGroups.isEmpty {
            let rows = JSONValue.array(work.changedGroups.sorted().compactMap { work.groups[$0] }.map(JSONValue.object))
            _ = try await connection.execute(
                """
                insert into roller.groups (name, priority, properties)
                select name, priority, properties
                from jsonb_to_recordset(\(rows)::jsonb) as r(name text, priority int, properties jsonb)
                on conflict (name) do update set priority = excluded.priority, properties = excluded.properties
                """
            )
        }
        if !work.result.delete.isEmpty {
            let names = work.result.delete.map { $0.lowercased() }
            _ = try await connection.execute("delete from roller.machines where lower(name) = any(\(names))")
        }
        let changed = work.changedMachines.sorted()
        if !changed.isEmpty {
            try await writeMachines(changed.compactMap { work.machines[$0] }, changed, on: connection)
        }
        try await audit(work, options, on: connection)
    }

    private static func writeMachines(
        _ documents: [JSONObject],
        _ names: [String],
        on connection: PostgresConnection
    ) async throws {
        let rows = JSONValue.array(documents.map(JSONValue.object))
        _ = try await connection.execute(
            """
            insert into roller.machines (name, fqdn, ip, mac, kind, hw_model, os, state, state_reason, state_until, bug_cc,
                boot_seconds_hint, properties)
            select name, fqdn, ip, mac, kind, hw_model, os, state, state_reason, state_until, bug_cc, boot_seconds_hint,
                properties
            from jsonb_to_recordset(\(rows)::jsonb) as r(name text, fqdn text, ip text, mac text, kind text, hw_model text,
                os text, state text, state_reason text, state_until timestamptz, bug_cc text, boot_seconds_hint int,
                properties jsonb)
            on conflict (lower(name)) do update set name = excluded.name, fqdn = excluded.fqdn, ip = excluded.ip,
                mac = excluded.mac, kind = excluded.kind, hw_model = excluded.hw_model, os = excluded.os,
                state = excluded.state, state_reason = excluded.state_reason, state_until = excluded.state_until,
                bug_cc = excluded.bug_cc, boot_seconds_hint = excluded.boot_seconds_hint,
                properties = excluded.properties, updated = now()
            """
        )
        // What hangs on a machine is few rows: they are written anew.
        for table in ["machine_aliases", "machine_groups", "worker_machines", "machine_controls"] {
            _ = try await connection.execute(
                """
                delete from roller.\(unsafe: table)
                where machine in (select id from roller.machines where lower(name) = any(\(names)))
                """
            )
        }
        let parts: SQL = """
            with parts as (
                select m.id as machine, r.value as doc from jsonb_array_elements(\(rows)::jsonb) r
                join roller.machines m on lower(m.name) = lower(r.value->>'name'))
            """
        _ = try await connection.execute(
            """
            \(parts) insert into roller.machine_aliases (alias_lower, alias, machine)
            select lower(a), a, machine from parts, jsonb_array_elements_text(doc->'aliases') a
            """
        )
        _ = try await connection.execute(
            """
            \(parts), wanted as (select distinct machine, g from parts, jsonb_array_elements_text(doc->'groups') g),
            added as (insert into roller.groups (name) select distinct g from wanted on conflict (name) do nothing)
            select count(*) from wanted
            """
        )
        _ = try await connection.execute(
            """
            \(parts) insert into roller.machine_groups (machine, group_name)
            select distinct machine, g from parts, jsonb_array_elements_text(doc->'groups') g
            """
        )
        _ = try await connection.execute(
            """
            \(parts) insert into roller.tc_workers (provisioner_id, worker_type, worker_group, worker_id)
            select distinct w->>'provisioner_id', w->>'worker_type', w->>'worker_group', w->>'worker_id'
            from parts, jsonb_array_elements(doc->'workers') w
            on conflict (worker_id, (coalesce(worker_group, '')), (coalesce(provisioner_id, '')), (coalesce(worker_type, '')))
            do nothing
            """
        )
        _ = try await connection.execute(
            """
            \(parts) insert into roller.worker_machines (worker, machine)
            select distinct t.id, machine from parts, jsonb_array_elements(doc->'workers') w
            join roller.tc_workers t on t.worker_id = w->>'worker_id'
                and t.worker_group is not distinct from w->>'worker_group'
                and t.provisioner_id is not distinct from w->>'provisioner_id'
                and t.worker_type is not distinct from w->>'worker_type'
            """
        )
        // The key is made where its one spelling is defined.
        let controls = documents.flatMap { document in
            (document["controls"]?.array ?? []).map { control -> JSONValue in
                var row = control
                row["machine"] = document["name"]
                row["locator_key"] = .string(Locator.key(control["locator"]?.object ?? [:]))
                return row
            }
        }
        _ = try await connection.execute(
            """
            insert into roller.machine_controls (machine, controller, locator, locator_key, priority, feed_group)
            select m.id, c.id, r.locator, r.locator_key, r.priority, r.feed_group
            from jsonb_to_recordset(\(JSONValue.array(controls))::jsonb) as r(machine text, controller text, locator jsonb,
                locator_key text, priority int, feed_group text)
            join roller.machines m on lower(m.name) = lower(r.machine)
            join roller.controllers c on lower(c.name) = r.controller
            """
        )
    }

    /// A line for each thing that changed.
    private static func audit(
        _ work: ImportWork,
        _ options: InventoryImport,
        on connection: PostgresConnection
    ) async throws {
        var rows: [JSONValue] = []
        func add(_ object: String, _ before: JSONObject?, _ after: JSONObject?) {
            rows.append([
                "object": .string(object), "before": before.map { Mask.masked(.object($0)) } ?? .null,
                "after": after.map { Mask.masked(.object($0)) } ?? .null,
            ])
        }
        for name in work.changedControllers.sorted() {
            add("controller:\(name)", work.oldControllers[name], work.controllers[name])
        }
        for name in work.changedGroups.sorted() { add("group:\(name)", work.oldGroups[name], work.groups[name]) }
        for name in work.result.delete { add("machine:\(name)", work.oldMachines[name.lowercased()], nil) }
        for name in work.changedMachines.sorted() {
            let now = work.machines[name]
            add("machine:\(now?["name"]?.string ?? name)", work.oldMachines[name], now)
        }
        _ = try await connection.execute(
            """
            insert into roller.audit_log (client_id, source_ip, verb, object, before, after, request_id)
            select \(options.clientID), \(options.sourceAddress), \(options.verb), object,
                nullif(before, 'null'::jsonb), nullif(after, 'null'::jsonb), \(options.requestID)
            from jsonb_to_recordset(\(JSONValue.array(rows))::jsonb) as r(object text, before jsonb, after jsonb)
            """
        )
    }
}

/// The inventory before and after an import.
struct ImportWork: Sendable {
    let oldControllers: [String: JSONObject]
    let oldGroups: [String: JSONObject]
    let oldMachines: [String: JSONObject]
    var controllers: [String: JSONObject]
    var groups: [String: JSONObject]
    var machines: [String: JSONObject]
    var changedControllers: Set<String> = []
    var changedGroups: Set<String> = []
    var changedMachines: Set<String> = []
    var result = InventoryPlan()
    /// Machines by their aliases, as they were.
    private let aliases: [String: String]

    init(controllers: [String: JSONObject], groups: [String: JSONObject], machines: [String: JSONObject]) {
        oldControllers = controllers
        oldGroups = groups
        oldMachines = machines
        var aliases: [String: String] = [:]
        for (key, machine) in machines {
            for alias in machine["aliases"]?.array ?? [] { aliases[alias.string?.lowercased() ?? ""] = key }
        }
        self.aliases = aliases
        self.controllers = controllers
        self.groups = groups
        self.machines = machines
    }

    /// Works out what a document changes; rows with mistakes change nothing.
    mutating func plan(_ document: InventoryDocument, _ options: InventoryImport) {
        result.problems = document.problems
        result.warnings = document.warnings
        for entry in document.controllers {
            let problems = InventoryRules.controller(entry)
            let key = entry.name.lowercased()
            let kind = (entry.members["kind"] ?? controllers[key]?["kind"])?.string.flatMap(
                ControllerKind.init(rawValue:)
            )
            guard problems.isEmpty, let kind else {
                result.problems +=
                    problems.isEmpty
                    ? [InventoryProblem(row: entry.row, field: "\(entry.name): kind", message: "is missing")] : problems
                continue
            }
            let blank = InventoryRules.blankController(kind)
            let base = options.replaces ? blank : controllers[key] ?? blank
            let after = InventoryRules.merged(base, entry.members, blank: blank)
            if controllers[key] != after { changedControllers.insert(key) }
            controllers[key] = after
        }
        for entry in document.groups {
            let problems = InventoryRules.group(entry)
            result.problems += problems
            guard problems.isEmpty else { continue }
            let base = options.replaces ? InventoryRules.blankGroup : groups[entry.name] ?? InventoryRules.blankGroup
            let after = InventoryRules.merged(base, entry.members, blank: InventoryRules.blankGroup)
            if groups[entry.name] != after { changedGroups.insert(entry.name) }
            groups[entry.name] = after
        }
        planMachines(document, options)
    }

    private mutating func planMachines(_ document: InventoryDocument, _ options: InventoryImport) {
        var rows: [String: Int] = [:]
        for entry in document.machines {
            let (wishes, problems) = InventoryRules.machine(entry)
            result.problems += problems
            guard problems.isEmpty else { continue }
            // A row may call a machine by another of its names.
            let name = entry.name.lowercased()
            let key = machines[name] != nil ? name : aliases[name] ?? name
            guard rows[key] == nil else {
                result.problems.append(
                    InventoryProblem(
                        row: entry.row,
                        field: "name",
                        message: "\(entry.name) is in row \(rows[key] ?? 0) too"
                    )
                )
                continue
            }
            rows[key] = entry.row
            let before = machines[key]
            let base = options.replaces ? InventoryRules.blankMachine : before ?? InventoryRules.blankMachine
            var after = InventoryRules.merged(base, wishes, blank: InventoryRules.blankMachine)
            if let before { after["name"] = before["name"] }
            if before == after {
                result.unchanged += 1
                continue
            }
            machines[key] = after
            changedMachines.insert(key)
        }
        if let group = options.pruneGroup {
            for (key, machine) in machines where rows[key] == nil {
                guard machine["groups"]?.array?.contains(.string(group)) == true else { continue }
                result.delete.append(machine["name"]?.string ?? key)
                machines[key] = nil
            }
            result.delete.sort()
        }
        let (problems, warnings) = InventoryRules.lint(
            machines: machines,
            changed: changedMachines,
            rows: rows,
            controllers: controllers
        )
        result.problems += problems
        result.warnings += warnings
        let bad = Set(problems.map(\.row))
        changedMachines = changedMachines.filter { !bad.contains(rows[$0] ?? -1) }
        for key in changedMachines.sorted() {
            guard let after = machines[key] else { continue }
            let name = after["name"]?.string ?? key
            if let before = oldMachines[key] {
                result.update.append((name, before, after))
            } else {
                result.create.append(name)
            }
        }
        result.controllers = changedControllers.sorted()
        result.groups = changedGroups.sorted()
        result.problems.sort { ($0.row, $0.field) < ($1.row, $1.field) }
    }
}
