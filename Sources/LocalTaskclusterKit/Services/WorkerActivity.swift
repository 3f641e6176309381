// SPDX-License-Identifier: MPL-2.0
import JSON
public import Postgres
public import Schedules
import Synchronization

/// Remembers which workers asked for work, and writes it down now and then rather than with every request.
public final class WorkerActivity: Sendable {
    private struct Key: Hashable {
        let queue: String
        let worker: WorkerName
    }

    private struct Seen: Sendable {
        var last: Timestamp
        var runs: [JSONValue] = []
    }

    private let pool: PostgresPool
    private let seen = Mutex<[Key: Seen]>([:])

    /// Writes to the tables of the schema `tcl`.
    public init(pool: PostgresPool) {
        self.pool = pool
    }

    /// Notes that a worker asked, and what it got.
    public func note(_ taskQueueID: String, _ worker: WorkerName, runs: [(taskID: String, runID: Int)], now: Timestamp)
    {
        let taken: [JSONValue] = runs.map { ["taskId": JSONValue($0.taskID), "runId": JSONValue($0.runID)] }
        seen.withLock { seen in
            let key = Key(queue: taskQueueID, worker: worker)
            var entry = seen[key] ?? Seen(last: now)
            entry.last = max(entry.last, now)
            entry.runs = Array((entry.runs + taken).suffix(20))
            seen[key] = entry
        }
    }

    /// Writes down what was noted since the last time.
    public func flush() async throws {
        let notes = seen.withLock { seen in
            defer { seen = [:] }
            return seen
        }
        guard !notes.isEmpty else { return }
        var statements: [SQL] = []
        // Sorted, so that two instances never wait for each other in a circle.
        let sorted = notes.sorted {
            ($0.key.queue, $0.key.worker.group, $0.key.worker.id) < (
                $1.key.queue, $1.key.worker.group, $1.key.worker.id
            )
        }
        for (key, entry) in sorted {
            let expires = entry.last + .seconds(24 * 3600)
            statements.append(
                """
                insert into tcl.queues (task_queue_id, expires, last_date_active)
                values (\(key.queue), \(expires), \(entry.last))
                on conflict (task_queue_id) do update set expires = greatest(queues.expires, excluded.expires),
                    last_date_active = greatest(queues.last_date_active, excluded.last_date_active)
                """
            )
            statements.append(
                """
                insert into tcl.workers (task_queue_id, worker_group, worker_id, first_claim, last_date_active, expires,
                    recent_tasks)
                values (\(key.queue), \(key.worker.group), \(key.worker.id), \(entry.last), \(entry.last), \(expires),
                    \(JSONValue.array(entry.runs)))
                on conflict (task_queue_id, worker_group, worker_id) do update
                set expires = greatest(workers.expires, excluded.expires),
                    last_date_active = greatest(workers.last_date_active, excluded.last_date_active),
                    recent_tasks = (
                        select coalesce(json_agg(run order by place), '[]') from (
                            select run, place from json_array_elements((
                                workers.recent_tasks::jsonb || excluded.recent_tasks::jsonb)::json)
                                with ordinality as r (run, place) order by place desc limit 20
                        ) newest
                    )
                """
            )
        }
        _ = try await pool.pipeline(statements)
    }
}
