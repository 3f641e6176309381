// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import RollerKit

extension DispatchStore {
    /// A machine that did not answer, and the job that found it so.
    struct SilentMachine: Sendable, Hashable {
        let id: String
        let name: String
        let job: String
    }

    /// Machines in service that nobody was sent to look at for so long.
    func unseenMachines(for interval: Duration, limit: Int = 20) async throws -> [String] {
        let rows = try await pool.query(
            """
            select m.id from roller.machines m
            where m.state = 'active' and not exists (
                select 1 from roller.jobs j
                where j.machine = m.id and j.task_name = 'status' and j.source = 'schedule'
                    and j.created > clock_timestamp() - \(interval.inSeconds) * interval '1 second')
            order by m.id limit \(limit)
            """
        )
        return try rows.map { try $0.string("id") }
    }

    /// Machines whose last two looks found nobody; looks before the last change of the machine do not count.
    func silentMachines(limit: Int = 20) async throws -> [SilentMachine] {
        let rows = try await pool.query(
            """
            select m.id, m.name, t.job from roller.machines m cross join lateral (
                select count(*) filter (where j.state = 'succeeded' and j.result ->> 'ping' = 'false') as silent,
                    (array_agg(j.id order by j.created desc))[1] as job
                from (
                    select id, state, result, created from roller.jobs
                    where machine = m.id and task_name = 'status' and source = 'schedule' and finished is not null
                        and created > m.updated
                    order by created desc limit 2) j) t
            where m.state = 'active' and t.silent = 2 order by m.id limit \(limit)
            """
        )
        return try Self.silent(rows)
    }

    private static func silent(_ rows: [PostgresRow]) throws -> [SilentMachine] {
        var machines: [SilentMachine] = []
        for row in rows {
            let (id, name) = (try row.string("id"), try row.string("name"))
            machines.append(SilentMachine(id: id, name: name, job: try row.string("job")))
        }
        return machines
    }

    /// Takes a machine out of service and says so in the same transaction; nothing happens if somebody else has done
    /// something about it meanwhile.
    func takeOutOfService(
        _ machine: SilentMachine,
        saying: @Sendable (PostgresConnection) async throws -> Void
    ) async throws {
        try await pool.transaction { connection in
            let reason = "did not answer twice, last to job \(machine.job)"
            let changed = try await connection.execute(
                """
                update roller.machines set state = 'maintenance', state_reason = \(reason), state_until = null,
                    updated = now()
                where id = \(machine.id)::uuid and state = 'active'
                    and updated < (select created from roller.jobs where id = \(machine.job)::uuid)
                """
            )
            guard changed == 1 else { return }
            try await AuditStore.add(
                AuditEntry(
                    clientID: "roller",
                    sourceAddress: nil,
                    verb: "machine.health",
                    object: "machine:\(machine.id)",
                    before: ["state": "active"],
                    after: ["state": "maintenance", "state_reason": JSONValue(reason), "job": JSONValue(machine.job)]
                ),
                on: connection
            )
            try await saying(connection)
        }
    }
}
