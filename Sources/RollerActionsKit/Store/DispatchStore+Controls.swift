// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import RollerKit
import Schedules

extension DispatchStore {
    // MARK: - Turns at controllers

    /// Takes one of a controller's places for calls; nil when all are taken.
    ///
    /// A place is a lease: one that a dead worker held is free when its time is over.
    func takePlace(_ control: Control, job: Job, limit: Duration) async throws -> String? {
        let prefix = "slot:\(control.controllerID):"
        return try await pool.query(
            """
            insert into roller.resource_locks as taken (resource, job, runner, fence, expires_at)
            select \(prefix) || place, \(job.id)::uuid, \(runner), \(job.fence),
                clock_timestamp() + \(limit.inSeconds) * interval '1 second'
            from generate_series(1, \(max(1, control.maximumConcurrency))::int) as place
            where not exists (
                select 1 from roller.resource_locks l
                where l.resource = \(prefix) || place and l.expires_at > clock_timestamp())
            order by place limit 1
            on conflict (resource) do update set job = excluded.job, runner = excluded.runner, fence = excluded.fence,
                expires_at = excluded.expires_at
            where taken.expires_at <= clock_timestamp()
            returning resource
            """
        ).first?.string("resource")
    }

    /// Gives a place back.
    func giveBack(place: String, job: Job) async throws {
        _ = try await pool.execute(
            "delete from roller.resource_locks where resource = \(place) and job = \(job.id)::uuid and fence = \(job.fence)"
        )
    }

    /// Reserves the next moment at which a controller bears a change, and answers how far away that is.
    func reserveMoment(_ control: Control) async throws -> Duration {
        guard control.minimumInterval > .zero else { return .zero }
        let interval = control.minimumInterval.inSeconds
        let seconds = try await pool.query(
            """
            update roller.controllers set busy_until =
                greatest(coalesce(busy_until, clock_timestamp()), clock_timestamp()) + \(interval) * interval '1 second'
            where id = \(control.controllerID)::uuid
            returning extract(epoch from busy_until - clock_timestamp())::float8 as later
            """
        ).first?.double("later")
        return .milliseconds(Int64(max(0, (seconds ?? 0) - interval) * 1000))
    }

    /// Writes down what was found out about a controller, for all workers and for later.
    func learn(_ fact: JSONObject, about controllerID: String) async throws {
        _ = try await pool.execute(
            """
            update roller.controllers set learned = learned || \(JSONValue.object(fact))::jsonb
            where id = \(controllerID)::uuid and not learned @> \(JSONValue.object(fact))::jsonb
            """
        )
    }

    // MARK: - Intents

    /// Writes down that a machine must have power, before somebody takes it away; false when the claim is not ours any more.
    func intend(_ job: Job, machine: String, control: Control) async throws -> Bool {
        let plan: JSONValue = [
            "controller": JSONValue(control.controllerID), "kind": JSONValue(control.kind.rawValue),
            "name": JSONValue(control.name), "locator": .object(control.locator),
        ]
        return try await pool.execute(
            """
            insert into roller.intents (machine, desired_power, control, set_by, runner)
            select \(machine)::uuid, 'on', \(plan), j.id, \(runner) from roller.jobs j
            where j.id = \(job.id)::uuid and j.fence = \(job.fence) and j.state in ('claimed', 'running', 'verifying')
            on conflict (machine) do update set control = excluded.control, set_by = excluded.set_by,
                runner = excluded.runner, since = now()
            """
        ) == 1
    }

    /// Writes down that a machine has power.
    func fulfil(_ job: Job, machine: String) async throws {
        _ = try await pool.execute(
            """
            delete from roller.intents i where i.machine = \(machine)::uuid and exists (
                select 1 from roller.jobs j where j.id = \(job.id)::uuid and j.fence = \(job.fence)
                    and j.state in ('claimed', 'running', 'verifying'))
            """
        )
    }

    // MARK: - Loans

    /// Lends a machine, or takes it back; answers until when the loan that ends had its workers quarantined.
    func setLoan(
        _ job: Job,
        machine: String,
        borrower: String?,
        bug: String?,
        until: String?,
        quarantinedUntil: Timestamp?
    ) async throws -> Timestamp? {
        try await pool.transaction { connection in
            let state = borrower == nil ? "active" : "loaned"
            let reason = borrower.map { "lent to \($0)" + (bug.map { ", bug \($0)" } ?? "") }
            let before = try await connection.query(
                """
                with old as (select state from roller.machines where id = \(machine)::uuid)
                update roller.machines set state = \(state), state_reason = \(reason), state_until = null, updated = now()
                where id = \(machine)::uuid returning (select state from old) as old_state
                """
            ).first?.string("old_state")
            let ended = try await connection.query(
                """
                update roller.loans set returned = now() where machine = \(machine)::uuid and returned is null
                returning quarantined_until
                """
            ).first?.optionalTimestamp("quarantined_until")
            if let borrower {
                _ = try await connection.execute(
                    """
                    insert into roller.loans (machine, borrower, bug, until, quarantined_until)
                    values (\(machine)::uuid, \(borrower), \(bug), \(until)::timestamptz, \(quarantinedUntil))
                    """
                )
            }
            try await AuditStore.add(
                AuditEntry(
                    clientID: job.clientID,
                    sourceAddress: nil,
                    verb: borrower == nil ? "machine.return" : "machine.loan",
                    object: "machine:\(machine)",
                    before: ["state": before.map { JSONValue($0) } ?? .null],
                    after: ["state": JSONValue(state), "job": JSONValue(job.id)]
                ),
                on: connection
            )
            return ended
        }
    }
}
