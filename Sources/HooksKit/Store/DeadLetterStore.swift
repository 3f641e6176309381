// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
package import Pulse
package import Schedules

/// A message that could not be turned into a fire.
package struct DeadLetter: Sendable {
    /// What happened to it.
    package enum Reason: String, Sendable {
        /// It is no JSON, or the database cannot store what it says.
        case poison
        /// It was the oldest in a full queue.
        case overflow
        /// Its consumer broke on it again and again.
        case redelivered
        /// A consumer rejected it.
        case rejected
        /// It was in the queue for too long.
        case expired

        /// Reads the broker's word for why a message left its queue.
        init(brokerReason: String) {
            switch brokerReason {
            case "maxlen": self = .overflow
            case "delivery_limit": self = .redelivered
            case "expired": self = .expired
            default: self = .rejected
            }
        }
    }

    package let id: Int
    package let received: Timestamp
    package let reason: Reason
    package let error: String
    package let delivery: PulseDelivery
    /// When a person had it fire after all, and the task that came of it.
    package let replayed: Timestamp?
    package let taskID: String?
}

/// The dead letters of hooks in PostgreSQL.
package struct DeadLetterStore: Sendable {
    package let pool: PostgresPool
    private let unfired: UnfiredStore

    package init(pool: PostgresPool) {
        self.pool = pool
        unfired = UnfiredStore(pool: pool)
    }

    /// How many letters of one hook are kept at most.
    private static let most = 10_000

    /// Writes a letter down; a copy of one that is there changes nothing.
    func add(
        _ delivery: PulseDelivery,
        of name: HookName,
        _ reason: DeadLetter.Reason,
        error: String,
        received: Timestamp,
        on connection: PostgresConnection
    ) async throws {
        let hash = DeliveryIdentity.contentHash(
            exchange: delivery.exchange,
            routingKey: delivery.routingKey,
            cc: delivery.cc,
            body: delivery.body
        )
        let identity = delivery.messageID.map { DeliveryIdentity.key(messageID: $0, contentHash: hash, of: name) }
        let added = try await connection.query(
            """
            insert into hooks.dead_letters (hook_group_id, hook_id, received, reason, error, exchange, routing_key,
                cc, message_id, body, identity)
            values (\(name.group), \(name.hook), \(received), \(reason.rawValue), \(Self.storable(error)),
                \(delivery.exchange), \(delivery.routingKey), \(delivery.cc), \(delivery.messageID), \(delivery.body),
                \(identity))
            on conflict (identity) do nothing
            returning letter_id
            """
        )
        if !added.isEmpty { _ = try await unfired.count("dead", 1, of: name, on: connection) }
    }

    /// PostgreSQL takes every text but one with a zero in it.
    private static func storable(_ text: String) -> String {
        String(decoding: text.utf8.filter { $0 != 0 }.prefix(10_000), as: UTF8.self)
    }

    /// The hook that a queue belongs to.
    func hook(ofQueue queue: String) async throws -> HookName? {
        try await pool.query("select hook_group_id, hook_id from hooks.queues where queue_name = \(queue) limit 1")
            .first.map { HookName(group: try $0.string("hook_group_id"), hook: try $0.string("hook_id")) }
    }

    /// Letters of a hook, newest first, older than one.
    func letters(of name: HookName, before id: Int?, limit: Int) async throws -> [DeadLetter] {
        let bound: SQL = id.map { "and letter_id < \($0)" } ?? ""
        return try await pool.query(
            Self.selection
                + """
                where hook_group_id = \(name.group) and hook_id = \(name.hook) \(bound)
                order by letter_id desc limit \(limit)
                """
        ).map(DeadLetter.init(row:))
    }

    /// One letter, locked until the end of the transaction.
    func lock(_ id: Int, of name: HookName, on connection: PostgresConnection) async throws -> DeadLetter? {
        try await connection.query(
            Self.selection
                + """
                where hook_group_id = \(name.group) and hook_id = \(name.hook) and letter_id = \(id) for update
                """
        ).first.map(DeadLetter.init(row:))
    }

    private static let selection: SQL = """
        select letter_id, received, reason, error, exchange, routing_key, cc, message_id, body, replayed, task_id
        from hooks.dead_letters\u{20}
        """

    /// Notes that a letter was made to fire.
    func noteReplayed(_ id: Int, taskID: String?, at instant: Timestamp, on connection: PostgresConnection) async throws
    {
        _ = try await connection.execute(
            "update hooks.dead_letters set replayed = \(instant), task_id = \(taskID) where letter_id = \(id)"
        )
    }

    /// Removes a letter; answers whether it was there.
    func remove(_ id: Int, of name: HookName) async throws -> Bool {
        try await pool.execute(
            """
            delete from hooks.dead_letters
            where hook_group_id = \(name.group) and hook_id = \(name.hook) and letter_id = \(id)
            """
        ) > 0
    }

    /// Forgets letters after thirty days, those of hooks that are gone, and the oldest of hooks that have too many.
    package func expire() async throws {
        _ = try await pool.execute("delete from hooks.dead_letters where received < now() - interval '30 days'")
        _ = try await pool.execute(
            """
            delete from hooks.dead_letters d using (
                select hook_group_id, hook_id, (array_agg(letter_id order by letter_id desc))[\(Self.most)::int] as last
                from hooks.dead_letters group by hook_group_id, hook_id having count(*) > \(Self.most)
            ) t where d.hook_group_id = t.hook_group_id and d.hook_id = t.hook_id and d.letter_id < t.last
            """
        )
        try await unfired.forgetGone()
    }
}

extension DeadLetter {
    fileprivate init(row: PostgresRow) throws {
        self.init(
            id: try row.int("letter_id"),
            received: try row.timestamp("received"),
            reason: Reason(rawValue: try row.string("reason")) ?? .rejected,
            error: try row.string("error"),
            delivery: try PulseDelivery(row: row),
            replayed: try row.optionalTimestamp("replayed"),
            taskID: try row.optionalString("task_id")
        )
    }
}
