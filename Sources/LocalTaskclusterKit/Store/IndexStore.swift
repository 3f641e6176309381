// SPDX-License-Identifier: MPL-2.0
public import Postgres
public import Schedules

import JSON

/// The index in PostgreSQL.
public struct IndexStore: Sendable {
    /// Where the connections come from.
    public let pool: PostgresPool

    /// Uses the tables of the schema `tcl`.
    public init(pool: PostgresPool) {
        self.pool = pool
    }

    /// Finds the entry at a path unless it has expired.
    public func task(at path: IndexPath, now: Timestamp) async throws -> IndexedTask? {
        try await pool.query(
            """
            select namespace, name, task_id, rank, data, expires from tcl.indexed_tasks
            where namespace = \(path.namespace) and name = \(path.name) and expires > \(now)
            """
        ).first.map { try IndexedTask(row: $0) }
    }

    /// Finds the entries at several paths.
    public func tasks(at paths: [IndexPath], now: Timestamp) async throws -> [IndexedTask] {
        try await pool.query(
            """
            select i.namespace, i.name, i.task_id, i.rank, i.data, i.expires from tcl.indexed_tasks i
            join unnest(\(paths.map(\.namespace))::text[], \(paths.map(\.name))::text[]) as p (namespace, name)
                on p.namespace = i.namespace and p.name = i.name
            where i.expires > \(now) order by i.namespace, i.name
            """
        ).map { try IndexedTask(row: $0) }
    }

    /// Stores an entry unless one of a higher rank is there; returns what is stored afterwards.
    public func insert(_ entry: IndexedTask) async throws -> IndexedTask {
        let find: SQL = """
            select namespace, name, task_id, rank, data, expires from tcl.indexed_tasks
            where namespace = \(entry.path.namespace) and name = \(entry.path.name)
            """
        let rows = try await pool.withConnection { try await $0.pipeline(Self.insertion(of: entry) + [find]) }
        guard let row = rows.last?.first else { return entry }
        return try IndexedTask(row: row)
    }

    /// Removes an entry if it is there.
    public func remove(_ path: IndexPath) async throws {
        _ = try await pool.execute(
            "delete from tcl.indexed_tasks where namespace = \(path.namespace) and name = \(path.name)"
        )
    }

    /// The entries directly in a namespace, by name, after the given name.
    public func tasks(in namespace: String, after name: String?, limit: Int, now: Timestamp) async throws
        -> [IndexedTask]
    {
        try await pool.query(
            """
            select namespace, name, task_id, rank, data, expires from tcl.indexed_tasks
            where namespace = \(namespace) and name > \(name ?? "") and expires > \(now) order by name limit \(limit)
            """
        ).map { try IndexedTask(row: $0) }
    }

    /// The namespaces directly in a namespace, by name, after the given name.
    public func namespaces(
        in parent: String,
        after name: String?,
        limit: Int,
        now: Timestamp
    ) async throws -> [(name: String, expires: Timestamp)] {
        try await pool.query(
            """
            select name, expires from tcl.namespaces
            where parent = \(parent) and name > \(name ?? "") and expires > \(now) order by name limit \(limit)
            """
        ).map { (try $0.string("name"), try $0.timestamp("expires")) }
    }

    /// The statements that store an entry and the namespaces above it.
    static func insertion(of entry: IndexedTask) -> [SQL] {
        // Namespaces live until the end of the day their last entry expires in, so that they are rarely touched.
        let above = entry.path.namespaces.map { step -> SQL in
            """
            insert into tcl.namespaces (parent, name, expires)
            values (\(step.parent), \(step.name), date_trunc('day', \(entry.expires)::timestamptz, 'UTC') + interval '1 day')
            on conflict (parent, name) do update set expires = excluded.expires
            where namespaces.expires < excluded.expires
            """
        }
        return above + [
            """
            insert into tcl.indexed_tasks (namespace, name, task_id, rank, data, expires)
            values (\(entry.path.namespace), \(entry.path.name), \(entry.taskID), \(entry.rank), \(entry.data)::json,
                \(entry.expires))
            on conflict (namespace, name) do update set task_id = excluded.task_id, rank = excluded.rank,
                data = excluded.data, expires = excluded.expires
            where indexed_tasks.rank <= excluded.rank
            """
        ]
    }
}

extension IndexedTask {
    fileprivate init(row: PostgresRow) throws {
        let namespace = try row.string("namespace")
        let name = try row.string("name")
        guard let path = IndexPath(namespace.isEmpty ? name : "\(namespace).\(name)") else {
            throw QueueProblem(.notFound, "The index holds an entry without a valid path.")
        }
        self.init(
            path: path,
            taskID: try row.string("task_id"),
            rank: try row.double("rank"),
            data: try row.json("data"),
            expires: try row.timestamp("expires")
        )
    }
}
