// SPDX-License-Identifier: MPL-2.0

import JSON
package import Postgres
import Schedules

/// The ledger: what became of every event that could have fired a hook, and when.
package struct LedgerStore: Sendable {
    let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// An entry of the ledger.
    struct Entry: Sendable {
        let id: Int
        /// When the event happened; of a run of skipped instants the newest.
        let due: Timestamp
        /// Of a run of skipped instants the oldest, and their number.
        let since: Timestamp?
        let skipped: Int?
        let firedBy: String
        let origin: String?
        /// Nil while the fire is still to be performed.
        let outcome: String?
        let reason: String?
        let error: String?
        let taskID: String
        let received: Timestamp
        let rendered: Timestamp?
        let finished: Timestamp?
        let attempts: Int
    }

    /// The place of an entry, for the next page.
    struct Place: Sendable {
        let due: Timestamp
        let id: Int
    }

    /// Entries of a hook whose events lie in a range, newest first.
    func entries(
        of name: HookName,
        from start: Timestamp,
        to end: Timestamp,
        before place: Place?,
        limit: Int
    ) async throws -> [Entry] {
        let bound: SQL =
            if let place { "and (due, fire_id) < (\(place.due), \(place.id))" } else { "" }
        let columns: SQL = """
            fire_id, due, since, skipped, fired_by, origin, outcome, reason, left(error, 4000) as error, task_id,
            started, rendered, finished, attempts
            """
        // A run of skipped instants stands at its newest one, which may lie beyond the range.
        return try await pool.query(
            """
            (select \(columns) from hooks.fires
                where hook_group_id = \(name.group) and hook_id = \(name.hook)
                    and due >= \(start) and due < \(end) \(bound)
                order by due desc, fire_id desc limit \(limit))
            union all
            (select \(columns) from hooks.fires
                where hook_group_id = \(name.group) and hook_id = \(name.hook)
                    and since is not null and since < \(end) and due >= \(end) \(bound)
                order by due desc, fire_id desc limit \(limit))
            order by due desc, fire_id desc limit \(limit)
            """
        ).map(Entry.init(row:))
    }

    /// The instants of a range that are settled: with a task, declined by the template, or still to be performed.
    func settled(
        of name: HookName,
        from start: Timestamp,
        to end: Timestamp,
        on connection: PostgresConnection
    ) async throws -> Set<Timestamp> {
        let rows = try await connection.query(
            """
            select due from hooks.fires
            where hook_group_id = \(name.group) and hook_id = \(name.hook) and due >= \(start) and due < \(end)
                and fired_by = 'schedule' and since is null
                and (state <> 'done' or outcome in ('created', 'declined'))
            """
        )
        return Set(try rows.map { try $0.timestamp("due") })
    }
}

extension LedgerStore.Entry {
    init(row: PostgresRow) throws {
        self.init(
            id: try row.int("fire_id"),
            due: try row.timestamp("due"),
            since: try row.optionalTimestamp("since"),
            skipped: try row.optionalInt("skipped"),
            firedBy: try row.string("fired_by"),
            origin: try row.optionalString("origin"),
            outcome: try row.optionalString("outcome"),
            reason: try row.optionalString("reason"),
            error: try row.optionalString("error"),
            taskID: try row.string("task_id"),
            received: try row.timestamp("started"),
            rendered: try row.optionalTimestamp("rendered"),
            finished: try row.optionalTimestamp("finished"),
            attempts: try row.int("attempts")
        )
    }

    /// The entry as clients read it.
    var json: JSONValue {
        var json: JSONObject = ["due": JSONValue(due.iso8601)]
        func add(_ key: String, _ value: String?) {
            if let value, !value.isEmpty { json[key] = JSONValue(value) }
        }
        if outcome == "skipped" {
            json["since"] = JSONValue((since ?? due).iso8601)
            json["skipped"] = JSONValue(skipped ?? 1)
        }
        json["firedBy"] = JSONValue(firedBy)
        add("origin", origin)
        json["outcome"] = JSONValue(outcome ?? "pending")
        add("reason", reason)
        add("error", error)
        add("taskId", taskID)
        json["received"] = JSONValue(received.iso8601)
        add("rendered", rendered?.iso8601)
        add("finished", finished?.iso8601)
        json["attempts"] = JSONValue(attempts)
        if outcome != "skipped" { json["latency"] = latency }
        return .object(json)
    }

    /// How long each phase took, in milliseconds; clocks that disagree make no negative times.
    private var latency: JSONValue {
        var latency: JSONObject = ["received": Self.milliseconds(from: due, to: received)]
        if let rendered { latency["rendered"] = Self.milliseconds(from: received, to: rendered) }
        if let finished {
            latency["finished"] = Self.milliseconds(from: rendered ?? received, to: finished)
            latency["total"] = Self.milliseconds(from: due, to: finished)
        }
        return .object(latency)
    }

    private static func milliseconds(from start: Timestamp, to end: Timestamp) -> JSONValue {
        JSONValue(Int(max(0, end.milliseconds - start.milliseconds)))
    }
}
