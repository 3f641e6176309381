// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
import Postgres
import Pulse
import Schedules

/// The minutes that were announced.
struct ClockStore: Sendable {
    /// What one look came to.
    struct Result: Sendable, Equatable {
        /// The minutes this call announced, oldest first.
        var announced: [ClockMinute] = []
        /// How many minutes were too old to announce.
        var skipped = 0
    }

    let pool: PostgresPool
    let outbox: Outbox
    let exchange: String

    /// Announces the minutes up to an instant that nobody announced and that are not older than the catch-up allows.
    ///
    /// The rows decide: of several processes, whoever inserts the row of a minute writes its message, both in one
    /// transaction.
    func announce(now: Timestamp, catchUp: Duration) async throws -> Result {
        let present = ClockMinute(containing: now)
        let oldest = ClockMinute(containing: now - catchUp)
        let result = try await pool.transaction { connection -> Result in
            _ = try await connection.execute(
                "insert into bridges.clock (since) values (\(present.start)) on conflict do nothing"
            )
            let bounds = try await connection.query(
                """
                select since, (select max(minute) from bridges.minutes where minute < \(oldest.start)) as before,
                    exists (select from bridges.minutes where minute >= \(oldest.start)) as recent
                from bridges.clock
                """
            )
            guard let row = bounds.first else { return Result() }
            let first = max(ClockMinute(containing: try row.timestamp("since")).advanced(by: 1).start, oldest.start)
            guard first <= present.start else { return Result() }
            let rows = try await connection.query(
                """
                insert into bridges.minutes (minute)
                select generate_series(\(first)::timestamptz, \(present.start)::timestamptz, interval '1 minute')
                on conflict do nothing returning minute
                """
            )
            var result = Result()
            result.announced = try rows.map { ClockMinute(containing: try $0.timestamp("minute")) }
                .sorted { $0.start < $1.start }
            guard !result.announced.isEmpty else { return result }
            if try !row.bool("recent"), let before = try row.optionalTimestamp("before"), first == oldest.start {
                let gap = (oldest.start.milliseconds - before.milliseconds) / ClockMinute.length
                result.skipped = max(0, Int(gap) - 1)
            }
            try await outbox.add(
                result.announced.map { minute in
                    PulseMessage(
                        exchange: exchange,
                        routingKey: minute.routingKey,
                        payload: minute.payload(published: now)
                    )
                },
                on: connection
            )
            // One row comes a minute, so this keeps up.
            _ = try await connection.execute(
                """
                delete from bridges.minutes where minute = any(array(
                    select minute from bridges.minutes where minute < \(oldest.start - .seconds(86_400))
                    order by minute limit 1000))
                """
            )
            return result
        }
        if !result.announced.isEmpty { outbox.wake() }
        return result
    }
}
