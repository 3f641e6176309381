// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
public import Postgres
public import Pulse
import Schedules
public import ServiceLifecycle
import Synchronization

/// Publishes what is in an outbox.
///
/// Any number of relays may run on one database: one at a time drains a schema, under an advisory lock of its transaction.
/// It reads up to 256 messages, or some megabytes, in the order of their ids, publishes them, deletes what the broker confirmed and
/// commits. When it dies between confirm and commit the messages are published again, under the ids they had the first
/// time, so that consumers can tell.
///
/// A broker that is away delays messages and nothing else. Messages for an exchange that does not exist or is
/// forbidden stay in the table and are tried again every 15 seconds without holding up those for other exchanges; the
/// same, every 3 seconds, while the broker declines messages because a queue behind the exchange is full or broken.
public struct OutboxRelay: Service {
    /// What one look at the table found.
    enum Outcome: Equatable {
        /// Another relay is at it.
        case busy
        /// So many messages were published; `more` tells whether others may be waiting.
        case published(Int, more: Bool)
    }

    static let batchSize = 256
    /// Messages are read until they weigh so much; the one that passes the limit is the last.
    static let batchBytes = 8 << 20
    private static let pollInterval = Duration.seconds(1)
    /// After a look that found so many messages the next one waits a little.
    private static let crowd = 4
    private static let gathering = Duration.milliseconds(20)
    private static let parkingTime = Duration.seconds(15)
    private static let shortParkingTime = Duration.seconds(3)

    private let outbox: Outbox
    private let pool: PostgresPool
    private let pulse: PulseConnection
    private let depth: Gauge
    private let lag: Gauge
    private let parked = ParkedExchanges()
    private let counting = Interval(.seconds(1))

    /// Creates a relay; it begins to work with `run` or `drain`.
    public init(outbox: Outbox, pool: PostgresPool, pulse: PulseConnection) {
        self.outbox = outbox
        self.pool = pool
        self.pulse = pulse
        depth = Gauge(label: "outbox_depth", dimensions: [("schema", outbox.schema)])
        lag = Gauge(label: "outbox_lag_seconds", dimensions: [("schema", outbox.schema)])
    }

    /// Relays until graceful shutdown or cancellation; a last look is taken before a graceful end.
    public func run() async throws {
        let isStopping = Atomic<Bool>(false)
        await withGracefulShutdownHandler {
            await loop(until: isStopping)
        } onGracefulShutdown: {
            isStopping.store(true, ordering: .releasing)
            outbox.wake()
        }
    }

    /// Publishes everything that is there now; answers how many messages that were.
    ///
    /// While another relay drains the same schema, this one waits for its turn.
    @discardableResult
    public func drain() async throws -> Int {
        var total = 0
        while true {
            try Task.checkCancellation()
            switch try await drainOnce() {
            case .busy:
                try await Task.sleep(for: .milliseconds(50))
            case .published(let count, let more):
                total += count
                if !more { return total }
            }
        }
    }

    private func loop(until isStopping: borrowing Atomic<Bool>) async {
        var failures = 0
        while !Task.isCancelled {
            let isLast = isStopping.load(ordering: .acquiring)
            var pause = Self.pollInterval
            do {
                // When many messages come, a look at each would cost more than publishing it: more may gather.
                if try await drain() >= Self.crowd, !isLast { try? await Task.sleep(for: Self.gathering) }
                if failures > 0 { Logger.current.notice("outbox is relayed again", metadata: metadata) }
                failures = 0
            } catch {
                if Task.isCancelled { return }
                failures += 1
                var facts = metadata
                facts["error"] = "\(error)"
                Logger.current.log(level: failures == 1 ? .error : .debug, "outbox not relayed", metadata: facts)
                pause = min(.milliseconds(250) * (1 << min(failures, 6)), .seconds(10))
            }
            if isLast { return }
            _ = await outbox.signal.wait(timeout: pause)
        }
    }

    private var metadata: Logger.Metadata { ["db.schema": "\(outbox.schema)"] }

    /// Publishes one batch in one transaction.
    func drainOnce() async throws -> Outcome {
        let parked = parked.current
        return try await pool.transaction { connection in
            // Together, but as two statements: the second one must see what the last holder of the lock has deleted.
            let answers = try await connection.pipeline([
                "select pg_try_advisory_xact_lock(hashtextextended('outbox ' || \(outbox.schema), 0)) as taken",
                """
                with next as (
                    select *, count(*) over () as available,
                        sum(octet_length(body)) over (order by id) - octet_length(body) as before
                    from (
                        select * from \(unsafe: outbox.schema).outbox where exchange <> all(\(parked))
                        order by id limit \(Self.batchSize)) t
                )
                select id, exchange, routing_key, cc, body, extract(epoch from now() - created)::float8 as age,
                    (extract(epoch from created) * 1000000)::bigint as moment, available
                from next where before < \(Self.batchBytes)::bigint order by id
                """,
            ])
            guard let lock = answers[0].first, try lock.bool("taken") else { return .busy }
            let rows = answers[1]
            try await measure(rows, on: connection)
            guard !rows.isEmpty else { return .published(0, more: false) }
            let (done, hasParked) = try await publish(rows)
            connection.later(["delete from \(unsafe: outbox.schema).outbox where id = any(\(done))"])
            let available = try rows.first?.int("available") ?? 0
            // A full batch that led to nothing would be read again at once, and again.
            let isFull = available == Self.batchSize || available > rows.count
            return .published(done.count, more: isFull && (!done.isEmpty || hasParked))
        }
    }

    /// Publishes the rows; answers the ids of those the broker has confirmed, and whether an exchange was parked.
    private func publish(_ rows: [PostgresRow]) async throws -> (done: [Int], hasParked: Bool) {
        let messages = try rows.map { row in
            PulseMessage(
                exchange: try row.string("exchange"),
                routingKey: try row.string("routing_key"),
                cc: try row.strings("cc"),
                body: Array(try row.string("body").utf8),
                messageID: Outbox.messageID(
                    schema: outbox.schema,
                    id: try row.int("id"),
                    moment: try row.int("moment")
                )
            )
        }
        let errors = try await pulse.outcomes(ofPublishing: messages)
        var hasParked = false
        for (index, error) in errors.sorted(by: { $0.key < $1.key }) where !error.isRetriable || error.code == .nacked {
            // One full or broken queue makes the broker decline everything for the exchange: the others go first.
            let time = error.isRetriable ? Self.shortParkingTime : Self.parkingTime
            guard parked.park(messages[index].exchange, for: time) else { continue }
            hasParked = true
            var facts = metadata
            facts["pulse.exchange"] = "\(messages[index].exchange)"
            facts["error"] = "\(error)"
            Logger.current.error("messages of the outbox refused by the broker", metadata: facts)
        }
        return (try rows.indices.filter { errors[$0] == nil }.map { try rows[$0].int("id") }, hasParked)
    }

    private func measure(_ rows: [PostgresRow], on connection: PostgresConnection) async throws {
        lag.record(try rows.first?.double("age") ?? 0)
        var count = rows.count
        if count == Self.batchSize {
            // Counting costs more the more there is: it is done now and then, and stops where the exact number no longer
            // matters.
            guard counting.isDue() else { return }
            let counted = try await connection.query(
                "select count(*) as n from (select from \(unsafe: outbox.schema).outbox limit 100000) t"
            )
            count = try counted.first?.int("n") ?? count
        }
        depth.record(count)
    }
}

/// Lets something happen once in a while.
private final class Interval: Sendable {
    private let length: Duration
    private let last = Mutex<ContinuousClock.Instant?>(nil)

    init(_ length: Duration) {
        self.length = length
    }

    func isDue() -> Bool {
        last.withLock { last in
            if let last, last + length > .now { return false }
            last = .now
            return true
        }
    }
}

/// The exchanges whose messages are left alone for a while.
private final class ParkedExchanges: Sendable {
    private let until = Mutex<[String: ContinuousClock.Instant]>([:])

    /// Those that are parked now.
    var current: [String] {
        until.withLock { until in
            let now = ContinuousClock.now
            until = until.filter { $0.value > now }
            return Array(until.keys)
        }
    }

    /// Parks an exchange; answers whether it was not parked already.
    func park(_ exchange: String, for time: Duration) -> Bool {
        until.withLock { $0.updateValue(.now + time, forKey: exchange) == nil }
    }
}
