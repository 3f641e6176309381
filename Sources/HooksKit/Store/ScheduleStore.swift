// SPDX-License-Identifier: MPL-2.0

package import Core
import JSON
package import Postgres
import Schedules
import Taskcluster

/// The schedules of hooks as the scheduler sees them: what is due, and what comes next.
package struct ScheduleStore: Sendable {
    package let pool: PostgresPool
    let box: SecretBox
    let zones: TimeZoneFiles

    package init(pool: PostgresPool, box: SecretBox, zones: TimeZoneFiles = .system) {
        self.pool = pool
        self.box = box
        self.zones = zones
    }

    /// A hook whose instant has come, locked by the transaction that read it.
    struct Waiting: Sendable {
        let name: HookName
        let version: Int
        let schedule: [String]
        let scheduling: HookScheduling
        let due: FiringPlan.Due
        /// The secret from which the ids of its tasks are made; nil if it cannot be decrypted.
        let seed: String?
    }

    /// A hook's step to its next instant, with the instants it passes over.
    struct Step: Sendable {
        let name: HookName
        /// What to wait for.
        let next: FiringPlan.Due
        var skipped: FiringPlan.Skipped?
        /// Why instants were skipped.
        var reason = "missed"
    }

    static let columns: SQL = """
        hook_group_id, hook_id, definition_version, schedule, options, encrypted_next_task_id, next_scheduled_date,
        coalesce(next_due, next_scheduled_date) as next_due
        """

    /// Locks hooks whose instant has come, the longest overdue first, and leaves out what others have locked.
    ///
    /// A hook whose last fire is being repeated because the queue is unwell waits, and so does a paused one.
    func lockDue(now: Timestamp, limit: Int, on connection: PostgresConnection) async throws -> [Waiting] {
        try await connection.query(
            """
            select \(Self.columns) from hooks.hooks
            where next_scheduled_date <= \(now) and next_scheduled_date < '3999-01-01Z'
                and paused_since is null and waits_for is null
            order by next_scheduled_date limit \(limit) for no key update skip locked
            """
        ).map(waiting)
    }

    /// Locks one hook, whether or not it is due; nil if there is no such hook.
    func lock(_ name: HookName, on connection: PostgresConnection) async throws -> Waiting? {
        try await connection.query(
            """
            select \(Self.columns) from hooks.hooks
            where hook_group_id = \(name.group) and hook_id = \(name.hook) for no key update
            """
        ).first.map(waiting)
    }

    private func waiting(_ row: PostgresRow) throws -> Waiting {
        let name = HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id"))
        return Waiting(
            name: name,
            version: try row.int("definition_version"),
            schedule: try row.json("schedule").array?.compactMap(\.string) ?? [],
            scheduling: HookScheduling(options: try row.json("options").object ?? [:]),
            due: FiringPlan.Due(
                instant: try row.timestamp("next_due"),
                fireAt: try row.timestamp("next_scheduled_date")
            ),
            // A hook that cannot be read must not keep the others from firing.
            seed: try? box.open(row.string("encrypted_next_task_id"), for: name)
        )
    }

    /// The plan of a stored schedule; one whose hook cannot be decrypted is of no use.
    func plan(of hook: Waiting) throws(InvalidHook) -> FiringPlan {
        guard hook.seed != nil else { throw InvalidHook(message: "The hook's secrets cannot be decrypted") }
        return try hook.scheduling.plan(of: hook.schedule, for: hook.name, zones: zones)
    }

    /// Moves locked hooks to their next instants, and notes in the ledger what they pass over.
    func advance(_ steps: [Step], now: Timestamp, on connection: PostgresConnection) async throws {
        guard !steps.isEmpty else { return }
        var statements: [SQL] = [
            """
            update hooks.hooks h set next_scheduled_date = step.at, next_due = step.due
            from unnest(\(steps.map(\.name.group))::text[], \(steps.map(\.name.hook))::text[], \(steps.map(\.next.fireAt))::timestamptz[],
                \(steps.map(\.next.instant))::timestamptz[]) as step (hook_group_id, hook_id, at, due)
            where h.hook_group_id = step.hook_group_id and h.hook_id = step.hook_id
            """
        ]
        for step in steps {
            guard let skipped = step.skipped else { continue }
            statements.append(Self.skipping(skipped, of: step, now: now))
        }
        _ = try await connection.pipeline(statements)
    }

    private static func skipping(_ skipped: FiringPlan.Skipped, of step: Step, now: Timestamp) -> SQL {
        """
        insert into hooks.fires (hook_group_id, hook_id, task_id, fired_by, created, started, state, outcome, run_at,
            finished, due, since, skipped, reason)
        values (\(step.name.group), \(step.name.hook), '', 'schedule', \(now), \(now), 'done', 'skipped', now(), \(now),
            \(skipped.last), \(skipped.first), \(skipped.count),
            \(skipped.isExact ? step.reason : step.reason + ", at least so many"))
        """
    }

    /// When the next schedule comes due, perhaps in the past if others are about to fire it; nil if none ever does.
    func nextWake() async throws -> Timestamp? {
        try await pool.query(
            """
            select min(next_scheduled_date) as next from hooks.hooks
            where next_scheduled_date < '3999-01-01Z' and paused_since is null and waits_for is null
            """
        ).first?.optionalTimestamp("next")
    }

    /// Lets a schedule go on that stood still because of a fire that has now ended.
    ///
    /// The instants that passed meanwhile are skipped, unless the hook wants them.
    func goOn(after fire: Fire, now: Timestamp, on connection: PostgresConnection) async throws {
        let name = fire.name
        let released = try await connection.execute(
            """
            update hooks.hooks set waits_for = null
            where hook_group_id = \(name.group) and hook_id = \(name.hook) and waits_for = \(fire.id)
                and exists (select from hooks.fires where fire_id = \(fire.id) and state = 'done')
            """
        )
        guard released == 1, let hook = try await lock(name, on: connection) else { return }
        if hook.scheduling.catchUp == .none, hook.due.fireAt <= now, let plan = try? plan(of: hook) {
            let step = Self.passing(hook, plan, now: now, reason: "missed while an earlier fire was repeated")
            try await advance([step], now: now, on: connection)
        }
        _ = try await connection.query("select pg_notify(\(HookStore.changes), '')")
    }

    /// The step that passes over everything that has come.
    private static func passing(_ hook: Waiting, _ plan: FiringPlan, now: Timestamp, reason: String) -> Step {
        let (skipped, next) = plan.pass(from: hook.due, now: now)
        return Step(name: hook.name, next: next ?? .never, skipped: skipped, reason: reason)
    }

    // MARK: - Pausing

    /// A hook's pause: since when, and by whom.
    struct Pause: Sendable {
        let since: Timestamp
        let client: String
    }

    /// The pause of a hook, or nil if it is not paused.
    func pause(of name: HookName) async throws -> Pause? {
        let row = try await pool.query(
            """
            select paused_since, paused_by from hooks.hooks
            where hook_group_id = \(name.group) and hook_id = \(name.hook) and paused_since is not null
            """
        ).first
        return try row.map { row in
            Pause(since: try row.timestamp("paused_since"), client: try row.optionalString("paused_by") ?? "")
        }
    }

    /// Stops a hook's schedule; false if there is no such hook.
    ///
    /// Pausing twice changes nothing.
    func pause(_ name: HookName, by client: String, now: Timestamp) async throws -> Bool {
        try await pool.execute(
            """
            update hooks.hooks set paused_by = case when paused_since is null then \(client) else paused_by end,
                paused_since = coalesce(paused_since, \(now)::timestamptz)
            where hook_group_id = \(name.group) and hook_id = \(name.hook)
            """
        ) == 1
    }

    /// Lets a hook's schedule go on; false if there is no such hook.
    ///
    /// The instants of the pause are skipped.
    func resume(_ name: HookName, now: Timestamp) async throws -> Bool {
        try await pool.transaction { connection in
            guard let hook = try await lock(name, on: connection) else { return false }
            let resumed = try await connection.execute(
                """
                update hooks.hooks set paused_since = null, paused_by = null
                where hook_group_id = \(name.group) and hook_id = \(name.hook) and paused_since is not null
                """
            )
            guard resumed == 1 else { return true }
            if hook.due.fireAt <= now, let plan = try? plan(of: hook) {
                let step = Self.passing(hook, plan, now: now, reason: "paused")
                try await advance([step], now: now, on: connection)
            }
            _ = try await connection.query("select pg_notify(\(HookStore.changes), '')")
            return true
        }
    }
}
