// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
package import Schedules

/// Says that what a person has signed, and the tokens they were given, count no more from a moment on.
package struct Revocation: Sendable {
    /// Its place among all revocations, from 1.
    package let sequence: Int
    /// Whom it is about: a subject or an address, never both.
    package let subject: String?
    package let email: String?
    package let at: Timestamp
    package let actor: String
    package let reason: String

    /// The line of the audit.
    fileprivate func event(after hash: [UInt8]) -> StepEvent {
        var data: JSONObject = ["reason": .string(reason)]
        data["sub"] = subject.map { .string($0) }
        data["email"] = email.map { .string($0) }
        return StepEvent(
            stepID: 0,
            sequence: sequence,
            at: at,
            actor: actor,
            kind: "person_revoked",
            subject: subject ?? email,
            data: data,
            previousHash: hash
        )
    }
}

/// The revocations of people, which all services of a database share.
///
/// Whoever counts signatures holds revocations off until the end of the transaction, and notes in each signature the number
/// of the last one. So a revocation comes either before a decision, which heeds it, or after it; there is no third way. A
/// signature lives unless its person was revoked under a later number, whatever the clocks of the machines say.
package struct Revocations: Sendable {
    /// Where the table is.
    package static let schema = "shipit_people"

    let pool: PostgresPool

    /// Opens the revocations of a database.
    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// Makes the table; each service that uses it does that before anything else.
    package static func migrate(_ pool: PostgresPool) async throws {
        let table = Migration(
            version: 1,
            name: "people revocations",
            bytes: PackageResources.V0001_people_revocations_sql
        )
        _ = try await Migrator.migrate(pool, schema: schema, migrations: [table])
    }

    // MARK: - Counting signatures

    private static let key = "shipit_people revocations"

    /// Lets nobody be revoked until the transaction ends; answers the number of the last revocation, 0 for none.
    ///
    /// Any number of transactions hold at a time. It comes after the locks of rows: a revocation holds none.
    package func hold(on connection: PostgresConnection) async throws -> Int {
        _ = try await connection.query("select pg_advisory_xact_lock_shared(hashtextextended(\(Self.key), 0))")
        return try await last { try await connection.query($0) }
    }

    /// The number of the last revocation, 0 for none.
    package func last() async throws -> Int { try await last { try await pool.query($0) } }

    private func last(_ query: (SQL) async throws -> [PostgresRow]) async throws -> Int {
        try await query("select coalesce(max(sequence), 0) as last from shipit_people.revocations").first?
            .int("last") ?? 0
    }

    /// The number of the last revocation of a person after another number, null for none; columns of a signature say whose.
    package static func last(of subject: SQL, _ email: SQL, since number: SQL) -> SQL {
        """
        (select max(v.sequence) from shipit_people.revocations v
            where (v.sub = \(subject) or v.email = \(email)) and v.sequence > \(number))
        """
    }

    /// Refuses a token that its person was given before they were revoked, however long it would still be good.
    package func check(_ person: Person, on connection: PostgresConnection) async throws {
        let issued = person.issued ?? Timestamp(milliseconds: 0)
        let found = try await connection.query(
            """
            select 1 from shipit_people.revocations
            where (sub = \(person.subject) or email = \(person.email)) and at >= \(issued) limit 1
            """
        )
        guard !found.isEmpty else { return }
        throw StepProblem(
            401,
            "token_revoked",
            "This token is from before your revocation: log in again",
            headers: ["WWW-Authenticate": "Bearer error=\"invalid_token\""]
        )
    }

    // MARK: - Revoking

    /// Revokes a person, named by subject or address.
    ///
    /// It waits for those who count signatures at this moment, and those who come later wait for it.
    package func add(
        subject: String?,
        email: String?,
        at moment: Timestamp,
        by actor: String,
        reason: String
    ) async throws -> Revocation {
        try await pool.transaction { connection in
            try await add(subject: subject, email: email, at: moment, by: actor, reason: reason, on: connection)
        }
    }

    /// The same in a transaction that locks no rows that signers lock.
    package func add(
        subject: String?,
        email: String?,
        at moment: Timestamp,
        by actor: String,
        reason: String,
        on connection: PostgresConnection
    ) async throws -> Revocation {
        _ = try await connection.query("select pg_advisory_xact_lock(hashtextextended(\(Self.key), 0))")
        let last = try await connection.query(
            "select sequence, hash from shipit_people.revocations order by sequence desc limit 1"
        ).first
        let revocation = Revocation(
            sequence: try (last?.int("sequence") ?? 0) + 1,
            subject: subject.map(StepEvent.storable),
            email: email.map(StepEvent.storable),
            at: moment,
            actor: actor,
            reason: StepEvent.storable(reason)
        )
        let event = revocation.event(after: try last?.bytes("hash") ?? StepEvent.origin)
        try await connection.execute(
            """
            insert into shipit_people.revocations (sequence, sub, email, at, actor, reason, previous_hash, hash)
            values (\(revocation.sequence), \(revocation.subject), \(revocation.email), \(moment), \(actor),
                \(revocation.reason),
                \(event.previousHash), \(event.hash))
            """
        )
        return revocation
    }

    // MARK: - Reading

    /// The revocations of people whose signatures something holds, by their numbers.
    package func find(_ sequences: [Int], on connection: PostgresConnection) async throws -> [Int: Revocation] {
        let rows = try await connection.query(
            "select * from shipit_people.revocations where sequence = any(\(sequences)::bigint[])"
        )
        var found: [Int: Revocation] = [:]
        for row in rows {
            let revocation = try Self.revocation(row)
            found[revocation.sequence] = revocation
        }
        return found
    }

    /// The audit after an entry, oldest first.
    package func events(after sequence: Int, limit: Int) async throws -> [StepEvent] {
        try await stored(after: sequence, limit: limit).map(\.event)
    }

    /// The place of the first entry that is not what it was; nil if all are.
    package func brokenLink() async throws -> Int? {
        try await EventChain.brokenLink { try await stored(after: $0, limit: 500) }
    }

    private func stored(after sequence: Int, limit: Int) async throws -> [(event: StepEvent, hash: [UInt8])] {
        let rows = try await pool.query(
            """
            select * from shipit_people.revocations where sequence > \(sequence)::bigint order by sequence limit \(limit)
            """
        )
        var events: [(event: StepEvent, hash: [UInt8])] = []
        for row in rows {
            let event = try Self.revocation(row).event(after: row.bytes("previous_hash"))
            events.append((event, try row.bytes("hash")))
        }
        return events
    }

    private static func revocation(_ row: PostgresRow) throws -> Revocation {
        Revocation(
            sequence: try row.int("sequence"),
            subject: try row.optionalString("sub"),
            email: try row.optionalString("email"),
            at: try row.timestamp("at"),
            actor: try row.string("actor"),
            reason: try row.string("reason")
        )
    }
}
