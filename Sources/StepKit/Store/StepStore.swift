// SPDX-License-Identifier: MPL-2.0

import Crypto
public import JSON
public import Outbox
public import Postgres
import Pulse
public import Schedules

/// The steps of one service in PostgreSQL: every change under the lock of its row, with its audit and its message.
public struct StepStore: Sendable {
    /// What became of a request to create a step.
    public enum Creation: Sendable {
        /// It is new.
        case created(Step)
        /// It was there before, and is the same.
        case existing(Step)
    }

    /// What is repeated when a request comes again under the same key.
    public struct RequestKey: Sendable {
        let key: String
        let client: String
        let digest: [UInt8]
    }

    /// A request came again under its key; this was its answer.
    struct Replayed: Error {
        let reply: JSONObject
    }

    /// Where the tables are.
    public let schema: String
    /// The database.
    public let pool: PostgresPool
    /// Where messages wait for the broker.
    public let outbox: Outbox
    /// How steps are announced; nil announces nothing.
    public let announcement: StepAnnouncement
    /// Who learns of changes at once.
    public let changes: StepChanges
    /// The clock.
    public let now: @Sendable () -> Timestamp

    /// Opens the steps of a service.
    public init(
        schema: String,
        pool: PostgresPool,
        announcement: StepAnnouncement,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.schema = schema
        self.pool = pool
        self.outbox = Outbox(schema: schema)
        self.announcement = announcement
        self.changes = StepChanges(pool: pool, channel: "\(schema)_changed")
        self.now = now
    }

    // MARK: - Reading

    /// The step of a name, without its definition; nil if there is none.
    public func find(_ uid: String) async throws -> Step? {
        try await pool.query(
            "select \(Self.columns) from \(unsafe: schema).steps where uid = \(uid) and deleted_at is null"
        ).first.map { try Self.step($0) }
    }

    /// The step of a name with its definition; with `buried`, the last one of that name even if it was deleted.
    public func load(_ uid: String, buried: Bool = false) async throws -> Step? {
        let filter: SQL = buried ? "order by incarnation desc limit 1" : "and deleted_at is null"
        return try await pool.query(
            "select \(Self.columns), definition from \(unsafe: schema).steps where uid = \(uid) \(filter)"
        ).first.map { try Self.step($0) }
    }

    /// A page of the steps that a filter accepts, newest first.
    public func list(
        _ filter: StepFilter,
        after: (created: Int, id: Int)?,
        limit: Int,
        withDefinition: Bool = false
    ) async throws -> [Step] {
        let more: SQL = withDefinition ? ", definition" : ""
        var sql: SQL = "select \(Self.columns)\(more) from \(unsafe: schema).steps where deleted_at is null"
        sql += filter.condition
        if let after {
            let created = Timestamp(milliseconds: Int64(after.created))
            sql += " and (created, id) < (\(created)::timestamptz, \(after.id)::bigint)"
        }
        sql += " order by created desc, id desc limit \(limit)"
        return try await pool.query(sql).map { try Self.step($0) }
    }

    /// The audit of a step after an event, oldest first.
    public func events(of id: Int, after sequence: Int = 0, limit: Int) async throws -> [StepEvent] {
        try await storedEvents(of: id, after: sequence, limit: limit).map(\.event)
    }

    /// Computes the audit of a step anew; answers the place of the first event that is not what it was, nil if all are.
    public func brokenLink(of step: Step) async throws -> Int? {
        var previous = StepEvent.origin
        var sequence = 0
        while true {
            let page = try await storedEvents(of: step.id, after: sequence, limit: 500)
            for (event, hash) in page {
                guard event.sequence == sequence + 1, event.previousHash == previous, event.hash == hash else {
                    return event.sequence
                }
                previous = hash
                sequence = event.sequence
            }
            if page.count < 500 { break }
        }
        let last = try await pool.query(
            "select last_sequence, last_hash from \(unsafe: schema).steps where id = \(step.id)"
        ).first
        guard let last, try last.int("last_sequence") == sequence, try last.bytes("last_hash") == previous else {
            return sequence + 1
        }
        return nil
    }

    private func storedEvents(
        of id: Int,
        after sequence: Int,
        limit: Int
    ) async throws -> [(event: StepEvent, hash: [UInt8])] {
        try await pool.query(
            """
            select step_id, sequence, at, actor, kind, subject, data, previous_hash, hash
            from \(unsafe: schema).events where step_id = \(id) and sequence > \(sequence)
            order by sequence limit \(limit)
            """
        ).map { row in
            let event = StepEvent(
                stepID: try row.int("step_id"),
                sequence: try row.int("sequence"),
                at: try row.timestamp("at"),
                actor: try row.string("actor"),
                kind: try row.string("kind"),
                subject: try row.optionalString("subject"),
                data: try row.json("data").object ?? [:],
                previousHash: try row.bytes("previous_hash")
            )
            return (event, try row.bytes("hash"))
        }
    }

    // MARK: - Creating

    /// Creates a step, or finds the one that was created by the same request before.
    ///
    /// A step of that name with another definition is a conflict. The body runs in the transaction of a new step.
    public func create(
        _ uid: String,
        definition: JSONValue,
        labels: JSONObject = [:],
        origin: StepOrigin,
        _ begin: (inout StepTransaction) async throws -> Void
    ) async throws -> Creation {
        let digest = CanonicalJSON.digest(definition)
        let creation = try await pool.transaction { connection -> Creation in
            let moment = now()
            for _ in 0..<3 {
                let inserted = try await connection.query(
                    """
                    insert into \(unsafe: schema).steps (uid, incarnation, definition, definition_sha256, state, labels,
                        pipeline, depth, ancestors, created_by, created, updated, last_hash)
                    values (\(uid), (select coalesce(max(incarnation), 0) + 1 from \(unsafe: schema).steps
                            where uid = \(uid)),
                        \(definition), \(digest), 'pending', \(JSONValue.object(labels)), \(origin.pipeline),
                        \(origin.depth), \(origin.ancestors), \(origin.actor), \(moment), \(moment),
                        \(StepEvent.origin))
                    on conflict do nothing returning \(Self.columns), definition
                    """
                )
                if let row = inserted.first {
                    var change = StepTransaction(
                        connection: connection,
                        now: moment,
                        actor: origin.actor,
                        step: try Self.step(row)
                    )
                    var data: JSONObject = ["definition_sha256": .string(Hexadecimal.encoded(digest))]
                    data["pipeline"] = origin.pipeline.map { .string($0) }
                    change.record("created", data)
                    try await begin(&change)
                    return .created(try await write(change, announces: true, lease: nil))
                }
                let existing = try await connection.query(
                    """
                    select \(Self.columns), definition from \(unsafe: schema).steps
                    where uid = \(uid) and deleted_at is null
                    """
                )
                guard let row = existing.first else { continue }
                let step = try Self.step(row)
                guard step.digest == digest else {
                    throw StepProblem.conflict("definition_differs", "A step \(uid) with another definition exists")
                }
                return .existing(step)
            }
            throw StepProblem(503, "busy", "The name \(uid) changes hands too fast", headers: ["Retry-After": "1"])
        }
        if case .created(let step) = creation { settled(step) }
        return creation
    }

    // MARK: - Changing

    /// Changes the step of a name under its lock; an unknown name is a refusal.
    ///
    /// With `match`, a step of another entity tag is refused; a request that comes again under its `key` gets its first
    /// answer. The body changes the step and the tables that belong to it. Answers the step as it is now, and what the
    /// body returned.
    public func change<R: Sendable>(
        _ uid: String,
        actor: String,
        match: EntityTags? = nil,
        key: RequestKey? = nil,
        _ body: (inout StepTransaction) async throws -> R
    ) async throws -> (step: Step, result: R) {
        let outcome = try await pool.transaction { connection -> (Step, R, Bool) in
            if let key { try await replay(key, connection) }
            let rows = try await connection.query(
                """
                select \(Self.columns), definition from \(unsafe: schema).steps
                where uid = \(uid) and deleted_at is null for update
                """
            )
            guard let row = rows.first else { throw StepProblem.unknown(uid) }
            let before = try Self.step(row)
            if let match, !match.contains(before.entityTag) {
                throw StepProblem(412, "precondition_failed", "The step has changed; it is \(before.entityTag) now")
            }
            var change = StepTransaction(connection: connection, now: now(), actor: actor, step: before)
            let result = try await body(&change)
            let step = try await finish(change, before: before, lease: nil)
            if let key { try await keep(key, .object(step.status), connection) }
            return (step, result, step.version != before.version)
        }
        if outcome.2 { settled(outcome.0) }
        return (outcome.0, outcome.1)
    }

    /// Deletes a step: its name is free again, its audit stays.
    ///
    /// A step that goes on is refused, unless a body is given that cancels it; then it is deleted when it has ended.
    public func delete(
        _ uid: String,
        actor: String,
        match: EntityTags? = nil,
        cancel: ((inout StepTransaction) async throws -> Void)? = nil
    ) async throws -> Step {
        try await change(uid, actor: actor, match: match) { change in
            if !change.step.state.isTerminal {
                guard let cancel else {
                    let state = change.step.state.rawValue
                    throw StepProblem.conflict("not_finished", "The step is \(state); with force=true it is cancelled")
                }
                if change.step.state != .stopping { try await cancel(&change) }
            }
            change.step.leavesWhenDone = true
            change.record("deleted")
        }.step
    }

    /// Whether the last step of a name was deleted after this one ended.
    public func isDeleted(_ id: Int) async throws -> Bool {
        try await pool.query(
            "select deleted_at is not null as gone from \(unsafe: schema).steps where id = \(id)"
        ).first?.bool("gone") ?? true
    }

    // MARK: - Looking after

    /// Takes steps whose time has come; nobody else looks at them until they are released or the lease ends.
    package func claim(limit: Int, owner: String, lease: Duration) async throws -> [StepClaim] {
        try await pool.query(
            """
            update \(unsafe: schema).steps set lease_owner = \(owner), lease_epoch = lease_epoch + 1,
                lease_until = now() + \(lease.wholeMilliseconds)::bigint * interval '1 millisecond'
            where id = any(array(
                select id from \(unsafe: schema).steps
                where next_check_at <= \(now()) and (lease_until is null or lease_until < now())
                order by next_check_at limit \(limit) for update skip locked))
            returning \(Self.columns), definition, lease_epoch
            """
        ).map { StepClaim(step: try Self.step($0), epoch: try $0.int("lease_epoch"), store: self) }
    }

    /// Prolongs leases that still hold.
    func prolong(_ claims: [(id: Int, epoch: Int)], lease: Duration) async throws {
        guard !claims.isEmpty else { return }
        try await pool.execute(
            """
            update \(unsafe: schema).steps s
            set lease_until = now() + \(lease.wholeMilliseconds)::bigint * interval '1 millisecond'
            from unnest(\(claims.map(\.id))::bigint[], \(claims.map(\.epoch))::bigint[]) c (id, epoch)
            where s.id = c.id and s.lease_epoch = c.epoch and s.lease_until is not null
            """
        )
    }

    /// Makes steps due at once, or at a moment if that is later; answers how many there were.
    @discardableResult
    public func wake(_ ids: [Int], at earliest: Timestamp? = nil) async throws -> Int {
        guard !ids.isEmpty else { return 0 }
        let moment = max(now(), earliest ?? now())
        // A step that is being looked at was due before: that must not keep its next look from coming at once.
        let count = try await pool.execute(
            """
            update \(unsafe: schema).steps set next_check_at = least(coalesce(next_check_at, \(moment)), \(moment))
            where id = any(\(ids)) and deleted_at is null
                and state in ('pending', 'starting', 'running', 'stopping')
            """
        )
        changes.workIsDue()
        return count
    }

    /// When the next step is due, for those who wait for it.
    func nextDue() async throws -> Timestamp? {
        try await pool.query(
            """
            select min(next_check_at) as due from \(unsafe: schema).steps
            where next_check_at is not null and (lease_until is null or lease_until < now())
            """
        ).first?.optionalTimestamp("due")
    }

    /// Changes a claimed step; nil, and nothing happens, if somebody else has claimed it since.
    func change<R: Sendable>(
        _ claim: StepClaim,
        actor: String,
        _ body: (inout StepTransaction) async throws -> R
    ) async throws -> (step: Step, result: R)? {
        let outcome = try await pool.transaction { connection -> (Step, R, Bool)? in
            let rows = try await connection.query(
                """
                select \(Self.columns), definition from \(unsafe: schema).steps
                where id = \(claim.step.id) and lease_epoch = \(claim.epoch) and deleted_at is null for update
                """
            )
            guard let row = rows.first else { return nil }
            let before = try Self.step(row)
            var change = StepTransaction(connection: connection, now: now(), actor: actor, step: before)
            let result = try await body(&change)
            let step = try await finish(change, before: before, lease: claim.epoch)
            return (step, result, step.version != before.version)
        }
        guard let outcome else { return nil }
        if outcome.2 { settled(outcome.0) }
        return (outcome.0, outcome.1)
    }

    // MARK: - Parts of changes

    private func finish(_ change: StepTransaction, before: Step, lease: Int?) async throws -> Step {
        guard change.step != before || !change.events.isEmpty || change.isReleased else { return before }
        var scheduled = before
        scheduled.nextCheck = change.step.nextCheck
        scheduled.checkFailures = change.step.checkFailures
        guard change.step != scheduled || !change.events.isEmpty else {
            // Only when it is looked at next has changed, which nobody is told.
            try await change.connection.execute(
                """
                update \(unsafe: schema).steps set next_check_at = \(change.step.nextCheck),
                    check_failures = \(change.step.checkFailures),
                    lease_until = case when \(change.isReleased) then null else lease_until end
                where id = \(change.step.id)
                """
            )
            var step = before
            step.nextCheck = change.step.nextCheck
            return step
        }
        return try await write(change, announces: change.step.state != before.state, lease: lease)
    }

    /// Writes the step, its audit and its message.
    private func write(_ change: StepTransaction, announces: Bool, lease: Int?) async throws -> Step {
        var step = change.step
        let isNew = step.version == 1 && step.lastSequence == change.events.count
        if !isNew { step.version += 1 }
        step.updated = change.now
        let links = step.status["links"] ?? []
        var statements: [SQL] = [
            """
            update \(unsafe: schema).steps set state = \(step.state.rawValue), message = \(step.message),
                attempt = \(step.attempt), output = \(JSONValue.object(step.output)),
                info = \(JSONValue.object(step.info)), links = \(links), labels = \(JSONValue.object(step.labels)),
                started = \(step.started), finished = \(step.finished), updated = \(step.updated),
                version = \(step.version), next_check_at = \(step.nextCheck),
                check_failures = \(step.checkFailures), last_sequence = \(step.lastSequence),
                last_hash = \(step.lastHash), leaves_when_done = \(step.leavesWhenDone),
                deleted_at = case when \(step.leavesWhenDone && step.state.isTerminal)
                    then \(change.now)::timestamptz else deleted_at end,
                lease_until = case when \(change.isReleased) then null else lease_until end
            where id = \(step.id)
            """
        ]
        for event in change.events {
            statements.append(
                """
                insert into \(unsafe: schema).events
                    (step_id, sequence, at, actor, kind, subject, data, previous_hash, hash)
                values (\(event.stepID), \(event.sequence), \(event.at), \(event.actor), \(event.kind),
                    \(event.subject), \(JSONValue.object(event.data)), \(event.previousHash), \(event.hash))
                """
            )
        }
        try await change.connection.pipeline(statements)
        if announces { try await outbox.add([announcement.message(step)], on: change.connection) }
        return step
    }

    /// After a commit: the relay, the waiting readers and the runner look at once.
    private func settled(_ step: Step) {
        outbox.wake()
        changes.changed(step.id)
        if let due = step.nextCheck, due <= now() { changes.workIsDue() }
    }

    // MARK: - Repeated requests

    /// Names a request by the key its client chose.
    public func requestKey(_ key: String, client: String, method: String, path: String, body: [UInt8]) -> RequestKey {
        let content = Array("\(method) \(path)\n".utf8) + body
        return RequestKey(key: key, client: client, digest: Array(SHA256.hash(data: content)))
    }

    private func replay(_ key: RequestKey, _ connection: PostgresConnection) async throws {
        let name = "\(schema) \(key.client) \(key.key)"
        _ = try await connection.query("select pg_advisory_xact_lock(hashtextextended(\(name), 0))")
        let rows = try await connection.query(
            """
            select request_sha256, reply from \(unsafe: schema).replies
            where client = \(key.client) and key = \(key.key) and created > now() - interval '24 hours'
            """
        )
        guard let row = rows.first else { return }
        guard try row.bytes("request_sha256") == key.digest else {
            throw StepProblem(422, "idempotency_key_reused", "This Idempotency-Key belongs to another request")
        }
        throw Replayed(reply: try row.json("reply").object ?? [:])
    }

    private func keep(_ key: RequestKey, _ reply: JSONValue, _ connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            insert into \(unsafe: schema).replies (client, key, request_sha256, reply)
            values (\(key.client), \(key.key), \(key.digest), \(reply))
            on conflict (client, key) do update
            set request_sha256 = excluded.request_sha256, reply = excluded.reply, created = now()
            """
        )
    }

    /// Forgets answers that are no longer repeated.
    public func sweepReplies() async throws {
        try await pool.execute(
            """
            delete from \(unsafe: schema).replies where ctid = any(array(
                select ctid from \(unsafe: schema).replies where created < now() - interval '25 hours' limit 1000))
            """
        )
    }

    // MARK: - Rows

    static let columns: SQL = """
        id, uid, incarnation, definition_sha256, state, message, attempt, output, info, links, labels, pipeline, depth,
        ancestors, created_by, created, started, finished, updated, version, next_check_at, check_failures,
        last_sequence, last_hash, leaves_when_done
        """

    static func step(_ row: PostgresRow) throws -> Step {
        let state = try row.string("state")
        guard let known = StepState(rawValue: state) else {
            throw PostgresError(.decoding, "the state \(state) of a step is unknown")
        }
        return Step(
            id: try row.int("id"),
            uid: try row.string("uid"),
            incarnation: try row.int("incarnation"),
            definition: row.columns.contains("definition") ? try row.json("definition") : .null,
            digest: try row.bytes("definition_sha256"),
            pipeline: try row.optionalString("pipeline"),
            depth: try row.int("depth"),
            ancestors: try row.strings("ancestors"),
            createdBy: try row.string("created_by"),
            created: try row.timestamp("created"),
            version: try row.int("version"),
            updated: try row.timestamp("updated"),
            state: known,
            message: try row.string("message"),
            attempt: try row.int("attempt"),
            output: try row.json("output").object ?? [:],
            info: try row.json("info").object ?? [:],
            links: try row.json("links").array?.compactMap(link) ?? [],
            labels: try row.json("labels").object ?? [:],
            started: try row.optionalTimestamp("started"),
            finished: try row.optionalTimestamp("finished"),
            nextCheck: try row.optionalTimestamp("next_check_at"),
            checkFailures: try row.int("check_failures"),
            leavesWhenDone: try row.bool("leaves_when_done"),
            lastSequence: try row.int("last_sequence"),
            lastHash: try row.bytes("last_hash")
        )
    }

    private static func link(_ json: JSONValue) -> Step.Link? {
        guard let rel = json["rel"]?.string, let href = json["href"]?.string else { return nil }
        return Step.Link(rel: rel, href: href, title: json["title"]?.string ?? "")
    }
}

extension Duration {
    /// Whole milliseconds, for intervals of the database.
    var wholeMilliseconds: Int {
        Int(components.seconds) * 1000 + Int(components.attoseconds / 1_000_000_000_000_000)
    }
}
