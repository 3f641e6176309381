// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres

/// What one process does at a time, and how far a source has been read.
struct PlaceStore: Sendable {
    /// The kinds of places.
    enum Place: String {
        case phabricator, tasks, report, bindings, uses
    }

    let pool: PostgresPool

    /// A place that was taken.
    struct Taken: Sendable {
        /// Whether nobody was here before.
        let isNew: Bool
        let lastID: Int?
        let failures: Int
    }

    /// Takes a place whose time has come; nobody else gets it until the lease is over.
    func take(_ place: Place, lease: Duration) async throws -> Taken? {
        try await pool.query(Self.taking(place, lease)).first.map(Self.taken)
    }

    /// The same in the transaction that is open on a connection: if that fails, nobody was here.
    func take(_ place: Place, lease: Duration, on connection: PostgresConnection) async throws -> Taken? {
        try await connection.query(Self.taking(place, lease)).first.map(Self.taken)
    }

    private static func taking(_ place: Place, _ lease: Duration) -> SQL {
        """
        insert into triggers.places as p (name, looked, next_look)
        values (\(place.rawValue), now(), now() + \(lease.milliseconds)::bigint * interval '1 millisecond')
        on conflict (name) do update set looked = excluded.looked, next_look = excluded.next_look
        where p.next_look <= now()
        returning xmax = 0 as is_new, last_id, failures
        """
    }

    private static func taken(_ row: PostgresRow) throws -> Taken {
        Taken(
            isNew: try row.bool("is_new"),
            lastID: try row.optionalInt("last_id"),
            failures: try row.int("failures")
        )
    }

    /// Lets the next look come no later than an interval after the last one, whatever failures had put it off.
    func hasten(_ place: Place, within interval: Duration) async throws {
        try await pool.execute(
            """
            update triggers.places
            set next_look = least(next_look, looked + \(interval.milliseconds)::bigint * interval '1 millisecond')
            where name = \(place.rawValue) and looked is not null
            """
        )
    }

    /// Moves on from where the look began, unless somebody else has; answers whether it did.
    func advance(
        _ place: Place,
        from old: Int?,
        to new: Int,
        on connection: PostgresConnection
    ) async throws -> Bool {
        try await connection.execute(
            """
            update triggers.places set last_id = \(new)
            where name = \(place.rawValue) and last_id is not distinct from \(old)::bigint
            """
        ) == 1
    }

    /// Notes that a look is over, and when the next one is.
    func finish(_ place: Place, error: String?, pause: Duration) async throws {
        try await pool.execute(
            """
            update triggers.places set error = \(RunStore.storable(error)),
                failures = case when \(error == nil) then 0 else failures + 1 end,
                next_look = now() + \(pause.milliseconds)::bigint * interval '1 millisecond'
            where name = \(place.rawValue)
            """
        )
    }
}
