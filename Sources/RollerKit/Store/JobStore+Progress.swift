// SPDX-License-Identifier: MPL-2.0

package import JSON
import Outbox
package import Postgres
import Pulse

extension JobStore {
    // MARK: - What the worker of a job reports
    //
    // Every report carries the number of the claim. A worker whose claim is not the last one any more is told so by
    // `false` or nil, and changes nothing.

    /// Moves a claimed job on to `running` or `verifying`.
    package func transition(
        _ id: String,
        fence: Int,
        to state: JobState,
        note data: JSONObject = [:]
    ) async throws -> Bool {
        precondition(state == .running || state == .verifying, "workers begin and verify; finish() ends a job")
        return try await moves.add(JobsTogether.Move(id: id, fence: fence, state: state, data: data))
    }

    /// Begins an attempt and answers its number.
    package func beginAttempt(
        _ id: String,
        fence: Int,
        method: String,
        control: String?,
        arguments: [String] = []
    ) async throws -> Int? {
        try await pool.transaction { connection in
            guard try await Self.holds(id, fence, on: connection) else { return nil }
            let number = try await connection.query(
                """
                insert into roller.job_attempts (job, n, method, control, arguments)
                select \(id)::uuid, coalesce(max(n), 0) + 1, \(method), \(control), \(arguments)::text[]
                from roller.job_attempts where job = \(id)::uuid
                returning n
                """
            ).first?.int("n")
            try await note(
                id,
                "attempt",
                ["n": number.map { JSONValue($0) } ?? .null, "method": .string(method)],
                on: connection
            )
            return number
        }
    }

    /// Ends an attempt; the output is cut to what the log keeps.
    package func endAttempt(
        _ id: String,
        number: Int,
        fence: Int,
        outcome: AttemptOutcome,
        errorClass: String? = nil,
        exitCode: Int? = nil,
        summary: String? = nil,
        output: String? = nil
    ) async throws -> Bool {
        let output = output.map { Self.storable($0, limit: 64 << 10) }
        return try await pool.transaction { connection in
            guard try await Self.holds(id, fence, on: connection) else { return false }
            let ended = try await connection.query(
                """
                update roller.job_attempts set finished = clock_timestamp(), outcome = \(outcome.rawValue),
                    error_class = \(errorClass), exit_code = \(exitCode)::int, summary = \(summary), output = \(output)
                where job = \(id)::uuid and n = \(number) and finished is null returning method
                """
            )
            guard let method = try ended.first?.string("method") else { return true }
            var data: JSONObject = [
                "n": JSONValue(number), "method": .string(method), "outcome": .string(outcome.rawValue),
            ]
            if let errorClass { data["errorClass"] = .string(errorClass) }
            if let summary { data["summary"] = .string(summary) }
            try await note(id, "attempt-ended", data, on: connection)
            return true
        }
    }

    /// Adds text to the live log; it must hold no secrets any more.
    package func log(_ id: String, _ text: String) async throws {
        let text = Self.storable(text, limit: 16 << 10)
        _ = try await pool.execute(
            """
            insert into roller.job_events (job, kind, data)
            select id, 'log', \(["text": .string(text)] as JSONValue) from roller.jobs where id = \(id)::uuid
            """
        )
    }

    /// Adds something of another kind to a job's history.
    package func note(_ id: String, _ kind: String, _ data: JSONObject) async throws {
        try await pool.withConnection { connection in try await note(id, kind, data, on: connection) }
    }

    /// Ends a job: its row, its locks, what the bus and people are told, all or nothing.
    ///
    /// False means that the claim is not the last one any more, or that the job had ended before.
    package func finish(_ id: String, fence: Int, _ end: JobEnd) async throws -> Bool {
        try await ends.add(JobsTogether.Ending(id: id, fence: fence, end: end))
    }

    /// The line of a job's history that says how it ended.
    static func endLine(summary: String, reason: String?) -> JSONValue {
        var data: JSONObject = ["summary": .string(storable(summary, limit: 4000))]
        if let reason { data["reason"] = .string(reason) }
        return .object(data)
    }

    /// What goes with the end of a job that its worker does not report.
    func ended(_ job: Job, summary: String, on connection: PostgresConnection) async throws {
        let line = Self.endLine(summary: summary, reason: job.reason)
        connection.later([
            "delete from roller.resource_locks where job = \(job.id)::uuid",
            "insert into roller.job_events (job, kind, data) values (\(job.id)::uuid, \(job.state.rawValue), \(line))",
        ])
        let machine = try await Self.machine(job.machine, on: connection)
        try await NotificationStore.add(rules.ended(job, machine: machine, summary: summary), on: connection)
        try await outbox.add([exchanges.eventMessage(job, machine: machine?.name)], on: connection)
    }

    /// Tells people something about a running job, once for each key.
    package func alert(_ id: String, key: String, text: String) async throws {
        try await pool.transaction { try await alert(id, key: key, text: text, on: $0) }
    }

    /// The same in the transaction of what people are told of.
    package func alert(_ id: String, key: String, text: String, on connection: PostgresConnection) async throws {
        let rows = try await connection.query(
            "select \(Self.columns) from roller.jobs where id = \(id)::uuid for share"
        )
        guard let job = try rows.first.map(Job.init(row:)) else { return }
        let machine = try await Self.machine(job.machine, on: connection)
        try await NotificationStore.add(rules.alert(job, machine: machine, key: key, text: text), on: connection)
        try await note(id, "alert", ["text": .string(Self.storable(text, limit: 4000))], on: connection)
    }

    /// Whether a claim is the last one of a job that has not ended; keeps it so for the transaction.
    static func holds(_ id: String, _ fence: Int, on connection: PostgresConnection) async throws -> Bool {
        try await !connection.query(
            """
            select 1 as one from roller.jobs where id = \(id)::uuid and fence = \(fence)
                and state in ('claimed', 'running', 'verifying') for share
            """
        ).isEmpty
    }

    // MARK: - Cancelling

    /// What asking for the end of a job led to.
    package enum Cancellation: Sendable {
        /// Nobody had begun; it is over.
        case canceled(Job)
        /// Its worker stops at the next safe point.
        case requested(Job)
        /// It was over already.
        case ended(Job)
    }

    /// Cancels a job; nil if there is none.
    package func cancel(
        _ id: String,
        by clientID: String,
        sourceAddress: String? = nil,
        requestID: String? = nil
    ) async throws -> Cancellation? {
        guard JobID.isValid(id) else { return nil }
        let result = try await pool.transaction { connection -> Cancellation? in
            let found = try await connection.query(
                "select \(Self.columns) from roller.jobs where id = \(id)::uuid for no key update"
            ).first.map(Job.init(row:))
            guard let found else { return nil }
            guard !found.state.isTerminal else { return .ended(found) }
            let origin = (sourceAddress: sourceAddress, requestID: requestID)
            return try await cancel(found, by: clientID, origin, on: connection)
        }
        outbox.wake()
        return result
    }

    /// Cancels a job that has not ended and whose row is locked.
    func cancel(
        _ found: Job,
        by clientID: String,
        _ origin: (sourceAddress: String?, requestID: String?),
        on connection: PostgresConnection
    ) async throws -> Cancellation? {
        let id = found.id
        let isQueued = found.state == .queued || found.state == .waiting
        let changed = try await connection.query(
            """
            update roller.jobs set cancel_requested = coalesce(cancel_requested, clock_timestamp()),
                cancel_by = coalesce(cancel_by, \(clientID)), updated = clock_timestamp(),
                state = case when \(isQueued) then 'canceled' else state end,
                reason = case when \(isQueued) then 'canceled' else reason end,
                finished = case when \(isQueued) then clock_timestamp() end
            where id = \(id)::uuid returning \(Self.columns)
            """
        ).first.map(Job.init(row:))
        guard let job = changed else { return nil }
        try await AuditStore.add(
            AuditEntry(
                clientID: clientID,
                sourceAddress: origin.sourceAddress,
                verb: "job.cancel",
                object: "job:\(id)",
                before: ["state": .string(found.state.rawValue)],
                after: ["state": .string(job.state.rawValue)],
                requestID: origin.requestID
            ),
            on: connection
        )
        if isQueued {
            try await ended(job, summary: "canceled by \(clientID) before it began", on: connection)
            return .canceled(job)
        }
        try await note(id, "cancel-requested", ["clientId": .string(clientID)], on: connection)
        try await outbox.add([exchanges.cancelMessage(job)], on: connection)
        return .requested(job)
    }

    /// Text that PostgreSQL takes, with its middle left out where it is too long.
    static func storable(_ text: String, limit: Int) -> String {
        let clean = text.utf8.contains(0) ? text.replacing("\0", with: "\u{FFFD}") : text
        guard clean.utf8.count > limit else { return clean }
        let half = limit / 2 - 16
        return String(decoding: clean.utf8.prefix(half), as: UTF8.self) + "\n[…]\n"
            + String(decoding: clean.utf8.suffix(half), as: UTF8.self)
    }
}
