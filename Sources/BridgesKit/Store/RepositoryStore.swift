// SPDX-License-Identifier: MPL-2.0

import Core
import Outbox
import Postgres
import Pulse
import Schedules

/// How far the pushes of each repository have been announced.
struct RepositoryStore: Sendable {
    /// A repository that somebody has to look at now.
    struct Due: Sendable {
        let name: String
        let cursor: Int?
        let behind: Int
        let failures: Int
    }

    /// A repository as people see it.
    struct Row: Sendable {
        let name: String
        let url: String
        let cursor: Int?
        let behind: Int
        let failures: Int
        let error: String?
        let polled: Timestamp?
        let nextPoll: Timestamp
    }

    let pool: PostgresPool
    let outbox: Outbox

    /// Makes rows for the configured repositories.
    func register(_ repositories: [HgRepository]) async throws {
        for repository in repositories {
            _ = try await pool.execute(
                """
                insert into bridges.repositories (name, url) values (\(repository.name), \(repository.url))
                on conflict (name) do update set url = excluded.url where repositories.url <> excluded.url
                """
            )
        }
    }

    /// Takes repositories whose time has come; nobody else gets them until the lease is over.
    func take(_ names: [String], limit: Int, lease: Duration) async throws -> [Due] {
        try await pool.query(
            """
            update bridges.repositories
            set next_poll = now() + \(Int(lease.components.seconds))::bigint * interval '1 second'
            where name = any(array(
                select name from bridges.repositories where name = any(\(names)) and next_poll <= now()
                order by next_poll limit \(limit) for update skip locked))
            returning name, last_push_id, behind, failures
            """
        ).map { row in
            Due(
                name: try row.string("name"),
                cursor: try row.optionalInt("last_push_id"),
                behind: try row.int("behind"),
                failures: try row.int("failures")
            )
        }
    }

    /// How long until the next repository is due; nil without repositories.
    func delay(_ names: [String]) async throws -> Duration? {
        try await pool.query(
            """
            select extract(epoch from min(next_poll) - now())::float8 as seconds from bridges.repositories
            where name = any(\(names))
            """
        ).first?.optionalDouble("seconds").map { .seconds($0) }
    }

    /// Moves a cursor on and adds the messages, unless somebody else has moved it; answers whether it did.
    func advance(
        _ due: Due,
        to cursor: Int,
        behind: Int = 0,
        messages: [PulseMessage],
        pause: Duration
    ) async throws -> Bool {
        let isMine = try await pool.transaction { connection -> Bool in
            let moved = try await connection.execute(
                """
                update bridges.repositories set last_push_id = \(cursor), behind = \(behind), failures = 0, error = null,
                    polled = now(), next_poll = now() + \(pause.milliseconds)::bigint * interval '1 millisecond'
                where name = \(due.name) and last_push_id is not distinct from \(due.cursor)
                """
            )
            guard moved == 1 else { return false }
            try await outbox.add(messages, on: connection)
            return true
        }
        if isMine, !messages.isEmpty { outbox.wake() }
        return isMine
    }

    /// Notes a failed look and when to try again.
    func note(_ error: String, of due: Due, pause: Duration) async throws {
        _ = try await pool.execute(
            """
            update bridges.repositories set failures = failures + 1, error = \(error), polled = now(),
                next_poll = now() + \(pause.milliseconds)::bigint * interval '1 millisecond'
            where name = \(due.name)
            """
        )
    }

    /// All repositories by name.
    func list() async throws -> [Row] {
        try await pool.query("select * from bridges.repositories order by name").map { row in
            Row(
                name: try row.string("name"),
                url: try row.string("url"),
                cursor: try row.optionalInt("last_push_id"),
                behind: try row.int("behind"),
                failures: try row.int("failures"),
                error: try row.optionalString("error"),
                polled: try row.optionalTimestamp("polled"),
                nextPoll: try row.timestamp("next_poll")
            )
        }
    }
}
