// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
package import Pulse
package import Schedules

/// Why a message that reached a hook fired nothing.
package enum UnfiredKind: String, Sendable {
    /// The filters of the bindings it matches say no.
    case declined
    /// The trigger schema does not admit it, or a filter fails on it.
    case rejected
}

/// A message that fired nothing, kept for a look at it.
package struct UnfiredMessage: Sendable {
    package let kind: UnfiredKind
    package let reason: String
    package let received: Timestamp
    package let delivery: PulseDelivery

    /// How many bytes of a body are kept.
    static let longestBody = 65_536

    /// Whether less than the whole body is here.
    package let isCut: Bool

    package init(
        kind: UnfiredKind,
        reason: String,
        received: Timestamp,
        delivery: PulseDelivery,
        isCut: Bool = false
    ) {
        self.kind = kind
        self.reason = reason
        self.received = received
        self.delivery = delivery
        self.isCut = isCut
    }
}

/// The counts and the last few of the messages that fired nothing.
package struct UnfiredStore: Sendable {
    package let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// How many messages of each kind are kept for each hook.
    package static let kept = 20

    /// Counts messages and keeps the last of them, in the transaction that settles their batch.
    func note(_ messages: [UnfiredMessage], of name: HookName, on connection: PostgresConnection) async throws {
        for kind in [UnfiredKind.declined, .rejected] {
            let some = messages.filter { $0.kind == kind }
            guard !some.isEmpty else { continue }
            let total = try await count(kind.rawValue, some.count, of: name, on: connection)
            let last = some.suffix(Self.kept)
            let first = total - last.count
            _ = try await connection.pipeline(
                last.enumerated().map { offset, message in
                    insertion(message, of: name, slot: (first + offset) % Self.kept)
                }
            )
        }
    }

    /// Adds to a count; answers the new one.
    func count(_ kind: String, _ number: Int, of name: HookName, on connection: PostgresConnection) async throws -> Int
    {
        try await connection.query(
            """
            insert into hooks.unfired_counts (hook_group_id, hook_id, kind, count)
            values (\(name.group), \(name.hook), \(kind), \(number))
            on conflict (hook_group_id, hook_id, kind) do update set count = unfired_counts.count + excluded.count
            returning count
            """
        ).first?.int("count") ?? number
    }

    private func insertion(_ message: UnfiredMessage, of name: HookName, slot: Int) -> SQL {
        let body = Array(message.delivery.body.prefix(UnfiredMessage.longestBody))
        return """
            insert into hooks.unfired_messages (hook_group_id, hook_id, kind, slot, received, reason, exchange,
                routing_key, cc, message_id, body, is_cut)
            values (\(name.group), \(name.hook), \(message.kind.rawValue), \(slot), \(message.received),
                \(message.reason), \(message.delivery.exchange), \(message.delivery.routingKey),
                \(message.delivery.cc), \(message.delivery.messageID), \(body),
                \(body.count < message.delivery.body.count))
            on conflict (hook_group_id, hook_id, kind, slot) do update set received = excluded.received,
                reason = excluded.reason, exchange = excluded.exchange, routing_key = excluded.routing_key,
                cc = excluded.cc, message_id = excluded.message_id, body = excluded.body, is_cut = excluded.is_cut
            """
    }

    /// The messages that are kept of a hook, newest first.
    func messages(of name: HookName) async throws -> [UnfiredMessage] {
        try await pool.query(
            """
            select kind, received, reason, exchange, routing_key, cc, message_id, body, is_cut
            from hooks.unfired_messages where hook_group_id = \(name.group) and hook_id = \(name.hook)
            order by received desc, slot desc
            """
        ).map { row in
            UnfiredMessage(
                kind: UnfiredKind(rawValue: try row.string("kind")) ?? .rejected,
                reason: try row.string("reason"),
                received: try row.timestamp("received"),
                delivery: try PulseDelivery(row: row),
                isCut: try row.bool("is_cut")
            )
        }
    }

    /// Forgets what was kept of hooks that are gone.
    func forgetGone() async throws {
        for table in ["unfired_counts", "unfired_messages", "dead_letters"] {
            _ = try await pool.execute(
                """
                delete from hooks.\(unsafe: table) t where not exists (
                    select from hooks.hooks h
                    where h.hook_group_id = t.hook_group_id and h.hook_id = t.hook_id)
                """
            )
        }
    }
}

extension PulseDelivery {
    /// A message from the columns in which both tables of messages keep it.
    init(row: PostgresRow) throws {
        self.init(
            exchange: try row.string("exchange"),
            routingKey: try row.string("routing_key"),
            cc: try row.strings("cc"),
            body: try row.bytes("body"),
            messageID: try row.optionalString("message_id")
        )
    }
}
