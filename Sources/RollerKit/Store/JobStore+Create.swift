// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
import Postgres
import Pulse
import Schedules

extension JobStore {
    /// Stores a job and tells workers, the bus and people of it, unless the same was asked for before.
    ///
    /// Nil limits let everything pass.
    package func create(
        _ new: NewJob,
        duplicates: DuplicatePolicy = .join,
        limits: JobLimits? = nil
    ) async throws -> JobCreation {
        let wish = JobsTogether.Creation(new: new, duplicates: duplicates, limits: limits)
        guard wish.goesWithOthers else { return try await createAlone(wish, isCounted: false) }
        switch try await creations.add(wish) {
        case .created(let job): return .created(job)
        case .alone(let isCounted): return try await createAlone(wish, isCounted: isCounted)
        }
    }

    private func createAlone(_ wish: JobsTogether.Creation, isCounted: Bool) async throws -> JobCreation {
        let creation: JobCreation
        do {
            creation = try await pool.transaction { connection in
                try await create(wish.new, wish.duplicates, wish.limits, isCounted: isCounted, on: connection)
            }
        } catch let refusal as Throttled {
            // Thrown, so that nothing of the refused request is kept.
            return .throttled(seconds: refusal.seconds)
        }
        if case .created = creation { outbox.wake() }
        return creation
    }

    /// Too many requests; ends the transaction.
    private struct Throttled: Error {
        let seconds: Int
    }

    private func create(
        _ new: NewJob,
        _ duplicates: DuplicatePolicy,
        _ limits: JobLimits?,
        isCounted: Bool,
        on connection: PostgresConnection
    ) async throws -> JobCreation {
        if let key = new.idempotencyKey, let known = try await known(key, new, on: connection) { return known }
        if let limits, !isCounted {
            try await count("client:\(new.clientID)", limits.perClientAndMinute, seconds: 60, on: connection)
        }
        // The other job may end between our failing to insert and our looking for it; then it is our turn again.
        for _ in 0..<10 {
            if let job = try await insert(new, duplicates, on: connection) {
                if let limits, job.isDestructive, !job.isDryRun, let machine = job.machine {
                    try await count("machine:\(machine)", limits.perMachineAndHour, seconds: 3600, on: connection)
                }
                try await announce(job, new, on: connection)
                if new.supersedesSoftReboots { try await supersede(job, new, on: connection) }
                return .created(job)
            }
            if let key = new.idempotencyKey, let known = try await known(key, new, on: connection) { return known }
            let other = try await connection.query(
                """
                select \(Self.columns) from roller.jobs
                where duplicate_key = \(new.duplicateKey)
                    and state in ('queued', 'waiting', 'claimed', 'running', 'verifying')
                """
            ).first.map(Job.init(row:))
            if let other { return duplicates == .reject ? .rejected(other) : .joined(other) }
        }
        throw PostgresError(.server, "a job could neither be stored nor be found")
    }

    /// Asks gentle reboots of the machine to stop where that does no harm: somebody wants it done the hard way now.
    private func supersede(_ job: Job, _ new: NewJob, on connection: PostgresConnection) async throws {
        let gentle = try await connection.query(
            """
            select \(Self.columns) from roller.jobs
            where machine = \(job.machine)::uuid and task_name = 'reboot' and params ->> 'mode' = 'soft' and not dry_run
                and state in ('queued', 'waiting', 'claimed', 'running', 'verifying') and id <> \(job.id)::uuid
            order by id for no key update
            """
        )
        for row in gentle {
            let other = try Job(row: row)
            try await note(other.id, "superseded", ["by": .string(job.id)], on: connection)
            let origin = (sourceAddress: new.sourceAddress, requestID: new.requestID)
            _ = try await cancel(other, by: job.clientID, origin, on: connection)
        }
    }

    /// The job of an earlier request with the same key of the same client; keys are remembered for a day.
    private func known(
        _ key: String,
        _ new: NewJob,
        on connection: PostgresConnection
    ) async throws -> JobCreation? {
        _ = try await connection.execute(
            """
            update roller.jobs set idempotency_key = null
            where client_id = \(new.clientID) and idempotency_key = \(key)
                and created <= clock_timestamp() - interval '24 hours'
            """
        )
        let job = try await connection.query(
            """
            select \(Self.columns) from roller.jobs
            where client_id = \(new.clientID) and idempotency_key = \(key)
            """
        ).first.map(Job.init(row:))
        guard let job else { return nil }
        let isSame =
            job.taskName == new.action.name && job.machine == new.machine && job.isDryRun == new.isDryRun
            && job.worker.workerID == new.worker.workerID && job.parameters == new.parameters
        return isSame ? .repeated(job) : .keyTaken(job)
    }

    /// Counts one more event of a window that begins with its first event; refuses what is too much.
    private func count(_ key: String, _ limit: Int, seconds: Int, on connection: PostgresConnection) async throws {
        let counted = try await connection.query(Self.counting([key], limit, seconds: seconds))
        guard counted.isEmpty else { return }
        let left = try await connection.query(
            """
            select extract(epoch from started + \(seconds)::int * interval '1 second' - clock_timestamp())::float8 as left
            from roller.rate_windows where key = \(key)
            """
        ).first?.double("left")
        throw Throttled(seconds: max(1, Int((left ?? 1).rounded(.up))))
    }

    /// The statement that counts events, each key as often as it occurs, and answers the keys that were not too many.
    static func counting(_ keys: [String], _ limit: Int, seconds: Int) -> SQL {
        """
        insert into roller.rate_windows as w (key, started, count)
        select key, clock_timestamp(), count(*) from unnest(\(keys)::text[]) as key
        group by key having count(*) <= greatest(1, \(limit)::bigint) order by key
        on conflict (key) do update set
            started = case when w.started <= clock_timestamp() - \(seconds)::int * interval '1 second'
                then clock_timestamp() else w.started end,
            count = case when w.started <= clock_timestamp() - \(seconds)::int * interval '1 second'
                then excluded.count else w.count + excluded.count end
        where w.count + excluded.count <= \(limit)::bigint
            or w.started <= clock_timestamp() - \(seconds)::int * interval '1 second'
        returning w.key
        """
    }

    /// What the audit log keeps of a job that was asked for.
    static func auditRecord(_ new: NewJob, machine: String?) -> JSONValue {
        [
            "taskName": .string(new.action.name), "workerId": .string(new.worker.workerID),
            "machine": machine.map { .string($0) } ?? .null, "dryRun": JSONValue(new.isDryRun),
            "params": .object(new.parameters),
        ]
    }

    /// The stored job; nil if another one stands for it.
    private func insert(
        _ new: NewJob,
        _ duplicates: DuplicatePolicy,
        on connection: PostgresConnection
    ) async throws -> Job? {
        let duplicateKey = duplicates == .allow ? nil : new.duplicateKey
        return try await connection.query(
            """
            insert into roller.jobs (id, task_name, params, machine, tc_worker, worker_id, worker_group, provisioner_id,
                worker_type, client_id, http_origin, source, dry_run, is_destructive, is_read_only, priority, pool,
                deadline, idempotency_key, duplicate_key, parent_job)
            values (\(new.id)::uuid, \(new.action.name), \(JSONValue.object(new.parameters)), \(new.machine)::uuid,
                (select min(id) from roller.tc_workers where worker_id = \(new.worker.workerID)
                    and worker_group is not distinct from \(new.worker.workerGroup)::text),
                \(new.worker.workerID), \(new.worker.workerGroup), \(new.worker.provisionerID), \(new.worker.workerType),
                \(new.clientID), \(new.origin), \(new.source.rawValue), \(new.isDryRun), \(new.action.isDestructive),
                \(new.action.isReadOnly), \(new.priority), \(new.pool), \(new.deadline), \(new.idempotencyKey),
                \(duplicateKey), \(new.parent)::uuid)
            on conflict do nothing
            returning \(Self.columns)
            """
        ).first.map(Job.init(row:))
    }

    private func announce(_ job: Job, _ new: NewJob, on connection: PostgresConnection) async throws {
        let machine =
            if let known = new.machineRecord { known } else { try await Self.machine(job.machine, on: connection) }
        let entry = AuditEntry(
            clientID: job.clientID,
            sourceAddress: new.sourceAddress,
            verb: "job.create",
            object: "job:\(job.id)",
            after: Self.auditRecord(new, machine: machine?.name),
            requestID: new.requestID
        )
        connection.later([
            Self.line(job.id, "queued", ["clientId": .string(job.clientID)]), AuditStore.statement(entry),
        ])
        try await NotificationStore.add(rules.accepted(job, machine: machine), on: connection)
        try await outbox.add(
            [exchanges.dispatchMessage(job), exchanges.eventMessage(job, machine: machine?.name)],
            on: connection
        )
    }
}
