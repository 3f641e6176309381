// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
import Postgres
public import Schedules

extension StepStore {
    // MARK: - Changing

    /// Changes the step of a name under its lock; an unknown name is a refusal.
    ///
    /// With `match`, a step of another entity tag is refused; a request that comes again under its `key` gets its first
    /// answer. The body changes the step and the tables that belong to it. Answers the step as it is now, and what the
    /// body returned.
    public func change<R: Sendable>(
        _ uid: String,
        actor: String,
        match: EntityTags? = nil,
        key: RequestKey? = nil,
        _ body: (inout StepTransaction) async throws -> R
    ) async throws -> (step: Step, result: R) {
        let outcome = try await pool.transaction { connection -> (Step, R, Bool) in
            if let key { try await replay(key, connection) }
            let rows = try await connection.query(
                """
                select \(Self.columns), definition from \(unsafe: schema).steps
                where uid = \(uid) and deleted_at is null for update
                """
            )
            guard let row = rows.first else { throw StepProblem.unknown(uid) }
            let before = try Self.step(row)
            if let match, !match.contains(before.entityTag) {
                throw StepProblem(412, "precondition_failed", "The step has changed; it is \(before.entityTag) now")
            }
            var change = StepTransaction(connection: connection, now: now(), actor: actor, step: before)
            let result = try await body(&change)
            let step = try await finish(change, before: before, lease: nil)
            if let key { try await keep(key, .object(step.status), connection) }
            return (step, result, step.version != before.version)
        }
        if outcome.2 { settled(outcome.0) }
        return (outcome.0, outcome.1)
    }

    /// Deletes a step: its name is free again, its audit stays.
    ///
    /// A step that goes on is refused, unless a body is given that cancels it; then it is deleted when it has ended.
    public func delete(
        _ uid: String,
        actor: String,
        match: EntityTags? = nil,
        cancel: ((inout StepTransaction) async throws -> Void)? = nil
    ) async throws -> Step {
        try await change(uid, actor: actor, match: match) { change in
            if !change.step.state.isTerminal {
                guard let cancel else {
                    let state = change.step.state.rawValue
                    throw StepProblem.conflict("not_finished", "The step is \(state); with force=true it is cancelled")
                }
                if change.step.state != .stopping { try await cancel(&change) }
            }
            change.step.leavesWhenDone = true
            change.record("deleted")
        }.step
    }

    /// Whether the last step of a name was deleted after this one ended.
    public func isDeleted(_ id: Int) async throws -> Bool {
        try await pool.query(
            "select deleted_at is not null as gone from \(unsafe: schema).steps where id = \(id)"
        ).first?.bool("gone") ?? true
    }

    // MARK: - Looking after

    /// Takes steps whose time has come; nobody else looks at them until they are released or the lease ends.
    package func claim(limit: Int, owner: String, lease: Duration) async throws -> [StepClaim] {
        try await pool.query(
            """
            update \(unsafe: schema).steps set lease_owner = \(owner), lease_epoch = lease_epoch + 1,
                lease_until = now() + \(lease.wholeMilliseconds)::bigint * interval '1 millisecond'
            where id = any(array(
                select id from \(unsafe: schema).steps
                where next_check_at <= \(now()) and (lease_until is null or lease_until < now())
                order by next_check_at limit \(limit) for update skip locked))
            returning \(Self.columns), definition, lease_epoch
            """
        ).map { StepClaim(step: try Self.step($0), epoch: try $0.int("lease_epoch"), store: self) }
    }

    /// Prolongs leases that still hold; one whose step somebody changes at this moment has its turn the next time, so that
    /// nobody who holds a step keeps the leases of others from being prolonged.
    func prolong(_ claims: [(id: Int, epoch: Int)], lease: Duration) async throws {
        guard !claims.isEmpty else { return }
        try await pool.execute(
            """
            update \(unsafe: schema).steps
            set lease_until = now() + \(lease.wholeMilliseconds)::bigint * interval '1 millisecond'
            where id = any(array(
                select s.id from \(unsafe: schema).steps s
                join unnest(\(claims.map(\.id))::bigint[], \(claims.map(\.epoch))::bigint[]) c (id, epoch)
                    on s.id = c.id and s.lease_epoch = c.epoch
                where s.lease_until is not null order by s.id for update of s skip locked))
            """
        )
    }

    /// Makes steps due at once, or at a moment if that is later; answers how many there were.
    ///
    /// Whoever locks several steps locks them in the order of their ids, so that no two wait for each other.
    @discardableResult
    public func wake(_ ids: [Int], at earliest: Timestamp? = nil) async throws -> Int {
        guard !ids.isEmpty else { return 0 }
        let moment = max(now(), earliest ?? now())
        // A step that is being looked at was due before: that must not keep its next look from coming at once.
        let count = try await pool.execute(
            """
            update \(unsafe: schema).steps set next_check_at = least(coalesce(next_check_at, \(moment)), \(moment))
            where id = any(array(
                select id from \(unsafe: schema).steps
                where id = any(\(ids)) and deleted_at is null
                    and state in ('pending', 'starting', 'running', 'stopping')
                order by id for update))
            """
        )
        changes.workIsDue()
        return count
    }

    /// When the next step is due, for those who wait for it.
    func nextDue() async throws -> Timestamp? {
        try await pool.query(
            """
            select min(next_check_at) as due from \(unsafe: schema).steps
            where next_check_at is not null and (lease_until is null or lease_until < now())
            """
        ).first?.optionalTimestamp("due")
    }

    /// Changes a claimed step; nil, and nothing happens, if somebody else has claimed it since.
    func change<R: Sendable>(
        _ claim: StepClaim,
        actor: String,
        _ body: (inout StepTransaction) async throws -> R
    ) async throws -> (step: Step, result: R)? {
        let outcome = try await pool.transaction { connection -> (Step, R, Bool, Bool)? in
            let rows = try await connection.query(
                """
                select \(Self.columns) from \(unsafe: schema).steps
                where id = \(claim.step.id) and lease_epoch = \(claim.epoch) and deleted_at is null for update
                """
            )
            guard let row = rows.first else { return nil }
            // What was asked for never changes.
            let before = try Self.step(row, definition: claim.step.definition)
            var change = StepTransaction(connection: connection, now: now(), actor: actor, step: before)
            let result = try await body(&change)
            let step = try await finish(change, before: before, lease: claim.epoch)
            return (step, result, step.version != before.version, change.isReleased)
        }
        guard let outcome else { return nil }
        if outcome.2 { settled(outcome.0) }
        if outcome.3, let due = outcome.0.nextCheck { changes.workIsDue(at: due) }
        return (outcome.0, outcome.1)
    }

    // MARK: - Parts of changes

    func finish(_ change: StepTransaction, before: Step, lease: Int?) async throws -> Step {
        guard change.step != before || !change.events.isEmpty || change.isReleased else { return before }
        var scheduled = before
        scheduled.nextCheck = change.step.nextCheck
        scheduled.checkFailures = change.step.checkFailures
        guard change.step != scheduled || !change.events.isEmpty else {
            // Only when it is looked at next has changed, which nobody is told.
            change.connection.later([
                """
                update \(unsafe: schema).steps set next_check_at = \(change.step.nextCheck),
                    check_failures = \(change.step.checkFailures),
                    lease_until = case when \(change.isReleased) then null else lease_until end
                where id = \(change.step.id)
                """
            ])
            var step = before
            step.nextCheck = change.step.nextCheck
            return step
        }
        return try await write(change, announces: change.step.state != before.state, lease: lease)
    }

    /// Writes the step, its audit and its message.
    func write(_ change: StepTransaction, announces: Bool, lease: Int?) async throws -> Step {
        var step = change.step
        let isNew = step.version == 1 && step.lastSequence == change.events.count
        if !isNew { step.version += 1 }
        step.updated = change.now
        let links = step.status["links"] ?? []
        var statements: [SQL] = [
            """
            update \(unsafe: schema).steps set state = \(step.state.rawValue), message = \(step.message),
                attempt = \(step.attempt), output = \(JSONValue.object(step.output)),
                info = \(JSONValue.object(step.info)), links = \(links), labels = \(JSONValue.object(step.labels)),
                started = \(step.started), finished = \(step.finished), updated = \(step.updated),
                version = \(step.version), next_check_at = \(step.nextCheck),
                check_failures = \(step.checkFailures), last_sequence = \(step.lastSequence),
                last_hash = \(step.lastHash), leaves_when_done = \(step.leavesWhenDone),
                deleted_at = case when \(step.leavesWhenDone && step.state.isTerminal)
                    then \(change.now)::timestamptz else deleted_at end,
                lease_until = case when \(change.isReleased) then null else lease_until end
            where id = \(step.id)
            """
        ]
        for event in change.events {
            statements.append(
                """
                insert into \(unsafe: schema).events
                    (step_id, sequence, at, actor, kind, subject, data, previous_hash, hash)
                values (\(event.stepID), \(event.sequence), \(event.at), \(event.actor), \(event.kind),
                    \(event.subject), \(JSONValue.object(event.data)), \(event.previousHash), \(event.hash))
                """
            )
        }
        change.connection.later(statements)
        if announces { try await outbox.add([announcement.message(step)], on: change.connection) }
        return step
    }

    /// After a commit: the relay, the waiting readers and the runner look at once.
    func settled(_ step: Step) {
        outbox.wake()
        changes.changed(step.id)
        if let due = step.nextCheck, due <= now() { changes.workIsDue() }
    }
}
