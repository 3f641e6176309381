// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres

extension InventoryStore {
    /// What is to be said of a worker from now on.
    struct WorkerChange: Sendable {
        var worker: WorkerName
        /// The names of its machines; nil leaves them as they are.
        var machines: [String]?
    }

    /// What came of changing a worker.
    enum WorkerOutcome: Sendable {
        case changed
        case noSuchWorker
        /// There are no machines of these names.
        case noSuchMachines([String])
    }

    /// Changes what a worker is called and which machines it is.
    func change(worker id: Int, to change: WorkerChange, _ options: InventoryImport) async throws -> WorkerOutcome {
        do {
            return try await changeOrThrow(worker: id, to: change, options)
        } catch let error as MissingMachines {
            return .noSuchMachines(error.names)
        }
    }

    /// Ends the transaction, so that nothing of the change is kept.
    private struct MissingMachines: Error {
        let names: [String]
    }

    private func changeOrThrow(
        worker id: Int,
        to change: WorkerChange,
        _ options: InventoryImport
    ) async throws -> WorkerOutcome {
        try await pool.transaction { connection in
            // As with imports: one change of the inventory at a time.
            _ = try await connection.query("select pg_advisory_xact_lock(hashtext('roller.inventory'))")
            guard let before = try await Self.worker(id, on: connection) else { return .noSuchWorker }
            let name = change.worker
            _ = try await connection.execute(
                """
                update roller.tc_workers set worker_id = \(name.workerID), worker_group = \(name.workerGroup),
                    provisioner_id = \(name.provisionerID), worker_type = \(name.workerType)
                where id = \(id)
                """
            )
            if let machines = change.machines {
                let wanted = Array(Set(machines.map { $0.lowercased() }))
                let found = try await connection.query(
                    """
                    select distinct n.name, m.id from unnest(\(wanted)::text[]) as n (name)
                    join roller.machines m on lower(m.name) = n.name or m.id in (
                        select a.machine from roller.machine_aliases a where a.alias_lower = n.name)
                    """
                )
                let ids = try found.map { try $0.string("id") }
                let known = Set(try found.map { try $0.string("name") })
                let missing = wanted.filter { !known.contains($0) }.sorted()
                guard missing.isEmpty else { throw MissingMachines(names: missing) }
                _ = try await connection.execute("delete from roller.worker_machines where worker = \(id)")
                _ = try await connection.execute(
                    """
                    insert into roller.worker_machines (worker, machine)
                    select distinct \(id)::bigint, m::uuid from unnest(\(ids)::text[]) as m
                    """
                )
            }
            try await AuditStore.add(
                AuditEntry(
                    clientID: options.clientID,
                    sourceAddress: options.sourceAddress,
                    verb: options.verb,
                    object: "worker:\(name.workerID)",
                    before: .object(before),
                    after: try await Self.worker(id, on: connection).map(JSONValue.object),
                    requestID: options.requestID
                ),
                on: connection
            )
            return .changed
        }
    }

    private static func worker(_ id: Int, on connection: PostgresConnection) async throws -> JSONObject? {
        let rows = try await connection.query(
            """
            select w.*, coalesce((select json_agg(m.name order by m.name) from roller.worker_machines wm
                join roller.machines m on m.id = wm.machine where wm.worker = w.id), '[]') as machines
            from roller.tc_workers w where w.id = \(id)
            """
        )
        return try rows.first.map(workerDocument)
    }

    /// A row of `roller.tc_workers` with the names of its machines.
    static func workerDocument(_ row: PostgresRow) throws -> JSONObject {
        [
            "id": JSONValue(try row.int("id")),
            "provisioner_id": JobView.text(try row.optionalString("provisioner_id")),
            "worker_type": JobView.text(try row.optionalString("worker_type")),
            "worker_group": JobView.text(try row.optionalString("worker_group")),
            "worker_id": .string(try row.string("worker_id")), "machines": try row.json("machines"),
        ]
    }
}
