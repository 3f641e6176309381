// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres

/// Which hooks listen to the bus, and which queues exist for them.
package struct ListenerStore: Sendable {
    package let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// All hooks with bindings.
    func boundHooks() async throws -> [HookName: [HookBinding]] {
        let rows = try await pool.query(
            "select hook_group_id, hook_id, bindings from hooks.hooks where json_array_length(bindings) > 0"
        )
        return try rows.reduce(into: [:]) { $0[try Self.name($1)] = try Self.bindings($1) }
    }

    /// All queues that were made, with the bindings they were given.
    func queues() async throws -> [HookName: (queue: String, bindings: [HookBinding])] {
        let rows = try await pool.query("select hook_group_id, hook_id, queue_name, bindings from hooks.queues")
        return try rows.reduce(into: [:]) {
            $0[try Self.name($1)] = (try $1.string("queue_name"), try Self.bindings($1))
        }
    }

    /// Runs a body while no other replica works on the same hook's queue, with the bindings of this moment.
    func whileAlone<Value: Sendable>(
        with name: HookName,
        _ body: @Sendable ([HookBinding], PostgresConnection) async throws -> Value
    ) async throws -> Value {
        try await pool.transaction { connection in
            _ = try await connection.query(
                "select pg_advisory_xact_lock(hashtextextended(\("hooks queue \(name)"), 0))"
            )
            let row = try await connection.query(
                """
                select hook_group_id, hook_id, bindings from hooks.hooks
                where hook_group_id = \(name.group) and hook_id = \(name.hook)
                """
            ).first
            return try await body(try row.map(Self.bindings) ?? [], connection)
        }
    }

    /// Notes the queue of a hook and its bindings.
    func record(
        _ name: HookName,
        queue: String,
        bindings: [HookBinding],
        on connection: PostgresConnection
    ) async throws {
        _ = try await connection.execute(
            """
            insert into hooks.queues (hook_group_id, hook_id, queue_name, bindings)
            values (\(name.group), \(name.hook), \(queue), \(JSONValue.array(bindings.map(\.json))))
            on conflict (hook_group_id, hook_id)
            do update set queue_name = excluded.queue_name, bindings = excluded.bindings
            """
        )
    }

    /// Notes that a hook has no queue any more.
    func forget(_ name: HookName, on connection: PostgresConnection) async throws {
        _ = try await connection.execute(
            "delete from hooks.queues where hook_group_id = \(name.group) and hook_id = \(name.hook)"
        )
    }

    /// Finds and settles a fire of equal content whose acknowledgement may have been lost; false if there is none.
    func absorb(queue: String, contentHash: String, on connection: PostgresConnection) async throws -> Bool {
        try await connection.execute(
            """
            update hooks.fires set settled = true where fire_id = (
                select fire_id from hooks.fires
                where queue = \(queue) and content_hash = \(contentHash) and not settled
                order by fire_id limit 1 for update skip locked)
            """
        ) > 0
    }

    /// Settles the fires a consumer wrote more than some seconds ago: their acknowledgements have arrived.
    func settle(consumer: String) async throws {
        _ = try await pool.execute(
            """
            update hooks.fires set settled = true
            where not settled and consumer = \(consumer) and started < now() - interval '5 seconds'
            """
        )
    }

    private static func name(_ row: PostgresRow) throws -> HookName {
        HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id"))
    }

    private static func bindings(_ row: PostgresRow) throws -> [HookBinding] {
        try row.json("bindings").array?.compactMap(HookBinding.init(json:)) ?? []
    }
}
