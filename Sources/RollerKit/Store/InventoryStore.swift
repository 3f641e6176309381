// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Postgres
package import Schedules

/// The machines, what they hang on and what they are called.
package struct InventoryStore: Sendable {
    package let pool: PostgresPool
    let byWorker: Gathering<String, Acquaintances>

    package init(pool: PostgresPool) {
        self.pool = pool
        byWorker = Gathering(pace: .milliseconds(2)) { try await Self.acquaintances(of: $0, in: pool) }
    }

    /// A machine with all that hangs on it, or nil.
    package func machine(id: String) async throws -> MachineDetail? {
        try await details(where: "m.id = \(id)::uuid", limit: 1).first
    }

    /// Those of several machines that there are, by id, in one round trip.
    package func machines(ids: Set<String>) async throws -> [String: MachineDetail] {
        guard !ids.isEmpty else { return [:] }
        // One statement for each: a plan for lists is made anew for each list, which costs more than the answer.
        let answers = try await pool.pipeline(ids.map { Self.selection(where: "m.id = \($0)::uuid", limit: 1) })
        var found: [String: MachineDetail] = [:]
        for rows in answers {
            guard let detail = try rows.first.map(MachineDetail.init(row:)) else { continue }
            found[detail.machine.id] = detail
        }
        return found
    }

    /// The machine of a short name, full name or alias, in any case; nil if there is none.
    package func machine(name: String) async throws -> MachineDetail? {
        let name = name.lowercased()
        return try await details(
            where: """
                m.id in (select id from roller.machines where lower(name) = \(name) or lower(fqdn) = \(name)
                    union select machine from roller.machine_aliases where alias_lower = \(name))
                """
        ).first
    }

    /// Machines with all that hangs on them, by name.
    func details(where condition: SQL, limit: Int = 10_000) async throws -> [MachineDetail] {
        let rows = try await pool.query(Self.selection(where: condition, limit: limit))
        return try rows.map(MachineDetail.init(row:))
    }

    /// Machines with all that hangs on them, read in the transaction of the connection if there is one.
    static func details(
        where condition: SQL,
        limit: Int = 10_000,
        on connection: PostgresConnection
    ) async throws -> [MachineDetail] {
        let rows = try await connection.query(selection(where: condition, limit: limit))
        return try rows.map(MachineDetail.init(row:))
    }

    /// What `MachineDetail.init(row:)` reads.
    private static func selection(where condition: SQL, limit: Int) -> SQL {
        """
        select m.*,
            coalesce((select json_agg(a.alias order by a.alias) from roller.machine_aliases a where a.machine = m.id),
                '[]') as aliases,
            coalesce((select json_agg(json_build_object('name', g.name, 'priority', g.priority, 'properties', g.properties)
                    order by g.priority, g.name)
                from roller.machine_groups mg join roller.groups g on g.name = mg.group_name where mg.machine = m.id),
                '[]') as groups,
            coalesce((select json_agg(json_build_object('id', mc.id, 'locator', mc.locator, 'priority', mc.priority,
                        'feedGroup', mc.feed_group, 'controller', to_jsonb(c)) order by mc.priority desc, mc.id)
                from roller.machine_controls mc join roller.controllers c on c.id = mc.controller
                where mc.machine = m.id), '[]') as controls,
            coalesce((select json_agg(json_build_object('provisionerId', w.provisioner_id, 'workerType', w.worker_type,
                        'workerGroup', w.worker_group, 'workerId', w.worker_id) order by w.id)
                from roller.worker_machines wm join roller.tc_workers w on w.id = wm.worker where wm.machine = m.id),
                '[]') as workers
        from roller.machines m where \(condition) order by lower(m.name) limit \(limit)
        """
    }

    /// The window that keeps a machine from being worked on now, if any.
    package func openWindow(machine id: String) async throws -> MaintenanceWindow? {
        try await pool.query(
            """
            select w.* from roller.maintenance_windows w
            where w.starts <= now() and w.ends > now()
                and (w.machine = \(id)::uuid or (w.machine is null and w.group_name is null)
                    or w.group_name in (select group_name from roller.machine_groups where machine = \(id)::uuid))
            order by w.ends desc limit 1
            """
        ).first.map(MaintenanceWindow.init(row:))
    }

    /// Why nothing destructive may be done to a machine now; nil if it may.
    package func obstacle(machine: Machine, at now: Timestamp = .now()) async throws -> String? {
        if machine.isOutOfService(at: now) {
            return "Machine is in \(machine.state.rawValue): \(machine.stateReason ?? "no reason given")"
        }
        return try await openWindow(machine: machine.id).map { window in
            "Machine is in a maintenance window until \(window.ends.iso8601): \(window.reason)"
        }
    }

    /// What the inventory knows by the id of a worker.
    struct Acquaintances: Sendable {
        var workers: [KnownWorker]
        /// The machines of these workers.
        var machines: [MachineDetail]
        /// Machines that are called so themselves.
        var named: [MachineDetail]
    }

    /// Looks several ids of workers up in one round trip.
    private static func acquaintances(of ids: [String], in pool: PostgresPool) async throws -> [Acquaintances] {
        let wanted = Array(Set(ids))
        // Two statements for each, whose plans are made once.
        let answers = try await pool.pipeline(wanted.flatMap { [workers(called: $0), machines(called: $0)] })
        var known: [String: Acquaintances] = [:]
        for (index, id) in wanted.enumerated() {
            let workers = try answers[2 * index].map(KnownWorker.init(row:))
            let machines = try answers[2 * index + 1].map(MachineDetail.init(row:))
            known[id] = Acquaintances(
                workers: workers,
                machines: machines.filter { machine in workers.contains { $0.machine == machine.machine.id } },
                named: machines.filter { $0.isCalled(id) }
            )
        }
        return ids.map { known[$0] ?? Acquaintances(workers: [], machines: [], named: []) }
    }

    private static func workers(called id: String) -> SQL {
        """
        select w.provisioner_id, w.worker_type, w.worker_group, w.worker_id, wm.machine from roller.tc_workers w
        left join roller.worker_machines wm on wm.worker = w.id where w.worker_id = \(id)
        """
    }

    /// The machines of a worker and those that are called so themselves.
    private static func machines(called id: String) -> SQL {
        selection(
            where: """
                m.id in (select id from roller.machines where lower(name) = \(id)
                    union select id from roller.machines where lower(fqdn) = \(id)
                    union select machine from roller.machine_aliases where alias_lower = \(id)
                    union select wm.machine from roller.worker_machines wm
                        join roller.tc_workers w on w.id = wm.worker where w.worker_id = \(id))
                """,
            limit: 10_000
        )
    }
}

/// A time in which nothing destructive is done to a machine, a group or everything.
package struct MaintenanceWindow: Sendable, Hashable {
    package var id: Int
    package var machine: String?
    package var group: String?
    package var starts: Timestamp
    package var ends: Timestamp
    package var reason: String
    package var createdBy: String

    init(row: PostgresRow) throws {
        id = try row.int("id")
        machine = try row.optionalString("machine")
        group = try row.optionalString("group_name")
        starts = try row.timestamp("starts")
        ends = try row.timestamp("ends")
        reason = try row.string("reason")
        createdBy = try row.string("created_by")
    }
}

extension Machine {
    /// A row of `roller.machines`.
    init(row: PostgresRow) throws {
        id = try row.string("id")
        name = try row.string("name")
        fqdn = try row.optionalString("fqdn")
        ip = try row.optionalString("ip")
        kind = Kind(rawValue: try row.string("kind")) ?? .physical
        hardwareModel = try row.optionalString("hw_model")
        operatingSystem = try row.optionalString("os")
        mac = try row.optionalString("mac")
        state = State(rawValue: try row.string("state")) ?? .maintenance
        stateReason = try row.optionalString("state_reason")
        stateUntil = try row.optionalTimestamp("state_until")
        bugCC = try row.optionalString("bug_cc")
        bootSeconds = try row.optionalInt("boot_seconds_hint")
        properties = try row.json("properties").object ?? [:]
        created = try row.timestamp("created")
        updated = try row.timestamp("updated")
    }
}

extension MachineDetail {
    /// Whether it has a name, in lower case.
    fileprivate func isCalled(_ name: String) -> Bool {
        machine.name.lowercased() == name || machine.fqdn?.lowercased() == name
            || aliases.contains { $0.lowercased() == name }
    }

    fileprivate init(row: PostgresRow) throws {
        machine = try Machine(row: row)
        aliases = try row.json("aliases").array?.compactMap(\.string) ?? []
        groups = (try row.json("groups").array ?? []).map { group in
            MachineGroup(
                name: group["name"]?.string ?? "",
                priority: group["priority"]?.int ?? 0,
                properties: group["properties"]?.object ?? [:]
            )
        }
        controls = (try row.json("controls").array ?? []).compactMap { control in
            guard let id = control["id"]?.int, let controller = control["controller"].flatMap(Controller.init(json:))
            else { return nil }
            return MachineControl(
                id: id,
                controller: controller,
                locator: control["locator"]?.object ?? [:],
                priority: control["priority"]?.int ?? 0,
                feedGroup: control["feedGroup"]?.string
            )
        }
        workers = (try row.json("workers").array ?? []).map { worker in
            WorkerName(
                worker["workerId"]?.string ?? "",
                group: worker["workerGroup"]?.string,
                provisionerID: worker["provisionerId"]?.string,
                workerType: worker["workerType"]?.string
            )
        }
    }
}

extension Controller {
    /// A row of `roller.controllers` as `to_jsonb` writes it; nil for a kind that this release does not know.
    package init?(json: JSONValue) {
        guard let id = json["id"]?.string, let name = json["name"]?.string,
            let kind = json["kind"]?.string.flatMap(ControllerKind.init(rawValue:))
        else { return nil }
        self.id = id
        self.name = name
        self.kind = kind
        address = json["address"]?.string
        port = json["port"]?.int
        type = json["type"]?.string
        options = json["options"]?.object ?? [:]
        credential = json["credential_ref"]?.string
        pool = json["pool"]?.string ?? "default"
        maximumConcurrency = json["max_concurrency"]?.int ?? kind.defaultConcurrency
        minimumInterval = json["min_interval_ms"]?.int ?? kind.defaultInterval
        learned = json["learned"]?.object ?? [:]
    }
}
