// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import LocalTaskclusterKit
import Postgres
import Schedules
import Synchronization
import Taskcluster

/// How the queue behaves over HTTP when much waits in it, and when many wait at it.
struct QueueLoadBenchmark {
    private let target: LoadTarget

    init() throws {
        target = try LoadTarget("TASKCLUSTER_ROOT_URL")
    }

    // MARK: - A backlog

    /// How long a claim takes with a short and with a long backlog, in turn, and after the long one was cancelled.
    func backlog(_ short: Int, _ long: Int, rounds: Int) async throws {
        let pool = PostgresPool(
            PostgresConfiguration(url: try environment("DATABASE_URL"), applicationName: "benchmark", poolSize: 1)
        )
        let names = (short: Self.queueName(), long: Self.queueName())
        try await Self.fill(pool, names.long, count: long + 2 * rounds)
        let connection = try target.connection()
        for _ in 0..<short { try create(names.short, on: connection) }
        var times = (short: [Double](), long: [Double](), after: [Double]())
        for round in 0..<rounds {
            try create(names.short, on: connection)
            let pair = (short: try claim(names.short, on: connection), long: try claim(names.long, on: connection))
            // The first ones find out where everything is.
            guard round >= rounds / 10 else { continue }
            times.short.append(pair.short)
            times.long.append(pair.long)
        }
        try await Self.cancel(pool, names.long)
        for _ in 0..<rounds / 2 {
            try create(names.long, on: connection)
            times.after.append(try claim(names.long, on: connection))
        }
        try await Self.forget(pool, [names.short, names.long])
        pool.close()
        report([
            "short": JSONValue(Latencies(times.short).percentile(50)),
            "long": JSONValue(Latencies(times.long).percentile(50)),
            "after": JSONValue(Latencies(times.after).percentile(50)),
        ])
    }

    /// Takes one task, which must be there; the time the answer took.
    private func claim(_ queue: String, on connection: LoadConnection) throws -> Double {
        let request = Self.claimRequest(target, queue, worker: "bench")
        let start = ContinuousClock.now
        let (status, body) = try connection.send(request)
        let time = (ContinuousClock.now - start).milliseconds
        guard status == 200, let claim = try JSONValue(parsing: body)["tasks"]?.array?.first,
            let id = claim["status"]?["taskId"]?.string
        else { throw BenchmarkError("a claim from a backlog found nothing: \(status)") }
        let done = try connection.send(target.request("POST", "/api/queue/v1/task/\(id)/runs/0/completed", [:]))
        guard done.status == 200 else { throw BenchmarkError("a task was not completed: \(done.status)") }
        return time
    }

    private func create(_ queue: String, on connection: LoadConnection) throws {
        let (status, body) = try connection.send(Self.createRequest(target, queue))
        guard status == 200 else {
            throw BenchmarkError("a task was not created: \(status) \(String(decoding: body, as: UTF8.self))")
        }
    }

    // MARK: - Waiting workers

    /// How long it takes from the request that creates a task to the answer of a worker that waited for one.
    func wake(count: Int) async throws {
        let queue = Self.queueName()
        let target = target
        let meeting = Meeting()
        _ = try await onThreads(2) { thread in
            let connection = try target.connection()
            for round in 0..<count {
                if thread == 0 {
                    let request = Self.claimRequest(target, queue, worker: "waiting")
                    meeting.note { $0.waiting = round }
                    let (status, body) = try connection.send(request)
                    let now = ContinuousClock.now
                    guard status == 200, let claim = try JSONValue(parsing: body)["tasks"]?.array?.first,
                        let id = claim["status"]?["taskId"]?.string
                    else { throw BenchmarkError("a waiting worker got nothing: \(status)") }
                    meeting.note { meeting in
                        meeting.times.append((now - meeting.begun[round]).milliseconds)
                        meeting.answered = round
                    }
                    let path = "/api/queue/v1/task/\(id)/runs/0/completed"
                    guard try connection.send(target.request("POST", path, [:])).status == 200 else {
                        throw BenchmarkError("a task was not completed")
                    }
                } else {
                    try meeting.wait { $0.waiting >= round }
                    // Long enough for the request to have arrived and to have found nothing.
                    usleep(40_000)
                    let request = Self.createRequest(target, queue)
                    meeting.note { $0.begun.append(.now) }
                    guard try connection.send(request).status == 200 else {
                        throw BenchmarkError("a task was not created")
                    }
                    try meeting.wait { $0.answered >= round }
                }
            }
        }
        let all = Latencies(meeting.times)
        report(["p50": JSONValue(all.percentile(50)), "p99": JSONValue(all.percentile(99))])
    }

    /// Has so many workers wait until standard input ends; says so when all have asked.
    func idle(count: Int) throws {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = min(limit.rlim_max, rlim_t(count + 200))
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        let queue = Self.queueName()
        var connections: [LoadConnection] = []
        for number in 0..<count {
            let connection = try target.connection()
            try connection.write(Self.claimRequest(target, queue, worker: "idle-\(number)"))
            connections.append(connection)
        }
        print("waiting")
        fflush(nil)
        while getchar() != EOF {}
        withExtendedLifetime(connections) {}
    }

    // MARK: - Requests

    private static func queueName() -> String {
        "bench/load-" + String(UInt64.random(in: 0...0xff_ffff_ffff), radix: 36)
    }

    private static func claimRequest(_ target: LoadTarget, _ queue: String, worker: String) -> [UInt8] {
        let name = queue.split(separator: "/").joined(separator: "%2F")
        return target.request(
            "POST",
            "/api/queue/v1/claim-work/\(name)",
            ["workerGroup": "bench", "workerId": .string(worker), "tasks": 1]
        )
    }

    private static func createRequest(_ target: LoadTarget, _ queue: String) -> [UInt8] {
        target.request("PUT", "/api/queue/v1/task/\(Slugid.make())", definition(queue, now: .now()))
    }

    private static func definition(_ queue: String, now: Timestamp) -> JSONValue {
        [
            "taskQueueId": .string(queue), "created": .string(now.iso8601),
            "deadline": .string((now + .seconds(3600)).iso8601), "payload": ["command": ["true"]],
            "metadata": [
                "name": "benchmark", "description": "a task", "owner": "bench@example.com",
                "source": "https://example.com",
            ],
        ]
    }

    // MARK: - The database

    /// Makes so many pending tasks as `createTask` would have made them, without the wait for each.
    private static func fill(_ pool: PostgresPool, _ queue: String, count: Int) async throws {
        let now = Timestamp.now()
        let task = try TaskDefinition(taskID: Slugid.make(), request: definition(queue, now: now))
        let runs: JSONValue = [
            [
                "runId": 0, "state": "pending", "reasonCreated": "scheduled", "scheduled": .string(now.iso8601),
            ]
        ]
        let step = 20_000
        for first in stride(from: 0, to: count, by: step) {
            try await pool.execute(
                """
                with ids as materialized (
                    select n, substr(md5(\(queue)::text || n), 1, 8) || 'QaC' || substr(md5(n || \(queue)::text), 1, 10)
                        || 'A' as id
                    from generate_series(\(first)::int, \(min(first + step, count) - 1)::int) n
                ), tasks as (
                    insert into tcl.tasks (task_id, task_queue_id, scheduler_id, project_id, task_group_id, priority,
                        retries, deadline, expires, routes, tags, definition)
                    select id, \(queue)::text, '-', 'none', id, \(task.priority.rawValue)::smallint, 5::smallint,
                        \(task.deadline)::timestamptz, \(task.expires)::timestamptz, '{}', '{}',
                        replace(\(task.text)::text, \(task.taskID)::text, id)::json from ids
                ), groups as (
                    insert into tcl.groups (task_group_id, scheduler_id, created)
                    select id, '-', \(now)::timestamptz from ids
                ), deadlines as (
                    insert into tcl.deadlines (task_id, due) select id, \(task.deadline)::timestamptz from ids
                ), status as (
                    insert into tcl.task_status (task_id, task_group_id, state, retries_left, runs)
                    select id, id, 'pending', 5::smallint, \(runs.text())::json from ids
                )
                insert into tcl.pending (task_id, run_id, task_queue_id, priority, deadline, inserted)
                select id, 0, \(queue)::text, \(task.priority.rawValue)::smallint, \(task.deadline)::timestamptz,
                    \(now)::timestamptz from ids order by n
                """
            )
        }
    }

    /// Takes the rest of a backlog away, as cancelling every task does; the dead rows stay for now.
    private static func cancel(_ pool: PostgresPool, _ queue: String) async throws {
        try await pool.execute("delete from tcl.pending where task_queue_id = \(queue)")
    }

    private static func forget(_ pool: PostgresPool, _ queues: [String]) async throws {
        let ids: SQL = "select task_id from tcl.tasks where task_queue_id = any(\(queues)::text[])"
        for table in ["pending", "claims", "deadlines", "task_status", "resolutions"] {
            try await pool.execute("delete from tcl.\(unsafe: table) where task_id in (" + ids + ")")
        }
        try await pool.execute("delete from tcl.groups where task_group_id in (" + ids + ")")
        try await pool.execute("delete from tcl.tasks where task_queue_id = any(\(queues)::text[])")
    }

    private func report(_ facts: JSONObject) {
        print(JSONValue.object(facts).text())
    }
}

/// Where a worker that waits and a creator of tasks tell each other how far they are.
private final class Meeting: Sendable {
    struct State {
        var waiting = -1
        var answered = -1
        var begun: [ContinuousClock.Instant] = []
        var times: [Double] = []
    }

    private let state = Mutex(State())

    var times: [Double] { state.withLock { $0.times } }

    func note(_ change: (inout State) -> Void) { state.withLock { change(&$0) } }

    func wait(until isTrue: (State) -> Bool) throws {
        for _ in 0..<60_000 {
            if state.withLock({ isTrue($0) }) { return }
            usleep(1000)
        }
        throw BenchmarkError("a worker was not woken within a minute")
    }
}
