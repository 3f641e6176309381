// SPDX-License-Identifier: MPL-2.0
import Postgres
public import Schedules

import JSON

extension QueueStore {
    /// Resolves a running run as its worker reports; a repeated report changes nothing and is announced again.
    public func complete(
        taskID: String,
        run: Int,
        as resolution: RunResolution,
        now: Timestamp
    ) async throws -> TaskStatus {
        try await change(taskID, now: now) { status throws(TransitionRefusal) in
            try status.report(run: run, resolution, now: now)
        }
    }

    /// Cancels a task that is not resolved yet.
    public func cancelTask(_ taskID: String, now: Timestamp) async throws -> TaskStatus {
        try await change(taskID, now: now) { status throws(TransitionRefusal) in try status.cancel(now: now) }
    }

    /// Gives a task a new run.
    public func rerunTask(_ taskID: String, now: Timestamp) async throws -> TaskStatus {
        try await change(taskID, now: now) { status throws(TransitionRefusal) in try status.rerun(now: now) }
    }

    /// Makes a task pending whatever its dependencies are.
    public func scheduleTask(_ taskID: String, now: Timestamp) async throws -> TaskStatus {
        try await change(taskID, now: now) { status throws(TransitionRefusal) in try status.schedule(now: now) }
    }

    /// Changes how urgent a task is; a run that waits takes its new place at once.
    public func changePriority(of taskID: String, to priority: TaskPriority, now: Timestamp) async throws -> TaskStatus
    {
        let definition: SQL = """
            select t.definition::text as definition from tcl.tasks t where t.task_id = \(taskID) for update of t
            """
        return try await transact(reading: [Self.lock(taskID), definition]) { rows in
            guard let row = rows[0].first, let text = try rows[1].first?.string("definition") else {
                throw QueueProblem.noTask(taskID)
            }
            var facts = try TaskFacts(row: row)
            guard now < facts.status.deadline, try !row.bool("ever_resolved") else {
                throw QueueProblem(.conflict, "Task \(taskID) has been resolved or its deadline has passed.")
            }
            let old = facts.status.priority
            facts.status.priority = priority
            guard old != priority else { return Decision(answer: facts.status) }
            return Decision(
                answer: facts.status,
                statements: try priorityStatements(facts, from: old, definition: text),
                aftermath: Aftermath(messages: true)
            )
        }
    }

    /// Applies one transition to one task.
    private func change(
        _ taskID: String,
        now: Timestamp,
        _ apply: (inout TaskStatus) throws(TransitionRefusal) -> Transition
    ) async throws -> TaskStatus {
        try await transact(reading: [Self.lock(taskID)]) { rows in
            guard let row = rows[0].first else { throw QueueProblem.noTask(taskID) }
            var facts = try TaskFacts(row: row)
            let transition: Transition
            do {
                transition = try apply(&facts.status)
            } catch let refusal as TransitionRefusal {
                throw QueueProblem(refusal)
            }
            var decision = Decision(answer: facts.status)
            decision.statements = statements(transition, facts, now: now, aftermath: &decision.aftermath)
            return decision
        }
    }
}
