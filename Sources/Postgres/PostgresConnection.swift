// SPDX-License-Identifier: MPL-2.0

import CLibPQ
import Core
import Synchronization

/// A session with the server, lent by the pool to one task at a time.
///
/// A statement is prepared the first time a session sees its text. When the calling task is cancelled while a statement
/// runs, the session waits half a second for the answer and throws it away; after that the session is closed.
public final class PostgresConnection: @unchecked Sendable {
    // SAFETY: `isBusy` admits one operation at a time; what operations change is only touched between enter and leave.
    private struct Prepared {
        let name: String
        var columns: ResultColumns?
    }

    private let handle: Handle
    private let metrics: PoolMetrics?
    private let isBusy = Atomic(false)
    private var prepared: [String: Prepared] = [:]
    private var pendingBegin: String?
    /// What goes ahead of the next statement.
    private var deferred: [SQL] = []
    private var isBroken = false
    private var isPreparing = false
    /// When the pool got it back.
    var idleSince = ContinuousClock.now

    private static let maximumPrepared = 500

    init(_ configuration: PostgresConfiguration, metrics: PoolMetrics? = nil) async throws(PostgresError) {
        self.metrics = metrics
        handle = try await Handle.open(configuration)
    }

    /// Whether the session may go back to the pool.
    var isReturnable: Bool { !isBroken && pendingBegin == nil && deferred.isEmpty && handle.isIdle }

    /// Whether the session can be lent now.
    var isUsable: Bool { !isBroken && pendingBegin == nil && deferred.isEmpty && handle.isAlive }

    /// Makes the pool close this session when it comes back.
    func discard() {
        isBroken = true
    }

    // MARK: Statements

    /// Runs a statement and returns its rows.
    public func query(_ sql: SQL) async throws(PostgresError) -> [PostgresRow] {
        try await single(sql).rows
    }

    /// Runs a statement and returns the number of rows it touched.
    @discardableResult
    public func execute(_ sql: SQL) async throws(PostgresError) -> Int {
        try await single(sql).affected
    }

    /// Runs statements in one round trip and returns the rows of each.
    ///
    /// Outside a transaction they form one: either all take effect or none. The first failure is thrown.
    @discardableResult
    public func pipeline(_ statements: [SQL]) async throws(PostgresError) -> [[PostgresRow]] {
        guard !statements.isEmpty else { return [] }
        return try await operation { () async throws(PostgresError) in
            try await self.runPipeline(statements).map(\.rows)
        }
    }

    /// Has statements run whose rows nobody needs: ahead of the next statement or of the commit, in its round trip.
    ///
    /// What goes wrong with them is thrown there. Without a transaction they run when the session is given back at the
    /// latest.
    public func later(_ statements: [SQL]) {
        deferred += statements
    }

    /// Runs what was put off.
    func settle() async throws(PostgresError) {
        guard !deferred.isEmpty else { return }
        _ = try await operation { () async throws(PostgresError) in try await self.runPipeline([]) }
    }

    /// Runs a script of several statements without values, as migrations are.
    package func script(_ text: String) async throws(PostgresError) {
        try await operation { () async throws(PostgresError) in
            if self.pendingBegin != nil || !self.deferred.isEmpty { _ = try await self.runPipeline([]) }
            guard PQsendQuery(self.handle.pointer, text) == 1 else { throw self.handle.lost() }
            var failure: PostgresError?
            try await self.handle.flush(shielded: false)
            while let result = try await self.handle.nextResult(shielded: false) {
                failure = failure ?? Self.error(result)
                PQclear(result)
            }
            if let failure { throw failure }
        }
    }

    // MARK: Transactions

    /// Opens a transaction; the server hears of it with the first statement, in the same round trip.
    func begin(_ isolation: PostgresIsolation) {
        pendingBegin = isolation.begin
    }

    /// Commits, with what was put off in the same round trip; without effect when there was no statement.
    func commit() async throws(PostgresError) {
        guard pendingBegin == nil || !deferred.isEmpty else {
            pendingBegin = nil
            return
        }
        let answer = try await single("commit")
        // A transaction that had failed is rolled back by its commit: the caller must not believe in it.
        guard answer.tag == "COMMIT" else {
            throw PostgresError(.server, "the transaction had failed and was rolled back", sqlState: "25P02")
        }
    }

    /// Rolls back even if the task was cancelled; a session that cannot is closed.
    func rollback() async {
        deferred = []
        guard pendingBegin == nil else {
            pendingBegin = nil
            return
        }
        guard !isBroken, PQtransactionStatus(handle.pointer) != PQTRANS_IDLE else { return }
        do {
            try send("rollback")
            try await handle.flush(shielded: true)
            while let result = try await handle.nextResult(shielded: true) { PQclear(result) }
        } catch {
            isBroken = true
        }
    }

    private func send(_ text: String) throws(PostgresError) {
        guard PQsendQuery(handle.pointer, text) == 1 else { throw handle.lost() }
    }

    // MARK: Notifications

    /// The next notification that has arrived, without waiting.
    func arrivedNotification() -> PostgresNotification? {
        guard let notification = PQnotifies(handle.pointer) else { return nil }
        defer { PQfreemem(notification) }
        guard let channel = notification.pointee.relname, let payload = notification.pointee.extra else { return nil }
        return .notification(channel: String(cString: channel), payload: String(cString: payload))
    }

    /// Waits for input of the server and takes it in.
    func takeInput(timeout: Duration?) async throws(PostgresError) {
        switch await handle.waitForInput(timeout: timeout) {
        case .ready: guard PQconsumeInput(handle.pointer) == 1 else { throw handle.lost() }
        case .timedOut: return
        case .cancelled: throw PostgresError(.cancelled, "the task was cancelled")
        }
    }

    // MARK: Running

    private struct Answer {
        var rows: [PostgresRow] = []
        var affected = 0
        var tag = ""
    }

    /// Admits one operation and decides afterwards whether the session survives.
    private func operation<R>(_ body: () async throws(PostgresError) -> R) async throws(PostgresError) -> R {
        guard !isBusy.exchange(true, ordering: .acquiring) else {
            preconditionFailure("a database session was used by two tasks at once")
        }
        defer { isBusy.store(false, ordering: .releasing) }
        guard !isBroken else { throw PostgresError(.connection, "the session was closed") }
        guard !Task.isCancelled else { throw PostgresError(.cancelled, "the task was cancelled") }
        let start = ContinuousClock.now
        defer { metrics?.query(since: start) }
        do {
            return try await body()
        } catch {
            if error.code == .cancelled, !isPreparing {
                await drain()
            } else if error.code == .cancelled {
                // Whether the server knows the statement remains unknown.
                isBroken = true
            } else if error.code == .connection || error.isConnectionFailure {
                isBroken = true
            }
            throw error
        }
    }

    /// Waits a little for the answers of a cancelled operation; gives the session up if they do not come.
    private func drain() async {
        do {
            try await handle.flush(shielded: true)
            var nils = 0
            while PQpipelineStatus(handle.pointer) != PQ_PIPELINE_OFF || nils == 0 {
                guard let result = try await handle.nextResult(shielded: true) else {
                    nils += 1
                    guard nils < 10_000 else { throw PostgresError(.connection, "no end of answers") }
                    continue
                }
                let isSync = PQresultStatus(result) == PGRES_PIPELINE_SYNC
                PQclear(result)
                if isSync, PQexitPipelineMode(handle.pointer) == 1 { break }
            }
        } catch {
            isBroken = true
        }
    }

    private func single(_ sql: SQL) async throws(PostgresError) -> Answer {
        try await operation { () async throws(PostgresError) in
            guard self.pendingBegin == nil, self.deferred.isEmpty, let known = self.prepared[sql.text] else {
                return try await self.runPipeline([sql])[0]
            }
            guard Self.sendPrepared(self.handle.pointer, known.name, sql) else { throw self.handle.lost() }
            try await self.handle.flush(shielded: false)
            var answer = Answer()
            var failure: PostgresError?
            while let result = try await self.handle.nextResult(shielded: false) {
                do throws(PostgresError) {
                    answer = try self.answer(result, sql.text)
                } catch {
                    failure = failure ?? error
                }
            }
            if let failure { throw failure }
            return answer
        }
    }

    /// One round trip: a pending BEGIN, what was put off, the statements, the preparations they need and a sync.
    private func runPipeline(_ statements: [SQL]) async throws(PostgresError) -> [Answer] {
        if prepared.count > Self.maximumPrepared { try await forgetStatements() }
        let pointer = handle.pointer
        let ahead = (pendingBegin.map { [SQL(unsafe: $0)] } ?? []) + deferred
        pendingBegin = nil
        deferred = []
        guard PQenterPipelineMode(pointer) == 1 else { throw handle.lost() }

        enum Step {
            case prepare(String)
            case run(String, isAhead: Bool)
        }
        var steps: [Step] = []
        for (index, sql) in (ahead + statements).enumerated() {
            let name: String
            if let known = prepared[sql.text] {
                name = known.name
            } else {
                name = "s\(nextStatement)"
                nextStatement += 1
                guard PQsendPrepare(pointer, name, sql.text, 0, nil) == 1 else { throw handle.lost() }
                prepared[sql.text] = Prepared(name: name)
                isPreparing = true
                steps.append(.prepare(sql.text))
            }
            guard Self.sendPrepared(pointer, name, sql) else { throw handle.lost() }
            steps.append(.run(sql.text, isAhead: index < ahead.count))
        }
        guard PQpipelineSync(pointer) == 1 else { throw handle.lost() }
        try await handle.flush(shielded: false)

        var answers: [Answer] = []
        answers.reserveCapacity(statements.count)
        var failure: PostgresError?
        for step in steps {
            while let result = try await handle.nextResult(shielded: false) {
                switch step {
                case .run(let text, let isAhead):
                    do throws(PostgresError) {
                        let answer = try answer(result, text)
                        if !isAhead { answers.append(answer) }
                    } catch {
                        failure = failure ?? error
                    }
                case .prepare(let text):
                    if PQresultStatus(result) != PGRES_COMMAND_OK {
                        prepared[text] = nil
                        failure = failure ?? Self.error(result)
                    }
                    PQclear(result)
                }
            }
        }
        guard let sync = try await handle.nextResult(shielded: false) else { throw handle.lost() }
        let isSync = PQresultStatus(sync) == PGRES_PIPELINE_SYNC
        PQclear(sync)
        guard isSync, PQexitPipelineMode(pointer) == 1 else { throw handle.lost() }
        isPreparing = false
        if let failure { throw failure }
        return answers
    }

    private var nextStatement = 0

    private func forgetStatements() async throws(PostgresError) {
        prepared = [:]
        try send("deallocate all")
        try await handle.flush(shielded: false)
        while let result = try await handle.nextResult(shielded: false) { PQclear(result) }
    }

    private static func sendPrepared(_ pointer: OpaquePointer, _ name: String, _ sql: SQL) -> Bool {
        sql.bytes.withUnsafeBytes { bytes in
            withUnsafeTemporaryAllocation(of: UnsafePointer<CChar>?.self, capacity: sql.offsets.count) { values in
                for (index, offset) in sql.offsets.enumerated() {
                    let start = offset < 0 ? nil : bytes.baseAddress?.advanced(by: offset)
                    values.initializeElement(at: index, to: start?.assumingMemoryBound(to: CChar.self))
                }
                let count = Int32(sql.offsets.count)
                return PQsendQueryPrepared(pointer, name, count, values.baseAddress, nil, nil, 0) == 1
            }
        }
    }

    /// Takes ownership of an answer and turns it into rows, or throws what the server said.
    private func answer(_ result: OpaquePointer, _ text: String) throws(PostgresError) -> Answer {
        switch PQresultStatus(result) {
        case PGRES_TUPLES_OK:
            let affected = PQcmdTuples(result).flatMap { Int(String(cString: $0)) } ?? 0
            let columns: ResultColumns
            if let known = prepared[text]?.columns {
                columns = known
            } else {
                columns = ResultColumns(result)
                prepared[text]?.columns = columns
            }
            return Answer(rows: PostgresResult(result, columns: columns).rows, affected: affected)
        case PGRES_COMMAND_OK, PGRES_EMPTY_QUERY:
            defer { PQclear(result) }
            let affected = PQcmdTuples(result).flatMap { Int(String(cString: $0)) } ?? 0
            return Answer(affected: affected, tag: PQcmdStatus(result).map { String(cString: $0) } ?? "")
        default:
            defer { PQclear(result) }
            throw Self.error(result) ?? PostgresError(.server, "an answer that makes no sense here")
        }
    }

    /// What the server complains about in an answer, nil if nothing.
    private static func error(_ result: OpaquePointer) -> PostgresError? {
        let status = PQresultStatus(result)
        if status == PGRES_PIPELINE_ABORTED {
            return PostgresError(.server, "an earlier statement of the pipeline failed", sqlState: "25P02")
        }
        guard status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE else { return nil }
        func field(_ code: UnicodeScalar) -> String? {
            PQresultErrorField(result, Int32(code.value)).map { String(cString: $0) }
        }
        guard let state = field("C") else {
            let text = PQresultErrorMessage(result).map { String(cString: $0) } ?? ""
            return PostgresError(.connection, text.split(separator: "\n").joined(separator: "; "))
        }
        return PostgresError(
            .server,
            message(field("M") ?? "the statement failed", state),
            sqlState: state,
            constraint: field("n")
        )
    }

    /// Messages of class 22 quote the offending value, which may be secret.
    private static func message(_ text: String, _ state: String) -> String {
        guard state.hasPrefix("22"), let quote = text.firstIndex(of: "\"") else { return text }
        return text[..<quote] + "…"
    }
}

/// How much a transaction sees of others.
public enum PostgresIsolation: Sendable {
    /// Each statement sees what is committed when it starts.
    case readCommitted
    /// All statements see what was committed when the first one started.
    case repeatableRead
    /// As if transactions ran one after another.
    case serializable

    fileprivate var begin: String {
        switch self {
        case .readCommitted: "begin isolation level read committed"
        case .repeatableRead: "begin isolation level repeatable read"
        case .serializable: "begin isolation level serializable"
        }
    }
}
