// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
import Schedules

/// The fires in PostgreSQL: accepted durably, taken under a lease, finished together with their row of history.
///
/// Leases are measured by the clock of the database, so that the clocks of the machines need not agree.
package struct FireStore: Sendable {
    package let pool: PostgresPool

    /// How long a performer may be silent before another one takes its fires.
    package static let lease: Duration = .seconds(30)

    /// The middle part of the names of the exchanges that announce fires.
    let namespace: String

    package init(pool: PostgresPool, namespace: String = "taskcluster-hooks") {
        self.pool = pool
        self.namespace = namespace
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
        let namespace = namespace
        let statements = drafts.map { draft -> SQL in
            guard case .task(let task) = draft.rendering else {
                isLeased.append(false)
                return Self.insertion(finished: draft, namespace: namespace)
            }
            let leased = remaining > 0
            remaining -= leased ? 1 : 0
            isLeased.append(leased)
            return Self.insertion(pending: draft, definition: task.text(), leased: leased)
        }
        let results = try await connection.pipeline(statements)
        var fires: [Fire] = []
        for (index, rows) in results.enumerated() where isLeased[index] {
            guard let row = rows.first else { continue }
            fires.append(drafts[index].fire(id: try row.int("fire_id")))
        }
        return fires
    }

    private static func insertion(pending draft: FireDraft, definition: String, leased: Bool) -> SQL {
        """
        insert into hooks.fires (hook_group_id, hook_id, task_id, fired_by, context, request_hash, created, started,
            definition, state, attempts, lease, run_at, dedup_key, queue, consumer, content_hash, settled)
        values (\(draft.name.group), \(draft.name.hook), \(draft.taskID), \(draft.firedBy.rawValue),
            \(JSONValue.object(draft.context).text()), \(draft.requestHash), \(draft.created), \(draft.started),
            \(definition), 'pending', \(leased ? 1 : 0), \(leased ? 1 : 0),
            now() + \(leased ? lease.inSeconds : 0.0) * interval '1 second', \(draft.deduplicationKey),
            \(draft.delivery?.queue), \(draft.delivery?.consumer), \(draft.delivery?.contentHash),
            \(draft.delivery == nil))
        on conflict (dedup_key) do nothing
        returning fire_id
        """
    }

    private static func insertion(finished draft: FireDraft, namespace: String) -> SQL {
        var failure: FireFailure?
        if case .failed(let reason) = draft.rendering { failure = reason }
        let isMailed = failure != nil && draft.firedBy == .schedule
        // A failed or declined request may be made again with the same task id, so its key is not kept.
        let key = draft.firedBy.mayBeRepeated ? draft.deduplicationKey : nil
        return """
            with mail as (
                insert into hooks.failure_mails (hook_group_id, hook_id, owner, sent_at)
                select hook_group_id, hook_id, metadata ->> 'owner', \(draft.started) from hooks.hooks
                where \(isMailed) and hook_group_id = \(draft.name.group) and hook_id = \(draft.name.hook)
                    and coalesce(metadata ->> 'emailOnError', 'true') = 'true'
                \(throttle)
                returning 1
            ), fire as (
                insert into hooks.fires (hook_group_id, hook_id, task_id, fired_by, created, started, state, outcome,
                    error, run_at, finished, dedup_key, queue, consumer, content_hash, settled)
                values (\(draft.name.group), \(draft.name.hook), \(draft.taskID), \(draft.firedBy.rawValue),
                    \(draft.created), \(draft.started), case when exists (select from mail) then 'mailing' else 'done' end,
                    \(failure == nil ? "declined" : "failed"), \(failure?.record), now(), now(), \(key),
                    \(draft.delivery?.queue), \(draft.delivery?.consumer), \(draft.delivery?.contentHash),
                    \(draft.delivery == nil))
                on conflict (dedup_key) do nothing
                returning hook_group_id, hook_id, task_id, fired_by, started, outcome, error
            ), published as (
                \(FireAnnouncement(draft.name, draft.firedBy, failure, namespace: namespace).insertion)
                from fire where outcome = 'failed'
            )
            insert into hooks.last_fires (hook_group_id, hook_id, task_id, fired_by, task_create_time, result, error)
            select hook_group_id, hook_id, task_id, fired_by, started, 'error', coalesce(error, '')
            from fire where outcome = 'failed'
            on conflict (hook_group_id, hook_id, task_id) do nothing
            """
    }

    /// One e-mail per owner and hook within twelve hours, unless a success came between.
    static let throttle: SQL = """
        on conflict (hook_group_id, hook_id) do update set owner = excluded.owner, sent_at = excluded.sent_at
        where failure_mails.sent_at <= excluded.sent_at - interval '12 hours' or failure_mails.owner <> excluded.owner
        """

    // MARK: - Taking

    /// Takes up to `limit` fires that nobody performs, for as long as a lease.
    func claim(limit: Int) async throws -> [Fire] {
        try await pool.query(
            """
            update hooks.fires set lease = lease + 1, attempts = attempts + 1,
                run_at = now() + \(Self.lease.inSeconds) * interval '1 second'
            where fire_id = any(array(
                select fire_id from hooks.fires where state <> 'done' and run_at <= now()
                order by run_at limit \(limit) for update skip locked))
            returning fire_id, hook_group_id, hook_id, task_id, fired_by, created, definition, context, state, lease,
                attempts, failures, error
            """
        ).map(Fire.init(row:))
    }

    /// Prolongs the leases of fires that are being performed.
    func extend(_ ids: [Int]) async throws {
        _ = try await pool.execute(
            """
            update hooks.fires set run_at = now() + \(Self.lease.inSeconds) * interval '1 second'
            where fire_id = any(\(ids)) and state <> 'done'
            """
        )
    }

    /// Gives fires back that were taken and not begun.
    func release(_ fires: [Fire]) async throws {
        for fire in fires {
            _ = try await pool.execute(
                "update hooks.fires set run_at = now() where fire_id = \(fire.id) and lease = \(fire.lease)"
            )
        }
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

    // MARK: - Finishing

    /// Ends a fire: its row, its line of history, and for schedules whether the owner is to be told.
    ///
    /// Does nothing if somebody else has taken the fire meanwhile.
    func finish(_ fire: Fire, _ outcome: FireOutcome, now: Timestamp) async throws {
        var failure: FireFailure?
        let text: String
        switch outcome {
        case .created: text = "created"
        case .declined: text = "declined"
        case .dropped: text = "dropped"
        case .failed(let reason), .postponed(let reason):
            text = "failed"
            failure = reason
        }
        let isSchedule = fire.firedBy == .schedule
        let hasHistory = text == "created" || text == "failed"
        let forgetsKey = failure != nil && !fire.firedBy.mayBeRepeated
        _ = try await pool.execute(
            """
            with mail as (
                insert into hooks.failure_mails (hook_group_id, hook_id, owner, sent_at)
                select h.hook_group_id, h.hook_id, h.metadata ->> 'owner', \(now)
                from hooks.hooks h join hooks.fires f using (hook_group_id, hook_id)
                where \(failure != nil && isSchedule) and f.fire_id = \(fire.id) and f.lease = \(fire.lease)
                    and f.state = 'pending' and coalesce(h.metadata ->> 'emailOnError', 'true') = 'true'
                \(Self.throttle)
                returning 1
            ), cleared as (
                delete from hooks.failure_mails
                where \(failure == nil && isSchedule)
                    and hook_group_id = \(fire.name.group) and hook_id = \(fire.name.hook)
            ), fire as (
                update hooks.fires set state = case when exists (select from mail) then 'mailing' else 'done' end,
                    outcome = \(text), error = \(failure?.record), context = null, definition = null,
                    run_at = now(), finished = now(),
                    dedup_key = case when \(forgetsKey) then null else dedup_key end
                where fire_id = \(fire.id) and lease = \(fire.lease) and state = 'pending'
                returning hook_group_id, hook_id, task_id, fired_by, started
            ), hook as (
                select h.hook_group_id, h.hook_id from hooks.hooks h
                where h.hook_group_id = \(fire.name.group) and h.hook_id = \(fire.name.hook) for key share
            ), published as (
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
        )
    }

    /// Puts a fire off until the queue may be well again.
    func postpone(_ fire: Fire, _ failure: FireFailure, by pause: Duration) async throws {
        _ = try await pool.execute(
            """
            update hooks.fires set failures = failures + 1, error = \(failure.record),
                run_at = now() + \(pause.inSeconds) * interval '1 second'
            where fire_id = \(fire.id) and lease = \(fire.lease) and state = 'pending'
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

    /// Notes that the owner was told.
    func finishMail(_ fire: Fire) async throws {
        _ = try await pool.execute(
            """
            update hooks.fires set state = 'done', finished = now()
            where fire_id = \(fire.id) and lease = \(fire.lease) and state = 'mailing'
            """
        )
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
        self.init(
            id: try row.int("fire_id"),
            name: HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id")),
            taskID: try row.string("task_id"),
            firedBy: FiredBy(rawValue: try row.string("fired_by")) ?? .schedule,
            created: try row.timestamp("created"),
            definition: try row.optionalString("definition") ?? "",
            context: try row.optionalString("context").map { try JSONValue(parsing: $0) }?.object ?? [:],
            state: State(rawValue: try row.string("state")) ?? .pending,
            lease: try row.int("lease"),
            attempts: try row.int("attempts"),
            failures: try row.int("failures"),
            error: try row.optionalString("error") ?? ""
        )
    }
}

extension FireDraft {
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
            state: .pending,
            lease: 1,
            attempts: 1,
            failures: 0,
            error: ""
        )
    }
}
