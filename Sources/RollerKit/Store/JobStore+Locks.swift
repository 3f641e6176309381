// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
import Postgres

extension JobStore {
    /// Who holds what now, with the job that it is held for.
    func locks() async throws -> [JSONObject] {
        try await pool.query(
            """
            select l.*, j.task_name, j.client_id, j.state, j.started, m.name as machine_name
            from roller.resource_locks l join roller.jobs j on j.id = l.job left join roller.machines m on m.id = j.machine
            where l.expires_at > clock_timestamp() order by l.resource limit 1000
            """
        ).map(Self.lockDocument)
    }

    private static func lockDocument(_ row: PostgresRow) throws -> JSONObject {
        [
            "resource": .string(try row.string("resource")), "job": .string(try row.string("job")),
            "runner": .string(try row.string("runner")),
            "expires_at": .string(try row.timestamp("expires_at").iso8601),
            "machine": JobView.text(try row.optionalString("machine_name")),
            "task_name": .string(try row.string("task_name")), "client_id": .string(try row.string("client_id")),
            "state": .string(try row.string("state")),
            "started_at": JobView.text(try row.optionalTimestamp("started")?.iso8601),
        ]
    }

    /// What became of a lock that somebody wanted broken.
    struct BrokenLock: Sendable {
        /// The job that lost it and is `lost` now; nil if the lock had outlived its job.
        var job: Job?
    }

    /// Takes a lock from its holder; nil if nobody holds it.
    ///
    /// The job ends as `lost` under a new fencing number, so nothing that its worker does from now on counts, and what it
    /// runs is killed when it notices. What the job held stays held until its worker says that it has stopped, or until
    /// its lease is over: the next job must not meet the last effect of this one.
    func breakLock(_ resource: String, reason: String, _ options: InventoryImport) async throws -> BrokenLock? {
        let broken = try await pool.transaction { connection -> BrokenLock? in
            let found = try await connection.query(
                "select to_jsonb(l) as held, job, fence from roller.resource_locks l where resource = \(resource)"
            ).first
            guard let found else { return nil }
            let (id, fence) = (try found.string("job"), try found.int("fence"))
            let job = try await connection.query(
                """
                update roller.jobs set fence = nextval('roller.fences'), state = 'lost', reason = 'lock-broken',
                    error_class = 'lost', waiting_for = null, lease_until = null, finished = clock_timestamp(),
                    updated = clock_timestamp()
                where id = \(id)::uuid and fence = \(fence) and state in ('claimed', 'running', 'verifying')
                returning \(Self.columns)
                """
            ).first.map(Job.init(row:))
            if let job {
                try await end(job, "its lock was broken by \(options.clientID): \(reason)", on: connection)
            } else {
                _ = try await connection.execute(
                    "delete from roller.resource_locks where resource = \(resource) and fence = \(fence)"
                )
            }
            try await AuditStore.add(
                AuditEntry(
                    clientID: options.clientID,
                    sourceAddress: options.sourceAddress,
                    verb: "lock.break",
                    object: "lock:\(resource)",
                    before: try found.json("held"),
                    after: ["reason": .string(reason), "job": job.map { .string($0.state.rawValue) } ?? .null],
                    requestID: options.requestID
                ),
                on: connection
            )
            return BrokenLock(job: job)
        }
        outbox.wake()
        return broken
    }

    /// Does what goes with the end of a job, and keeps its locks as long as they would last by themselves.
    private func end(_ job: Job, _ summary: String, on connection: PostgresConnection) async throws {
        let kept = try await connection.query(
            """
            select coalesce(jsonb_agg(l), '[]') as kept from roller.resource_locks l
            where job = \(job.id)::uuid and expires_at > clock_timestamp()
            """
        ).first?.json("kept")
        try await ended(job, summary: summary, on: connection)
        _ = try await connection.execute(
            """
            insert into roller.resource_locks
            select * from jsonb_populate_recordset(null::roller.resource_locks, \(kept ?? [])::jsonb)
            """
        )
    }

    /// Forgets locks that nobody has prolonged for long.
    func sweepLocks() async throws {
        _ = try await pool.execute(
            "delete from roller.resource_locks where expires_at < clock_timestamp() - interval '10 minutes'"
        )
    }
}
