// SPDX-License-Identifier: MPL-2.0

import CLibPQ
import CLinux
import Core
import Glibc

/// One libpq connection in non-blocking mode; nothing here ever blocks the calling thread.
///
/// The owner calls one method at a time.
final class Handle: @unchecked Sendable {
    // SAFETY: `PostgresConnection` admits one operation at a time, and the pool lends a connection to one task at a time.
    let pointer: OpaquePointer
    private let watch: Watch

    /// Opens a connection; name look-up happens on a thread of its own, the rest in the reactor.
    static func open(_ configuration: PostgresConfiguration) async throws(PostgresError) -> Handle {
        let pairs = ConnectionParameters.pairs(configuration)
        let started = await withCheckedContinuation { (continuation: CheckedContinuation<Pointer?, Never>) in
            // `PQconnectStart` looks names up with the resolver, which blocks.
            startThread(named: "postgres-open") { continuation.resume(returning: start(pairs)) }
        }
        guard let pointer = started?.value else { throw PostgresError(.connection, "out of memory") }
        do {
            try await poll(pointer, until: .now + configuration.connectTimeout)
            PQsetnonblocking(pointer, 1)
            _ = PQsetNoticeReceiver(pointer, { _, _ in }, nil)
            return Handle(pointer)
        } catch {
            PQfinish(pointer)
            throw error
        }
    }

    private init(_ pointer: OpaquePointer) {
        self.pointer = pointer
        watch = Reactor.shared.watch(PQsocket(pointer))
    }

    deinit {
        watch.close()
        PQfinish(pointer)
    }

    /// Whether the connection is in order as far as it is known here.
    var isIdle: Bool {
        PQstatus(pointer) == CONNECTION_OK && PQtransactionStatus(pointer) == PQTRANS_IDLE
    }

    /// Whether the connection is in order; costs one short system call, which notices a server's farewell.
    var isAlive: Bool {
        guard isIdle else { return false }
        var set = pollfd(fd: PQsocket(pointer), events: Int16(POLLIN), revents: 0)
        guard Glibc.poll(&set, 1, 0) != 0 else { return true }
        // A farewell and the end of the stream take two reads; a mere notice takes one.
        for _ in 0..<2 where PQconsumeInput(pointer) == 0 { return false }
        return PQstatus(pointer) == CONNECTION_OK
    }

    /// Sends everything that libpq has buffered.
    func flush(shielded: Bool) async throws(PostgresError) {
        while true {
            let status = PQflush(pointer)
            if status == 0 { return }
            guard status > 0 else { throw lost() }
            try await wait(.either, shielded)
            guard PQconsumeInput(pointer) == 1 else { throw lost() }
        }
    }

    /// The next answer, nil at the end of a statement's answers.
    func nextResult(shielded: Bool) async throws(PostgresError) -> OpaquePointer? {
        while PQisBusy(pointer) == 1 {
            try await wait(.readable, shielded)
            guard PQconsumeInput(pointer) == 1 else { throw lost() }
        }
        return PQgetResult(pointer)
    }

    /// Waits for something to arrive.
    func waitForInput(timeout: Duration?) async -> Reactor.Outcome {
        await watch.wait(for: .readable, timeout: timeout)
    }

    /// The error for a connection that broke.
    func lost() -> PostgresError {
        PostgresError(.connection, Handle.message(pointer))
    }

    private func wait(_ interest: Reactor.Interest, _ shielded: Bool) async throws(PostgresError) {
        let outcome =
            shielded
            ? await watch.waitUncancelled(for: interest, timeout: .milliseconds(500)) : await watch.wait(for: interest)
        switch outcome {
        case .ready: return
        case .cancelled: throw PostgresError(.cancelled, "the task was cancelled")
        case .timedOut: throw PostgresError(.connection, "no answer in time")
        }
    }

    // MARK: Opening

    // SAFETY: the pointer is made on one thread and handed over exactly once.
    private struct Pointer: @unchecked Sendable {
        let value: OpaquePointer
    }

    private static func start(_ pairs: [(String, String)]) -> Pointer? {
        var keywords = pairs.map { strdup($0.0).map { UnsafePointer($0) } } + [nil]
        var values = pairs.map { strdup($0.1).map { UnsafePointer($0) } } + [nil]
        defer {
            for text in keywords + values { free(UnsafeMutablePointer(mutating: text)) }
        }
        return PQconnectStartParams(&keywords, &values, 1).map { Pointer(value: $0) }
    }

    private static func poll(
        _ pointer: OpaquePointer,
        until deadline: ContinuousClock.Instant
    ) async throws(PostgresError) {
        guard PQstatus(pointer) != CONNECTION_BAD else { throw PostgresError(.connection, unreachable(pointer)) }
        var interest = Reactor.Interest.writable
        while true {
            let left = deadline - .now
            guard left > .zero else { throw PostgresError(.connection, "the server does not answer") }
            // The socket may change between steps: several addresses, or encryption refused.
            let watch = Reactor.shared.watch(PQsocket(pointer))
            let outcome = await watch.wait(for: interest, timeout: left)
            watch.close()
            switch outcome {
            case .cancelled: throw PostgresError(.cancelled, "the task was cancelled")
            case .timedOut: throw PostgresError(.connection, "the server does not answer")
            case .ready: break
            }
            switch PQconnectPoll(pointer) {
            case PGRES_POLLING_OK: return
            case PGRES_POLLING_READING: interest = .readable
            case PGRES_POLLING_WRITING: interest = .writable
            default: throw PostgresError(.connection, unreachable(pointer))
            }
        }
    }

    /// Why there is no connection, and what to look at.
    private static func unreachable(_ pointer: OpaquePointer) -> String {
        let text = PQerrorMessage(pointer).map { String(cString: $0) } ?? ""
        let line = text.split(separator: "\n").first.map(String.init) ?? "the server does not answer"
        return "\(line); check DATABASE_URL"
    }

    private static func message(_ pointer: OpaquePointer) -> String {
        let text = PQerrorMessage(pointer).map { String(cString: $0) } ?? ""
        let line = text.split(separator: "\n").joined(separator: "; ")
        return line.isEmpty ? "the connection was lost" : line
    }
}
