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
        let (names, addresses) = (definition.steps.map(\.uid), definition.steps.map(\.apiURL))
        let statements: [SQL] = [
            """
            insert into shipit_pipeline.runs (id, concurrency_key)
            values (\(change.step.id), \(definition.concurrencyKey))
            """,
            """
            insert into shipit_pipeline.pipeline_steps (pipeline_id, uid, position, api_url)
            select \(change.step.id)::bigint, s.uid, s.place - 1, s.api_url
            from unnest(\(names)::text[], \(addresses)::text[]) with ordinality s (uid, api_url, place)
            """,
        ]
        change.connection.later(statements)
    }

    /// Another pipeline of a key that goes on.
    struct Rival: Sendable {
        let id: Int
        let uid: String
        /// Whether a step of it was started.
        let hasBegun: Bool

        /// Whether it keeps the pipeline of a number waiting.
        ///
        /// The older one goes first, but for one whose creation took so long that a younger one had begun already.
        func precedes(_ other: Int) -> Bool { id < other || hasBegun }
    }

    /// The other pipelines of a key that go on, oldest first; under the lock of the key none appears and none begins.
    func rivals(
        _ key: String,
        of id: Int,
        on connection: PostgresConnection,
        locking: Bool = false
    ) async throws -> [Rival] {
        if locking {
            _ = try await connection.query(
                "select pg_advisory_xact_lock(hashtextextended('shipit_pipeline ' || \(key), 0))"
            )
        }
        return try await connection.query(
            """
            select s.id, s.uid, exists (select from shipit_pipeline.pipeline_steps p
                    where p.pipeline_id = r.id and p.intended is not null) as begun
            from shipit_pipeline.runs r join shipit_pipeline.steps s on s.id = r.id
            where r.concurrency_key = \(key) and r.id <> \(id) and s.deleted_at is null
                and s.state in ('pending', 'starting', 'running', 'stopping') order by r.id
            """
        ).map { Rival(id: try $0.int("id"), uid: try $0.string("uid"), hasBegun: try $0.bool("begun")) }
    }

    /// The pipeline of a key whose turn it is when another one has ended.
    func successor(_ key: String, of id: Int) async throws -> [Int] {
        try await pool.query(
            """
            select s.id from shipit_pipeline.runs r join shipit_pipeline.steps s on s.id = r.id
            where r.concurrency_key = \(key) and r.id <> \(id) and s.deleted_at is null
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

    /// The steps of pipelines, by the names of those.
    func steps(ofPipelines names: [String]) async throws -> [String: [StepRun]] {
        let rows = try await pool.query(
            """
            select s.uid as pipeline, p.* from shipit_pipeline.pipeline_steps p
            join shipit_pipeline.steps s on s.id = p.pipeline_id
            where s.uid = any(\(names)) and s.deleted_at is null order by p.pipeline_id, p.position
            """
        )
        var found: [String: [StepRun]] = [:]
        for row in rows { found[try row.string("pipeline"), default: []].append(try Self.step(row)) }
        return found
    }

    /// What the statuses of pipelines depend on.
    func stamps(_ names: [String]) async throws -> [String: StatusBoard.Stamp] {
        let rows = try await pool.query(
            """
            select s.uid, s.id, s.version, r.revision,
                (select number from shipit_pipeline.revisions where name = 'freezes') as freezes
            from shipit_pipeline.steps s join shipit_pipeline.runs r on r.id = s.id
            where s.uid = any(\(Array(Set(names)))) and s.deleted_at is null
            """
        )
        var stamps: [String: StatusBoard.Stamp] = [:]
        for row in rows {
            stamps[try row.string(0)] = StatusBoard.Stamp(
                id: try row.int(1),
                version: try row.int(2),
                revision: try row.int(3),
                freezes: try row.int(4)
            )
        }
        return stamps
    }

    /// What reads what belongs to a pipeline, in one go.
    static func sceneQueries(_ id: Int) -> [SQL] { [runQuery(id), stepsQuery(id)] }

    /// What those queries have read.
    static func scene(_ rows: [[PostgresRow]]) throws -> (run: Run, steps: [StepRun]) {
        (try run(rows[0]), try rows[1].map(step))
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
        run.isCalledFor = try row.bool("called_for")
        run.hints = try row.int("hints")
        run.remoteEnded = try row.bool("remote_ended")
        run.remoteUpdated = try row.optionalTimestamp("remote_updated")
        run.regressTold = try row.bool("regress_told")
        return run
    }

    // MARK: - Writing

    /// Writes the steps that differ from what they were.
    func write(_ steps: [StepRun], before: [StepRun], _ id: Int, on connection: PostgresConnection) async throws {
        let old = Dictionary(before.map { ($0.uid, $0) }) { first, _ in first }
        var statements: [SQL] = []
        var isTold = false
        for run in steps {
            guard let previous = old[run.uid], previous != run else { continue }
            if previous.differsInSchedule(from: run) {
                statements.append(Self.reschedule(run, id))
            } else {
                statements.append(Self.update(run, id))
                isTold = true
            }
        }
        guard !statements.isEmpty else { return }
        if isTold { statements.append(Self.revise(id)) }
        connection.later(statements)
    }

    /// Stores when the service of a step is asked next, of which nobody is told.
    private static func reschedule(_ run: StepRun, _ id: Int) -> SQL {
        """
        update shipit_pipeline.pipeline_steps set next_call = \(run.nextCall),
            poll_interval_ms = \(run.pollInterval.wholeMilliseconds)
        where pipeline_id = \(id) and uid = \(run.uid)
        """
    }

    private static func update(_ run: StepRun, _ id: Int) -> SQL {
        """
        update shipit_pipeline.pipeline_steps set state = \(run.state.rawValue), attempt = \(run.attempt),
            remote_uid = \(run.remoteUID), request = \(run.request.map { JSONValue.object($0) }),
            parameters = \(run.parameters.map { JSONValue.object($0) }), message = \(run.message),
            output = \(JSONValue.object(run.output)), remote_info = \(JSONValue.object(run.remoteInfo)),
            ready_since = \(run.readySince), intended = \(run.intended), started = \(run.started),
            finished = \(run.finished), next_call = \(run.nextCall),
            poll_interval_ms = \(run.pollInterval.wholeMilliseconds), failures = \(run.failures),
            unreachable_since = \(run.unreachableSince), unreachable_told = \(run.unreachableTold),
            vanished = \(run.vanished), vanished_since = \(run.vanishedSince),
            ending = \(run.ending?.rawValue), stop_since = \(run.stopSince), stop_told = \(run.stopTold),
            retry_at = \(run.retryAt), freeze_overridden = \(run.freezeOverridden),
            skipped_by_hand = \(run.skippedByHand), called_for = \(run.isCalledFor),
            remote_ended = \(run.remoteEnded), remote_updated = \(run.remoteUpdated), regress_told = \(run.regressTold)
        where pipeline_id = \(id) and uid = \(run.uid)
        """
    }

    /// Counts a change of what is told of a pipeline.
    static func revise(_ id: Int) -> SQL {
        "update shipit_pipeline.runs set revision = revision + 1 where id = \(id)"
    }

    func setPaused(_ isPaused: Bool, _ id: Int, on connection: PostgresConnection) async throws {
        try await connection.execute(
            "update shipit_pipeline.runs set paused = \(isPaused), revision = revision + 1 where id = \(id)"
        )
    }

    func setCancelled(_ isCancelled: Bool, _ id: Int, on connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            update shipit_pipeline.runs set cancel_requested = \(isCancelled), revision = revision + 1 where id = \(id)
            """
        )
    }

    /// Makes the service of a step be asked at once, wherever a running pipeline has one of that name.
    ///
    /// The pipeline's row is locked first, as by everybody who changes its steps: a look that is under way either sees the
    /// hint or is over before it. Answers whether any pipeline has such a step.
    func hint(_ remoteUID: String, at now: Timestamp) async throws -> Bool {
        try await pool.execute(
            """
            with asked as (
                select pipeline_id, uid from shipit_pipeline.pipeline_steps
                where remote_uid = \(remoteUID) and state in ('starting', 'running', 'stopping')
            ), locked as (
                select id from shipit_pipeline.steps
                where id in (select pipeline_id from asked) and deleted_at is null
                    and state in ('pending', 'starting', 'running', 'stopping')
                order by id for update
            ), woken as (
                update shipit_pipeline.steps set next_check_at = least(coalesce(next_check_at, \(now)), \(now))
                where id in (select id from locked)
                returning id
            )
            update shipit_pipeline.pipeline_steps s
            set next_call = least(coalesce(s.next_call, \(now)), \(now)), hints = s.hints + 1
            from woken, asked
            where asked.pipeline_id = woken.id and s.pipeline_id = woken.id and s.uid = asked.uid
                and s.state in ('starting', 'running', 'stopping')
            """
        ) > 0
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
