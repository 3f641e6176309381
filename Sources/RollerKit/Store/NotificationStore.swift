// SPDX-License-Identifier: MPL-2.0

import JSON
package import Notices
package import Postgres

/// Texts for people that wait for their delivery; they commit with the change they tell of.
///
/// What is told of a machine too often in a short time is put together by machine, which only this store knows; the
/// delivery is everybody's.
package struct NotificationStore: NoticeQueue {
    let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// More texts than this about one machine within ten minutes become one.
    static let burst = 3

    /// Adds texts in the transaction that is open on the connection; what was said before is not said again.
    static func add(_ notifications: [Notification], on connection: PostgresConnection) async throws {
        for one in notifications {
            if one.isCollapsible, let machine = one.machine, try await isNoisy(one, machine, on: connection) {
                try await collapse(one, machine, on: connection)
            } else {
                _ = try await connection.execute(
                    """
                    insert into roller.notifications (dedup_key, job, machine, channel, target, subject, body, link, link_text)
                    values (\(one.key), \(one.job)::uuid, \(one.machine)::uuid, \(one.channel.rawValue), \(one.target),
                        \(one.subject), \(one.body), \(one.link), \(one.linkText))
                    on conflict (dedup_key) do nothing
                    """
                )
            }
        }
    }

    private static func isNoisy(
        _ one: Notification,
        _ machine: String,
        on connection: PostgresConnection
    ) async throws -> Bool {
        guard one.channel != .log else { return false }
        return try await connection.query(
            """
            select count(*) >= \(burst) as noisy from roller.notifications
            where machine = \(machine)::uuid and target = \(one.target) and channel = \(one.channel.rawValue)
                and created > now() - interval '10 minutes'
            """
        ).first?.bool("noisy") ?? false
    }

    /// Adds a text to the collection of its ten minutes, which goes out when they are over.
    private static func collapse(
        _ one: Notification,
        _ machine: String,
        on connection: PostgresConnection
    ) async throws {
        let known = try await connection.query(
            "select 1 as one from roller.notifications where dedup_key = \(one.key)"
        )
        guard known.isEmpty else { return }
        _ = try await connection.execute(
            """
            insert into roller.notifications
                (dedup_key, machine, channel, target, subject, body, next_try)
            select 'digest:' || \(machine) || ':' || \(one.channel.rawValue) || ':' || \(one.target) || ':' || window_start,
                \(machine)::uuid, \(one.channel.rawValue), \(one.target), \(one.subject), \(one.body),
                to_timestamp((window_start + 1) * 600)
            from (select floor(extract(epoch from now()) / 600)::bigint as window_start) w
            on conflict (dedup_key) do update
                set body = notifications.body || E'\\n' || excluded.body
                where notifications.state = 'pending' and length(notifications.body) < 50000
            """
        )
    }

    /// Takes texts that are due; nobody else gets them until the lease is over.
    package func take(limit: Int, lease: Duration) async throws -> [DueNotice] {
        let rows = try await pool.query(
            """
            update roller.notifications
            set next_try = now() + \(Int(lease.components.seconds))::bigint * interval '1 second', attempts = attempts + 1
            where id = any(array(
                select id from roller.notifications where state = 'pending' and next_try <= now()
                order by next_try, id limit \(limit) for update skip locked))
            returning *
            """
        )
        return try rows.map(Self.due)
    }

    private static func due(_ row: PostgresRow) throws -> DueNotice {
        let key = try row.string("dedup_key")
        let subject = try row.string("subject")
        let text = try row.string("body")
        let job = try row.optionalString("job")
        let linkText = try row.optionalString("link_text") ?? "roller"
        let notice = Notice(
            key: key,
            channel: Notice.Channel(rawValue: try row.string("channel")) ?? .log,
            target: try row.string("target"),
            subject: subject,
            text: text,
            document: [
                "id": .string(key), "subject": .string(subject), "text": .string(text),
                "taskId": job.map(JSONValue.string) ?? .null,
            ],
            link: try row.optionalString("link").map { Notice.Link(url: $0, text: linkText) }
        )
        return DueNotice(ids: [try row.int("id")], notice: notice, attempts: try row.int("attempts"))
    }

    /// Notes that a text was delivered.
    package func finish(_ due: DueNotice) async throws {
        _ = try await pool.execute(
            "update roller.notifications set state = 'sent', sent = now(), error = null where id = any(\(due.ids))"
        )
    }

    /// Notes that a text was not delivered, and when to try again; nil gives up.
    package func fail(_ due: DueNotice, error: String, pause: Duration?) async throws {
        let seconds = pause.map { Int($0.components.seconds) }
        _ = try await pool.execute(
            """
            update roller.notifications set error = \(error),
                state = case when \(seconds)::bigint is null then 'abandoned' else 'pending' end,
                next_try = now() + coalesce(\(seconds)::bigint, 0) * interval '1 second'
            where id = any(\(due.ids))
            """
        )
    }

    /// Forgets what was said long ago.
    package func sweep() async throws {
        _ = try await pool.execute(
            """
            delete from roller.notifications where id = any(array(
                select id from roller.notifications
                where state <> 'pending' and created < now() - interval '30 days' limit 1000))
            """
        )
    }
}
