// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
import Schedules

/// The fires in PostgreSQL: accepted durably, taken under a lease, finished together with their row of history.
///
/// Leases are measured by the clock of the database, so that the clocks of the machines need not agree. A finished row
/// stays as an entry of the ledger.
package struct FireStore: Sendable {
    package let pool: PostgresPool

    /// How long a performer may be silent before another one takes its fires.
    package let lease: Duration

    /// The middle part of the names of the exchanges that announce fires.
    let namespace: String

    package init(
        pool: PostgresPool,
        namespace: String = "taskcluster-hooks",
        lease: Duration = .seconds(12)
    ) {
        self.pool = pool
        self.namespace = namespace
        self.lease = lease
    }

    // MARK: - Reading

    /// Waits for the ends of a hook's fires whose callers may have been told of their tasks already.
    ///
    /// Whoever triggers a hook and then looks at what it did shall see it. Ends are written within some milliseconds; a fire
    /// that takes long, or failed before, is not waited for.
    func settleEnds(of name: HookName) async throws {
        var open: [Int] = []
        for attempt in 0..<20 {
            let named: SQL = attempt == 0 ? "" : "and fire_id = any(\(open))"
            open = try await pool.query(
                """
                select fire_id from hooks.fires where state <> 'done' and run_at > now() and attempts = 1
                    and failures = 0 and due > now() - interval '10 minutes'
                    and hook_group_id = \(name.group) and hook_id = \(name.hook) \(named)
                """
            ).map { try $0.int("fire_id") }
            guard !open.isEmpty else { return }
            try await Task.sleep(for: .milliseconds(10 * (attempt + 1)))
        }
    }

    // MARK: - Taking

    /// Takes up to `limit` fires that nobody performs, those that have waited longest, for as long as a lease.
    func claim(limit: Int) async throws -> [Fire] {
        try await pool.query(
            """
            update hooks.fires set lease = lease + 1, attempts = attempts + 1,
                run_at = now() + \(lease.inSeconds) * interval '1 second'
            where fire_id = any(array(
                select fire_id from hooks.fires where state <> 'done' and run_at <= now()
                order by run_at, due limit \(limit) for update skip locked))
            returning fire_id, hook_group_id, hook_id, task_id, fired_by, created, definition, context, origin, give_up,
                lease, attempts, failures, due
            """
        ).sorted { try $0.timestamp("due") < $1.timestamp("due") }.map(Fire.init(row:))
    }

    /// Prolongs the leases of fires that are being performed.
    func extend(_ ids: [Int]) async throws {
        _ = try await pool.execute(
            """
            update hooks.fires set run_at = now() + \(lease.inSeconds) * interval '1 second'
            where fire_id = any(\(ids)) and state <> 'done'
            """
        )
    }

    /// Gives fires back that were taken and not begun.
    func release(_ fires: [Fire]) async throws {
        guard !fires.isEmpty else { return }
        _ = try await pool.execute(
            """
            update hooks.fires f set run_at = now(), attempts = attempts - 1
            from unnest(\(fires.map(\.id))::bigint[], \(fires.map(\.lease))::bigint[]) as held (fire_id, lease)
            where f.fire_id = held.fire_id and f.lease = held.lease and f.state <> 'done'
            """
        )
    }

    /// What became of the fire with a key, if there is one.
    func earlier(_ key: String) async throws -> (requestHash: String?, isDone: Bool, isCreated: Bool)? {
        try await pool.query(
            """
            select request_hash, state <> 'pending' as done, coalesce(outcome = 'created', false) as created
            from hooks.fires where dedup_key = \(key)
            """
        ).first.map { row in
            (try row.optionalString("request_hash"), try row.bool("done"), try row.bool("created"))
        }
    }
}

extension Duration {
    /// The length as PostgreSQL is told it.
    var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}

extension Fire {
    init(row: PostgresRow) throws {
        let firedBy = FiredBy(rawValue: try row.string("fired_by")) ?? .schedule
        self.init(
            id: try row.int("fire_id"),
            name: HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id")),
            taskID: try row.string("task_id"),
            firedBy: firedBy,
            created: try row.timestamp("created"),
            definition: try row.optionalString("definition") ?? "",
            context: try row.optionalString("context").map { try JSONValue(parsing: $0) }?.object ?? [:],
            origin: try row.optionalString("origin").flatMap(FireOrigin.init(rawValue:)) ?? FireOrigin(firedBy),
            giveUp: try row.optionalTimestamp("give_up"),
            lease: try row.int("lease"),
            attempts: try row.int("attempts"),
            failures: try row.int("failures")
        )
    }
}
