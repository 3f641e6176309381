// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
import Postgres
import Pulse

/// What many tasks want of the table of jobs at the same moment, done in one transaction for all of them.
///
/// Nobody is answered before the commit that holds their change. What does not go with others is left to `JobStore`.
struct JobsTogether: Sendable {
    let pool: PostgresPool
    let outbox: Outbox
    let exchanges: RollerExchanges
    let rules: NotificationRules

    /// Nobody may wait long for a row while others wait behind: each by itself may.
    private static let patience: SQL = "set local lock_timeout = '1s'"

    // MARK: - Beginnings

    /// A job that somebody asks for.
    struct Creation: Sendable {
        var new: NewJob
        var duplicates: DuplicatePolicy
        var limits: JobLimits?

        /// Whether it can be stored with others: it asks for nothing that has to be looked up first.
        var goesWithOthers: Bool {
            new.idempotencyKey == nil && !new.supersedesSoftReboots && (new.machine == nil || new.machineRecord != nil)
        }

        /// The machine whose limit it counts for.
        var limitedMachine: String? {
            limits != nil && new.action.isDestructive && !new.isDryRun ? new.machine : nil
        }
    }

    /// What became of it.
    enum Created: Sendable {
        case created(Job)
        /// Not stored; whoever asked has to be told why, which takes a look of its own.
        case alone(isCounted: Bool)
    }

    /// Some have to be left out.
    private struct TooMany: Error {
        var places: Set<Int>
    }

    /// Stores jobs, and tells workers, the bus and people of them.
    func create(_ batch: [Creation], isAlone: Bool = false) async throws -> [Created] {
        let limits = batch.lazy.compactMap(\.limits).first
        var left = Set(batch.indices.filter { batch[$0].limits != nil && batch[$0].limits != limits })
        while true {
            let members = batch.indices.filter { !left.contains($0) }
            guard !members.isEmpty else { return batch.map { _ in .alone(isCounted: false) } }
            do {
                let jobs = try await create(batch, members, limits, isAlone)
                if !jobs.isEmpty { outbox.wake() }
                return batch.indices.map { place in
                    if let job = jobs[batch[place].new.id] { return .created(job) }
                    return .alone(isCounted: !left.contains(place))
                }
            } catch let refusal as TooMany {
                // Nothing was kept; those that may do it again without the others.
                left.formUnion(refusal.places)
            }
        }
    }

    private func create(
        _ batch: [Creation],
        _ members: [Int],
        _ limits: JobLimits?,
        _ isAlone: Bool
    ) async throws -> [String: Job] {
        try await pool.transaction { connection in
            if !isAlone { connection.later([Self.patience]) }
            let counted = members.filter { batch[$0].limits != nil }
            var statements = [Self.insertion(of: members.map { batch[$0] })]
            if let limits, !counted.isEmpty {
                let keys = counted.map { "client:\(batch[$0].new.clientID)" }
                statements.insert(JobStore.counting(keys, limits.perClientAndMinute, seconds: 60), at: 0)
            }
            let answers = try await connection.pipeline(statements)
            if !counted.isEmpty {
                let passed = Set(try answers[0].map { try $0.string("key") })
                let refused = counted.filter { !passed.contains("client:\(batch[$0].new.clientID)") }
                guard refused.isEmpty else { throw TooMany(places: Set(refused)) }
            }
            let jobs = try JobStore.jobs(answers.last ?? []).map(\.job)
            let byID = Dictionary(uniqueKeysWithValues: jobs.map { ($0.id, $0) })
            let hitting = members.filter { byID[batch[$0].new.id] != nil && batch[$0].limitedMachine != nil }
            if let limits, !hitting.isEmpty {
                let keys = hitting.map { "machine:\(batch[$0].limitedMachine ?? "")" }
                let rows = try await connection.query(
                    JobStore.counting(keys, limits.perMachineAndHour, seconds: 3600)
                )
                let passed = Set(try rows.map { try $0.string("key") })
                let refused = hitting.filter { !passed.contains("machine:\(batch[$0].limitedMachine ?? "")") }
                guard refused.isEmpty else { throw TooMany(places: Set(refused)) }
            }
            try await announce(batch, members, byID, on: connection)
            return byID
        }
    }

    private func announce(
        _ batch: [Creation],
        _ members: [Int],
        _ jobs: [String: Job],
        on connection: PostgresConnection
    ) async throws {
        var messages: [PulseMessage] = []
        for place in members {
            let new = batch[place].new
            guard let job = jobs[new.id] else { continue }
            try await NotificationStore.add(rules.accepted(job, machine: new.machineRecord), on: connection)
            messages.append(exchanges.dispatchMessage(job))
            messages.append(exchanges.eventMessage(job, machine: new.machineRecord?.name))
        }
        try await outbox.add(messages, on: connection)
    }

    /// The statement that stores jobs, with the first line of their histories and who asked for them.
    ///
    /// In the order of the keys that keep duplicates apart, so that two of these never wait for each other.
    private static func insertion(of batch: [Creation]) -> SQL {
        """
        with n as materialized (
            select * from json_to_recordset(\(JSONValue.array(batch.map(record)))::json) as n (id uuid, task_name text,
                params jsonb, machine uuid, worker_id text, worker_group text, provisioner_id text, worker_type text,
                client_id text, http_origin text, source text, dry_run boolean, is_destructive boolean,
                is_read_only boolean, priority int, pool text, deadline timestamptz, duplicate_key text, parent_job uuid,
                source_ip text, request_id text, audit jsonb)
        ), j as (
            insert into roller.jobs (id, task_name, params, machine, tc_worker, worker_id, worker_group, provisioner_id,
                worker_type, client_id, http_origin, source, dry_run, is_destructive, is_read_only, priority, pool,
                deadline, duplicate_key, parent_job)
            select id, task_name, params, machine,
                (select min(w.id) from roller.tc_workers w where w.worker_id = n.worker_id
                    and w.worker_group is not distinct from n.worker_group),
                worker_id, worker_group, provisioner_id, worker_type, client_id, http_origin, source, dry_run,
                is_destructive, is_read_only, priority, pool, deadline, duplicate_key, parent_job
            from n order by duplicate_key
            on conflict do nothing
            returning \(JobStore.columns)
        ), lines as (
            insert into roller.job_events (job, kind, data)
            select id, 'queued', jsonb_build_object('clientId', client_id) from j
        ), entries as (
            insert into roller.audit_log (client_id, source_ip, verb, object, after, request_id)
            select n.client_id, n.source_ip, 'job.create', 'job:' || n.id, n.audit, n.request_id
            from n join j on j.id = n.id
        )
        select *, null as machine_name from j
        """
    }

    private static func record(_ creation: Creation) -> JSONValue {
        let new = creation.new
        var record: JSONObject = [
            "id": .string(new.id), "task_name": .string(new.action.name), "params": .object(new.parameters),
            "worker_id": .string(new.worker.workerID), "client_id": .string(new.clientID),
            "source": .string(new.source.rawValue), "dry_run": JSONValue(new.isDryRun),
            "is_destructive": JSONValue(new.action.isDestructive), "is_read_only": JSONValue(new.action.isReadOnly),
            "priority": JSONValue(new.priority), "pool": .string(new.pool),
            "audit": Mask.masked(JobStore.auditRecord(new, machine: new.machineRecord?.name)),
        ]
        let optional: [(String, String?)] = [
            ("machine", new.machine), ("worker_group", new.worker.workerGroup),
            ("provisioner_id", new.worker.provisionerID), ("worker_type", new.worker.workerType),
            ("http_origin", new.origin), ("deadline", new.deadline?.iso8601), ("parent_job", new.parent),
            ("duplicate_key", creation.duplicates == .allow ? nil : new.duplicateKey),
            ("source_ip", new.sourceAddress), ("request_id", new.requestID),
        ]
        for (name, value) in optional {
            if let value { record[name] = .string(value) }
        }
        return .object(record)
    }

    // MARK: - Going on

    /// A step of a claimed job to `running` or `verifying`.
    struct Move: Sendable {
        var id: String
        var fence: Int
        var state: JobState
        var data: JSONObject
    }

    /// Moves jobs on; false for those whose claim is not the last one any more.
    func move(_ batch: [Move], isAlone: Bool = false) async throws -> [Bool] {
        let answers = try await pool.transaction { connection -> [Bool] in
            let found = try await changes(batch.map { ($0.id, Self.statement($0)) }, isAlone, on: connection)
            let begun = found.compactMap { $0 }.filter { $0.job.state == .running }
            try await outbox.add(begun.map { exchanges.eventMessage($0.job, machine: $0.machine) }, on: connection)
            var answers = found.map { $0 != nil }
            for (place, move) in batch.enumerated() where !answers[place] {
                // One that is there already is ours all the same.
                answers[place] = try await JobStore.holds(move.id, move.fence, on: connection)
            }
            return answers
        }
        outbox.wake()
        return answers
    }

    private static func statement(_ move: Move) -> SQL {
        """
        with j as (
            update roller.jobs set state = \(move.state.rawValue), updated = clock_timestamp(), waiting_for = null,
                started = coalesce(started, clock_timestamp()),
                duplicate_key = case when is_read_only then null else duplicate_key end
            where id = \(move.id)::uuid and fence = \(move.fence) and state in ('claimed', 'running', 'verifying')
                and state <> \(move.state.rawValue)
            returning \(JobStore.columns)
        ), lines as (
            insert into roller.job_events (job, kind, data)
            select id, \(move.state.rawValue), \(JSONValue.object(move.data)) from j
        )
        select *, (select m.name from roller.machines m where m.id = j.machine) as machine_name from j
        """
    }

    // MARK: - Ends

    /// The end of a claim's job.
    struct Ending: Sendable {
        var id: String
        var fence: Int
        var end: JobEnd
    }

    /// Ends jobs; false for those whose claim is not the last one any more, or that had ended before.
    func end(_ batch: [Ending], isAlone: Bool = false) async throws -> [Bool] {
        let answers = try await pool.transaction { connection -> [Bool] in
            let found = try await changes(batch.map { ($0.id, Self.statement($0)) }, isAlone, on: connection)
            var messages: [PulseMessage] = []
            for (ending, ended) in zip(batch, found) {
                guard let ended else { continue }
                if !rules.isSilent(ended.job) {
                    let machine = try await JobStore.machine(ended.job.machine, on: connection)
                    let texts = rules.ended(ended.job, machine: machine, summary: ending.end.summary)
                    try await NotificationStore.add(texts, on: connection)
                }
                messages.append(exchanges.eventMessage(ended.job, machine: ended.machine))
            }
            try await outbox.add(messages, on: connection)
            return found.map { $0 != nil }
        }
        outbox.wake()
        return answers
    }

    private static func statement(_ ending: Ending) -> SQL {
        let (id, end) = (ending.id, ending.end)
        let line = JobStore.endLine(summary: end.summary, reason: end.reason)
        return """
            with j as (
                update roller.jobs set state = \(end.state.rawValue), reason = \(end.reason), error_class = \(end.errorClass),
                    result = \(JSONValue.object(end.result)), bug_url = coalesce(\(end.bugURL), bug_url), waiting_for = null,
                    finished = clock_timestamp(), updated = clock_timestamp(), lease_until = null
                where id = \(id)::uuid and fence = \(ending.fence)
                    and state in ('queued', 'waiting', 'claimed', 'running', 'verifying')
                returning \(JobStore.columns)
            ), locks as (
                delete from roller.resource_locks where job = \(id)::uuid and exists (select from j)
            ), lines as (
                insert into roller.job_events (job, kind, data) select id, \(end.state.rawValue), \(line) from j
            )
            select *, (select m.name from roller.machines m where m.id = j.machine) as machine_name from j
            """
    }

    /// Runs one statement for each job, in one round trip.
    ///
    /// In the order of their ids, so that two of these never wait for each other. Nil where nothing was changed.
    private func changes(
        _ statements: [(id: String, sql: SQL)],
        _ isAlone: Bool,
        on connection: PostgresConnection
    ) async throws -> [JobStore.Found?] {
        let order = statements.indices.sorted { statements[$0].id < statements[$1].id }
        if !isAlone { connection.later([Self.patience]) }
        let answers = try await connection.pipeline(order.map { statements[$0].sql })
        var found = [JobStore.Found?](repeating: nil, count: statements.count)
        for (place, rows) in zip(order, answers) { found[place] = try JobStore.jobs(rows).first }
        return found
    }
}
