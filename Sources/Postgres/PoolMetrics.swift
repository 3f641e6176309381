// SPDX-License-Identifier: MPL-2.0

import Metrics
import Core

/// What a pool tells about itself.
final class PoolMetrics: Sendable {
    private let inUse: Meter
    private let waiters: Meter
    private let queries: Timer

    init(_ configuration: PostgresConfiguration) {
        Metrics.describe("postgres_connections_in_use", "Database sessions that are lent to a task.")
        Metrics.describe("postgres_pool_waiters", "Tasks that wait for a database session.")
        Metrics.describe(
            "postgres_query_seconds",
            "Time a statement or a pipeline of them took, waiting for a session not included."
        )
        let dimensions = [("pool", configuration.applicationName)]
        inUse = Meter(label: "postgres_connections_in_use", dimensions: dimensions)
        waiters = Meter(label: "postgres_pool_waiters", dimensions: dimensions)
        queries = Timer(label: "postgres_query_seconds", dimensions: dimensions)
    }

    func lent(_ change: Double) {
        inUse.increment(by: change)
    }

    func waiting(_ change: Double) {
        waiters.increment(by: change)
    }

    func query(since start: ContinuousClock.Instant) {
        queries.recordNanoseconds(Int64((ContinuousClock.now - start).seconds * 1e9))
    }
}
