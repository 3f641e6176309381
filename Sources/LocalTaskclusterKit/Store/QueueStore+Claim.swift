// SPDX-License-Identifier: MPL-2.0
import Postgres
public import Schedules

import JSON
import Taskcluster

/// A run that a worker has just taken.
public struct TaskClaim: Sendable {
    /// The status with the run running.
    public let status: TaskStatus
    /// The run taken.
    public let runID: Int
    /// Who took it.
    public let worker: WorkerName
    /// The end of the claim.
    public let takenUntil: Timestamp
    /// The exact text of the definition.
    public let definition: String
    /// What the task may do.
    public let scopes: [String]
    /// Tells this claim from later ones of the same run.
    public let claimID: String
}

extension QueueStore {
    /// Takes up to `count` runs of a queue, the most urgent and then the oldest first.
    ///
    /// Runs that other transactions are busy with are passed over; a quarantined worker gets nothing.
    public func claim(
        from taskQueueID: String,
        by worker: WorkerName,
        count: Int,
        now: Timestamp
    ) async throws -> [TaskClaim] {
        let pick: SQL = """
            select \(unsafe: Self.statusColumns), p.run_id, p.seq, t.definition::text as definition
            from tcl.pending p join tcl.task_status s on s.task_id = p.task_id join tcl.tasks t on t.task_id = p.task_id
            where p.task_queue_id = \(taskQueueID) and p.deadline > \(now) and not exists (
                select from tcl.workers w where w.task_queue_id = \(taskQueueID) and w.worker_group = \(worker.group)
                    and w.worker_id = \(worker.id) and w.quarantine_until > \(now))
            order by p.priority desc, p.seq limit \(count) for update of p, s skip locked
            """
        // The index has the order. A plan made while little waited would otherwise read and sort all that waits now.
        return try await transact(reading: ["set local enable_sort = off", pick]) { rows in
            try take(rows[1], worker: worker, now: now)
        }
    }

    /// Takes one particular run, as the deprecated `claimTask` does.
    ///
    /// The worker that already has the run gets the same claim again.
    public func claim(taskID: String, run: Int, by worker: WorkerName, now: Timestamp) async throws -> TaskClaim {
        let pick: SQL = """
            select \(unsafe: Self.statusColumns), \(run)::smallint as run_id, coalesce(p.seq, 0) as seq,
                t.definition::text as definition, c.claim_id
            from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
            left join tcl.pending p on p.task_id = s.task_id and p.run_id = \(run)
            left join tcl.claims c on c.task_id = s.task_id and c.run_id = \(run)
            where s.task_id = \(taskID) for update of s
            """
        return try await transact(reading: [pick]) { rows in
            guard let row = rows[0].first else { throw QueueProblem.noTask(taskID) }
            let status = try TaskFacts(row: row).status
            if status.runs.indices.contains(run), status.runs[run].state == .running, status.runs[run].worker == worker,
                let claimID = try row.optionalString("claim_id"), now < status.deadline
            {
                return Decision(answer: try Self.claimed(row, status, run: run, claimID: claimID))
            }
            var copy = status
            do {
                _ = try copy.claim(run: run, worker: worker, takenUntil: now + claimTimeout, now: now)
            } catch let refusal as TransitionRefusal {
                throw QueueProblem(refusal)
            }
            let taken = try take(rows[0], worker: worker, now: now)
            guard let claim = taken.answer.first else { throw QueueProblem.noTask(taskID) }
            return Decision(answer: claim, statements: taken.statements, aftermath: taken.aftermath)
        }
    }

    private func take(_ rows: [PostgresRow], worker: WorkerName, now: Timestamp) throws -> Decision<[TaskClaim]> {
        var decision = Decision<[TaskClaim]>(answer: [])
        guard !rows.isEmpty else { return decision }
        var ids: [String] = []
        var runs: [Int] = []
        var texts: [String] = []
        var claimIDs: [String] = []
        var priorities: [Int] = []
        var places: [Int] = []
        let takenUntil = now + claimTimeout
        for row in rows {
            var facts = try TaskFacts(row: row)
            let run = try row.int("run_id")
            // A row that does not fit its status is stale: the claim drops it below and nobody gets it.
            guard let transition = try? facts.status.claim(run: run, worker: worker, takenUntil: takenUntil, now: now)
            else {
                decision.statements.append(
                    "delete from tcl.pending where task_id = \(facts.status.taskID) and run_id = \(run)"
                )
                continue
            }
            let claim = try Self.claimed(row, facts.status, run: run, claimID: Slugid.make())
            decision.answer.append(claim)
            ids.append(facts.status.taskID)
            runs.append(run)
            texts.append(facts.status.runsText)
            claimIDs.append(claim.claimID)
            priorities.append(facts.status.priority.rawValue)
            places.append(try row.int("seq"))
            decision.statements += transition.events.map { Self.announce(messages.message($0, facts)) }
            let notices = Self.notices(of: [.running], facts)
            decision.statements += notices
            decision.aftermath.notices = decision.aftermath.notices || !notices.isEmpty
        }
        guard let queue = decision.answer.first?.status.taskQueueID else { return decision }
        decision.aftermath.messages = true
        decision.statements.insert(
            """
            with c as (
                select * from unnest(\(ids)::text[], \(runs)::bigint[], \(texts)::text[], \(claimIDs)::text[],
                    \(priorities)::bigint[], \(places)::bigint[]) as c (task_id, run_id, runs, claim_id, priority, seq)
            ), gone as (
                delete from tcl.pending p using c where p.task_id = c.task_id and p.run_id = c.run_id
            ), changed as (
                update tcl.task_status s set state = 'running', runs = c.runs::json from c where s.task_id = c.task_id
            )
            insert into tcl.claims (task_id, run_id, task_queue_id, worker_group, worker_id, claim_id, taken_until,
                claimed, priority, seq)
            select task_id, run_id, \(queue)::text, \(worker.group)::text, \(worker.id)::text, claim_id,
                \(takenUntil)::timestamptz, \(now)::timestamptz, priority, seq from c
            """,
            at: 0
        )
        return decision
    }

    private static func claimed(
        _ row: PostgresRow,
        _ status: TaskStatus,
        run: Int,
        claimID: String
    ) throws -> TaskClaim {
        let definition = try row.string("definition")
        guard let worker = status.runs[run].worker, let takenUntil = status.runs[run].takenUntil else {
            throw QueueProblem(.conflict, "Run \(run) of task \(status.taskID) has no worker.")
        }
        return TaskClaim(
            status: status,
            runID: run,
            worker: worker,
            takenUntil: takenUntil,
            definition: definition,
            scopes: try JSONValue(parsing: definition)["scopes"]?.array?.compactMap(\.string) ?? [],
            claimID: claimID
        )
    }

    /// Gives back a claim whose answer could not be delivered, to its old place in the queue.
    ///
    /// Does nothing if the run has been reclaimed, resolved or has artifacts: then the worker did get the answer.
    public func handBack(_ claim: TaskClaim, now: Timestamp) async throws {
        let taskID = claim.status.taskID
        let run = claim.runID
        let reading: [SQL] = [
            Self.lock(taskID),
            """
            select c.seq, c.priority from tcl.claims c where c.task_id = \(taskID) and c.run_id = \(run)
                and c.claim_id = \(claim.claimID) and not c.reclaimed
                and not exists (select from tcl.artifacts a where a.task_id = \(taskID) and a.run_id = \(run))
            """,
        ]
        return try await transact(reading: reading) { rows in
            var decision = Decision<Void>(answer: ())
            guard let row = rows[0].first, let place = rows[1].first else { return decision }
            var facts = try TaskFacts(row: row)
            guard var transition = try? facts.status.handBack(run: run) else { return decision }
            transition.enqueued = nil
            decision.statements = statements(transition, facts, now: now, aftermath: &decision.aftermath)
            decision.statements.append(
                """
                insert into tcl.pending (task_id, run_id, task_queue_id, priority, seq, deadline, inserted)
                values (\(taskID), \(run), \(facts.status.taskQueueID), \(try place.int("priority")),
                    \(try place.int("seq")), \(facts.status.deadline), \(now))
                """
            )
            decision.aftermath.added[facts.status.taskQueueID] = 1
            return decision
        }
    }

    /// Extends a claim.
    public func reclaim(taskID: String, run: Int, now: Timestamp) async throws -> TaskClaim {
        let look: SQL = """
            select \(unsafe: Self.statusColumns), t.definition::text as definition, c.claim_id
            from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
            left join tcl.claims c on c.task_id = s.task_id and c.run_id = \(run)
            where s.task_id = \(taskID) for update of s
            """
        return try await transact(reading: [look]) { rows in
            guard let row = rows[0].first else { throw QueueProblem.noTask(taskID) }
            var facts = try TaskFacts(row: row)
            let takenUntil = now + claimTimeout
            var decision: Decision<TaskClaim>
            do {
                let transition = try facts.status.reclaim(run: run, takenUntil: takenUntil, now: now)
                let claimID = try row.optionalString("claim_id") ?? ""
                decision = Decision(answer: try Self.claimed(row, facts.status, run: run, claimID: claimID))
                decision.statements = statements(transition, facts, now: now, aftermath: &decision.aftermath)
            } catch let refusal as TransitionRefusal {
                throw QueueProblem(refusal)
            }
            decision.statements.append(
                """
                update tcl.claims set taken_until = \(decision.answer.takenUntil), reclaimed = true
                where task_id = \(taskID) and run_id = \(run)
                """
            )
            return decision
        }
    }
}
