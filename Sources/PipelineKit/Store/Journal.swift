// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Postgres
import Schedules
import StepKit

/// The audit of what is decided beside single pipelines; each entry carries the digest of everything before it.
package struct Journal: Sendable {
    let store: StepStore

    /// Does something and writes down what was done to what, both or neither.
    ///
    /// The body works in the transaction of the entry; where it answers nil, there was nothing to do, and nothing is written.
    @discardableResult
    package func changing<R: Sendable>(
        _ kind: String,
        _ subject: String,
        by actor: String,
        _ data: JSONObject = [:],
        _ body: (PostgresConnection) async throws -> R?
    ) async throws -> R? {
        try await store.pool.transaction { connection -> R? in
            guard let result = try await body(connection) else { return nil }
            try await write(kind, subject, by: actor, data, on: connection)
            return result
        }
    }

    /// Writes down what the open transaction of a connection does; it comes after everything else that locks.
    package func write(
        _ kind: String,
        _ subject: String,
        by actor: String,
        _ data: JSONObject = [:],
        on connection: PostgresConnection
    ) async throws {
        // One entry after the other: each names the one before it.
        _ = try await connection.query("select pg_advisory_xact_lock(hashtextextended('shipit_pipeline journal', 0))")
        let last = try await connection.query(
            "select sequence, hash from shipit_pipeline.journal order by sequence desc limit 1"
        ).first
        let event = StepEvent(
            stepID: 0,
            sequence: try (last?.int("sequence") ?? 0) + 1,
            at: store.now(),
            actor: actor,
            kind: kind,
            subject: subject,
            data: data,
            previousHash: try last?.bytes("hash") ?? StepEvent.origin
        )
        try await connection.execute(
            """
            insert into shipit_pipeline.journal (sequence, at, actor, kind, subject, data, previous_hash, hash)
            values (\(event.sequence), \(event.at), \(event.actor), \(event.kind), \(event.subject),
                \(JSONValue.object(event.data)), \(event.previousHash), \(event.hash))
            """
        )
    }

    /// The same for one statement, which has done something if it has touched a row.
    package func changing(
        _ kind: String,
        _ subject: String,
        by actor: String,
        _ data: JSONObject,
        _ statement: SQL
    ) async throws -> Bool {
        try await changing(kind, subject, by: actor, data) { connection in
            try await connection.execute(statement) > 0 ? true : nil
        } ?? false
    }

    /// The entries after one, oldest first.
    func entries(after sequence: Int, limit: Int) async throws -> [StepEvent] {
        try await stored(after: sequence, limit: limit).map(\.event)
    }

    /// The place of the first entry that is not what it was; nil if all are.
    func brokenLink() async throws -> Int? {
        try await EventChain.brokenLink { try await stored(after: $0, limit: 500) }
    }

    private func stored(after sequence: Int, limit: Int) async throws -> [(event: StepEvent, hash: [UInt8])] {
        let rows = try await store.pool.query(
            """
            select 0 as step_id, sequence, at, actor, kind, subject, data, previous_hash, hash
            from shipit_pipeline.journal where sequence > \(sequence)::bigint order by sequence limit \(limit)
            """
        )
        var events: [(event: StepEvent, hash: [UInt8])] = []
        for row in rows { events.append((try StepEvent(row), try row.bytes("hash"))) }
        return events
    }
}
