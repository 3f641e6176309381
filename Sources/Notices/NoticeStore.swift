// SPDX-License-Identifier: MPL-2.0

public import Postgres

/// Notices that wait for their delivery, in the table `notices` of a schema; they commit with the change they tell of.
public struct NoticeStore: NoticeQueue {
    /// How much one person or room is told; what is beyond that waits, and is told in one piece.
    public struct Limit: Sendable {
        /// How many messages.
        public var count: Int
        /// In which time.
        public var window: Duration

        /// Describes a limit.
        public init(count: Int, window: Duration) {
            self.count = count
            self.window = window
        }
    }

    private let schema: String
    private let pool: PostgresPool
    private let limit: Limit

    /// Opens the notices of a schema.
    public init(
        schema: String,
        pool: PostgresPool,
        limit: Limit = Limit(count: 60, window: .seconds(3600))
    ) {
        self.schema = schema
        self.pool = pool
        self.limit = limit
    }

    /// Adds a notice in the transaction that is open on the connection; answers whether it had not been told before.
    ///
    /// One with a digest waits for its time, or goes with those that have waited for some of theirs.
    public func add(_ notice: Notice, on connection: PostgresConnection) async throws -> Bool {
        let state = notice.channel == .bus ? "sent" : "pending"
        let channel = notice.channel.rawValue
        let digest = notice.digest.map { Int($0.components.seconds) }
        return try await connection.execute(
            """
            insert into \(unsafe: schema).notices
                (dedup_key, channel, target, subject, body, document, state, digest_seconds, next_try)
            values (\(notice.key), \(channel), \(notice.target), \(notice.subject), \(notice.text),
                \(notice.document), \(state), \(digest),
                case when \(digest)::bigint is null then now() else coalesce(
                    (select min(next_try) from \(unsafe: schema).notices
                    where state = 'pending' and channel = \(channel) and target = \(notice.target)
                        and digest_seconds is not null and attempts = 0 and next_try > now()),
                    now() + \(digest)::bigint * interval '1 second') end)
            on conflict (dedup_key) do nothing
            """
        ) > 0
    }

    /// Forgets notices whose keys begin so and that nobody has tried to deliver yet, in the open transaction.
    public func withdraw(beginning prefix: String, on connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            delete from \(unsafe: schema).notices
            where state = 'pending' and attempts = 0 and starts_with(dedup_key, \(prefix))
            """
        )
    }

    // MARK: - Delivering

    /// Takes notices that are due; nobody else gets them until the lease is over.
    public func take(limit count: Int, lease: Duration) async throws -> [DueNotice] {
        let due = try await pool.query(
            """
            select exists (select from \(unsafe: schema).notices where state = 'pending' and next_try <= now()) as due
            """
        )
        guard try due.first?.bool("due") == true else { return [] }
        return try await pool.transaction { connection -> [DueNotice] in
            // One process takes at a time: whoever is told by two of them would be told in two pieces.
            let turn = try await connection.query(
                "select pg_try_advisory_xact_lock(hashtextextended('notices of ' || \(schema), 0)) as mine"
            )
            guard try turn.first?.bool("mine") == true else { return [] }
            try await hold(on: connection)
            let rows = try await connection.query(takingQuery(count, lease))
            return try Self.joined(rows)
        }
    }

    /// Lets what is too much for one target wait until it may be told more.
    private func hold(on connection: PostgresConnection) async throws {
        let window = Int(limit.window.components.seconds)
        let channels = Notice.Channel.ofPeople.map(\.rawValue)
        try await connection.execute(
            """
            update \(unsafe: schema).notices n
            set held = true, next_try = case when t.sent >= \(limit.count)::bigint then t.free else n.next_try end
            from (select d.channel, d.target, count(distinct s.sent) as sent,
                    min(s.sent) + \(window)::bigint * interval '1 second' as free
                from (select channel, target, count(*) as waiting from \(unsafe: schema).notices
                    where state = 'pending' and next_try <= now() and channel = any(\(channels))
                    group by channel, target) d
                left join \(unsafe: schema).notices s on s.state = 'sent' and s.channel = d.channel
                    and s.target = d.target and s.sent > now() - \(window)::bigint * interval '1 second'
                group by d.channel, d.target, d.waiting
                having count(distinct s.sent) + d.waiting > \(limit.count)::bigint) t
            where n.state = 'pending' and n.next_try <= now() and n.channel = t.channel and n.target = t.target
            """
        )
    }

    /// The next ones, and with those that are told together all others to the same target.
    private func takingQuery(_ count: Int, _ lease: Duration) -> SQL {
        """
        with seeds as (
            select id, channel, target, held or digest_seconds is not null as joins from \(unsafe: schema).notices
            where state = 'pending' and next_try <= now() order by next_try, id limit \(count))
        update \(unsafe: schema).notices n set attempts = attempts + 1,
            next_try = now() + \(Int(lease.components.seconds))::bigint * interval '1 second'
        where n.state = 'pending' and n.next_try <= now() and (n.id in (select id from seeds)
            or ((n.held or n.digest_seconds is not null) and (n.channel, n.target) in (
                select channel, target from seeds where joins)))
        returning id, dedup_key, channel, target, subject, body, document, attempts,
            held or digest_seconds is not null as joins
        """
    }

    private static func joined(_ rows: [PostgresRow]) throws -> [DueNotice] {
        struct Piece {
            let id: Int
            let notice: Notice
            let attempts: Int
            /// Whom it is told with; itself alone if it is told alone.
            let bundle: String
        }
        let pieces = try rows.compactMap { row -> Piece? in
            guard let channel = Notice.Channel(rawValue: try row.string("channel")) else { return nil }
            let id = try row.int("id")
            let target = try row.string("target")
            let joins = try row.bool("joins") && Notice.Channel.ofPeople.contains(channel)
            let notice = Notice(
                key: try row.string("dedup_key"),
                channel: channel,
                target: target,
                subject: try row.string("subject"),
                text: try row.string("body"),
                document: try row.json("document")
            )
            let bundle = joins ? "\(channel.rawValue) \(target)" : "#\(id)"
            return Piece(id: id, notice: notice, attempts: try row.int("attempts"), bundle: bundle)
        }
        let bundles = Dictionary(grouping: pieces.sorted { $0.id < $1.id }, by: \.bundle)
        return bundles.values.sorted { $0[0].id < $1[0].id }.compactMap { bundle in
            guard let notice = Notice.together(bundle.map(\.notice)) else { return nil }
            return DueNotice(ids: bundle.map(\.id), notice: notice, attempts: bundle.map(\.attempts).max() ?? 1)
        }
    }

    /// Notes that notices were delivered.
    public func finish(_ due: DueNotice) async throws {
        try await pool.execute(
            """
            update \(unsafe: schema).notices set state = 'sent', sent = now(), error = null where id = any(\(due.ids))
            """
        )
    }

    /// Notes that notices were not delivered, and when to try again; nil gives up.
    public func fail(_ due: DueNotice, error: String, pause: Duration?) async throws {
        let seconds = pause.map { Int($0.components.seconds) }
        try await pool.execute(
            """
            update \(unsafe: schema).notices set error = \(error),
                state = case when \(seconds)::bigint is null then 'abandoned' else 'pending' end,
                next_try = now() + coalesce(\(seconds)::bigint, 0) * interval '1 second'
            where id = any(\(due.ids))
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
