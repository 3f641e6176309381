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

    // MARK: - Accepting

    /// Writes drafts down and answers those that are to be performed, under a lease of the caller for the first `slots`.
    ///
    /// Drafts that are settled already (declined, failed) are finished at once. A draft whose key was accepted before is
    /// left out.
    func accept(_ drafts: [FireDraft], slots: Int, on connection: PostgresConnection) async throws -> [Fire] {
        guard !drafts.isEmpty else { return [] }
        var remaining = slots
        var isLeased: [Bool] = []
        let statements = drafts.map { draft -> SQL in
            guard case .task(let task) = draft.rendering else {
                isLeased.append(false)
                return insertion(finished: draft)
            }
            let leased = remaining > 0 && draft.delay == .zero
            remaining -= leased ? 1 : 0
            isLeased.append(leased)
            return insertion(pending: draft, definition: task.text(), leased: leased)
        }
        let results = try await connection.pipeline(statements)
        var fires: [Fire] = []
        for (index, rows) in results.enumerated() where isLeased[index] {
            guard let row = rows.first else { continue }
            fires.append(drafts[index].fire(id: try row.int("fire_id")))
        }
        return fires
    }

    private func insertion(pending draft: FireDraft, definition: String, leased: Bool) -> SQL {
        """
        insert into hooks.fires (hook_group_id, hook_id, task_id, fired_by, context, request_hash, created, started,
            definition, state, attempts, lease, run_at, dedup_key, queue, consumer, content_hash, settled,
            due, origin, rendered, give_up)
        values (\(draft.name.group), \(draft.name.hook), \(draft.taskID), \(draft.firedBy.rawValue),
            \(JSONValue.object(draft.context).text()), \(draft.requestHash), \(draft.created), \(draft.started),
            \(definition), 'pending', \(leased ? 1 : 0), \(leased ? 1 : 0),
            now() + \((leased ? lease : draft.delay).inSeconds) * interval '1 second', \(draft.deduplicationKey),
            \(draft.delivery?.queue), \(draft.delivery?.consumer), \(draft.delivery?.contentHash),
            \(draft.delivery == nil), \(draft.due ?? draft.started), \(draft.actualOrigin.rawValue), \(draft.rendered),
            \(draft.giveUp))
        \(draft.isBackfill ? Self.again : "on conflict (dedup_key) do nothing")
        returning fire_id
        """
    }

    /// An instant that came to nothing may be made up for: its row begins anew, under the same task id.
    private static let again: SQL = """
        on conflict (dedup_key) do update set created = excluded.created, started = excluded.started,
            context = excluded.context, definition = excluded.definition, state = 'pending', outcome = null,
            error = null, reason = null, finished = null, attempts = 0, failures = 0, lease = fires.lease + 1,
            run_at = excluded.run_at, task_id = excluded.task_id, origin = excluded.origin,
            rendered = excluded.rendered, give_up = excluded.give_up
        where fires.state = 'done' and fires.outcome in ('failed', 'skipped', 'declined')
        """

    private func insertion(finished draft: FireDraft) -> SQL {
        var failure: FireFailure?
        if case .failed(let reason) = draft.rendering { failure = reason }
        // A failed or declined request may be made again with the same task id, so its key is not kept.
        let key = draft.firedBy.mayBeRepeated ? draft.deduplicationKey : nil
        let ended = draft.rendered ?? draft.started
        var mail: SQL = ""
        if let failure, draft.firedBy == .schedule { mail = FailureMailStore.noting(failure, at: ended) + "," }
        return """
            with fire as (
                insert into hooks.fires (hook_group_id, hook_id, task_id, fired_by, created, started, state, outcome,
                    error, run_at, finished, dedup_key, queue, consumer, content_hash, settled, due, origin, rendered,
                    reason)
                values (\(draft.name.group), \(draft.name.hook), \(draft.taskID), \(draft.firedBy.rawValue),
                    \(draft.created), \(draft.started), 'done', \(failure == nil ? "declined" : "failed"),
                    \(failure?.record), now(), \(ended), \(key), \(draft.delivery?.queue), \(draft.delivery?.consumer),
                    \(draft.delivery?.contentHash), \(draft.delivery == nil), \(draft.due ?? draft.started),
                    \(draft.actualOrigin.rawValue), \(draft.rendered), \(failure?.reason ?? draft.reason ?? "template"))
                on conflict (dedup_key) do nothing
                returning hook_group_id, hook_id, task_id, fired_by, started, outcome, error
            ), \(mail) published as (
                \(FireAnnouncement(draft.name, draft.firedBy, failure, namespace: namespace).insertion)
                from fire where outcome = 'failed'
            )
            insert into hooks.last_fires (hook_group_id, hook_id, task_id, fired_by, task_create_time, result, error)
            select hook_group_id, hook_id, task_id, fired_by, started, 'error', coalesce(error, '')
            from fire where outcome = 'failed'
            on conflict (hook_group_id, hook_id, task_id) do nothing
            """
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

extension FireDraft {
    var actualOrigin: FireOrigin { origin ?? FireOrigin(firedBy) }

    fileprivate var isBackfill: Bool { origin == .backfill }

    /// The deadline of the task; later than that nobody needs it any more.
    fileprivate var giveUp: Timestamp? {
        guard firedBy.mayBeRepeated, case .task(let task) = rendering else { return nil }
        return task["deadline"]?.string.flatMap { Timestamp($0) } ?? created + .seconds(24 * 3600)
    }

    /// The fire that a pending draft became, taken by whoever accepted it.
    func fire(id: Int) -> Fire {
        var definition = ""
        if case .task(let task) = rendering { definition = task.text() }
        return Fire(
            id: id,
            name: name,
            taskID: taskID,
            firedBy: firedBy,
            created: created,
            definition: definition,
            context: context,
            origin: actualOrigin,
            giveUp: giveUp,
            lease: 1,
            attempts: 1,
            failures: 0
        )
    }
}
