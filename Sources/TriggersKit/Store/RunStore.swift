// SPDX-License-Identifier: MPL-2.0

import Core
import HooksKit
import JSON
import Postgres
import Schedules

/// What was observed, and how far each of it has come.
struct RunStore: Sendable {
    let pool: PostgresPool

    // MARK: - Writing down

    /// Writes sightings down in the transaction that is open on a connection; answers how many were new.
    func add(_ sightings: [Sighting], for trigger: Trigger, on connection: PostgresConnection) async throws -> Int {
        guard !sightings.isEmpty else { return 0 }
        return try await connection.execute(
            """
            insert into triggers.runs (trigger, subject, hook_group_id, hook_id, facts, origin)
            select \(trigger.name), s.subject, \(trigger.hook.group), \(trigger.hook.hook), s.facts::json, s.origin
            from unnest(\(sightings.map(\.subject))::text[], \(sightings.map { $0.facts.json.text() })::text[],
                \(sightings.map(\.origin.rawValue))::text[]) as s (subject, facts, origin)
            on conflict (trigger, subject) do nothing
            """
        )
    }

    /// Writes the sightings of one trigger down.
    func add(_ sightings: [Sighting], for trigger: Trigger) async throws -> Int {
        guard !sightings.isEmpty else { return 0 }
        return try await pool.transaction { connection in
            try await add(sightings, for: trigger, on: connection)
        }
    }

    // MARK: - Dealing with

    /// Takes what is due of some triggers, a bounded number; nobody else gets it until the lease is over.
    func take(_ triggers: [String], limit: Int, lease: Duration) async throws -> [Run] {
        let rows = try await pool.query(
            """
            update triggers.runs set lease = lease + 1,
                due = now() + \(lease.milliseconds)::bigint * interval '1 millisecond'
            where id = any(array(
                select id from triggers.runs
                where state in ('waiting', 'firing') and due <= now() and trigger = any(\(triggers))
                order by due limit \(limit) for update skip locked))
            returning id, trigger, subject, hook_group_id, hook_id, facts, state, looks, failures, firings, lease
            """
        )
        return try rows.map(Self.run)
    }

    /// Prolongs the leases of runs that are still being dealt with.
    func extend(_ runs: [Run], by lease: Duration) async throws {
        try await pool.execute(
            """
            update triggers.runs r set due = now() + \(lease.milliseconds)::bigint * interval '1 millisecond'
            from unnest(\(runs.map(\.id))::bigint[], \(runs.map(\.lease))::bigint[]) as held (id, lease)
            where r.id = held.id and r.lease = held.lease and r.settled is null
            """
        )
    }

    private static func run(_ row: PostgresRow) throws -> Run {
        Run(
            id: try row.int("id"),
            trigger: try row.string("trigger"),
            subject: try row.string("subject"),
            hook: HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id")),
            facts: try row.json("facts"),
            isFiring: try row.string("state") == "firing",
            looks: try row.int("looks"),
            failures: try row.int("failures"),
            firings: try row.int("firings"),
            lease: try row.int("lease")
        )
    }

    /// Whether a run is still in the hands of whoever took it; nobody else changes it before the transaction ends.
    func lock(_ run: Run, on connection: PostgresConnection) async throws -> Bool {
        try await !connection.query(
            """
            select from triggers.runs where id = \(run.id) and lease = \(run.lease) and state in ('waiting', 'firing')
            for update
            """
        ).isEmpty
    }

    /// Notes that a run's fire is written down.
    func noteFiring(_ run: Run, taskID: String, on connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            update triggers.runs set state = 'firing', lease = lease + 1, firings = firings + 1, task_id = \(taskID),
                due = now() + interval '1 second'
            where id = \(run.id)
            """
        )
    }

    /// Settles runs whose tasks exist, and has the tasks followed.
    func finish(_ run: Run) async throws {
        try await pool.execute(
            """
            with run as (
                update triggers.runs set state = 'fired', settled = now(), reason = null, failures = 0
                where id = \(run.id) and lease = \(run.lease) and state = 'firing'
                returning id, hook_group_id, hook_id, task_id
            )
            insert into triggers.tasks (task_id, run_id, hook_group_id, hook_id)
            select task_id, id, hook_group_id, hook_id from run
            on conflict (task_id) do nothing
            """
        )
    }

    /// Settles all runs of a trigger that is no more; answers how many.
    ///
    /// Fires that are written down take place.
    func abandon(_ trigger: String, on connection: PostgresConnection) async throws -> Int {
        try await connection.query(
            """
            with run as (
                update triggers.runs set lease = lease + 1, settled = now(), reason = 'the trigger was removed',
                    state = case when state = 'firing' then 'fired' else 'skipped' end
                where trigger = \(trigger) and state in ('waiting', 'firing')
                returning id, hook_group_id, hook_id, task_id, state
            ), task as (
                insert into triggers.tasks (task_id, run_id, hook_group_id, hook_id)
                select task_id, id, hook_group_id, hook_id from run where state = 'fired'
                on conflict (task_id) do nothing
            )
            select count(*) as n from run
            """
        ).first?.int("n") ?? 0
    }

    /// Settles a run of which no task comes.
    func settle(_ run: Run, _ state: String, _ reason: String?) async throws {
        try await pool.execute(
            """
            update triggers.runs set state = \(state), settled = now(), reason = \(Self.storable(reason))
            where id = \(run.id) and lease = \(run.lease)
            """
        )
    }

    /// Puts a run off: because the time has not come, because it was looked for in vain, or because something failed.
    func postpone(
        _ run: Run,
        by pause: Duration,
        _ reason: String?,
        looks: Int = 0,
        failures: Int = 0
    ) async throws {
        try await pool.execute(
            """
            update triggers.runs set lease = lease + 1,
                due = now() + \(pause.milliseconds)::bigint * interval '1 millisecond',
                reason = coalesce(\(Self.storable(reason)), reason), looks = looks + \(looks)::int,
                failures = failures + \(failures)::int,
                state = case when \(failures > 0) then 'waiting' else state end
            where id = \(run.id) and lease = \(run.lease)
            """
        )
    }

    /// PostgreSQL takes every text but one with a zero in it.
    static func storable(_ text: String?) -> String? {
        text.map { String(decoding: $0.utf8.filter { $0 != 0 }.prefix(4000), as: UTF8.self) }
    }

    // MARK: - For people

    /// Runs, newest first; those of one trigger, those in one state, those that failed and wait.
    func list(
        trigger: String?,
        state: String?,
        isStuck: Bool,
        before: Int?,
        limit: Int
    ) async throws -> [RunEntry] {
        let bound: SQL = if let before { "and r.id < \(before)" } else { "" }
        let ofTrigger: SQL = if let trigger { "and r.trigger = \(trigger)" } else { "" }
        let inState: SQL = if let state { "and r.state = \(state)" } else { "" }
        let stuck: SQL = isStuck ? "and r.state in ('waiting', 'firing') and r.failures > 0" : ""
        let rows = try await pool.query(
            """
            select r.id, r.trigger, r.subject, r.hook_group_id, r.hook_id, r.origin, r.state, r.failures, r.reason,
                r.task_id, t.state as task_state, r.created, r.due, r.settled
            from triggers.runs r left join triggers.tasks t on t.task_id = r.task_id
            where true \(bound) \(ofTrigger) \(inState) \(stuck) order by r.id desc limit \(limit)
            """
        )
        return try rows.map(Self.entry)
    }

    private static func entry(_ row: PostgresRow) throws -> RunEntry {
        RunEntry(
            id: try row.int("id"),
            trigger: try row.string("trigger"),
            subject: try row.string("subject"),
            hook: HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id")),
            origin: try row.string("origin"),
            state: try row.string("state"),
            failures: try row.int("failures"),
            reason: try row.optionalString("reason"),
            taskID: try row.optionalString("task_id"),
            taskState: try row.optionalString("task_state"),
            created: try row.timestamp("created"),
            due: try row.timestamp("due"),
            settled: try row.optionalTimestamp("settled")
        )
    }

    /// Has a run looked at now that waits or was skipped; answers its state then, nil if there is no such run.
    func retry(_ id: Int) async throws -> String? {
        let rows = try await pool.query(
            """
            with changed as (
                update triggers.runs set state = 'waiting', looks = 0, settled = null, due = now(), reason = null
                where id = \(id) and (state = 'skipped' or state = 'waiting' and failures + looks > 0)
                returning id
            )
            select case when c.id is null then r.state else 'waiting' end as state
            from triggers.runs r left join changed c on c.id = r.id where r.id = \(id)
            """
        )
        return try rows.first?.string("state")
    }

    /// How many runs cannot go on.
    func stuck(on connection: PostgresConnection) async throws -> Int {
        try await connection.query(
            "select count(*) as n from triggers.runs where state in ('waiting', 'firing') and failures > 0"
        ).first?.int("n") ?? 0
    }

    /// How many runs are not settled, and since when the oldest of them waits.
    func backlog() async throws -> (count: Int, age: Double) {
        let rows = try await pool.query(
            """
            select count(*) as n, coalesce(extract(epoch from now() - min(created)), 0)::float8 as age
            from triggers.runs where state in ('waiting', 'firing')
            """
        )
        guard let row = rows.first else { return (0, 0) }
        return (try row.int("n"), try row.double("age"))
    }

    /// Forgets what was settled long ago, at most a thousand; answers how many.
    func sweep(olderThan age: Duration) async throws -> Int {
        try await pool.execute(
            """
            delete from triggers.runs where id = any(array(
                select id from triggers.runs
                where settled < now() - \(Int(age.components.seconds))::bigint * interval '1 second'
                order by settled limit 1000))
            """
        )
    }
}
