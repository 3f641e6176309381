// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules

extension InventoryStore {
    /// Which machines somebody wants to see.
    struct Filter: Sendable {
        var group: String?
        var state: Machine.State?
        /// A part of a name.
        var search: String?
    }

    /// Machines by name, after the one that a page ended with.
    func machines(_ filter: Filter, after: String?, limit: Int) async throws -> [MachineDetail] {
        var conditions: SQL = "true"
        if let group = filter.group {
            conditions =
                conditions + " and m.id in (select machine from roller.machine_groups where group_name = \(group))"
        }
        if let state = filter.state { conditions = conditions + " and m.state = \(state.rawValue)" }
        if let search = filter.search?.lowercased() {
            conditions = conditions + " and strpos(lower(m.name) || ' ' || lower(coalesce(m.fqdn, '')), \(search)) > 0"
        }
        if let after { conditions = conditions + " and lower(m.name) > \(after.lowercased())" }
        return try await details(where: conditions, limit: limit)
    }

    /// All controllers, or one of them, as documents.
    func controllers(named name: String? = nil) async throws -> [JSONObject] {
        let all = try await pool.withConnection { try await Self.controllerDocuments(on: $0) }
        guard let name else { return all.sorted { $0.key < $1.key }.map(\.value) }
        return all[name.lowercased()].map { [$0] } ?? []
    }

    /// All groups, or one of them, as documents.
    func groups(named name: String? = nil) async throws -> [JSONObject] {
        let all = try await pool.withConnection { try await Self.groupDocuments(on: $0) }
        guard let name else { return all.sorted { $0.key < $1.key }.map(\.value) }
        return all[name].map { [$0] } ?? []
    }

    /// Removes a controller that no machine hangs on, or a group; nil if there is none, false if it is needed.
    func remove(_ table: RemovableTable, named name: String, _ options: InventoryImport) async throws -> Bool? {
        try await pool.transaction { connection in
            if table == .controllers {
                let used = try await connection.query(
                    """
                    select 1 as one from roller.machine_controls mc join roller.controllers c on c.id = mc.controller
                    where lower(c.name) = \(name.lowercased()) limit 1
                    """
                )
                guard used.isEmpty else { return false }
            }
            let deleted = try await connection.query(
                table == .controllers
                    ? "delete from roller.controllers c where lower(name) = \(name.lowercased()) returning to_jsonb(c) as old"
                    : "delete from roller.groups g where name = \(name) returning to_jsonb(g) as old"
            )
            guard let old = try deleted.first?.json("old") else { return nil }
            try await AuditStore.add(
                AuditEntry(
                    clientID: options.clientID,
                    sourceAddress: options.sourceAddress,
                    verb: "\(table.rawValue).delete",
                    object: "\(table.rawValue):\(name)",
                    before: old,
                    requestID: options.requestID
                ),
                on: connection
            )
            return true
        }
    }

    /// What can be removed by name.
    enum RemovableTable: String, Sendable {
        case controllers = "controller"
        case groups = "group"
    }

    // MARK: - Workers

    /// Workers with the names of their machines, by number.
    func workers(id: Int?, workerID: String?, after: Int, limit: Int) async throws -> [JSONObject] {
        let rows = try await pool.query(
            """
            select w.*, coalesce((select json_agg(m.name order by m.name) from roller.worker_machines wm
                join roller.machines m on m.id = wm.machine where wm.worker = w.id), '[]') as machines
            from roller.tc_workers w
            where w.id > \(after) and (\(id)::bigint is null or w.id = \(id)::bigint)
                and (\(workerID)::text is null or w.worker_id = \(workerID)::text)
            order by w.id limit \(limit)
            """
        )
        return try rows.map(Self.workerDocument)
    }

    /// Forgets a worker; false if there is none.
    func removeWorker(_ id: Int, _ options: InventoryImport) async throws -> Bool {
        try await remove(
            "delete from roller.tc_workers w where id = \(id) returning to_jsonb(w) as old",
            verb: "worker.delete",
            options
        ) { "worker:\($0["worker_id"]?.string ?? "")" }
    }

    /// Deletes one row and writes down who did it and what was there; false if there is none.
    private func remove(
        _ deletion: SQL,
        verb: String,
        _ options: InventoryImport,
        object: (JSONValue) -> String
    ) async throws -> Bool {
        try await pool.transaction { connection in
            guard let old = try await connection.query(deletion).first?.json("old") else { return false }
            try await AuditStore.add(
                AuditEntry(
                    clientID: options.clientID,
                    sourceAddress: options.sourceAddress,
                    verb: verb,
                    object: object(old),
                    before: old,
                    requestID: options.requestID
                ),
                on: connection
            )
            return true
        }
    }

    // MARK: - Maintenance windows

    /// Windows that are not over, soonest first.
    func windows() async throws -> [JSONObject] {
        let rows = try await pool.query(
            """
            select w.*, m.name as machine_name from roller.maintenance_windows w
            left join roller.machines m on m.id = w.machine where ends > now() order by starts, id limit 1000
            """
        )
        return try Self.documents(rows)
    }

    private static func documents(_ rows: [PostgresRow]) throws -> [JSONObject] {
        var documents: [JSONObject] = []
        for row in rows {
            let window = try MaintenanceWindow(row: row)
            documents.append(document(window, machine: try row.optionalString("machine_name")))
        }
        return documents
    }

    static func document(_ window: MaintenanceWindow, machine: String?) -> JSONObject {
        [
            "id": JSONValue(window.id), "machine": JobView.text(machine), "group": JobView.text(window.group),
            "starts": .string(window.starts.iso8601), "ends": .string(window.ends.iso8601),
            "reason": .string(window.reason), "created_by": .string(window.createdBy),
        ]
    }

    /// Opens a window for a machine, a group or everything.
    func addWindow(
        machine: Machine?,
        group: String?,
        starts: Timestamp,
        ends: Timestamp,
        reason: String,
        _ options: InventoryImport
    ) async throws -> JSONObject {
        try await pool.transaction { connection in
            let rows = try await connection.query(
                """
                insert into roller.maintenance_windows (machine, group_name, starts, ends, reason, created_by)
                values (\(machine?.id)::uuid, \(group), \(starts), \(ends), \(reason), \(options.clientID)) returning *
                """
            )
            guard let row = rows.first else { return [:] }
            let document = Self.document(try MaintenanceWindow(row: row), machine: machine?.name)
            try await AuditStore.add(
                AuditEntry(
                    clientID: options.clientID,
                    sourceAddress: options.sourceAddress,
                    verb: "window.create",
                    object: machine.map { "machine:\($0.name)" } ?? group.map { "group:\($0)" } ?? "everything",
                    after: .object(document),
                    requestID: options.requestID
                ),
                on: connection
            )
            return document
        }
    }

    /// Takes a window away; false if there is none.
    func removeWindow(_ id: Int, _ options: InventoryImport) async throws -> Bool {
        try await remove(
            "delete from roller.maintenance_windows w where id = \(id) returning to_jsonb(w) as old",
            verb: "window.delete",
            options
        ) { _ in "window:\(id)" }
    }

    // MARK: - Export

    /// The whole inventory in the spelling of imports.
    func export() async throws -> JSONValue {
        try await pool.transaction(.repeatableRead) { connection in
            func list(_ documents: [String: JSONObject]) -> JSONValue {
                .array(documents.sorted { $0.key < $1.key }.map { Mask.masked(.object($0.value)) })
            }
            return [
                "controllers": list(try await Self.controllerDocuments(on: connection)),
                "groups": list(try await Self.groupDocuments(on: connection)),
                "machines": list(try await Self.machineDocuments(on: connection)),
            ]
        }
    }

    /// The whole inventory in a spelling that others understand.
    func export(
        _ write: @Sendable (_ machines: [JSONObject], _ controllers: [String: JSONObject]) -> InventoryExport
    ) async throws -> InventoryExport {
        try await pool.transaction(.repeatableRead) { connection in
            let machines = try await Self.machineDocuments(on: connection).sorted { $0.key < $1.key }.map(\.value)
            let masked = machines.map { Mask.masked(.object($0)).object ?? $0 }
            return write(masked, try await Self.controllerDocuments(on: connection))
        }
    }

    // MARK: - How things stand

    /// Numbers that tell whether somebody has to look.
    func summary() async throws -> JSONObject {
        let row = try await pool.query(
            """
            select (select count(*) from roller.jobs where state in ('queued', 'waiting', 'claimed')) as pending,
                (select count(*) from roller.jobs where state in ('running', 'verifying')) as running,
                (select count(*) from roller.jobs where state in ('failed', 'expired', 'lost')
                    and created > now() - interval '1 day' and finished > now() - interval '1 hour') as failed,
                (select extract(epoch from now() - min(created))::bigint from roller.jobs
                    where state in ('queued', 'waiting')) as oldest,
                (select count(*) from roller.runners where heartbeat > now() - interval '60 seconds') as runners,
                (select count(*) from roller.machines) as machines,
                (select count(*) from roller.machines where state <> 'active') as out,
                (select count(*) from roller.intents where since < now() - interval '10 minutes') as off,
                (select count(*) from roller.notifications where state = 'pending') as unsent
            """
        ).first
        guard let row else { return [:] }
        return [
            "pending": JSONValue(try row.int("pending")), "running": JSONValue(try row.int("running")),
            "failed_last_hour": JSONValue(try row.int("failed")),
            "oldest_pending_seconds": JSONValue(try row.optionalInt("oldest") ?? 0),
            "live_workers": JSONValue(try row.int("runners")), "machines": JSONValue(try row.int("machines")),
            "machines_out_of_service": JSONValue(try row.int("out")),
            "machines_left_off": JSONValue(try row.int("off")),
            "unsent_notifications": JSONValue(try row.int("unsent")),
        ]
    }
}
