// SPDX-License-Identifier: MPL-2.0
import Core
import JSON
import Postgres
import Schedules
import Synchronization

/// A task without dependencies on its way into the database.
struct NewTask: Sendable {
    let definition: TaskDefinition
    let now: Timestamp

    /// Stores tasks that are created at the same time in one transaction and one round trip.
    ///
    /// The answer is nil for a task that was not stored because its id is taken or its group refuses it. A statement that
    /// the server refuses is repeated for each task alone, so that only the task it is about fails.
    static func coalescer(
        pool: PostgresPool,
        messages: QueueMessages,
        observer: QueueObserver,
        arriving: ArrivingTasks
    ) -> Coalescer<NewTask, TaskStatus?> {
        let store: @Sendable ([NewTask]) async throws -> [TaskStatus?] = { tasks in
            let batch = try NewTaskBatch(tasks, messages: messages)
            let rows = try await pool.pipeline(batch.statements)
            let stored = Set(try rows[1].map { try $0.string("task_id") })
            batch.aftermath(of: stored).tell(observer)
            return batch.answers(stored)
        }
        return Coalescer(isAlone: { arriving.count <= 1 }) { tasks in
            do {
                return try await store(tasks).map { .success($0) }
            } catch  where tasks.count > 1 && isAboutOne(error) {
                var results: [Result<TaskStatus?, any Error>] = []
                for task in tasks {
                    do { results.append(.success(try await store([task])[0])) } catch {
                        results.append(.failure(error))
                    }
                }
                return results
            } catch {
                return tasks.map { _ in .failure(error) }
            }
        }
    }
}

/// Counts the tasks that somebody is about to create, so that who is alone need not look for company.
final class ArrivingTasks: Sendable {
    private let number = Atomic(0)

    var count: Int { number.load(ordering: .relaxed) }

    func begin(_ count: Int = 1) {
        number.add(count, ordering: .relaxed)
    }

    func end(_ count: Int = 1) {
        number.subtract(count, ordering: .relaxed)
    }
}

/// Whether a failure may come from a single task of several and nothing was stored.
private func isAboutOne(_ error: any Error) -> Bool {
    if let error = error as? PostgresError { return error.sqlState != nil }
    return error is QueueProblem
}

/// The statements that store several tasks, and what they mean for each.
private struct NewTaskBatch {
    private struct Entry {
        let task: TaskDefinition
        let status: TaskStatus
        let news: [QueueMessage]
    }

    /// In the order of their ids, so that two batches that share some wait for each other and not in a circle.
    private var entries: [Entry] = []
    /// Positions in `entries`, nil for a task whose id came before in the same batch.
    private var places: [Int?] = []
    private let now: Timestamp
    private let runs: String
    private let state: String

    init(_ tasks: [NewTask], messages: QueueMessages) throws(QueueProblem) {
        let now = tasks.map { $0.now }.max() ?? .now()
        self.now = now
        var first: [String: Int] = [:]
        for (position, task) in tasks.enumerated() where first[task.definition.taskID] == nil {
            first[task.definition.taskID] = position
        }
        var place: [Int: Int] = [:]
        for (index, position) in first.sorted(by: { $0.key < $1.key }).map(\.value).enumerated() {
            let task = tasks[position].definition
            var status = task.initialStatus
            let transition = try status.scheduled(now: now)
            let facts = TaskFacts(status: status, routes: task.routes, tags: task.tags)
            let news = [messages.defined(facts)] + transition.events.map { messages.message($0, facts) }
            entries.append(Entry(task: task, status: status, news: news))
            place[position] = index
        }
        places = tasks.indices.map { place[$0] }
        // All were scheduled at the same moment and nothing else has happened to them.
        runs = entries.first?.status.runsText ?? "[]"
        state = entries.first?.status.state ?? ""
    }

    /// What became of each task, given the ids that were stored.
    func answers(_ stored: Set<String>) -> [TaskStatus?] {
        places.map { place in
            guard let place, stored.contains(entries[place].task.taskID) else { return nil }
            return entries[place].status
        }
    }

    func aftermath(of stored: Set<String>) -> Aftermath {
        var aftermath = Aftermath(messages: !stored.isEmpty)
        for entry in entries where stored.contains(entry.task.taskID) {
            aftermath.added[entry.task.taskQueueID, default: 0] += 1
        }
        return aftermath
    }

    /// Opens the groups, then stores the tasks; the second answers with the ids of those that were stored.
    var statements: [SQL] { [groups, insertion] }

    private var groups: SQL {
        var schedulers: [String: String] = [:]
        for entry in entries where schedulers[entry.task.taskGroupID] == nil {
            schedulers[entry.task.taskGroupID] = entry.task.schedulerID
        }
        let sorted = schedulers.sorted { $0.key < $1.key }
        return """
            insert into tcl.groups (task_group_id, scheduler_id, created)
            select task_group_id, scheduler_id, \(now)::timestamptz
            from unnest(\(sorted.map { $0.key })::text[], \(sorted.map { $0.value })::text[]) as wanted (task_group_id, scheduler_id)
            on conflict do nothing
            """
    }

    private var insertion: SQL {
        let tasks = entries.map { $0.task }
        let wanted: SQL = """
            with wanted as (
                select * from unnest(\(tasks.map { $0.taskID })::text[], \(tasks.map { $0.taskQueueID })::text[],
                    \(tasks.map { $0.schedulerID })::text[], \(tasks.map { $0.projectID })::text[],
                    \(tasks.map { $0.taskGroupID })::text[], \(tasks.map { $0.priority.rawValue })::smallint[],
                    \(tasks.map { $0.retries })::smallint[], \(tasks.map { $0.deadline })::timestamptz[],
                    \(tasks.map { $0.expires })::timestamptz[], \(lists: tasks.map { $0.routes })::text[],
                    \(tasks.map { $0.tags }.map { $0.text() })::text[], \(tasks.map { $0.text })::text[])
                    as w (task_id, task_queue_id, scheduler_id, project_id, task_group_id, priority, retries, deadline,
                        expires, routes, tags, definition)
            )
            """
        // One look-up by key for each task, however the planner guesses: the groups may be many.
        let task: SQL = """
            , task as (
                insert into tcl.tasks (task_id, task_queue_id, scheduler_id, project_id, task_group_id, priority,
                    retries, deadline, expires, routes, tags, definition)
                select w.task_id, w.task_queue_id, w.scheduler_id, w.project_id, w.task_group_id, w.priority,
                    w.retries, w.deadline, w.expires, w.routes::text[], w.tags::json, w.definition::json
                from wanted w cross join lateral (
                    select from tcl.groups g where g.task_group_id = w.task_group_id
                        and g.scheduler_id = w.scheduler_id and g.sealed is null limit 1) allowed
                on conflict (task_id) do nothing
                returning task_id, task_queue_id, task_group_id, priority, retries, deadline
            )
            """
        let consequences: SQL = """
            , status as (
                insert into tcl.task_status (task_id, task_group_id, state, retries_left, runs)
                select task_id, task_group_id, \(state)::text, retries, \(runs)::json from task
            ), due as (
                insert into tcl.deadlines (task_id, due) select task_id, deadline from task
            ), waiting as (
                insert into tcl.pending (task_id, run_id, task_queue_id, priority, deadline, inserted)
                select task_id, 0, task_queue_id, priority, deadline, \(now)::timestamptz from task
            )
            """
        return wanted + task + consequences + announcements + " select task_id from task"
    }

    private var announcements: SQL {
        let news = entries.flatMap { entry in entry.news.map { (taskID: entry.task.taskID, message: $0) } }
        return """
            , news as (
                insert into tcl.outbox (exchange, routing_key, cc, body)
                select n.exchange, n.routing_key, n.cc::text[], n.body
                from task join unnest(\(news.map { $0.taskID })::text[], \(news.map { $0.message.exchange })::text[],
                    \(news.map { $0.message.routingKey })::text[], \(lists: news.map { $0.message.cc })::text[],
                    \(news.map { $0.message.body })::text[]) with ordinality
                    as n (task_id, exchange, routing_key, cc, body, position) using (task_id)
                order by n.position
            )
            """
    }
}

extension TaskStatus {
    /// Schedules a task that may not be refused any more: its dates have been checked.
    mutating func scheduled(now: Timestamp) throws(QueueProblem) -> Transition {
        do {
            return try schedule(now: now)
        } catch {
            throw QueueProblem(error)
        }
    }
}
