// SPDX-License-Identifier: MPL-2.0

import Postgres
import Schedules
import StepKit

/// Locks: who holds them, and who waits for them.
extension RunStore {
    /// Keeps everybody else from taking and giving back locks of these names until the end of the transaction.
    func guardLocks(_ names: Set<String>, on connection: PostgresConnection) async throws {
        // Always in one order, so that nobody waits for somebody who waits for them.
        for name in names.sorted() {
            _ = try await connection.query(
                "select pg_advisory_xact_lock(hashtextextended('shipit_pipeline lock ' || \(name), 0))"
            )
        }
    }

    /// Takes all locks of a step, or gets into line for them; answers whether it has them.
    ///
    /// The names have to be guarded. Whoever was ready first is first in line for all its locks, so that no two steps wait
    /// for each other.
    func take(
        _ names: [String],
        for step: String,
        of pipeline: Int,
        since: Timestamp,
        _ change: StepTransaction
    ) async throws -> Bool {
        let names = Array(Set(names)).sorted()
        var isNew = false
        for name in names {
            let count = try await change.connection.execute(
                """
                insert into shipit_pipeline.lock_waiters (name, pipeline_id, step_uid, since)
                values (\(name), \(pipeline), \(step), \(since)) on conflict do nothing
                """
            )
            isNew = isNew || count > 0
        }
        if isNew { try await change.connection.execute(Self.revise(pipeline)) }
        let blocked = try await change.connection.query(
            """
            select 1 from shipit_pipeline.locks where name = any(\(names))
            union all
            select 1 from shipit_pipeline.lock_waiters own join shipit_pipeline.lock_waiters other
                on other.name = own.name and (other.since, other.pipeline_id, other.step_uid)
                    < (own.since, own.pipeline_id, own.step_uid)
            where own.name = any(\(names)) and own.pipeline_id = \(pipeline) and own.step_uid = \(step)
            limit 1
            """
        )
        guard blocked.isEmpty else { return false }
        try await change.connection.pipeline([
            """
            insert into shipit_pipeline.locks (name, pipeline_id, step_uid, since)
            select name, pipeline_id, step_uid, \(change.now) from shipit_pipeline.lock_waiters
            where pipeline_id = \(pipeline) and step_uid = \(step) and name = any(\(names))
            """,
            """
            delete from shipit_pipeline.lock_waiters
            where pipeline_id = \(pipeline) and step_uid = \(step) and name = any(\(names))
            """,
        ])
        return true
    }

    /// Gives back the locks of steps that do not go on, and the places in line of those that are not to wait; answers the
    /// names that others may want.
    func release(
        _ steps: [String],
        inLine waiting: Set<String>,
        of pipeline: Int,
        on connection: PostgresConnection
    ) async throws -> [String] {
        guard !steps.isEmpty else { return [] }
        let leaving = steps.filter { !waiting.contains($0) }
        let rows = try await connection.pipeline([
            """
            delete from shipit_pipeline.locks where pipeline_id = \(pipeline) and step_uid = any(\(steps)) returning name
            """,
            """
            delete from shipit_pipeline.lock_waiters where pipeline_id = \(pipeline) and step_uid = any(\(leaving))
            returning name
            """,
        ])
        if rows.last?.isEmpty == false { try await connection.execute(Self.revise(pipeline)) }
        return try Array(Set(rows.joined().map { try $0.string("name") })).sorted()
    }

    /// The pipelines that wait for locks.
    func waiters(_ names: [String]) async throws -> [Int] {
        guard !names.isEmpty else { return [] }
        return try await pool.query(
            "select distinct pipeline_id from shipit_pipeline.lock_waiters where name = any(\(names))"
        ).map { try $0.int("pipeline_id") }
    }

    /// Takes a lock away from its holder; answers who that was.
    func breakLock(_ name: String, on connection: PostgresConnection) async throws -> Lock? {
        try await connection.query(
            """
            with gone as (delete from shipit_pipeline.locks where name = \(name) returning *)
            select g.name, s.uid as pipeline, g.step_uid, g.since from gone g
            join shipit_pipeline.steps s on s.id = g.pipeline_id
            """
        ).first.map { try Self.lock($0) }
    }

    func locks() async throws -> (held: [Lock], wanted: [Lock]) {
        let held = try await pool.query(
            """
            select l.name, s.uid as pipeline, l.step_uid, l.since from shipit_pipeline.locks l
            join shipit_pipeline.steps s on s.id = l.pipeline_id order by l.name limit 1000
            """
        ).map { try Self.lock($0) }
        let wanted = try await pool.query(
            """
            select l.name, s.uid as pipeline, l.step_uid, l.since from shipit_pipeline.lock_waiters l
            join shipit_pipeline.steps s on s.id = l.pipeline_id
            order by l.name, l.since, l.pipeline_id, l.step_uid limit 1000
            """
        ).map { try Self.lock($0) }
        return (held, wanted)
    }

    /// Reads the locks that steps of a pipeline wait for.
    static func wantedQuery(_ pipeline: Int) -> SQL {
        "select name, step_uid from shipit_pipeline.lock_waiters where pipeline_id = \(pipeline) order by name"
    }

    /// What that has read, by the names of steps.
    static func wanted(_ rows: [PostgresRow]) throws -> [String: [String]] {
        var wanted: [String: [String]] = [:]
        for row in rows { wanted[try row.string("step_uid"), default: []].append(try row.string("name")) }
        return wanted
    }

    private static func lock(_ row: PostgresRow) throws -> Lock {
        Lock(
            name: try row.string("name"),
            pipeline: try row.string("pipeline"),
            step: try row.string("step_uid"),
            since: try row.timestamp("since")
        )
    }
}
