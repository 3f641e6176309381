// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import StepKit

/// What belongs to a pipeline beyond its row: its steps, the locks they hold, and what holds it back.
struct RunStore: Sendable {
    /// What an operator has asked of a pipeline.
    struct Run: Sendable, Hashable {
        var isPaused = false
        var isCancelled = false
        var concurrencyKey: String?
    }

    /// A lock with its holder.
    struct Lock: Sendable {
        let name: String
        let pipeline: String
        let step: String
        let since: Timestamp
    }

    let pool: PostgresPool

    // MARK: - Creating

    func insert(_ definition: PipelineDefinition, _ change: StepTransaction) async throws {
        var statements: [SQL] = [
            """
            insert into shipit_pipeline.runs (id, concurrency_key)
            values (\(change.step.id), \(definition.concurrencyKey))
            """
        ]
        for (position, step) in definition.steps.enumerated() {
            statements.append(
                """
                insert into shipit_pipeline.pipeline_steps (pipeline_id, uid, position, api_url)
                values (\(change.step.id), \(step.uid), \(position), \(step.apiURL))
                """
            )
        }
        try await change.connection.pipeline(statements)
    }

    /// Other pipelines of a key that go on and were created before one, oldest first, under a lock of the key.
    func predecessors(
        _ key: String,
        before id: Int,
        on connection: PostgresConnection,
        locking: Bool = false
    ) async throws -> [(id: Int, uid: String)] {
        if locking {
            _ = try await connection.query(
                "select pg_advisory_xact_lock(hashtextextended('shipit_pipeline ' || \(key), 0))"
            )
        }
        return try await connection.query(
            """
            select s.id, s.uid from shipit_pipeline.runs r join shipit_pipeline.steps s on s.id = r.id
            where r.concurrency_key = \(key) and r.id < \(id) and s.deleted_at is null
                and s.state in ('pending', 'starting', 'running', 'stopping') order by r.id
            """
        ).map { (try $0.int("id"), try $0.string("uid")) }
    }

    /// Pipelines of a key that were created after one and go on.
    func successors(_ key: String, after id: Int) async throws -> [Int] {
        try await pool.query(
            """
            select s.id from shipit_pipeline.runs r join shipit_pipeline.steps s on s.id = r.id
            where r.concurrency_key = \(key) and r.id > \(id) and s.deleted_at is null
                and s.state in ('pending', 'starting', 'running', 'stopping') order by r.id limit 1
            """
        ).map { try $0.int("id") }
    }

    // MARK: - Reading

    func run(_ id: Int, on connection: PostgresConnection) async throws -> Run {
        try await Self.run(connection.query(Self.runQuery(id)))
    }

    func run(_ id: Int) async throws -> Run {
        try await Self.run(pool.query(Self.runQuery(id)))
    }

    func steps(_ id: Int, on connection: PostgresConnection) async throws -> [StepRun] {
        try await connection.query(Self.stepsQuery(id)).map { try Self.step($0) }
    }

    func steps(_ id: Int) async throws -> [StepRun] {
        try await pool.query(Self.stepsQuery(id)).map { try Self.step($0) }
    }

    private static func runQuery(_ id: Int) -> SQL {
        "select paused, cancel_requested, concurrency_key from shipit_pipeline.runs where id = \(id)"
    }

    private static func run(_ rows: [PostgresRow]) throws -> Run {
        guard let row = rows.first else { return Run() }
        return Run(
            isPaused: try row.bool("paused"),
            isCancelled: try row.bool("cancel_requested"),
            concurrencyKey: try row.optionalString("concurrency_key")
        )
    }

    private static func stepsQuery(_ id: Int) -> SQL {
        "select * from shipit_pipeline.pipeline_steps where pipeline_id = \(id) order by position"
    }

    private static func step(_ row: PostgresRow) throws -> StepRun {
        var run = StepRun(uid: try row.string("uid"), position: try row.int("position"))
        let state = try row.string("state")
        guard let known = RunState(rawValue: state) else {
            throw PostgresError(.decoding, "the state \(state) of a step is unknown")
        }
        run.state = known
        run.attempt = try row.int("attempt")
        run.remoteUID = try row.optionalString("remote_uid")
        run.request = try row.optionalJSON("request")?.object
        run.parameters = try row.optionalJSON("parameters")?.object
        run.message = try row.string("message")
        run.output = try row.json("output").object ?? [:]
        run.remoteInfo = try row.json("remote_info").object ?? [:]
        run.readySince = try row.optionalTimestamp("ready_since")
        run.intended = try row.optionalTimestamp("intended")
        run.started = try row.optionalTimestamp("started")
        run.finished = try row.optionalTimestamp("finished")
        run.nextCall = try row.optionalTimestamp("next_call")
        run.pollInterval = .milliseconds(try row.int("poll_interval_ms"))
        run.failures = try row.int("failures")
        run.unreachableSince = try row.optionalTimestamp("unreachable_since")
        run.unreachableTold = try row.bool("unreachable_told")
        run.vanished = try row.int("vanished")
        run.vanishedSince = try row.optionalTimestamp("vanished_since")
        run.ending = try row.optionalString("ending").flatMap(RunState.init(rawValue:))
        run.stopSince = try row.optionalTimestamp("stop_since")
        run.stopTold = try row.bool("stop_told")
        run.retryAt = try row.optionalTimestamp("retry_at")
        run.freezeOverridden = try row.bool("freeze_overridden")
        run.skippedByHand = try row.bool("skipped_by_hand")
        return run
    }

    // MARK: - Writing

    /// Writes the steps that differ from what they were.
    func write(_ steps: [StepRun], before: [StepRun], _ id: Int, on connection: PostgresConnection) async throws {
        let old = Dictionary(before.map { ($0.uid, $0) }) { first, _ in first }
        let statements = steps.filter { old[$0.uid] != $0 }.map { run -> SQL in
            let milliseconds =
                run.pollInterval.components.seconds * 1000
                + run.pollInterval.components.attoseconds / 1_000_000_000_000_000
            return """
                update shipit_pipeline.pipeline_steps set state = \(run.state.rawValue), attempt = \(run.attempt),
                    remote_uid = \(run.remoteUID), request = \(run.request.map { JSONValue.object($0) }),
                    parameters = \(run.parameters.map { JSONValue.object($0) }), message = \(run.message),
                    output = \(JSONValue.object(run.output)), remote_info = \(JSONValue.object(run.remoteInfo)),
                    ready_since = \(run.readySince), intended = \(run.intended), started = \(run.started),
                    finished = \(run.finished), next_call = \(run.nextCall),
                    poll_interval_ms = \(Int(milliseconds)), failures = \(run.failures),
                    unreachable_since = \(run.unreachableSince), unreachable_told = \(run.unreachableTold),
                    vanished = \(run.vanished), vanished_since = \(run.vanishedSince),
                    ending = \(run.ending?.rawValue), stop_since = \(run.stopSince), stop_told = \(run.stopTold),
                    retry_at = \(run.retryAt), freeze_overridden = \(run.freezeOverridden),
                    skipped_by_hand = \(run.skippedByHand)
                where pipeline_id = \(id) and uid = \(run.uid)
                """
        }
        try await connection.pipeline(statements)
    }

    func setPaused(_ isPaused: Bool, _ id: Int, on connection: PostgresConnection) async throws {
        try await connection.execute("update shipit_pipeline.runs set paused = \(isPaused) where id = \(id)")
    }

    func setCancelled(_ isCancelled: Bool, _ id: Int, on connection: PostgresConnection) async throws {
        try await connection.execute(
            "update shipit_pipeline.runs set cancel_requested = \(isCancelled) where id = \(id)"
        )
    }

    /// The steps of running pipelines that a service calls by a name, with the pipeline's number.
    func running(_ remoteUID: String) async throws -> [(pipeline: Int, step: String, apiURL: String)] {
        try await pool.query(
            """
            select pipeline_id, uid, api_url from shipit_pipeline.pipeline_steps
            where remote_uid = \(remoteUID) and state in ('starting', 'running', 'stopping')
            """
        ).map { (try $0.int("pipeline_id"), try $0.string("uid"), try $0.string("api_url")) }
    }

    /// Makes the service of a step be asked at once.
    func callNow(_ pipeline: Int, _ step: String, at now: Timestamp) async throws {
        try await pool.execute(
            """
            update shipit_pipeline.pipeline_steps set next_call = least(coalesce(next_call, \(now)), \(now))
            where pipeline_id = \(pipeline) and uid = \(step)
                and state in ('starting', 'running', 'stopping')
            """
        )
    }

    // MARK: - Locks

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
        for name in names {
            try await change.connection.execute(
                """
                insert into shipit_pipeline.lock_waiters (name, pipeline_id, step_uid, since)
                values (\(name), \(pipeline), \(step), \(since)) on conflict do nothing
                """
            )
        }
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

    /// Gives back the locks of steps that have ended, and their places in line; answers the names that others may want.
    func release(_ steps: [String], of pipeline: Int, on connection: PostgresConnection) async throws -> [String] {
        guard !steps.isEmpty else { return [] }
        let rows = try await connection.pipeline([
            """
            delete from shipit_pipeline.locks where pipeline_id = \(pipeline) and step_uid = any(\(steps)) returning name
            """,
            """
            delete from shipit_pipeline.lock_waiters where pipeline_id = \(pipeline) and step_uid = any(\(steps))
            returning name
            """,
        ])
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
    func breakLock(_ name: String) async throws -> Lock? {
        try await pool.query(
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

    /// The locks that steps of a pipeline wait for.
    func wanted(by pipeline: Int) async throws -> [String: [String]] {
        let rows = try await pool.query(
            "select name, step_uid from shipit_pipeline.lock_waiters where pipeline_id = \(pipeline) order by name"
        ).map { (try $0.string("step_uid"), try $0.string("name")) }
        return Dictionary(grouping: rows) { $0.0 }.mapValues { $0.map(\.1) }
    }

    private static func lock(_ row: PostgresRow) throws -> Lock {
        Lock(
            name: try row.string("name"),
            pipeline: try row.string("pipeline"),
            step: try row.string("step_uid"),
            since: try row.timestamp("since")
        )
    }

    // MARK: - Freezes

    /// The freezes that are not over.
    func freezes(at now: Timestamp, on connection: PostgresConnection) async throws -> [Freeze] {
        try await connection.query(
            """
            select uid, starts, ends, labels, api_url_prefix, step_uid_glob from shipit_pipeline.freezes
            where ends > \(now) order by starts, uid
            """
        ).map { row in
            Freeze(
                uid: try row.string("uid"),
                start: try row.timestamp("starts"),
                end: try row.timestamp("ends"),
                labels: try row.json("labels").object ?? [:],
                apiPrefix: try row.optionalString("api_url_prefix"),
                stepPattern: try row.optionalString("step_uid_glob")
            )
        }
    }

    func saveFreeze(
        _ freeze: Freeze,
        name: String,
        reason: String,
        by actor: String,
        at now: Timestamp
    ) async throws {
        try await pool.execute(
            """
            insert into shipit_pipeline.freezes (uid, name, reason, starts, ends, labels, api_url_prefix, step_uid_glob,
                created_by, created)
            values (\(freeze.uid), \(name), \(reason), \(freeze.start), \(freeze.end),
                \(JSONValue.object(freeze.labels)), \(freeze.apiPrefix), \(freeze.stepPattern), \(actor), \(now))
            on conflict (uid) do update set name = excluded.name, reason = excluded.reason, starts = excluded.starts,
                ends = excluded.ends, labels = excluded.labels, api_url_prefix = excluded.api_url_prefix,
                step_uid_glob = excluded.step_uid_glob
            """
        )
    }

    func deleteFreeze(_ uid: String) async throws -> Bool {
        try await pool.execute("delete from shipit_pipeline.freezes where uid = \(uid)") > 0
    }

    func freezeList() async throws -> [JSONValue] {
        try await pool.query("select * from shipit_pipeline.freezes order by starts desc, uid limit 1000").map { row in
            var match: JSONObject = ["labels": try row.json("labels")]
            match["api_url_prefix"] = try row.optionalString("api_url_prefix").map { .string($0) }
            match["step_uid_glob"] = try row.optionalString("step_uid_glob").map { .string($0) }
            return [
                "uid": .string(try row.string("uid")), "name": .string(try row.string("name")),
                "reason": .string(try row.string("reason")), "start": .string(try row.timestamp("starts").iso8601),
                "end": .string(try row.timestamp("ends").iso8601), "match": .object(match),
                "created_by": .string(try row.string("created_by")),
            ]
        }
    }

    /// The pipelines that go on and have steps that could be waiting for a freeze.
    func open(limit: Int) async throws -> [Int] {
        try await pool.query(
            """
            select id from shipit_pipeline.steps
            where deleted_at is null and state in ('pending', 'starting', 'running', 'stopping')
            order by created desc, id desc limit \(limit)
            """
        ).map { try $0.int("id") }
    }
}
