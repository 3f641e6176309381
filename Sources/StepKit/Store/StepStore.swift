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
        try await EventChain.brokenLink(reaching: (step.lastSequence, step.lastHash)) { after in
            try await storedEvents(of: step.id, after: after, limit: 500)
        }
    }

    func storedEvents(
        of id: Int,
        after sequence: Int,
        limit: Int
    ) async throws -> [(event: StepEvent, hash: [UInt8])] {
        let rows = try await pool.query(
            """
            select step_id, sequence, at, actor, kind, subject, data, previous_hash, hash
            from \(unsafe: schema).events where step_id = \(id) and sequence > \(sequence)::bigint
            order by sequence limit \(limit)
            """
        )
        var events: [(event: StepEvent, hash: [UInt8])] = []
        for row in rows { events.append((try StepEvent(row), try row.bytes("hash"))) }
        return events
    }

    // MARK: - Creating

    /// Creates a step, or finds the one that was created by the same request before.
    ///
    /// A step of that name with another definition is a conflict, and so is another request under the same `key`. The body
    /// runs in the transaction of a new step.
    public func create(
        _ uid: String,
        definition: JSONValue,
        labels: JSONObject = [:],
        origin: StepOrigin,
        key: RequestKey? = nil,
        reply: JSONObject = [:],
        _ begin: (inout StepTransaction) async throws -> Void
    ) async throws -> Creation {
        let digest = CanonicalJSON.digest(definition)
        let creation = try await pool.transaction { connection -> Creation in
            let moment = now()
            if let key {
                try await replay(key, connection)
                try await keep(key, .object(reply), connection)
            }
            for _ in 0..<3 {
                let inserted = try await connection.query(
                    """
                    insert into \(unsafe: schema).steps (uid, incarnation, definition, definition_sha256, state, labels,
                        pipeline, depth, ancestors, created_by, requester, created, updated, last_hash)
                    values (\(uid), (select coalesce(max(incarnation), 0) + 1 from \(unsafe: schema).steps
                            where uid = \(uid)),
                        \(definition), \(digest), 'pending', \(JSONValue.object(labels)), \(origin.pipeline),
                        \(origin.depth), \(origin.ancestors), \(origin.actor), \(origin.requester), \(moment),
                        \(moment),
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
                    data["requester"] = origin.requester.map { .string($0) }
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

    // MARK: - Rows

    static let columns: SQL = """
        id, uid, incarnation, definition_sha256, state, message, attempt, output, info, links, labels, pipeline, depth,
        ancestors, created_by, requester, created, started, finished, updated, version, next_check_at, check_failures,
        last_sequence, last_hash, leaves_when_done
        """

    static func step(_ row: PostgresRow, definition: JSONValue? = nil) throws -> Step {
        let state = try row.string("state")
        guard let known = StepState(rawValue: state) else {
            throw PostgresError(.decoding, "the state \(state) of a step is unknown")
        }
        return Step(
            id: try row.int("id"),
            uid: try row.string("uid"),
            incarnation: try row.int("incarnation"),
            definition: try definition ?? (row.columns.contains("definition") ? row.json("definition") : .null),
            digest: try row.bytes("definition_sha256"),
            pipeline: try row.optionalString("pipeline"),
            depth: try row.int("depth"),
            ancestors: try row.strings("ancestors"),
            createdBy: try row.string("created_by"),
            requester: try row.optionalString("requester"),
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

    static func link(_ json: JSONValue) -> Step.Link? {
        guard let rel = json["rel"]?.string, let href = json["href"]?.string else { return nil }
        return Step.Link(rel: rel, href: href, title: json["title"]?.string ?? "")
    }
}

extension Duration {
    /// Whole milliseconds, for intervals of the database.
    package var wholeMilliseconds: Int {
        Int(components.seconds) * 1000 + Int(components.attoseconds / 1_000_000_000_000_000)
    }
}
