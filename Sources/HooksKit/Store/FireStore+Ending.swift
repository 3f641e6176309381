// SPDX-License-Identifier: MPL-2.0

import Postgres
import Schedules

extension FireStore {
    /// A fire that ended, and how.
    struct Ending: Sendable {
        let fire: Fire
        let outcome: FireOutcome
        let time: Timestamp
    }

    /// Ends fires: their rows, their lines of history, their messages, and for schedules what the owner is to be told.
    ///
    /// Does nothing for a fire that somebody else has taken meanwhile.
    func finish(_ endings: [Ending]) async throws {
        guard !endings.isEmpty else { return }
        _ = try await pool.pipeline(statements(for: endings))
    }

    /// Ends fires together with other changes.
    func finish(_ endings: [Ending], on connection: PostgresConnection) async throws {
        guard !endings.isEmpty else { return }
        _ = try await connection.pipeline(statements(for: endings))
    }

    /// One statement for all fires that made their task, and one for each of the others.
    private func statements(for endings: [Ending]) -> [SQL] {
        // In one order everywhere, so that batches of several processes do not wait for each other in circles.
        let sorted = endings.sorted { $0.fire.id < $1.fire.id }
        let created = sorted.filter { if case .created = $0.outcome { true } else { false } }
        let others = sorted.filter { if case .created = $0.outcome { false } else { true } }
        return (created.isEmpty ? [] : [success(of: created)]) + others.map(statement)
    }

    private func success(of endings: [Ending]) -> SQL {
        let fires = endings.map { $0.fire }
        let keys = fires.map { FireAnnouncement.routingKey($0.name, $0.firedBy) }
        return """
            with ended as (
                select * from unnest(\(fires.map { $0.id })::bigint[], \(fires.map { $0.lease })::bigint[],
                    \(endings.map { $0.time })::timestamptz[], \(keys)::text[]) as e (fire_id, lease, finished, routing_key)
            ), fire as (
                update hooks.fires f set state = 'done', outcome = 'created', error = null, reason = null,
                    context = null, definition = null, run_at = now(), finished = e.finished
                from ended e where f.fire_id = e.fire_id and f.lease = e.lease and f.state = 'pending'
                returning f.fire_id, f.hook_group_id, f.hook_id, f.task_id, f.fired_by, f.started, e.routing_key
            ), shown as (
                select fire.* from fire cross join lateral (
                    select from hooks.hooks h
                    where h.hook_group_id = fire.hook_group_id and h.hook_id = fire.hook_id
                    limit 1 for key share) hook
            ), published as (
                \(FireAnnouncement.fired(namespace: namespace)) from shown order by fire_id
            )
            insert into hooks.last_fires (hook_group_id, hook_id, task_id, fired_by, task_create_time, result, error)
            select hook_group_id, hook_id, task_id, fired_by, started, 'success', '' from shown
            on conflict (hook_group_id, hook_id, task_id) do update set fired_by = excluded.fired_by,
                task_create_time = excluded.task_create_time, result = excluded.result, error = excluded.error
            """
    }

    private func statement(for ending: Ending) -> SQL {
        let fire = ending.fire
        var failure: FireFailure?
        let text: String
        switch ending.outcome {
        case .created: text = "created"
        case .declined: text = "declined"
        case .dropped: text = "dropped"
        case .failed(let reason), .postponed(let reason):
            text = "failed"
            failure = reason
        }
        let hasHistory = text == "created" || text == "failed"
        let forgetsKey = failure != nil && !fire.mayBeRepeated
        var mail: SQL = ""
        if let failure, fire.firedBy == .schedule { mail = FailureMailStore.noting(failure, at: ending.time) + "," }
        return """
            with fire as (
                update hooks.fires set state = 'done', outcome = \(text), error = \(failure?.record),
                    reason = \(reason(of: ending, failure)), context = null, definition = null, run_at = now(),
                    finished = \(ending.time), dedup_key = case when \(forgetsKey) then null else dedup_key end
                where fire_id = \(fire.id) and lease = \(fire.lease) and state = 'pending'
                returning hook_group_id, hook_id, task_id, fired_by, started, error
            ), hook as (
                select h.hook_group_id, h.hook_id from hooks.hooks h
                where h.hook_group_id = \(fire.name.group) and h.hook_id = \(fire.name.hook) for key share
            ), \(mail) published as (
                \(FireAnnouncement(fire.name, fire.firedBy, failure, namespace: namespace).insertion)
                from fire join hook using (hook_group_id, hook_id) where \(hasHistory)
            )
            insert into hooks.last_fires (hook_group_id, hook_id, task_id, fired_by, task_create_time, result, error)
            select hook_group_id, hook_id, task_id, fired_by, started, \(failure == nil ? "success" : "error"),
                \(failure?.record ?? "")
            from fire join hook using (hook_group_id, hook_id) where \(hasHistory)
            on conflict (hook_group_id, hook_id, task_id) do update set fired_by = excluded.fired_by,
                task_create_time = excluded.task_create_time, result = excluded.result, error = excluded.error
            """
    }

    private func reason(of ending: Ending, _ failure: FireFailure?) -> String? {
        switch ending.outcome {
        case .created: nil
        case .declined: "template"
        case .dropped: "the hook is gone"
        case .failed, .postponed:
            failure.map { failure in
                let isLate = ending.fire.giveUp.map { ending.time >= $0 } ?? false
                return isLate && failure.isTransient ? "\(failure.reason), given up at the deadline" : failure.reason
            }
        }
    }

    /// Puts a fire off until the queue may be well again; its schedule waits for it.
    func postpone(_ fire: Fire, _ failure: FireFailure, by pause: Duration) async throws {
        let isAwaited = fire.firedBy == .schedule && fire.origin != .backfill && fire.failures == 0
        _ = try await pool.execute(
            """
            with fire as (
                update hooks.fires set failures = failures + 1, error = \(failure.record), reason = \(failure.reason),
                    run_at = now() + \(pause.inSeconds) * interval '1 second'
                where fire_id = \(fire.id) and lease = \(fire.lease) and state = 'pending'
                returning fire_id
            )
            update hooks.hooks set waits_for = fire_id from fire
            where \(isAwaited) and hook_group_id = \(fire.name.group) and hook_id = \(fire.name.hook)
            """
        )
    }

    /// Gives a fire that is too old for the queue a later instant; false if somebody else has taken it meanwhile.
    func restamp(_ fire: Fire, created: Timestamp, definition: String) async throws -> Bool {
        try await pool.execute(
            """
            update hooks.fires set created = \(created), definition = \(definition)
            where fire_id = \(fire.id) and lease = \(fire.lease) and state = 'pending'
            """
        ) == 1
    }
}
