// SPDX-License-Identifier: MPL-2.0
import Postgres
import Schedules

/// Removes what has expired, in small steps so that nobody waits for it.
///
/// Any number of instances may sweep at once.
struct ExpirySweeper: Sendable {
    /// How many rows one step removes at most.
    private static let step = 100

    let pool: PostgresPool
    let store: QueueStore
    let objects: ObjectStore
    let blobs: any BlobStore
    let directory: DirectoryStore
    let audit: AuditStore
    let notifications: NotificationStore
    let now: @Sendable () -> Timestamp

    /// Removes everything that has expired by now.
    func sweep() async throws {
        while try await forgetArtifacts() {}
        while try await forgetObjects() {}
        while try await store.forgetTasks(limit: Self.step, now: now()) == Self.step {}
        for statement in rows(now()) {
            while try await pool.execute(statement) == Self.step {}
        }
        while try await directory.forgetClients(limit: Self.step) == Self.step {}
        while try await notifications.forget(limit: Self.step, now: now()) == Self.step {}
        while try await audit.forget(limit: Self.step, now: now()) == Self.step {}
    }

    /// Bytes go before the rows that name them: what a crash leaves is found again.
    private func forgetArtifacts() async throws -> Bool {
        let expired = try await store.expiredArtifacts(limit: Self.step, now: now())
        guard !expired.isEmpty else { return false }
        try await blobs.remove(expired.compactMap(\.blobID))
        try await store.forget(expired, now: now())
        return expired.count == Self.step
    }

    private func forgetObjects() async throws -> Bool {
        let expired = try await objects.expired(limit: Self.step, now: now())
        guard !expired.isEmpty else { return false }
        try await blobs.remove(expired.map(\.blobID))
        try await objects.forget(expired.map(\.name), now: now())
        return expired.count == Self.step
    }

    /// A statement for each kind of row that nothing else hangs on.
    private func rows(_ now: Timestamp) -> [SQL] {
        [
            """
            delete from tcl.indexed_tasks where ctid = any(array(
                select ctid from tcl.indexed_tasks where expires < \(now) order by expires limit \(Self.step)))
            """,
            """
            delete from tcl.namespaces where ctid = any(array(
                select ctid from tcl.namespaces where expires < \(now) order by expires limit \(Self.step)))
            """,
            """
            delete from tcl.secrets where ctid = any(array(
                select ctid from tcl.secrets where expires < \(now) order by expires limit \(Self.step)))
            """,
            """
            delete from tcl.workers where ctid = any(array(
                select ctid from tcl.workers where expires < \(now)
                    and coalesce(quarantine_until, '-infinity') < \(now) order by expires limit \(Self.step)))
            """,
            """
            delete from tcl.queues where ctid = any(array(
                select ctid from tcl.queues where expires < \(now) order by expires limit \(Self.step)))
            """,
            """
            delete from tcl.provisioners where ctid = any(array(
                select ctid from tcl.provisioners where expires < \(now) limit \(Self.step)))
            """,
            """
            delete from tcl.purges where ctid = any(array(
                select ctid from tcl.purges where before < \(now - .seconds(86_400)) order by before
                limit \(Self.step)))
            """,
        ]
    }
}

extension QueueStore {
    /// Forgets some expired tasks and all that belongs to them; returns how many.
    func forgetTasks(limit: Int, now: Timestamp) async throws -> Int {
        try await pool.transaction { connection in
            let rows = try await connection.query(
                """
                select t.task_id, t.task_group_id from tcl.tasks t
                where t.expires < \(now) and not exists (select from tcl.artifacts a where a.task_id = t.task_id)
                order by t.expires limit \(limit) for update skip locked
                """
            )
            guard !rows.isEmpty else { return 0 }
            let ids = try rows.map { try $0.string("task_id") }
            let groups = Set(try rows.map { try $0.string("task_group_id") }).sorted()
            let tables = ["task_status", "pending", "claims", "deadlines", "resolutions", "tasks"]
            var statements: [SQL] = tables.map {
                "delete from tcl.\(unsafe: $0) where task_id = any(\(ids)::text[])"
            }
            statements.append("delete from tcl.edges where required = any(\(ids)::text[])")
            statements.append("delete from tcl.edges where dependent = any(\(ids)::text[])")
            statements.append(
                """
                delete from tcl.groups g where task_group_id = any(\(groups)::text[])
                    and not exists (select from tcl.tasks t where t.task_group_id = g.task_group_id)
                """
            )
            _ = try await connection.pipeline(statements)
            return ids.count
        }
    }
}
