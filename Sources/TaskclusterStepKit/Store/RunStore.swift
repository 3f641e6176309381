// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import StepKit

/// What is known of a step's work at Taskcluster.
struct TaskRun: Sendable, Hashable {
    let stepID: Int
    /// The word for where the tasks come from.
    let mode: String
    var groupID: String?
    /// The task that makes the others; before the work has begun, the name it shall have.
    var taskID: String?
    /// A word by which a task that was triggered can be recognised.
    let nonce: String
    /// What is sent to begin the work, stored before it is sent.
    var intent: JSONValue?
    var intended: Timestamp?
    var hasBegun = false
    /// Whether the queue knew the group once.
    var wasSeen = false
    /// Counts what the bus says, so that a message during a look is not lost.
    var heard = 0
    var listed: Timestamp?
    /// When the action that cancels everything was triggered.
    var cancelledAll: Timestamp?
}

/// The work of steps in PostgreSQL; it changes with its step, under the step's lock.
struct RunStore: Sendable {
    let pool: PostgresPool
    private let table: SQL = "shipit_taskcluster.runs"
    private let columns: SQL = """
        step_id, mode, task_group_id, task_id, nonce, intent, intent_at, is_begun, was_seen, heard, listed_at,
        cancel_all_at
        """

    func run(_ id: Int) async throws -> TaskRun? {
        try await pool.query("select \(columns) from \(table) where step_id = \(id)").first.map { try Self.run($0) }
    }

    func run(_ id: Int, on connection: PostgresConnection) async throws -> TaskRun? {
        try await connection.query("select \(columns) from \(table) where step_id = \(id) for update").first
            .map { try Self.run($0) }
    }

    func add(_ run: TaskRun, on connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            insert into \(table) (step_id, mode, task_group_id, task_id, nonce, intent, is_begun)
            values (\(run.stepID), \(run.mode), \(run.groupID), \(run.taskID), \(run.nonce), \(run.intent),
                \(run.hasBegun))
            """
        )
    }

    func save(_ run: TaskRun, on connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            update \(table) set task_group_id = \(run.groupID), task_id = \(run.taskID), intent = \(run.intent),
                intent_at = \(run.intended), is_begun = \(run.hasBegun), was_seen = \(run.wasSeen),
                listed_at = \(run.listed), cancel_all_at = \(run.cancelledAll)
            where step_id = \(run.stepID)
            """
        )
    }

    /// The name of another step that follows a group; nobody else can begin to until the transaction ends.
    func follower(of group: String, besides id: Int, on connection: PostgresConnection) async throws -> String? {
        _ = try await connection.query(
            "select pg_advisory_xact_lock(hashtextextended(\("shipit_taskcluster group \(group)"), 0))"
        )
        return try await connection.query(
            """
            select s.uid from \(table) r join shipit_taskcluster.steps s on s.id = r.step_id
            where r.task_group_id = \(group) and s.deleted_at is null and s.id <> \(id) limit 1
            """
        ).first?.string("uid")
    }

    /// Notes that the queue has said something about a group or a task; answers the open steps that follow it, and when
    /// their group was listed last.
    func hear(group: String, task: String?) async throws -> [(id: Int, listed: Timestamp?)] {
        let rows = try await pool.query(
            """
            update \(table) r set heard = heard + 1 from shipit_taskcluster.steps s
            where (r.task_group_id = \(group) or r.task_id = \(task)) and s.id = r.step_id and s.deleted_at is null
                and s.state in ('pending', 'starting', 'running', 'stopping')
            returning r.step_id, r.listed_at
            """
        )
        return try rows.map { (try $0.int("step_id"), try $0.optionalTimestamp("listed_at")) }
    }

    /// The groups that open steps follow.
    func followedGroups() async throws -> [String] {
        try await pool.query(
            """
            select distinct r.task_group_id from shipit_taskcluster.steps s join \(table) r on r.step_id = s.id
            where s.deleted_at is null and s.state in ('pending', 'starting', 'running', 'stopping')
                and r.task_group_id is not null
            """
        ).map { try $0.string("task_group_id") }
    }

    private static func run(_ row: PostgresRow) throws -> TaskRun {
        TaskRun(
            stepID: try row.int("step_id"),
            mode: try row.string("mode"),
            groupID: try row.optionalString("task_group_id"),
            taskID: try row.optionalString("task_id"),
            nonce: try row.string("nonce"),
            intent: try row.optionalJSON("intent"),
            intended: try row.optionalTimestamp("intent_at"),
            hasBegun: try row.bool("is_begun"),
            wasSeen: try row.bool("was_seen"),
            heard: try row.int("heard"),
            listed: try row.optionalTimestamp("listed_at"),
            cancelledAll: try row.optionalTimestamp("cancel_all_at")
        )
    }
}
