// SPDX-License-Identifier: MPL-2.0
import Postgres
public import Schedules

import JSON

extension QueueStore {
    /// Ends running runs whose claims were not renewed; returns how many claims were looked at.
    public func expireClaims(limit: Int = 32, now: Timestamp) async throws -> Int {
        // A claim past its task's deadline is left to the deadline step.
        let due: SQL = """
            select \(unsafe: Self.statusColumns), c.run_id, c.taken_until
            from tcl.claims c join tcl.task_status s on s.task_id = c.task_id join tcl.tasks t on t.task_id = c.task_id
            where c.taken_until <= \(now) and t.deadline > \(now)
            order by c.taken_until limit \(limit) for update of c, s skip locked
            """
        return try await transact(reading: [due]) { rows in
            var decision = Decision(answer: rows[0].count)
            for row in rows[0] {
                var facts = try TaskFacts(row: row)
                let run = try row.int("run_id")
                let takenUntil = try row.timestamp("taken_until")
                if let transition = facts.status.expireClaim(run: run, takenUntil: takenUntil, now: now) {
                    decision.statements += statements(transition, facts, now: now, aftermath: &decision.aftermath)
                } else {
                    decision.statements.append(
                        "delete from tcl.claims where task_id = \(facts.status.taskID) and run_id = \(run)"
                    )
                }
            }
            return decision
        }
    }

    /// Ends unresolved tasks whose deadline lies `delay` back; returns how many deadlines were handled.
    public func handleDeadlines(delay: Duration, limit: Int = 32, now: Timestamp) async throws -> Int {
        let due: SQL = """
            select \(unsafe: Self.statusColumns)
            from tcl.deadlines d join tcl.task_status s on s.task_id = d.task_id join tcl.tasks t on t.task_id = d.task_id
            where d.due <= \(now - delay) order by d.due limit \(limit) for update of d, s skip locked
            """
        return try await transact(reading: [due]) { rows in
            var decision = Decision(answer: rows[0].count)
            var handled: [String] = []
            for row in rows[0] {
                var facts = try TaskFacts(row: row)
                handled.append(facts.status.taskID)
                guard let transition = facts.status.reachDeadline(now: now) else { continue }
                decision.statements += statements(transition, facts, now: now, aftermath: &decision.aftermath)
            }
            if !handled.isEmpty {
                decision.statements.append("delete from tcl.deadlines where task_id = any(\(handled)::text[])")
            }
            return decision
        }
    }

    /// Draws the consequences of final resolutions: schedules dependents, indexes, announces resolved groups.
    ///
    /// Takes a few resolutions and at most `limit` of the edges they satisfy, so that no lock is held for long; call
    /// again while it returns true.
    public func drawConsequences(limit: Int = 200, now: Timestamp) async throws -> Bool {
        let batch: SQL = """
            select id, task_id, task_group_id, state from tcl.resolutions order by id limit 16 for update skip locked
            """
        return try await pool.withConnection { connection in
            do {
                let resolutions = try await connection.pipeline(["begin", batch])[1]
                guard !resolutions.isEmpty else {
                    _ = try await connection.execute("rollback")
                    return false
                }
                let aftermath = try await drawConsequences(of: resolutions, limit: limit, now: now, on: connection)
                notify(aftermath)
                return true
            } catch {
                _ = try? await connection.execute("rollback")
                throw error
            }
        }
    }

    private func drawConsequences(
        of resolutions: [PostgresRow],
        limit: Int,
        now: Timestamp,
        on connection: PostgresConnection
    ) async throws -> Aftermath {
        let resolved = try resolutions.map { try $0.string("task_id") }
        let completed = try resolutions.filter { try $0.string("state") == "completed" }.map {
            try $0.string("task_id")
        }
        let groups = Set(try resolutions.map { try $0.string("task_group_id") }).sorted()
        let looked = try await connection.pipeline([
            Self.openEdges(resolved: resolved, completed: completed, limit: limit),
            Self.resolvedGroups(groups),
            Self.indexRoutes(of: completed),
        ])
        let edges = looked[0]
        var aftermath = Aftermath()
        var statements: [SQL] = []
        if !edges.isEmpty {
            let required = try edges.map { try $0.string("required") }
            let dependents = try edges.map { try $0.string("dependent") }
            var freed: [String: Int] = [:]
            for dependent in dependents { freed[dependent, default: 0] += 1 }
            statements.append(
                """
                update tcl.edges e set satisfied = true
                from unnest(\(required)::text[], \(dependents)::text[]) as x (required, dependent)
                where e.required = x.required and e.dependent = x.dependent
                """
            )
            statements += try await schedule(freed, now: now, aftermath: &aftermath, on: connection)
        }
        if edges.count < limit {
            for row in looked[1] {
                statements.append(Self.announce(messages.groupResolved(try TaskGroup(row: row))))
                aftermath.messages = true
            }
            for row in looked[2] { statements += try Self.indexing(row, now: now) }
            let ids = try resolutions.map { try $0.int("id") }
            statements.append("delete from tcl.resolutions where id = any(\(ids)::bigint[])")
        }
        _ = try await connection.pipeline(statements + ["commit"])
        return aftermath
    }

    /// Schedules the dependents that wait for nothing any more.
    private func schedule(
        _ freed: [String: Int],
        now: Timestamp,
        aftermath: inout Aftermath,
        on connection: PostgresConnection
    ) async throws -> [SQL] {
        let ids = freed.keys.sorted()
        let rows = try await connection.query(
            """
            select \(unsafe: Self.statusColumns), s.unsatisfied
            from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id
            where s.task_id = any(\(ids)::text[]) order by s.task_id for update of s
            """
        )
        let counts = ids.map { freed[$0] ?? 0 }
        var statements: [SQL] = [
            """
            update tcl.task_status s set unsatisfied = s.unsatisfied - x.count
            from unnest(\(ids)::text[], \(counts)::bigint[]) as x (task_id, count) where s.task_id = x.task_id
            """
        ]
        for row in rows {
            var facts = try TaskFacts(row: row)
            guard try row.int("unsatisfied") <= freed[facts.status.taskID] ?? 0,
                let transition = try? facts.status.schedule(now: now), transition.isChange
            else { continue }
            statements += self.statements(transition, facts, now: now, aftermath: &aftermath)
        }
        return statements
    }

    // MARK: - Statements

    private static func openEdges(resolved: [String], completed: [String], limit: Int) -> SQL {
        """
        select required, dependent from tcl.edges
        where required = any(\(resolved)::text[]) and not satisfied
            and (not completion or required = any(\(completed)::text[])) and required <> dependent
        order by dependent, required limit \(limit) for update
        """
    }

    /// The groups that have no task left that was never resolved.
    ///
    /// One look per group, which no planner can turn into a join with all unresolved tasks.
    private static func resolvedGroups(_ groups: [String]) -> SQL {
        """
        select g.task_group_id, g.scheduler_id, g.sealed,
            \(unsafe: Self.lastExpiry) as last_expiry
        from tcl.groups g where g.task_group_id = any(\(groups)::text[]) and (
            select u.task_id from tcl.task_status u where u.task_group_id = g.task_group_id and not u.ever_resolved
            limit 1) is null
        """
    }

    private static func indexRoutes(of completed: [String]) -> SQL {
        """
        select t.task_id, t.expires, t.definition -> 'extra' -> 'index' as index, t.routes
        from tcl.tasks t where t.task_id = any(\(completed)::text[])
            and exists (select from unnest(t.routes) route where route like 'index.%')
        """
    }

    private static func indexing(_ row: PostgresRow, now: Timestamp) throws -> [SQL] {
        let wishes = try row.optionalJSON("index")
        let expires = try row.timestamp("expires")
        let taskID = try row.string("task_id")
        return try row.strings("routes").flatMap { route -> [SQL] in
            guard route.hasPrefix("index."), let path = IndexPath(String(route.dropFirst(6))) else { return [] }
            let entry = IndexedTask(
                path: path,
                taskID: taskID,
                rank: wishes?["rank"]?.double ?? 0,
                data: wishes?["data"].flatMap { $0.object == nil ? nil : $0 } ?? .object([:]),
                expires: wishes?["expires"]?.string.flatMap { Timestamp($0) } ?? expires
            )
            return IndexStore.insertion(of: entry)
        }
    }
}

extension TaskGroup {
    /// Reads `task_group_id`, `scheduler_id`, `sealed` and `last_expiry`.
    init(row: PostgresRow) throws(PostgresError) {
        self.init(
            taskGroupID: try row.string("task_group_id"),
            schedulerID: try row.string("scheduler_id"),
            expires: (try row.optionalTimestamp("last_expiry") ?? Timestamp(milliseconds: 0)) + .seconds(3600),
            sealed: try row.optionalTimestamp("sealed")
        )
    }
}

extension QueueStore {
    /// Ends some running runs of a worker that is gone, as if it had said so itself; returns how many it ended.
    func abandon(worker: WorkerName, of taskQueueID: String, limit: Int = 32, now: Timestamp) async throws -> Int {
        let claimed: SQL = """
            select \(unsafe: Self.statusColumns), c.run_id
            from tcl.claims c join tcl.task_status s on s.task_id = c.task_id join tcl.tasks t on t.task_id = c.task_id
            where c.task_queue_id = \(taskQueueID) and c.worker_group = \(worker.group)
                and c.worker_id = \(worker.id) and t.deadline > \(now)
            order by c.claimed, c.task_id limit \(limit) for update of c, s
            """
        return try await transact(reading: [claimed]) { rows in
            var decision = Decision(answer: rows[0].count)
            for row in rows[0] {
                var facts = try TaskFacts(row: row)
                let transition = try facts.status.report(run: try row.int("run_id"), .workerShutdown, now: now)
                decision.statements += statements(transition, facts, now: now, aftermath: &decision.aftermath)
            }
            return decision
        }
    }
}
