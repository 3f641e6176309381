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

    private struct State: Sendable {
        var seen: [Key: Seen] = [:]
        /// When the activity of a worker that took nothing was last worth writing down.
        var written: [Key: Timestamp] = [:]
    }

    /// How stale the date of a worker's last activity may become.
    private static let staleness: Duration = .seconds(10)

    private let pool: PostgresPool
    private let state = Mutex(State())

    /// Writes to the tables of the schema `tcl`.
    public init(pool: PostgresPool) {
        self.pool = pool
    }

    /// Notes that a worker asked, and what it got.
    public func note(_ taskQueueID: String, _ worker: WorkerName, runs: [(taskID: String, runID: Int)], now: Timestamp)
    {
        let taken: [JSONValue] = runs.map { ["taskId": JSONValue($0.taskID), "runId": JSONValue($0.runID)] }
        state.withLock { state in
            let key = Key(queue: taskQueueID, worker: worker)
            if taken.isEmpty, let written = state.written[key], written > now - Self.staleness { return }
            state.written[key] = now
            var entry = state.seen[key] ?? Seen(last: now)
            entry.last = max(entry.last, now)
            entry.runs = Array((entry.runs + taken).suffix(20))
            state.seen[key] = entry
        }
    }

    /// Writes down what was noted since the last time: two statements, however many workers there are.
    public func flush() async throws {
        let notes = state.withLock { state in
            defer { state.seen = [:] }
            if let latest = state.written.values.max() {
                state.written = state.written.filter { $0.value > latest - Self.staleness }
            }
            return state.seen
        }
        guard !notes.isEmpty else { return }
        // Sorted, so that two instances never wait for each other in a circle.
        let sorted = notes.sorted {
            ($0.key.queue, $0.key.worker.group, $0.key.worker.id) < (
                $1.key.queue, $1.key.worker.group, $1.key.worker.id
            )
        }
        do {
            _ = try await pool.pipeline(Self.statements(sorted.map { ($0.key, $0.value) }))
        } catch {
            restore(notes)
            throw error
        }
    }

    /// Takes back what could not be written.
    private func restore(_ notes: [Key: Seen]) {
        state.withLock { state in
            for (key, old) in notes {
                guard var entry = state.seen[key] else {
                    state.seen[key] = old
                    continue
                }
                entry.runs = Array((old.runs + entry.runs).suffix(20))
                state.seen[key] = entry
            }
        }
    }

    private static func statements(_ notes: [(key: Key, seen: Seen)]) -> [SQL] {
        var queues: [String: Timestamp] = [:]
        for (key, seen) in notes { queues[key.queue] = max(queues[key.queue] ?? seen.last, seen.last) }
        let names = queues.keys.sorted()
        let dates = names.map { queues[$0] ?? Timestamp(milliseconds: 0) }
        return [
            """
            insert into tcl.queues (task_queue_id, expires, last_date_active)
            select id, last + interval '1 day', last
            from unnest(\(names)::text[], \(dates)::timestamptz[]) as q (id, last) order by id
            on conflict (task_queue_id) do update set expires = greatest(queues.expires, excluded.expires),
                last_date_active = greatest(queues.last_date_active, excluded.last_date_active)
            """,
            """
            insert into tcl.workers (task_queue_id, worker_group, worker_id, first_claim, last_date_active, expires,
                recent_tasks)
            select queue, worker_group, worker_id, last, last, last + interval '1 day', runs::json
            from unnest(\(notes.map(\.key.queue))::text[], \(notes.map(\.key.worker.group))::text[],
                \(notes.map(\.key.worker.id))::text[], \(notes.map(\.seen.last))::timestamptz[],
                \(notes.map { JSONValue.array($0.seen.runs).text() })::text[])
                as w (queue, worker_group, worker_id, last, runs)
            on conflict (task_queue_id, worker_group, worker_id) do update
            set expires = greatest(workers.expires, excluded.expires),
                last_date_active = greatest(workers.last_date_active, excluded.last_date_active),
                recent_tasks = case when json_array_length(excluded.recent_tasks) = 0 then workers.recent_tasks else (
                    select coalesce(json_agg(run order by place), '[]') from (
                        select run, place from json_array_elements((
                            workers.recent_tasks::jsonb || excluded.recent_tasks::jsonb)::json)
                            with ordinality as r (run, place) order by place desc limit 20
                    ) newest
                ) end
            """,
        ]
    }
}
