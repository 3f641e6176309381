// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres
import Schedules

/// Which triggers listeners have in their files.
///
/// While all of them were away, or the database was, nobody could say what they have. So nothing counts as left over before
/// listeners have said it without a break for as long as they may be silent; the place `uses` remembers since when.
struct UseStore: Sendable {
    /// How long a listener is silent before what it had may be taken away.
    static let silence = Duration.seconds(60)
    /// How often listeners say what they have.
    static let interval = Duration.seconds(10)

    let pool: PostgresPool

    /// Notes what a listener has; waits while something is being taken away.
    func note(_ uses: [TriggerUse]) async throws {
        guard !uses.isEmpty else { return }
        try await pool.transaction { connection in
            try await connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('triggers.uses', 0))")
            try await connection.execute(
                """
                insert into triggers.uses (trigger, queue, exchange, routing_key)
                select * from unnest(\(uses.map(\.trigger))::text[], \(uses.map(\.queue))::text[],
                    \(uses.map(\.exchange))::text[], \(uses.map(\.routingKey))::text[])
                on conflict (trigger, queue, exchange, routing_key) do update set seen = now()
                """
            )
            try await connection.execute(
                """
                insert into triggers.places as p (name, looked, next_look)
                values (\(PlaceStore.Place.uses.rawValue), now(), now() + \(Self.span))
                on conflict (name) do update set next_look = excluded.next_look,
                    looked = case when p.next_look < now() then now() else p.looked end
                """
            )
        }
    }

    /// What nobody has any more, by name.
    func leftovers() async throws -> [TriggerUse.Leftover] {
        let rows = try await pool.query(Self.selection + "where \(Self.isSilent) order by trigger, queue limit 200")
        return try rows.map(Self.leftover)
    }

    /// Has everybody wait who would say what they have, until the transaction ends; answers what is known of a trigger.
    func lock(
        _ trigger: String,
        on connection: PostgresConnection
    ) async throws -> (used: [TriggerUse.Leftover], left: [TriggerUse.Leftover]) {
        try await connection.execute("select pg_advisory_xact_lock(hashtextextended('triggers.uses', 0))")
        let rows = try await connection.query(
            Self.selection + "where trigger = \(trigger) order by queue, exchange, routing_key"
        )
        var (used, left): ([TriggerUse.Leftover], [TriggerUse.Leftover]) = ([], [])
        for row in rows {
            if try row.bool("is_silent") {
                left.append(try Self.leftover(row))
            } else {
                used.append(try Self.leftover(row))
            }
        }
        return (used, left)
    }

    /// Forgets uses.
    func forget(_ uses: [TriggerUse], on connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            delete from triggers.uses u
            using unnest(\(uses.map(\.trigger))::text[], \(uses.map(\.queue))::text[],
                \(uses.map(\.exchange))::text[], \(uses.map(\.routingKey))::text[]) as gone (t, q, e, k)
            where u.trigger = gone.t and u.queue = gone.q and u.exchange = gone.e and u.routing_key = gone.k
            """
        )
    }

    private static let span: SQL = "\(Int(silence.components.seconds))::bigint * interval '1 second'"

    private static let isSilent: SQL = """
        (seen < now() - \(span) and exists (
            select from triggers.places where name = \(PlaceStore.Place.uses.rawValue) and looked < now() - \(span)))
        """

    private static let selection: SQL =
        "select trigger, queue, exchange, routing_key, seen, \(isSilent) as is_silent from triggers.uses "

    private static func leftover(_ row: PostgresRow) throws -> TriggerUse.Leftover {
        TriggerUse.Leftover(
            use: TriggerUse(
                trigger: try row.string("trigger"),
                queue: try row.string("queue"),
                exchange: try row.string("exchange"),
                routingKey: try row.string("routing_key")
            ),
            seen: try row.timestamp("seen")
        )
    }
}
