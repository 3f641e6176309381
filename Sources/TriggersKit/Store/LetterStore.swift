// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Postgres
import Pulse
import Schedules

/// The messages that triggers could not read.
struct LetterStore: Sendable {
    /// How often a message is delivered before it becomes a dead letter.
    static let deliveries = 3

    /// A dead letter.
    struct Letter: Sendable {
        let id: Int
        let trigger: String
        let received: Timestamp
        let times: Int
        let error: String
        let delivery: PulseDelivery
        let replayed: Timestamp?
    }

    let pool: PostgresPool

    /// Counts a delivery of a message that cannot be read, and writes it down at the third; answers whether it did.
    func note(_ delivery: PulseDelivery, of trigger: String, error: String) async throws -> Bool {
        let digest = Self.digest(delivery)
        return try await pool.transaction { connection in
            let rows = try await connection.query(
                """
                insert into triggers.unread (trigger, digest) values (\(trigger), \(digest))
                on conflict (trigger, digest) do update set deliveries = unread.deliveries + 1, last = now()
                returning deliveries
                """
            )
            guard try rows.first?.int("deliveries") ?? 0 >= Self.deliveries else { return false }
            try await connection.execute(
                "delete from triggers.unread where trigger = \(trigger) and digest = \(digest)"
            )
            try await connection.execute(
                """
                insert into triggers.dead_letters
                    (trigger, error, exchange, routing_key, cc, message_id, body, digest)
                values (\(trigger), \(RunStore.storable(error)), \(RunStore.storable(delivery.exchange)),
                    \(RunStore.storable(delivery.routingKey)), \(delivery.cc.compactMap(RunStore.storable)),
                    \(RunStore.storable(delivery.messageID)), \(delivery.body), \(digest))
                on conflict (trigger, digest) do update
                    set times = dead_letters.times + 1, received = now(), error = excluded.error, replayed = null
                """
            )
            return true
        }
    }

    private static func digest(_ delivery: PulseDelivery) -> [UInt8] {
        var hash = SHA256()
        for text in [delivery.exchange, delivery.routingKey] + delivery.cc {
            hash.update(data: Array(text.utf8) + [0])
        }
        hash.update(data: [1] + delivery.body)
        return Array(hash.finalize())
    }

    /// Letters of one trigger, or of all, newest first.
    func list(trigger: String?, before: Int?, limit: Int) async throws -> [Letter] {
        let bound: SQL = if let before { "and letter_id < \(before)" } else { "" }
        let ofTrigger: SQL = if let trigger { "and trigger = \(trigger)" } else { "" }
        let rows = try await pool.query(
            Self.selection + "where true \(bound) \(ofTrigger) order by letter_id desc limit \(limit)"
        )
        return try rows.map(Self.letter)
    }

    /// One letter, locked until the end of the transaction.
    func lock(_ id: Int, on connection: PostgresConnection) async throws -> Letter? {
        let rows = try await connection.query(Self.selection + "where letter_id = \(id) for update")
        return try rows.first.map(Self.letter)
    }

    private static let selection: SQL = """
        select letter_id, trigger, received, times, error, exchange, routing_key, cc, message_id, body, replayed
        from triggers.dead_letters\u{20}
        """

    private static func letter(_ row: PostgresRow) throws -> Letter {
        Letter(
            id: try row.int("letter_id"),
            trigger: try row.string("trigger"),
            received: try row.timestamp("received"),
            times: try row.int("times"),
            error: try row.string("error"),
            delivery: PulseDelivery(
                exchange: try row.string("exchange"),
                routingKey: try row.string("routing_key"),
                cc: try row.strings("cc"),
                body: try row.bytes("body"),
                messageID: try row.optionalString("message_id")
            ),
            replayed: try row.optionalTimestamp("replayed")
        )
    }

    /// Notes that a letter was read after all.
    func noteReplayed(_ id: Int, on connection: PostgresConnection) async throws {
        try await connection.execute("update triggers.dead_letters set replayed = now() where letter_id = \(id)")
    }

    /// How many letters came within a time and wait for somebody.
    func unanswered(within time: Duration, on connection: PostgresConnection) async throws -> Int {
        try await connection.query(
            """
            select count(*) as n from triggers.dead_letters where replayed is null
                and received > now() - \(Int(time.components.seconds))::bigint * interval '1 second'
            """
        ).first?.int("n") ?? 0
    }

    /// Forgets letters after thirty days, and counts of messages that never came back.
    func expire() async throws {
        try await pool.execute("delete from triggers.dead_letters where received < now() - interval '30 days'")
        try await pool.execute("delete from triggers.unread where last < now() - interval '1 day'")
    }
}
