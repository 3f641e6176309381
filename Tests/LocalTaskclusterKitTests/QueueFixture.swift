// SPDX-License-Identifier: MPL-2.0
import Glibc
import JSON
import Postgres
import Schedules
import Taskcluster
import TestSupport

@testable import LocalTaskclusterKit

/// How often tests of races try: `QUEUE_RACE_ROUNDS`, or as often as a test run can wait for.
let raceRounds: Int = {
    let text = getenv("QUEUE_RACE_ROUNDS").map { String(cString: $0) }
    return text.flatMap { Int($0) } ?? 60
}()

/// A queue in a database of its own, because the schema's name is fixed and sweepers look at every row.
struct QueueFixture: Sendable {
    let store: QueueStore
    let pool: PostgresPool
    let start = Timestamp.now()
    let worker = WorkerName(group: "g", id: "w")

    static func with<R: Sendable>(_ body: (QueueFixture) async throws -> R) async throws -> R {
        let url = try TestDatabase.url()
        let name = "test_queue_" + String(UInt64.random(in: .min ... .max), radix: 36)
        let admin = PostgresPool(PostgresConfiguration(url: url, applicationName: name, poolSize: 1))
        defer { admin.close() }
        try await admin.execute("create database \(unsafe: name)")
        let slash = url.lastIndex(of: "/") ?? url.endIndex
        let query = url[slash...].firstIndex(of: "?").map { String(url[$0...]) } ?? ""
        let own = "\(url[..<slash])/\(name)\(query)"
        let pool = PostgresPool(PostgresConfiguration(url: own, applicationName: name, poolSize: 4))
        do {
            try await LocalTaskcluster.migrate(pool)
            let store = QueueStore(pool: pool, claimTimeout: .seconds(3))
            let result = try await body(QueueFixture(store: store, pool: pool))
            pool.close()
            _ = try? await admin.execute("drop database if exists \(unsafe: name) with (force)")
            return result
        } catch {
            pool.close()
            _ = try? await admin.execute("drop database if exists \(unsafe: name) with (force)")
            throw error
        }
    }

    func definition(_ id: String, _ changes: JSONObject = [:]) throws -> TaskDefinition {
        var request: JSONValue = [
            "taskQueueId": "local/wt", "created": .string(start.iso8601),
            "deadline": .string((start + .seconds(3600)).iso8601), "payload": ["n": 1],
            "metadata": ["name": "n", "description": "d", "owner": "o", "source": "https://example.com"],
        ]
        for (key, value) in changes { request[key] = value }
        return try TaskDefinition(taskID: id, request: request)
    }

    @discardableResult
    func create(_ id: String = Slugid.make(), _ changes: JSONObject = [:]) async throws -> TaskStatus {
        try await store.createTask(try definition(id, changes), now: start)
    }

    func claim(_ count: Int = 1, at time: Timestamp? = nil) async throws -> [TaskClaim] {
        try await store.claim(from: "local/wt", by: worker, count: count, now: time ?? start)
    }

    func drawAll() async throws {
        while try await store.drawConsequences(now: start) {}
    }

    /// The last words of the exchanges that messages about a task went to, in order.
    func announced(_ taskID: String) async throws -> [String] {
        try await pool.query(
            "select exchange from tcl.outbox where routing_key like 'primary.' || \(taskID) || '.%' order by id"
        ).map { try $0.string("exchange").split(separator: "/").last.map(String.init) ?? "" }
    }
}

extension QueueFixture {
    /// Creates a task and has the fixture's worker take it.
    func running(_ changes: JSONObject = [:]) async throws -> String {
        let id = try await create(Slugid.make(), changes).taskID
        _ = try await store.claim(taskID: id, run: 0, by: worker, now: start)
        return id
    }

    /// Takes a run and reports it.
    func resolve(_ id: String, as resolution: RunResolution = .completed, run: Int = 0) async throws {
        _ = try await store.claim(taskID: id, run: run, by: worker, now: start)
        _ = try await store.complete(taskID: id, run: run, as: resolution, now: start)
    }

    /// Whether an operation was refused by the rules; any other failure is thrown.
    func isRefused(_ body: () async throws -> Void) async throws -> Bool {
        do {
            try await body()
            return false
        } catch is QueueProblem {
            return true
        }
    }
}
