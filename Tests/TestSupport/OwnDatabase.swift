// SPDX-License-Identifier: MPL-2.0

public import Postgres
import Synchronization

/// A whole database for one test, for code whose tables are in schemas with fixed names.
public enum OwnDatabase {
    /// Makes and drops databases, which takes its time on a busy machine.
    private static let admin = Result {
        PostgresPool(
            PostgresConfiguration(
                url: try TestDatabase.url(),
                applicationName: "tests",
                poolSize: 4,
                acquireTimeout: .seconds(240),
                statementTimeout: .seconds(120)
            )
        )
    }

    /// Each database takes connections of the one server.
    private static let turns = Turns(14)

    /// Creates a database, lends its URL to a body and drops it whatever happens; few are lent at a time.
    public static func with<R: Sendable>(_ label: String, _ body: (String) async throws -> R) async throws -> R {
        await turns.enter()
        defer { turns.leave() }
        let admin = try Self.admin.get()
        let name = "test_\(label)_" + String(UInt64.random(in: .min ... .max), radix: 36)
        try await admin.execute("create database \(unsafe: name)")
        do {
            let result = try await body(url(of: name))
            await drop(name, admin)
            return result
        } catch {
            await drop(name, admin)
            throw error
        }
    }

    /// Creates a database and lends a pool for it as well.
    public static func with<R: Sendable>(
        _ label: String,
        poolSize: Int,
        _ body: (_ pool: PostgresPool, _ url: String) async throws -> R
    ) async throws -> R {
        try await with(label) { url in
            let configuration = PostgresConfiguration(
                url: url,
                applicationName: "\(label)-tests",
                poolSize: poolSize,
                acquireTimeout: .seconds(120)
            )
            let pool = PostgresPool(configuration)
            defer { pool.close() }
            return try await body(pool, url)
        }
    }

    private static func drop(_ name: String, _ admin: PostgresPool) async {
        // A database that is left behind harms nobody: its name is never used again.
        _ = try? await admin.execute("drop database if exists \(unsafe: name) with (force)")
    }

    private static func url(of database: String) throws -> String {
        let url = try TestDatabase.url()
        guard let slash = url.lastIndex(of: "/") else { return url }
        let query = url[slash...].firstIndex(of: "?").map { String(url[$0...]) } ?? ""
        return url[...slash] + database + query
    }
}

/// Lets few in at a time, in the order in which they came.
private final class Turns: Sendable {
    private let state: Mutex<(free: Int, waiting: [CheckedContinuation<Void, Never>])>

    init(_ count: Int) {
        state = Mutex((count, []))
    }

    func enter() async {
        await withCheckedContinuation { continuation in
            let mayEnter = state.withLock { state in
                guard state.free == 0 else {
                    state.free -= 1
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if mayEnter { continuation.resume() }
        }
    }

    func leave() {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.waiting.isEmpty else {
                state.free += 1
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.resume()
    }
}
