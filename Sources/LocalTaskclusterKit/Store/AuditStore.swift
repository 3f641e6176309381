// SPDX-License-Identifier: MPL-2.0
public import Postgres
public import Schedules

/// The record of who changed which client, role or secret.
public struct AuditStore: Sendable {
    private let pool: PostgresPool

    /// Uses the tables of the schema `tcl`.
    public init(pool: PostgresPool) {
        self.pool = pool
    }

    /// The statement that records a change in the transaction that makes it.
    static func note(_ type: String, _ id: String, _ action: String, by clientID: String, now: Timestamp) -> SQL {
        """
        insert into tcl.audit (entity_type, entity_id, client_id, action, created)
        values (\(type), \(id), \(clientID), \(action), \(now))
        """
    }

    /// The changes of one thing, newest first, before the given position.
    public func history(of type: String, _ id: String, before position: Int?, limit: Int) async throws -> [AuditEntry] {
        try await entries(
            """
            where entity_type = \(type) and entity_id = \(id) and id < \(position ?? Int.max)
            order by id desc limit \(limit)
            """
        )
    }

    /// The changes somebody made, newest first, before the given position.
    public func history(by clientID: String, before position: Int?, limit: Int) async throws -> [AuditEntry] {
        try await entries(
            "where client_id = \(clientID) and id < \(position ?? Int.max) order by id desc limit \(limit)"
        )
    }

    /// Removes some entries older than a year; returns how many.
    public func forget(limit: Int = 100, now: Timestamp) async throws -> Int {
        try await pool.execute(
            """
            delete from tcl.audit where id in (
                select id from tcl.audit where created < \(now - .seconds(365 * 86_400)) order by created limit \(limit))
            """
        )
    }

    private func entries(_ which: SQL) async throws -> [AuditEntry] {
        let head: SQL = "select id, entity_type, entity_id, client_id, action, created from tcl.audit "
        return try await pool.query(head + which).map { row in
            AuditEntry(
                id: try row.int("id"),
                entityType: try row.string("entity_type"),
                entityID: try row.string("entity_id"),
                clientID: try row.string("client_id"),
                action: try row.string("action"),
                created: try row.timestamp("created")
            )
        }
    }
}
