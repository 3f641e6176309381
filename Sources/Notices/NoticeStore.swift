// SPDX-License-Identifier: MPL-2.0

public import Postgres

/// Notices that wait for their delivery, in the table `notices` of a schema; they commit with the change they tell of.
public struct NoticeStore: Sendable {
    /// A notice that is due.
    struct Due: Sendable {
        let id: Int
        let notice: Notice
        let attempts: Int
    }

    private let schema: String
    private let pool: PostgresPool

    /// Opens the notices of a schema.
    public init(schema: String, pool: PostgresPool) {
        self.schema = schema
        self.pool = pool
    }

    /// Adds a notice in the transaction that is open on the connection; answers whether it had not been told before.
    public func add(_ notice: Notice, on connection: PostgresConnection) async throws -> Bool {
        let state = notice.channel == .bus ? "sent" : "pending"
        return try await connection.execute(
            """
            insert into \(unsafe: schema).notices (dedup_key, channel, target, subject, body, document, state)
            values (\(notice.key), \(notice.channel.rawValue), \(notice.target), \(notice.subject), \(notice.text),
                \(notice.document), \(state))
            on conflict (dedup_key) do nothing
            """
        ) > 0
    }

    /// Takes notices that are due; nobody else gets them until the lease is over.
    func take(limit: Int, lease: Duration) async throws -> [Due] {
        let rows = try await pool.query(
            """
            update \(unsafe: schema).notices set attempts = attempts + 1,
                next_try = now() + \(Int(lease.components.seconds))::bigint * interval '1 second'
            where id = any(array(
                select id from \(unsafe: schema).notices where state = 'pending' and next_try <= now()
                order by next_try, id limit \(limit) for update skip locked))
            returning id, dedup_key, channel, target, subject, body, document, attempts
            """
        )
        return try rows.compactMap { row in
            guard let channel = Notice.Channel(rawValue: try row.string("channel")) else { return nil }
            return Due(
                id: try row.int("id"),
                notice: Notice(
                    key: try row.string("dedup_key"),
                    channel: channel,
                    target: try row.string("target"),
                    subject: try row.string("subject"),
                    text: try row.string("body"),
                    document: try row.json("document")
                ),
                attempts: try row.int("attempts")
            )
        }
    }

    /// Notes that a notice was delivered.
    func finish(_ due: Due) async throws {
        try await pool.execute(
            "update \(unsafe: schema).notices set state = 'sent', sent = now(), error = null where id = \(due.id)"
        )
    }

    /// Notes that a notice was not delivered, and when to try again; nil gives up.
    func fail(_ due: Due, error: String, pause: Duration?) async throws {
        let seconds = pause.map { Int($0.components.seconds) }
        try await pool.execute(
            """
            update \(unsafe: schema).notices set error = \(error),
                state = case when \(seconds)::bigint is null then 'abandoned' else 'pending' end,
                next_try = now() + coalesce(\(seconds)::bigint, 0) * interval '1 second'
            where id = \(due.id)
            """
        )
    }

    /// Forgets what was told long ago.
    public func sweep() async throws {
        try await pool.execute(
            """
            delete from \(unsafe: schema).notices where id = any(array(
                select id from \(unsafe: schema).notices
                where state <> 'pending' and created < now() - interval '90 days' limit 1000))
            """
        )
    }
}
