// SPDX-License-Identifier: MPL-2.0

package import Postgres
import Schedules

/// What owners are still to be told about failed schedules.
///
/// Failures are counted where they are noted, by hook and reason; a letter may go twelve hours after the last one, and
/// tells all that came since. What a letter says is frozen when it is taken, so that sending it again sends the same.
package struct FailureMailStore: Sendable {
    let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// A letter about to be sent.
    struct Letter: Sendable {
        let name: HookName
        let reason: String
        let owner: String
        /// Whether the hook still asks for mail.
        let isWanted: Bool
        let failures: Int
        let first: Timestamp
        let last: Timestamp
        let error: String
        let taskID: String
        let attempts: Int
    }

    /// The part of a statement that notes the failure of the fire in `fire`, if the hook wants mail.
    static func noting(_ failure: FireFailure, at time: Timestamp) -> SQL {
        """
        mail as (
            insert into hooks.failure_mails as m (hook_group_id, hook_id, reason, failures, first_failed, last_failed,
                last_error, last_task_id, due_at)
            select f.hook_group_id, f.hook_id, \(failure.reason), 1, \(time), \(time),
                \(String(failure.record.prefix(longestError))), f.task_id, \(time)
            from fire f join hooks.hooks h using (hook_group_id, hook_id)
            where coalesce(h.metadata ->> 'emailOnError', 'true') = 'true'
            on conflict (hook_group_id, hook_id, reason) do update set failures = m.failures + 1,
                first_failed = case when m.failures = 0 then excluded.first_failed else m.first_failed end,
                last_failed = excluded.last_failed, last_error = excluded.last_error,
                last_task_id = excluded.last_task_id,
                due_at = coalesce(m.due_at, greatest(excluded.due_at, m.sent_at + interval '12 hours'))
        )
        """
    }

    /// How much of an error a letter quotes.
    private static let longestError = 20_000

    /// Takes letters that may go, and keeps others from sending them for a while.
    func take(now: Timestamp, limit: Int, lease: Duration = .seconds(120)) async throws -> [Letter] {
        try await pool.query(
            """
            update hooks.failure_mails m set due_at = \(now + lease), attempts = attempts + 1,
                letter = coalesce(letter, json_build_object('failures', failures, 'first', first_failed,
                    'last', last_failed, 'error', last_error, 'taskId', last_task_id))
            from hooks.hooks h
            where (m.hook_group_id, m.hook_id, m.reason) in (
                    select hook_group_id, hook_id, reason from hooks.failure_mails
                    where due_at <= \(now) order by due_at limit \(limit) for update skip locked)
                and h.hook_group_id = m.hook_group_id and h.hook_id = m.hook_id
            returning m.hook_group_id, m.hook_id, m.reason, h.metadata ->> 'owner' as owner,
                coalesce(h.metadata ->> 'emailOnError', 'true') = 'true' as wanted,
                (letter ->> 'failures')::bigint as failures, (letter ->> 'first')::timestamptz as first,
                (letter ->> 'last')::timestamptz as last, letter ->> 'error' as error, letter ->> 'taskId' as task_id,
                attempts
            """
        ).map { row in
            Letter(
                name: HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id")),
                reason: try row.string("reason"),
                owner: try row.optionalString("owner") ?? "",
                isWanted: try row.bool("wanted"),
                failures: try row.int("failures"),
                first: try row.timestamp("first"),
                last: try row.timestamp("last"),
                error: try row.string("error"),
                taskID: try row.string("task_id"),
                attempts: try row.int("attempts")
            )
        }
    }

    /// Notes that a letter went, or that it never will; failures that came meanwhile wait for the next one.
    func finish(_ letter: Letter, now: Timestamp) async throws {
        _ = try await pool.execute(
            """
            update hooks.failure_mails set sent_at = \(now), letter = null, attempts = 0,
                failures = failures - \(letter.failures), first_failed = \(now),
                due_at = case when failures > \(letter.failures) then \(now)::timestamptz + interval '12 hours' end
            where hook_group_id = \(letter.name.group) and hook_id = \(letter.name.hook)
                and reason = \(letter.reason) and letter is not null
            """
        )
    }

    /// Puts a letter off because the mail service is unwell.
    func postpone(_ letter: Letter, until time: Timestamp) async throws {
        _ = try await pool.execute(
            """
            update hooks.failure_mails set due_at = \(time)
            where hook_group_id = \(letter.name.group) and hook_id = \(letter.name.hook)
                and reason = \(letter.reason) and letter is not null
            """
        )
    }
}
