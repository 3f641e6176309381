// SPDX-License-Identifier: MPL-2.0

import JSON
import LocalTaskclusterKit
import Postgres
import Schedules
import Taskcluster

/// How fast our queue store takes tasks from creation to completion, to be compared with `floor/queue_floor.c`.
enum QueueBenchmark {
    private static let tables = """
        tcl.tasks, tcl.task_status, tcl.groups, tcl.pending, tcl.claims, tcl.deadlines, tcl.edges, tcl.resolutions, \
        tcl.outbox
        """

    /// Makes a database of its own beside the given one, with the queue's tables.
    static func setUp(url: String, beside: String, name: String) async throws {
        let pool = PostgresPool(PostgresConfiguration(url: beside, applicationName: "benchmark"))
        try await pool.withConnection { connection in
            try await connection.script("drop database if exists \(name) with (force)")
            try await connection.script("create database \(name)")
        }
        pool.close()
        let own = PostgresPool(PostgresConfiguration(url: url, applicationName: "benchmark"))
        try await LocalTaskcluster.migrate(own)
        own.close()
    }

    /// Empties the tables, so that each run begins alike.
    static func empty(url: String) async throws {
        let pool = PostgresPool(PostgresConfiguration(url: url, applicationName: "benchmark"))
        try await pool.withConnection { try await $0.script("truncate \(tables); checkpoint") }
        pool.close()
    }

    /// Creates, claims and completes tasks on so many connections for some time; answers completed tasks a second.
    static func run(url: String, connections: Int, seconds: Int) async throws -> Double {
        let configuration = PostgresConfiguration(url: url, applicationName: "benchmark", poolSize: connections)
        let store = QueueStore(pool: PostgresPool(configuration))
        let start = ContinuousClock.now
        let end = start + .seconds(seconds)
        let completed = try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 0..<connections {
                group.addTask {
                    let worker = WorkerName(group: "bench", id: "worker-\(number)")
                    var completed = 0
                    while ContinuousClock.now < end { completed += try await take(store, worker) }
                    return completed
                }
            }
            return try await group.reduce(0, +)
        }
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        store.pool.close()
        return Double(completed) / elapsed
    }

    private static func take(_ store: QueueStore, _ worker: WorkerName) async throws -> Int {
        let now = Timestamp.now()
        let request: JSONValue = [
            "taskQueueId": "bench/store", "created": JSONValue(now.iso8601),
            "deadline": JSONValue((now + .seconds(3600)).iso8601), "payload": ["command": ["true"]],
            "metadata": [
                "name": "benchmark", "description": "a task", "owner": "bench@example.com",
                "source": "https://example.com",
            ],
        ]
        _ = try await store.createTask(try TaskDefinition(taskID: Slugid.make(), request: request), now: now)
        let claims = try await store.claim(from: "bench/store", by: worker, count: 1, now: .now())
        for claim in claims {
            let status = try await store.complete(
                taskID: claim.status.taskID,
                run: claim.runID,
                as: .completed,
                now: .now()
            )
            guard status.state == "completed" else { throw BenchmarkError("a task did not complete") }
        }
        return claims.count
    }
}

/// Says why a benchmark means nothing.
struct BenchmarkError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}
