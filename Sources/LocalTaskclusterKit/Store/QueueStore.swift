// SPDX-License-Identifier: MPL-2.0
import Core
import JSON
public import Postgres
import Schedules

/// The queue's state in PostgreSQL.
///
/// Every method that changes something is one transaction with at most two round trips in the common case: the first
/// locks and reads, a pure transition decides, the second writes and commits. Messages are written to the outbox by
/// the same transaction. Rows are locked in the order status first, then pending or claim; whoever comes from the
/// other side (claiming, sweeping) takes both with `skip locked` and therefore never waits.
public struct QueueStore: Sendable {
    /// Where the connections come from.
    public let pool: PostgresPool
    /// How messages are named and built.
    public let messages: QueueMessages
    /// Who is told about committed changes.
    public let observer: QueueObserver
    /// How long a claim lasts.
    public let claimTimeout: Duration
    /// What addresses of tasks begin with.
    public let rootURL: String
    /// Stores what is created at the same time with one commit.
    let creations: Coalescer<NewTask, TaskStatus?>
    /// How many tasks are on their way into the database.
    let arriving: ArrivingTasks

    /// Uses the tables of the schema `tcl`.
    public init(
        pool: PostgresPool,
        messages: QueueMessages = QueueMessages(),
        observer: QueueObserver = QueueObserver(),
        claimTimeout: Duration = .seconds(1200),
        rootURL: String = "http://localhost"
    ) {
        self.pool = pool
        self.messages = messages
        self.observer = observer
        self.claimTimeout = claimTimeout
        self.rootURL = rootURL
        let arriving = ArrivingTasks()
        self.arriving = arriving
        creations = NewTask.coalescer(pool: pool, messages: messages, observer: observer, arriving: arriving)
    }
}

/// Callbacks after commit; none of them may block.
public struct QueueObserver: Sendable {
    /// So many runs have become claimable in this queue.
    public var pendingAdded: @Sendable (_ taskQueueID: String, _ count: Int) -> Void
    /// Some task has been resolved, so its dependents and its group are to be looked at; or somebody is to be told of an
    /// event.
    public var taskResolved: @Sendable () -> Void
    /// The outbox has new messages.
    public var messagesAdded: @Sendable () -> Void

    /// Tells whoever is interested; by default nobody.
    public init(
        pendingAdded: @escaping @Sendable (String, Int) -> Void = { _, _ in },
        taskResolved: @escaping @Sendable () -> Void = {},
        messagesAdded: @escaping @Sendable () -> Void = {}
    ) {
        self.pendingAdded = pendingAdded
        self.taskResolved = taskResolved
        self.messagesAdded = messagesAdded
    }
}

/// What a transaction decided: the answer, the statements that make it true, and whom to wake afterwards.
struct Decision<Answer: Sendable>: Sendable {
    var answer: Answer
    var statements: [SQL] = []
    var aftermath = Aftermath()
}

/// What has to be told to others once a transaction is committed.
struct Aftermath: Sendable {
    var added: [String: Int] = [:]
    var resolved = false
    var messages = false
    var notices = false
}

extension QueueStore {
    /// Reads, decides and writes in one transaction and two round trips.
    ///
    /// A deadlock or serialisation failure repeats the whole; `decide` must therefore have no effects.
    func transact<Answer: Sendable>(
        reading: [SQL],
        _ decide: ([[PostgresRow]]) throws -> Decision<Answer>
    ) async throws -> Answer {
        var attempt = 1
        while true {
            do {
                let decision = try await pool.withConnection { connection in
                    try await Self.transact(on: connection, reading: reading, decide)
                }
                notify(decision.aftermath)
                return decision.answer
            } catch let error as PostgresError where error.isSerializationFailure && attempt < 5 {
                attempt += 1
            }
        }
    }

    private static func transact<Answer: Sendable>(
        on connection: PostgresConnection,
        reading: [SQL],
        _ decide: ([[PostgresRow]]) throws -> Decision<Answer>
    ) async throws -> Decision<Answer> {
        do {
            let rows = try await connection.pipeline(["begin"] + reading)
            let decision = try decide(Array(rows.dropFirst()))
            _ = try await connection.pipeline(decision.statements + ["commit"])
            return decision
        } catch {
            _ = try? await connection.execute("rollback")
            throw error
        }
    }

    func notify(_ aftermath: Aftermath) { aftermath.tell(observer) }
}

extension Aftermath {
    /// Tells whom it concerns.
    func tell(_ observer: QueueObserver) {
        for (queue, count) in added { observer.pendingAdded(queue, count) }
        if resolved || notices { observer.taskResolved() }
        if messages { observer.messagesAdded() }
    }
}

// MARK: - Statements

extension QueueStore {
    /// The columns that `TaskFacts.init(row:)` reads, of `tcl.tasks t` and `tcl.task_status s`.
    static let statusColumns = """
        t.task_id, t.task_queue_id, t.scheduler_id, t.project_id, t.task_group_id, t.priority, t.deadline, t.expires, \
        t.retries, t.routes, t.tags, s.retries_left, s.runs, s.ever_resolved
        """

    /// Locks and reads the status of one task.
    static func lock(_ taskID: String) -> SQL {
        """
        select \(unsafe: statusColumns) from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
        where s.task_id = \(taskID) for update of s
        """
    }

    /// The statements that store a changed status and everything that follows from the transition.
    func statements(
        _ transition: Transition,
        _ facts: TaskFacts,
        now: Timestamp,
        aftermath: inout Aftermath
    ) -> [SQL] {
        let status = facts.status
        var statements: [SQL] = []
        if transition.isChange {
            statements.append(
                """
                update tcl.task_status set state = \(status.state), retries_left = \(status.retriesLeft),
                    runs = \(status.runsText)::json, ever_resolved = ever_resolved or \(transition.isFinal)
                where task_id = \(status.taskID)
                """
            )
        }
        if let run = transition.dequeued {
            statements.append("delete from tcl.pending where task_id = \(status.taskID) and run_id = \(run)")
        }
        if let run = transition.released {
            statements.append("delete from tcl.claims where task_id = \(status.taskID) and run_id = \(run)")
        }
        if let run = transition.enqueued {
            statements.append(Self.enqueue(run, status, now: now))
            aftermath.added[status.taskQueueID, default: 0] += 1
        }
        if transition.isFinal {
            statements.append(
                """
                insert into tcl.resolutions (task_id, task_group_id, state, resolved)
                values (\(status.taskID), \(status.taskGroupID), \(status.state), \(now))
                """
            )
            aftermath.resolved = true
        }
        for event in transition.events {
            statements.append(Self.announce(messages.message(event, facts)))
            aftermath.messages = true
        }
        if transition.isChange {
            let notices = Self.notices(
                of: transition.events.compactMap { $0.taskEvent(isFinal: transition.isFinal) },
                facts
            )
            statements += notices
            aftermath.notices = aftermath.notices || !notices.isEmpty
        }
        return statements
    }

    static func enqueue(_ run: Int, _ status: TaskStatus, now: Timestamp) -> SQL {
        """
        insert into tcl.pending (task_id, run_id, task_queue_id, priority, deadline, inserted)
        values (\(status.taskID), \(run), \(status.taskQueueID), \(status.priority.rawValue), \(status.deadline), \(now))
        """
    }

    static func announce(_ message: QueueMessage) -> SQL {
        """
        insert into tcl.outbox (exchange, routing_key, cc, body)
        values (\(message.exchange), \(message.routingKey), \(message.cc), \(message.body))
        """
    }
}

extension TaskFacts {
    /// Reads the columns `QueueStore.statusColumns`.
    init(row: PostgresRow) throws(PostgresError) {
        let runs = try row.json("runs").array ?? []
        let status = TaskStatus(
            taskID: try row.string("task_id"),
            taskQueueID: try row.string("task_queue_id"),
            schedulerID: try row.string("scheduler_id"),
            projectID: try row.string("project_id"),
            taskGroupID: try row.string("task_group_id"),
            priority: TaskPriority(rawValue: try row.int("priority")) ?? .lowest,
            deadline: try row.timestamp("deadline"),
            expires: try row.timestamp("expires"),
            retries: try row.int("retries"),
            retriesLeft: try row.int("retries_left"),
            runs: runs.compactMap { TaskRun(json: $0) }
        )
        self.init(status: status, routes: try row.strings("routes"), tags: try row.json("tags"))
    }
}
