// SPDX-License-Identifier: MPL-2.0
import JSON
public import Postgres
public import Schedules

/// Notifications on their way, and the addresses that want none.
public struct NotificationStore: Sendable {
    /// How many attempts a notification is worth.
    static let attempts = 10
    /// How many mails an address gets in a quarter of an hour.
    static let mailLimit = 100

    private let pool: PostgresPool

    /// Uses the tables of the schema `tcl`.
    public init(pool: PostgresPool) {
        self.pool = pool
    }

    /// Takes a notification in; false if it repeats a recent one or its address has had enough for now.
    ///
    /// Without a way to deliver its kind, it is only recorded.
    ///
    /// - Throws: `QueueProblem` if the address is on the deny list.
    public func add(_ notification: Notification, deliverable: Bool, now: Timestamp) async throws -> Bool {
        if try await isDenied(notification) {
            throw QueueProblem(.denylisted, "\(notification.address) wants no notifications.")
        }
        let rows = try await pool.query(Self.insertion(of: notification, deliverable: deliverable, now: now))
        return !rows.isEmpty
    }

    /// The statement that takes a notification in, unless it repeats one of the last thousand or is one too many.
    static func insertion(of notification: Notification, deliverable: Bool, now: Timestamp) -> SQL {
        """
        insert into tcl.notifications (kind, address, fingerprint, body, created, state, due)
        select \(notification.kind.rawValue)::text, \(notification.address)::text, \(notification.fingerprint)::text,
            \(notification.body)::json, \(now)::timestamptz, \(deliverable ? "waiting" : "done")::text,
            \(now)::timestamptz
        where not exists (
            select from tcl.notifications n where n.fingerprint = \(notification.fingerprint)
                and n.id > (select coalesce(max(id), 0) - 1000 from tcl.notifications))
        and not exists (
            select from tcl.denylist d where d.kind = \(notification.kind.rawValue)
                and d.address = \(notification.address))
        and (\(notification.kind != .email) or (
            select count(*) from tcl.notifications n where n.kind = 'email' and n.address = \(notification.address)
                and n.created > \(now - .seconds(900))) < \(mailLimit))
        returning id
        """
    }

    // MARK: - Delivery

    /// A notification that waits, lent to a courier for a minute.
    struct Parcel: Sendable {
        let id: Int
        let attempt: Int
        let notification: Notification
    }

    /// Lends some waiting notifications; what is not settled in time is lent again.
    func lend(limit: Int, now: Timestamp) async throws -> [Parcel] {
        try await pool.query(
            """
            update tcl.notifications n set attempts = n.attempts + 1, due = \(now + .seconds(60))
            where n.id = any(array(
                select id from tcl.notifications where state = 'waiting' and due <= \(now) order by due
                limit \(limit) for update skip locked))
            returning n.id, n.kind, n.address, n.body, n.attempts
            """
        ).compactMap { row in
            guard let kind = NotificationKind(rawValue: try row.string("kind")) else { return nil }
            return Parcel(
                id: try row.int("id"),
                attempt: try row.int("attempts"),
                notification: Notification(
                    kind: kind,
                    address: try row.string("address"),
                    body: try row.json("body")
                )
            )
        }
    }

    /// Notes that a notification was delivered.
    func settle(_ parcel: Parcel) async throws {
        try await pool.execute("update tcl.notifications set state = 'done' where id = \(parcel.id)")
    }

    /// Notes that a delivery failed: it is tried again, later and later, until it was tried often enough.
    func postpone(_ parcel: Parcel, now: Timestamp) async throws {
        let isOver = parcel.attempt >= Self.attempts
        let pause = Duration.seconds(min(3600, 5 << min(parcel.attempt, 12)))
        try await pool.execute(
            """
            update tcl.notifications set state = \(isOver ? "failed" : "waiting"), due = \(now + pause)
            where id = \(parcel.id)
            """
        )
    }

    /// Forgets some notifications of more than a week ago; returns how many.
    func forget(limit: Int, now: Timestamp) async throws -> Int {
        try await pool.execute(
            """
            delete from tcl.notifications where id = any(array(
                select id from tcl.notifications where created < \(now - .seconds(7 * 86_400)) and state <> 'waiting'
                order by created limit \(limit)))
            """
        )
    }

    // MARK: - Deny list

    /// Puts an address on the list.
    public func deny(_ kind: String, _ address: String) async throws {
        try await pool.execute(
            "insert into tcl.denylist (kind, address) values (\(kind), \(address)) on conflict do nothing"
        )
    }

    /// Takes an address off the list.
    public func allow(_ kind: String, _ address: String) async throws {
        try await pool.execute("delete from tcl.denylist where kind = \(kind) and address = \(address)")
    }

    /// The addresses on the list after the given one.
    public func denied(after last: (kind: String, address: String)?, limit: Int) async throws
        -> [(kind: String, address: String)]
    {
        try await pool.query(
            """
            select kind, address from tcl.denylist
            where (kind, address) > (\(last?.kind ?? ""), \(last?.address ?? "")) order by kind, address limit \(limit)
            """
        ).map { (try $0.string("kind"), try $0.string("address")) }
    }

    private func isDenied(_ notification: Notification) async throws -> Bool {
        try await !pool.query(
            """
            select 1 from tcl.denylist
            where kind = \(notification.kind.rawValue) and address = \(notification.address)
            """
        ).isEmpty
    }
}
