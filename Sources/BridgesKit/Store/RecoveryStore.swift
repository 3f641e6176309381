// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres
import Schedules

/// What GitHub sent and whether it arrived.
struct RecoveryStore: Sendable {
    /// A webhook whose list somebody has to look at now.
    struct Due: Sendable {
        let since: Timestamp
        let failures: Int
    }

    let pool: PostgresPool

    /// Makes rows for the webhooks of a source.
    func register(_ hooks: [String], source: String) async throws {
        for hook in hooks {
            _ = try await pool.execute(
                """
                insert into bridges.recoveries (hook, source) values (\(hook), \(source))
                on conflict (hook) do update set source = excluded.source where recoveries.source <> excluded.source
                """
            )
        }
    }

    /// Takes a webhook if its time has come; nobody else gets it until the lease is over.
    func take(_ hook: String, lease: Duration) async throws -> Due? {
        try await pool.query(
            """
            update bridges.recoveries set next_look = now() + \(lease.milliseconds)::bigint * interval '1 millisecond'
            where hook = \(hook) and next_look <= now() returning since, failures
            """
        ).first.map { Due(since: try $0.timestamp("since"), failures: try $0.int("failures")) }
    }

    /// Those of some deliveries that never arrived.
    func missing(_ ids: Set<String>, source: String) async throws -> Set<String> {
        let known = try await pool.query(
            """
            select delivery_id from bridges.deliveries
            where source = \(source) and delivery_id = any(\(Array(ids)))
            """
        ).map { try $0.string("delivery_id") }
        return ids.subtracting(known)
    }

    /// How often deliveries have been asked for.
    func requests(_ ids: Set<String>, source: String) async throws -> [String: Int] {
        let rows = try await pool.query(
            """
            select delivery_id, requests from bridges.requested
            where source = \(source) and delivery_id = any(\(Array(ids)))
            """
        ).map { (try $0.string("delivery_id"), try $0.int("requests")) }
        return Dictionary(rows) { first, _ in first }
    }

    /// Notes that a delivery is asked for, or, once it is given up, that this was said.
    func note(_ deliveryID: String, source: String) async throws {
        _ = try await pool.execute(
            """
            insert into bridges.requested (source, delivery_id) values (\(source), \(deliveryID))
            on conflict (source, delivery_id) do update set requests = requested.requests + 1, requested = now()
            """
        )
    }

    /// Ends a look that accounts for everything before an instant, and forgets requests GitHub no longer lists.
    func finish(_ hook: String, since: Timestamp, pause: Duration) async throws {
        _ = try await pool.execute(
            """
            update bridges.recoveries set since = greatest(since, \(since)), failures = 0, error = null, looked = now(),
                next_look = now() + \(pause.milliseconds)::bigint * interval '1 millisecond'
            where hook = \(hook)
            """
        )
        _ = try await pool.execute(
            """
            delete from bridges.requested where ctid = any(array(
                select ctid from bridges.requested where requested < now() - interval '31 days' limit 1000))
            """
        )
    }

    /// Notes a failed look and when to try again.
    func fail(_ hook: String, _ error: String, pause: Duration) async throws {
        _ = try await pool.execute(
            """
            update bridges.recoveries set failures = failures + 1, error = \(error), looked = now(),
                next_look = now() + \(pause.milliseconds)::bigint * interval '1 millisecond'
            where hook = \(hook)
            """
        )
    }
}
