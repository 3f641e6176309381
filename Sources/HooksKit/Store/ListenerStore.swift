// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
import Schedules

/// One route of messages from an exchange into a hook's queue, as the broker knows it.
struct BindingRoute: Sendable, Hashable {
    let exchange: String
    let routingKeyPattern: String

    init(_ binding: HookBinding) {
        exchange = binding.exchange
        routingKeyPattern = binding.routingKeyPattern
    }

    init?(json: JSONValue) {
        guard let binding = HookBinding(json: json) else { return nil }
        self.init(binding)
    }

    var json: JSONValue {
        ["exchange": JSONValue(exchange), "routingKeyPattern": JSONValue(routingKeyPattern)]
    }
}

/// Something the broker refuses: one route, or the queue itself.
struct BindingProblem: Sendable, Hashable {
    /// Nil when the queue as a whole is meant.
    let route: BindingRoute?
    let reason: String
    let since: Timestamp

    init(_ route: BindingRoute?, reason: String, since: Timestamp) {
        self.route = route
        self.reason = reason
        self.since = since
    }

    init?(json: JSONValue) {
        guard let reason = json["reason"]?.string, let since = json["since"]?.string.flatMap(Timestamp.init) else {
            return nil
        }
        self.init(BindingRoute(json: json), reason: reason, since: since)
    }

    var json: JSONValue {
        var json: JSONValue = ["reason": JSONValue(reason), "since": JSONValue(since.iso8601)]
        if let route {
            json["exchange"] = JSONValue(route.exchange)
            json["routingKeyPattern"] = JSONValue(route.routingKeyPattern)
        }
        return json
    }
}

/// Which queues the hooks need, which they have, and which listener is setting one right.
///
/// The database says what is wanted, by triggers that commit with the change of a hook; nothing here ever reads the
/// bindings of all hooks, and the broker is never asked what it has.
package struct ListenerStore: Sendable {
    /// Tells listeners that some hook is out of step.
    static let wishes = "hooks_bindings"
    /// Tells listeners, by the name of the hook, that a queue was made or removed.
    static let results = "hooks_queues"
    /// How long a listener may take to set a hook right before another one tries.
    static let lease: Duration = .seconds(60)

    package let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    // MARK: - Setting right

    /// A hook that its taker sets right.
    struct Taken: Sendable {
        let name: HookName
        /// The wish that is being carried out.
        let wish: Int
        /// The queue it was given, or an empty text.
        let queue: String
        /// What the broker may have from an earlier wish.
        let earlier: Set<BindingRoute>
        /// What it shall have.
        let wanted: Set<BindingRoute>
        let problems: [BindingProblem]
        let attempts: Int
    }

    /// Takes hooks that are out of step or have refused bindings to try again.
    func take(_ limit: Int, by listener: String) async throws -> [Taken] {
        try await pool.transaction { connection in
            let rows = try await connection.query(
                """
                with changed as (
                    select hook_group_id, hook_id from hooks.queues
                    where wanted <> made and taken_until <= now()
                    order by taken_until limit \(limit) for update skip locked
                ), refused as (
                    select hook_group_id, hook_id from hooks.queues
                    where retry_at <= now() and wanted = made and taken_until <= now()
                    order by retry_at limit \(limit) for update skip locked
                )
                update hooks.queues q set taken_by = \(listener),
                    taken_until = now() + \(Self.lease.inSeconds) * interval '1 second'
                from (select * from changed union all select * from refused) t
                where q.hook_group_id = t.hook_group_id and q.hook_id = t.hook_id
                returning q.hook_group_id, q.hook_id, q.wanted, q.queue_name, q.bindings, q.problems, q.attempts
                """
            )
            guard !rows.isEmpty else { return [] }
            let names = try rows.map(Self.name)
            // In a statement of its own, so that it sees at least the definitions whose wishes were just read.
            let hooks = try await connection.query(
                """
                select h.hook_group_id, h.hook_id, h.bindings from hooks.hooks h
                join unnest(\(names.map(\.group))::text[], \(names.map(\.hook))::text[]) n(g, i)
                    on h.hook_group_id = n.g and h.hook_id = n.i
                """
            )
            var wanted: [HookName: Set<BindingRoute>] = [:]
            for row in hooks { wanted[try Self.name(row)] = try Self.routes(row) }
            let taken = try rows.map { row in
                let name = try Self.name(row)
                return Taken(
                    name: name,
                    wish: try row.int("wanted"),
                    queue: try row.string("queue_name"),
                    earlier: try Self.routes(row),
                    wanted: wanted[name] ?? [],
                    problems: try row.json("problems").array?.compactMap(BindingProblem.init(json:)) ?? [],
                    attempts: try row.int("attempts")
                )
            }
            // Written down before the broker hears of it: a route that only the broker knows would stay for ever.
            let more = taken.filter { !$0.wanted.isSubset(of: $0.earlier) }
            _ = try await connection.pipeline(
                more.map { hook in
                    """
                    update hooks.queues set bindings = \(Self.json(hook.earlier.union(hook.wanted)))
                    where hook_group_id = \(hook.name.group) and hook_id = \(hook.name.hook)
                    """
                }
            )
            return taken
        }
    }

    /// What a taker found or did at the broker.
    struct Result: Sendable {
        let taken: Taken
        let queue: String
        /// What the broker has now; nil when the hook has no queue any more.
        let routes: Set<BindingRoute>?
        let problems: [BindingProblem]
        let retryIn: Duration?
    }

    /// Notes what was done, and tells the listeners.
    func finish(_ results: [Result], by listener: String) async throws {
        guard !results.isEmpty else { return }
        try await pool.transaction { connection in
            let statements = results.flatMap { result -> [SQL] in
                let name = result.taken.name
                let mine: SQL = """
                    hook_group_id = \(name.group) and hook_id = \(name.hook) and taken_by = \(listener)
                    """
                guard let routes = result.routes else {
                    return [
                        "delete from hooks.queues where \(mine) and wanted = \(result.taken.wish)",
                        """
                        update hooks.queues set queue_name = '', bindings = '[]', problems = '[]', attempts = 0,
                            retry_at = null, made = \(result.taken.wish), taken_by = null, taken_until = '-infinity'
                        where \(mine)
                        """,
                    ]
                }
                let seconds = result.retryIn?.inSeconds
                return [
                    """
                    update hooks.queues set queue_name = \(result.queue), bindings = \(Self.json(routes)),
                        problems = \(JSONValue.array(result.problems.map(\.json))),
                        attempts = \(result.retryIn == nil ? 0 : result.taken.attempts + 1),
                        retry_at = now() + \(seconds)::float8 * interval '1 second',
                        made = \(result.taken.wish), taken_by = null, taken_until = '-infinity'
                    where \(mine)
                    """
                ]
            }
            _ = try await connection.pipeline(
                statements
                    + results.map { "select pg_notify(\(Self.results), \($0.taken.name.description))" }
            )
        }
    }

    /// Gives a hook back that could not be set right, because the broker is away for instance.
    func release(_ name: HookName, by listener: String, for pause: Duration) async throws {
        _ = try await pool.execute(
            """
            update hooks.queues set taken_by = null, taken_until = now() + \(pause.inSeconds) * interval '1 second'
            where hook_group_id = \(name.group) and hook_id = \(name.hook) and taken_by = \(listener)
            """
        )
    }

    /// Has a queue made again that the broker has lost.
    func noteVanished(_ names: [HookName]) async throws {
        _ = try await pool.execute(
            """
            with lost as (
                update hooks.queues q set made = 0
                from unnest(\(names.map(\.group))::text[], \(names.map(\.hook))::text[]) n(g, i)
                where q.hook_group_id = n.g and q.hook_id = n.i and q.wanted = q.made
                returning 1
            )
            select pg_notify(\(Self.wishes), '') from (select count(*) as n from lost) t where n > 0
            """
        )
    }

    /// Notes, or with nil forgets, that the broker does not let a hook's queue be consumed.
    func noteConsumption(of name: HookName, problem: String?, since: Timestamp) async throws {
        let entry = problem.map { BindingProblem(nil, reason: $0, since: since).json }
        _ = try await pool.execute(
            """
            update hooks.queues set problems = case when \(entry)::json is null then '[]' else
                json_build_array(\(entry)::json) end
            where hook_group_id = \(name.group) and hook_id = \(name.hook) and retry_at is null
            """
        )
    }

    // MARK: - Rows

    static func name(_ row: PostgresRow) throws -> HookName {
        HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id"))
    }

    static func routes(_ row: PostgresRow) throws -> Set<BindingRoute> {
        Set(try row.json("bindings").array?.compactMap(BindingRoute.init(json:)) ?? [])
    }

    static func queue(_ row: PostgresRow) throws -> Queue {
        Queue(
            name: try name(row),
            wish: try row.int("wanted"),
            isInStep: try row.int("wanted") == row.int("made"),
            queue: try row.string("queue_name"),
            routes: try routes(row)
        )
    }

    static func json(_ routes: Set<BindingRoute>) -> JSONValue { .array(routes.map(\.json)) }
}
