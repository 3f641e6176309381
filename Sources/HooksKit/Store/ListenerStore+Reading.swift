// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules

extension ListenerStore {
    // MARK: - Reading

    /// A hook with a queue.
    struct Queue: Sendable {
        let name: HookName
        let wish: Int
        /// Whether the wish was carried out.
        let isInStep: Bool
        let queue: String
        let routes: Set<BindingRoute>
    }

    /// The hooks whose queues were made, in the order of their names, after one.
    func queues(after name: HookName?, limit: Int) async throws -> [Queue] {
        let start: SQL = name.map { "and (hook_group_id, hook_id) > (\($0.group), \($0.hook))" } ?? ""
        return try await pool.query(
            """
            select hook_group_id, hook_id, wanted, made, queue_name, bindings from hooks.queues
            where queue_name <> '' \(start) order by hook_group_id, hook_id limit \(limit)
            """
        ).map(Self.queue)
    }

    /// Those of the named hooks that have queues.
    func queues(of names: [HookName]) async throws -> [Queue] {
        try await pool.query(
            """
            select q.hook_group_id, q.hook_id, q.wanted, q.made, q.queue_name, q.bindings from hooks.queues q
            join unnest(\(names.map(\.group))::text[], \(names.map(\.hook))::text[]) n(g, i)
                on q.hook_group_id = n.g and q.hook_id = n.i
            where q.queue_name <> ''
            """
        ).map(Self.queue)
    }

    /// Sees to it that routes just made again are undone if the wish has changed meanwhile.
    func recheck(_ queues: [Queue]) async throws {
        guard !queues.isEmpty else { return }
        let changed = try await pool.query(
            """
            select n.g as hook_group_id, n.i as hook_id
            from unnest(\(queues.map(\.name.group))::text[], \(queues.map(\.name.hook))::text[],
                \(queues.map(\.wish))::bigint[]) n(g, i, w)
            left join hooks.queues q on q.hook_group_id = n.g and q.hook_id = n.i
            where q.wanted is distinct from n.w
            """
        ).map(Self.name)
        guard !changed.isEmpty else { return }
        let stale = queues.filter { changed.contains($0.name) }
        try await pool.transaction { connection in
            _ = try await connection.pipeline(
                stale.map { queue in
                    """
                    insert into hooks.queues (hook_group_id, hook_id, queue_name, bindings, wanted)
                    values (\(queue.name.group), \(queue.name.hook), \(queue.queue), \(Self.json(queue.routes)),
                        nextval('hooks.definition_version'))
                    on conflict (hook_group_id, hook_id) do update set made = 0, bindings = (
                        select json_agg(distinct b)
                        from jsonb_array_elements(queues.bindings::jsonb || excluded.bindings::jsonb) b)
                    """
                } + ["select pg_notify(\(Self.wishes), '')"]
            )
        }
    }

    /// What the status of a hook tells about its listening.
    struct State: Sendable {
        let queue: String
        let isInStep: Bool
        let routes: Set<BindingRoute>
        let problems: [BindingProblem]
        let retryAt: Timestamp?
        let counts: [String: Int]
    }

    func state(of name: HookName) async throws -> State? {
        let rows = try await pool.query(
            """
            select hook_group_id, hook_id, queue_name, wanted = made as in_step, bindings, problems, retry_at,
                (select json_object_agg(kind, count) from hooks.unfired_counts c
                    where c.hook_group_id = q.hook_group_id and c.hook_id = q.hook_id) as counts
            from hooks.queues q where hook_group_id = \(name.group) and hook_id = \(name.hook)
            """
        )
        guard let row = rows.first else { return nil }
        var counts: [String: Int] = [:]
        for (kind, count) in try row.optionalJSON("counts")?.object ?? [:] { counts[kind] = count.int ?? 0 }
        return State(
            queue: try row.string("queue_name"),
            isInStep: try row.bool("in_step"),
            routes: try Self.routes(row),
            problems: try row.json("problems").array?.compactMap(BindingProblem.init(json:)) ?? [],
            retryAt: try row.optionalTimestamp("retry_at"),
            counts: counts
        )
    }

    // MARK: - Sharing

    /// Says that a listener lives; answers all that do.
    func beSeen(_ listener: String) async throws -> Set<String> {
        let rows = try await pool.query(
            """
            with mine as (
                insert into hooks.listeners (listener_id) values (\(listener))
                on conflict (listener_id) do update set seen = now()
            ), gone as (
                delete from hooks.listeners where seen < now() - interval '1 minute' and listener_id <> \(listener)
            )
            select listener_id from hooks.listeners where seen > now() - interval '10 seconds'
            """
        )
        return try Set(rows.map { try $0.string("listener_id") }).union([listener])
    }

    /// Says that a listener goes, so that the others need not find out.
    func leave(_ listener: String) async throws {
        _ = try await pool.execute("delete from hooks.listeners where listener_id = \(listener)")
    }

    // MARK: - Redeliveries

    /// Counts that messages were delivered again; answers how often each was, by its hash.
    ///
    /// Committed before anybody deals with them: they may be what ends the process.
    func countRedeliveries(_ hashes: [String], in queue: String) async throws -> [String: Int] {
        let rows = try await pool.query(
            """
            insert into hooks.redeliveries as r (queue, content_hash)
            select \(queue), h from unnest(\(Set(hashes).sorted())::text[]) h
            on conflict (queue, content_hash) do update set count = r.count + 1, last = now()
            returning content_hash, count
            """
        )
        return Dictionary(
            try rows.map { (try $0.string("content_hash"), try $0.int("count")) },
            uniquingKeysWith: { first, _ in first }
        )
    }

    /// Forgets counts of messages that are dealt with.
    func forgetRedeliveries(_ hashes: [String], in queue: String) async throws {
        _ = try await pool.execute(
            "delete from hooks.redeliveries where queue = \(queue) and content_hash = any(\(hashes)::text[])"
        )
    }

    /// Forgets counts of messages that have not come again for a day.
    func expireRedeliveries() async throws {
        _ = try await pool.execute("delete from hooks.redeliveries where last < now() - interval '1 day'")
    }

    /// Finds and settles a fire of equal content whose acknowledgement may have been lost; false if there is none.
    func absorb(queue: String, contentHash: String, on connection: PostgresConnection) async throws -> Bool {
        // Two copies at once must not find the same fire; and a fire whose row is just being ended must be waited for.
        let key = "\(queue) \(contentHash)"
        _ = try await connection.query("select pg_advisory_xact_lock(hashtextextended(\(key), 0))")
        return try await connection.execute(
            """
            update hooks.fires set settled = true where fire_id = (
                select fire_id from hooks.fires
                where queue = \(queue) and content_hash = \(contentHash) and not settled
                order by fire_id limit 1 for update)
            """
        ) > 0
    }

    /// Settles the fires a consumer wrote more than some time ago: their acknowledgements have arrived.
    func settle(consumer: String, olderThan age: Duration) async throws {
        _ = try await pool.execute(
            """
            update hooks.fires set settled = true
            where not settled and consumer = \(consumer)
                and started <= now() - \(age.inSeconds) * interval '1 second'
            """
        )
    }

    /// Settles what dead consumers left behind: their messages have long come again, to whoever took over.
    func settleAbandoned() async throws {
        _ = try await pool.execute(
            "update hooks.fires set settled = true where not settled and started < now() - interval '15 minutes'"
        )
    }
}
