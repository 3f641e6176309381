// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules

extension FireStore {
    /// Writes drafts down and answers those that are to be performed, under a lease of the caller for the first `slots`.
    ///
    /// Drafts that are settled already (declined, failed) are finished at once. A draft whose key was accepted before is
    /// left out. However many drafts make tasks, they take one statement.
    func accept(_ drafts: [FireDraft], slots: Int, on connection: PostgresConnection) async throws -> [Fire] {
        guard !drafts.isEmpty else { return [] }
        var pending: [Pending] = []
        var again: [Pending] = []
        var settled: [SQL] = []
        var remaining = slots
        for draft in drafts {
            guard let definition = draft.definition else {
                settled.append(insertion(finished: draft))
                continue
            }
            let leased = remaining > 0 && draft.delay == .zero
            remaining -= leased ? 1 : 0
            let row = Pending(draft: draft, definition: definition, isLeased: leased)
            if draft.isBackfill { again.append(row) } else { pending.append(row) }
        }
        var statements: [SQL] = []
        if !pending.isEmpty { statements.append(insertion(pending, onConflict: Self.leaveOut)) }
        if !again.isEmpty { statements.append(insertion(again, onConflict: Self.beginAnew)) }
        let results = try await connection.pipeline(statements + settled)
        let rows = results.prefix(statements.count).joined()
        return try Self.fires(of: pending + again, Array(rows))
    }

    /// Drafts of one hook, all of which make tasks, and the version of the definition that they were made with.
    struct VersionedDrafts: Sendable {
        let name: HookName
        let version: Int
        let drafts: [FireDraft]
    }

    /// Writes drafts of one hook down, all of which make tasks, if the hook's definition still has a version; nil if not.
    ///
    /// One statement and one round trip, committed when this returns.
    func accept(_ drafts: [FireDraft], of name: HookName, version: Int, slots: Int) async throws -> [Fire]? {
        guard drafts.contains(where: { $0.definition != nil }) else { return [] }
        return try await accept([VersionedDrafts(name: name, version: version, drafts: drafts)], slots: slots)[0]
    }

    /// The same for several hooks: one round trip and one commit for all, and an answer for each.
    func accept(_ hooks: [VersionedDrafts], slots: Int) async throws -> [[Fire]?] {
        let pending = hooks.map { hook in
            hook.drafts.enumerated().compactMap { index, draft in
                draft.definition.map { Pending(draft: draft, definition: $0, isLeased: index < slots) }
            }
        }
        let results = try await pool.pipeline(
            zip(hooks, pending).map { hook, pending in
                """
                with same as (
                    select from hooks.hooks where hook_group_id = \(hook.name.group) and hook_id = \(hook.name.hook)
                        and definition_version = \(hook.version)
                ), accepted as (
                    \(insertion(pending, from: "same, ", onConflict: Self.leaveOut))
                )
                select s.matches, a.* from (select count(*) as matches from same) s left join accepted a on true
                """
            }
        )
        return try zip(pending, results).map { pending, rows in
            guard let first = rows.first, try first.int("matches") == 1 else { return nil }
            return try Self.fires(of: pending, rows.filter { try $0.optionalInt("fire_id") != nil })
        }
    }

    // MARK: - Drafts that make tasks

    private struct Pending {
        let draft: FireDraft
        let definition: String
        let isLeased: Bool
    }

    /// Which task of which hook; no two accepted fires of one batch agree in it.
    private struct Target: Hashable {
        let name: HookName
        let taskID: String
    }

    /// The fires that leased drafts became.
    private static func fires(of pending: [Pending], _ rows: [PostgresRow]) throws -> [Fire] {
        guard !rows.isEmpty else { return [] }
        var places: [Target: Int] = [:]
        for (place, row) in pending.enumerated() {
            let target = Target(name: row.draft.name, taskID: row.draft.taskID)
            if places[target] == nil { places[target] = place }
        }
        return try rows.compactMap { row in
            let name = HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id"))
            guard let place = places[Target(name: name, taskID: try row.string("task_id"))],
                pending[place].isLeased
            else { return nil }
            return pending[place].draft.fire(id: try row.int("fire_id"), definition: pending[place].definition)
        }
    }

    private func insertion(_ rows: [Pending], from others: SQL = "", onConflict: SQL) -> SQL {
        let drafts = rows.map { $0.draft }
        return """
            insert into hooks.fires (hook_group_id, hook_id, task_id, fired_by, context, request_hash, created, started,
                definition, state, attempts, lease, run_at, dedup_key, queue, consumer, content_hash, settled,
                due, origin, rendered, give_up)
            select d.hook_group_id, d.hook_id, d.task_id, d.fired_by, d.context, d.request_hash, d.created, d.started,
                d.definition, 'pending', d.leased::int, d.leased::int, now() + d.wait * interval '1 millisecond',
                d.dedup_key, d.queue, d.consumer, d.content_hash, d.queue is null, d.due, d.origin, d.rendered, d.give_up
            from \(others)unnest(\(drafts.map { $0.name.group })::text[], \(drafts.map { $0.name.hook })::text[],
                \(drafts.map { $0.taskID })::text[], \(drafts.map { $0.firedBy.rawValue })::text[],
                \(drafts.map { JSONValue.object($0.context).text() })::text[], \(drafts.map { $0.requestHash })::text[],
                \(drafts.map { $0.created })::timestamptz[], \(drafts.map { $0.started })::timestamptz[],
                \(rows.map { $0.definition })::text[], \(rows.map { $0.isLeased })::boolean[],
                \(rows.map { ($0.isLeased ? lease : $0.draft.delay).inMilliseconds })::bigint[],
                \(drafts.map { $0.deduplicationKey })::text[], \(drafts.map { $0.delivery?.queue })::text[],
                \(drafts.map { $0.delivery?.consumer })::text[], \(drafts.map { $0.delivery?.contentHash })::text[],
                \(drafts.map { $0.due ?? $0.started })::timestamptz[], \(drafts.map { $0.actualOrigin.rawValue })::text[],
                \(drafts.map { $0.rendered?.iso8601 })::timestamptz[], \(drafts.map { $0.giveUp?.iso8601 })::timestamptz[]
            ) as d (hook_group_id, hook_id, task_id, fired_by, context, request_hash, created, started, definition, leased,
                wait, dedup_key, queue, consumer, content_hash, due, origin, rendered, give_up)
            \(onConflict)
            returning fire_id, hook_group_id, hook_id, task_id
            """
    }

    private static let leaveOut: SQL = "on conflict (dedup_key) do nothing"

    /// An instant that came to nothing may be made up for: its row begins anew, under the same task id.
    private static let beginAnew: SQL = """
        on conflict (dedup_key) do update set created = excluded.created, started = excluded.started,
            context = excluded.context, definition = excluded.definition, state = 'pending', outcome = null,
            error = null, reason = null, finished = null, attempts = 0, failures = 0, lease = fires.lease + 1,
            run_at = excluded.run_at, task_id = excluded.task_id, origin = excluded.origin,
            rendered = excluded.rendered, give_up = excluded.give_up
        where fires.state = 'done' and fires.outcome in ('failed', 'skipped', 'declined')
        """

    // MARK: - Drafts that make none

    private func insertion(finished draft: FireDraft) -> SQL {
        var failure: FireFailure?
        if case .failed(let reason) = draft.rendering { failure = reason }
        // A failed or declined request may be made again with the same task id, so its key is not kept.
        let key = draft.mayBeRepeated ? draft.deduplicationKey : nil
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
}

extension Duration {
    fileprivate var inMilliseconds: Int { Int(self / .milliseconds(1)) }
}

extension FireDraft {
    var actualOrigin: FireOrigin { origin ?? FireOrigin(firedBy) }

    fileprivate var isBackfill: Bool { origin == .backfill }

    fileprivate var mayBeRepeated: Bool { firedBy.mayBeRepeated || origin == .trigger }

    /// The text of the task, for drafts that make one.
    fileprivate var definition: String? {
        if case .task(let task) = rendering { task.text() } else { nil }
    }

    /// The deadline of the task; later than that nobody needs it any more.
    fileprivate var giveUp: Timestamp? {
        guard mayBeRepeated, case .task(let task) = rendering else { return nil }
        return task["deadline"]?.string.flatMap { Timestamp($0) } ?? created + .seconds(24 * 3600)
    }

    /// The fire that a pending draft became, taken by whoever accepted it.
    fileprivate func fire(id: Int, definition: String) -> Fire {
        Fire(
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
