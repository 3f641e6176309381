// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
public import ServiceLifecycle
import Synchronization

/// A bounded set of sessions with one database, opened as they are needed.
///
/// It works before and without ``run()``, which only keeps one session warm, closes those that nobody used for a minute,
/// and closes all when the process stops. Tasks that find every session lent wait in order, up to
/// ``PostgresConfiguration/acquireTimeout``; more than ``PostgresConfiguration/maximumWaiters`` fail at once.
public final class PostgresPool: Service {
    private enum Grant {
        case connection(PostgresConnection)
        case permit
        case refused(PostgresError)
    }

    private struct Waiter {
        let continuation: CheckedContinuation<Grant, Never>
        let timer: Reactor.Timer
    }

    private struct State {
        var idle: [PostgresConnection] = []
        var total = 0
        var waiters: [UInt64: Waiter] = [:]
        var order = FIFO()
        var cancelled: Set<UInt64> = []
        var nextID: UInt64 = 0
        var isClosed = false
    }

    let configuration: PostgresConfiguration
    private let state = Mutex(State())
    private let metrics: PoolMetrics

    /// Creates a pool without connecting.
    public init(_ configuration: PostgresConfiguration) {
        self.configuration = configuration
        metrics = PoolMetrics(configuration)
    }

    // MARK: Use

    /// Lends a session for as long as a body runs.
    public func withConnection<R: Sendable>(
        _ body: (PostgresConnection) async throws -> R
    ) async throws -> R {
        let connection = try await acquire()
        defer { release(connection) }
        do {
            let result = try await body(connection)
            try await connection.settle()
            return result
        } catch {
            await connection.rollback()
            throw error
        }
    }

    /// Runs a body in a transaction: commits when it returns, rolls back when it throws.
    ///
    /// When the server reports a serialization failure or a deadlock, the whole body runs again, up to ten times.
    public func transaction<R: Sendable>(
        _ isolation: PostgresIsolation = .readCommitted,
        _ body: (PostgresConnection) async throws -> R
    ) async throws -> R {
        try await Self.retries.run(isRetriable: { ($0 as? PostgresError)?.isSerializationFailure == true }) {
            let connection = try await acquire()
            defer { release(connection) }
            connection.begin(isolation)
            do {
                let result = try await body(connection)
                try await connection.commit()
                return result
            } catch {
                await connection.rollback()
                throw error
            }
        }
    }

    /// Runs one statement on any session and returns its rows.
    public func query(_ sql: SQL) async throws(PostgresError) -> [PostgresRow] {
        let connection = try await acquire()
        defer { release(connection) }
        return try await connection.query(sql)
    }

    /// Runs one statement on any session and returns the number of rows it touched.
    @discardableResult
    public func execute(_ sql: SQL) async throws(PostgresError) -> Int {
        let connection = try await acquire()
        defer { release(connection) }
        return try await connection.execute(sql)
    }

    /// Runs statements in one round trip, all or nothing, on any session.
    @discardableResult
    public func pipeline(_ statements: [SQL]) async throws(PostgresError) -> [[PostgresRow]] {
        let connection = try await acquire()
        defer { release(connection) }
        return try await connection.pipeline(statements)
    }

    /// How many tasks wait for a session.
    package var waiting: Int { state.withLock { $0.waiters.count } }

    /// Throws while the database cannot be used.
    public func checkHealth() async throws {
        _ = try await query("select 1")
    }

    /// What is notified on channels, through a session of its own that reconnects for ever.
    ///
    /// ``PostgresNotification/reconnected`` comes first and after every reconnection: look for missed work then.
    public func notifications(on channels: [String]) -> AsyncStream<PostgresNotification> {
        let listener = NotificationListener(configuration, channels: channels)
        return AsyncStream { await listener.next() }
    }

    // MARK: Life

    /// Keeps one session warm until graceful shutdown or cancellation, then closes the pool.
    public func run() async throws {
        await cancelWhenGracefulShutdown { await self.keepWarm() }
        close()
    }

    /// Closes idle sessions and refuses new work; lent sessions are closed when they come back.
    public func close() {
        let (idle, waiters) = state.withLock { state in
            state.isClosed = true
            defer {
                state.total -= state.idle.count
                state.idle = []
                state.waiters = [:]
            }
            return (state.idle, state.waiters)
        }
        for waiter in waiters.values {
            finish(waiter, .refused(PostgresError(.poolClosed, "the process stops")))
        }
        withExtendedLifetime(idle) {}
    }

    private func keepWarm() async {
        var failures = 0
        while !Task.isCancelled {
            do {
                try await checkHealth()
                if failures > 0 { Logger.current.notice("database is reachable again") }
                failures = 0
                trim()
            } catch {
                guard !Task.isCancelled else { return }
                failures += 1
                if failures == 1 {
                    Logger.current.error("database is unreachable, retrying", metadata: ["error": "\(error)"])
                }
            }
            let pause =
                failures > 0 ? RetryPolicy.reconnect.delay(before: failures + 1) : Duration.seconds(30)
            do { try await Task.sleep(for: pause) } catch { return }
        }
    }

    /// Closes all but one of the sessions that nobody used for a minute.
    private func trim() {
        let old = state.withLock { state in
            let limit = ContinuousClock.now - .seconds(60)
            let old = state.idle.dropLast().filter { $0.idleSince < limit }
            state.idle.removeAll { candidate in old.contains { $0 === candidate } }
            state.total -= old.count
            return Array(old)
        }
        withExtendedLifetime(old) {}
    }

    private static let retries = RetryPolicy(
        attempts: 10,
        base: .milliseconds(2),
        maximum: .milliseconds(250),
        jitter: 0.75
    )

    // MARK: Lending

    private func acquire() async throws(PostgresError) -> PostgresConnection {
        while true {
            switch try await grant() {
            case .connection(let connection):
                guard connection.isUsable else {
                    // The next turn may find another idle session, or opens one in the place of this.
                    state.withLock { $0.total -= 1 }
                    continue
                }
                metrics.lent(1)
                return connection
            case .permit:
                do {
                    let connection = try await PostgresConnection(configuration, metrics: metrics)
                    metrics.lent(1)
                    return connection
                } catch {
                    giveBack(nil)
                    throw error
                }
            case .refused(let error): throw error
            }
        }
    }

    private func grant() async throws(PostgresError) -> Grant {
        enum Choice {
            case now(Grant)
            case wait(UInt64)
        }
        let choice: Choice = state.withLock { state in
            if state.isClosed { return .now(.refused(PostgresError(.poolClosed, "the process stops"))) }
            if let connection = state.idle.popLast() { return .now(.connection(connection)) }
            if state.total < configuration.poolSize {
                state.total += 1
                return .now(.permit)
            }
            guard state.waiters.count < configuration.maximumWaiters else {
                return .now(.refused(PostgresError(.poolExhausted, "too many tasks wait for a connection")))
            }
            state.nextID += 1
            return .wait(state.nextID)
        }
        guard case .wait(let id) = choice else {
            if case .now(let grant) = choice { return grant }
            return .refused(PostgresError(.poolExhausted, "no connection"))
        }
        metrics.waiting(1)
        defer {
            metrics.waiting(-1)
            state.withLock { _ = $0.cancelled.remove(id) }
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { park($0, id) }
        } onCancel: {
            let waiter = state.withLock { state in
                let waiter = state.waiters.removeValue(forKey: id)
                if waiter == nil { state.cancelled.insert(id) }
                return waiter
            }
            if let waiter { finish(waiter, .refused(PostgresError(.cancelled, "the task was cancelled"))) }
        }
    }

    private func park(_ continuation: CheckedContinuation<Grant, Never>, _ id: UInt64) {
        let limit = configuration.acquireTimeout
        // Something may have come back, or the task been cancelled, since the decision to wait.
        let grant: Grant? = state.withLock { state in
            if state.cancelled.remove(id) != nil {
                return .refused(PostgresError(.cancelled, "the task was cancelled"))
            }
            if state.isClosed { return .refused(PostgresError(.poolClosed, "the process stops")) }
            if let connection = state.idle.popLast() { return .connection(connection) }
            if state.total < configuration.poolSize {
                state.total += 1
                return .permit
            }
            // Set under the lock: a timer that fired before there is a waiter would be lost, and the wait endless.
            let timer = Reactor.shared.after(limit) {
                guard let waiter = self.state.withLock({ $0.waiters.removeValue(forKey: id) }) else { return }
                let text = "no connection became free within \(limit.settingsText)"
                waiter.continuation.resume(returning: .refused(PostgresError(.poolExhausted, text)))
            }
            state.waiters[id] = Waiter(continuation: continuation, timer: timer)
            state.order.append(id)
            return nil
        }
        if let grant { continuation.resume(returning: grant) }
    }

    private func release(_ connection: PostgresConnection) {
        metrics.lent(-1)
        connection.idleSince = .now
        giveBack(connection.isReturnable ? connection : nil)
    }

    /// Returns a session, or the right to open one, to the longest waiting task or to the pool.
    private func giveBack(_ connection: PostgresConnection?) {
        let waiter: Waiter? = state.withLock { state in
            if !state.isClosed {
                while let id = state.order.popFirst() {
                    if let waiter = state.waiters.removeValue(forKey: id) { return waiter }
                }
                if let connection {
                    state.idle.append(connection)
                    return nil
                }
            }
            state.total -= 1
            return nil
        }
        guard let waiter else { return }
        finish(waiter, connection.map { .connection($0) } ?? .permit)
    }

    private func finish(_ waiter: Waiter, _ grant: Grant) {
        Reactor.shared.cancel(waiter.timer)
        waiter.continuation.resume(returning: grant)
    }
}

/// Numbers in the order they were added.
private struct FIFO {
    private var items: [UInt64] = []
    private var head = 0

    mutating func append(_ item: UInt64) {
        items.append(item)
    }

    mutating func popFirst() -> UInt64? {
        guard head < items.count else { return nil }
        defer {
            head += 1
            if head > 64, head * 2 > items.count {
                items.removeFirst(head)
                head = 0
            }
        }
        return items[head]
    }
}
