// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON
import Postgres
import Pulse
import Schedules
import Synchronization
import Taskcluster

/// Drives hooks through the running services and looks at what arrives in the queue.
///
/// Every measurement prints one JSON object. Which tasks exist is read from the queue's tables, by task queue: each run
/// uses one of its own, so that nothing is counted twice.
struct HooksBenchmark {
    private let run: String
    private let pool: PostgresPool

    init(run: String = "r\(UInt32.random(in: 0..<1 << 30))") throws {
        self.run = run
        pool = PostgresPool(
            PostgresConfiguration(url: try environment("DATABASE_URL"), applicationName: "benchmark", poolSize: 2)
        )
    }

    private var queue: String { "bench/\(run)" }
    private var exchange: String { "exchange/benchmark/v1/\(run)" }

    // MARK: triggerHook

    /// Triggers one hook over so many connections.
    func trigger(connections: Int, count: Int) async throws {
        let target = try LoadTarget("HOOKS_URL")
        try await put(target, ["trigger"]) { _ in definition() }
        let path = "/api/hooks/v1/hooks/bench-\(run)/trigger/trigger"
        let requests = (0..<count).map { target.request("POST", path, ["n": JSONValue($0)]) }
        let usage = ProcessUsage()
        let start = ContinuousClock.now
        let replies = try await onThreads(connections) { thread in
            let connection = try target.connection()
            var milliseconds: [Double] = []
            var ids: Set<String> = []
            for index in stride(from: thread, to: count, by: connections) {
                let start = ContinuousClock.now
                let (status, body) = try connection.send(requests[index])
                milliseconds.append((ContinuousClock.now - start).milliseconds)
                guard status == 200, let id = try JSONValue(parsing: body)["status"]?["taskId"]?.string else {
                    throw BenchmarkError("triggerHook answered \(status): \(String(decoding: body, as: UTF8.self))")
                }
                ids.insert(id)
            }
            return (milliseconds, ids)
        }
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        let cost = usage.perOperation(count)
        let ids = replies.reduce(into: Set<String>()) { $0.formUnion($1.1) }
        let created = try await numbers()
        try check(created, expected: count)
        let latencies = Latencies(replies.flatMap(\.0))
        report([
            "rate": JSONValue(Double(count) / elapsed), "p50": JSONValue(latencies.percentile(50)),
            "p99": JSONValue(latencies.percentile(99)), "distinct": JSONValue(ids.count), "cpu": cost,
        ])
        try await removeHooks()
    }

    // MARK: Messages

    /// Publishes messages one at a time and waits for the task of each, then a burst of them at once.
    func messages(single: Int, burst: Int) async throws {
        let pulse = PulseConnection(try PulseConfiguration(url: try environment("AMQP_URL")), name: "benchmark")
        try await pulse.declareExchange(exchange)
        let target = try LoadTarget("HOOKS_URL")
        let bindings: JSONValue = [["exchange": .string(exchange), "routingKeyPattern": "#"]]
        try await put(target, ["message"]) { _ in definition(["bindings": bindings]) }
        try await waitForQueues(1)

        var milliseconds: [Double] = []
        var blind = 1.0
        for number in 0..<single {
            try await Task.sleep(for: .milliseconds(20))
            let start = ContinuousClock.now
            try await pulse.publish(message(number))
            // Looking takes the processor away from what is measured, so it begins when the first tasks may be there: a
            // fifth before the fastest one so far.
            try await Task.sleep(until: start + .milliseconds(blind))
            while try await count() <= number {
                guard ContinuousClock.now - start < .seconds(20) else {
                    throw BenchmarkError("message \(number) made no task within 20 s")
                }
                try await Task.sleep(for: .microseconds(300))
            }
            milliseconds.append((ContinuousClock.now - start).milliseconds)
            if let fastest = milliseconds.dropFirst().min() { blind = 0.8 * fastest }
        }
        let usage = ProcessUsage()
        let start = ContinuousClock.now
        let numbered = (single..<(single + burst)).map(message)
        async let publishing: Void = pulse.publish(numbered, timeout: .seconds(120))
        let elapsed = try await waitForTasks(single + burst, since: start, limit: .seconds(300))
        let cost = usage.perOperation(burst)
        try await publishing
        try check(try await numbers(), expected: single + burst)
        let latencies = Latencies(milliseconds)
        report([
            "p50": JSONValue(latencies.percentile(50)), "p95": JSONValue(latencies.percentile(95)),
            "burst": JSONValue(burst), "rate": JSONValue(Double(burst) / (elapsed / .seconds(1))),
            "cpu": cost,
        ])
        try await removeHooks()
        try await pulse.deleteExchange(exchange)
        await pulse.shutDown()
    }

    private func message(_ number: Int) -> PulseMessage {
        PulseMessage(exchange: exchange, routingKey: "event.\(number)", payload: ["n": JSONValue(number)])
    }

    // MARK: Schedules

    /// Creates hooks that are all due in the same second of so many minutes and tells how long after it the last has fired.
    ///
    /// Before each minute but the first a line of input is awaited, which may name processes that were added.
    func due(hooks: Int, minutes: Int) async throws {
        let target = try LoadTarget("HOOKS_URL")
        // Creating takes a while: nothing may be due before all are there.
        let earliest = Timestamp.now() + .seconds(10 + hooks / 200)
        let first = Timestamp(milliseconds: earliest.milliseconds / 1000 * 1000)
        let parts = Self.parts(of: first)
        let names = (0..<hooks).map { "due-\($0)" }
        let schedule: JSONValue = .array(
            (0..<minutes).map { minute in
                let parts = Self.parts(of: first + .seconds(60 * minute))
                return .string("\(parts.second) \(parts.minute) \(parts.hour) * * *")
            }
        )
        try await put(target, names) { definition(["schedule": schedule], name: $0) }
        guard Timestamp.now() < first else {
            throw BenchmarkError("creating \(hooks) hooks took longer than expected, until after \(parts.minute) past")
        }
        for minute in 0..<minutes {
            let due = first + .seconds(60 * minute)
            let others = minute > 0 ? readLine() ?? "" : ""
            let wait = due - .now()
            guard wait > .zero else { throw BenchmarkError("nobody was ready for the next minute in time") }
            try await Task.sleep(for: wait)
            let usage = ProcessUsage(others)
            let start = ContinuousClock.now
            let elapsed = try await waitForTasks(hooks * (minute + 1), since: start, limit: .seconds(55))
            let cost = usage.perOperation(hooks)
            // Anything fired twice would come now.
            try await Task.sleep(for: .seconds(1))
            try check(try await distinctNames(), expected: hooks, each: minute + 1)
            report(["seconds": JSONValue(elapsed / .seconds(1)), "cpu": cost])
        }
        try await removeHooks()
    }

    /// How late a single hook fires that is due every second.
    func lateness(count: Int) async throws {
        let target = try LoadTarget("HOOKS_URL")
        try await put(target, ["late"]) { _ in definition(["schedule": ["* * * * * *"]]) }
        _ = try await waitForTasks(count + 2, since: .now, limit: .seconds(Int64(count) * 2 + 30))
        let rows = try await pool.query(
            """
            select 1000 * extract(epoch from p.inserted - date_trunc('second', p.inserted))::float8 as late
            from tcl.pending p where p.task_queue_id = \(queue) order by p.seq offset 2 limit \(count)
            """
        )
        let latencies = Latencies(try rows.map { try $0.double("late") })
        report([
            "p50": JSONValue(latencies.percentile(50)), "p99": JSONValue(latencies.percentile(99)),
            "fires": JSONValue(rows.count),
        ])
        try await removeHooks()
    }

    // MARK: Bindings

    /// Creates hooks with a binding each, and waits until the broker has all their queues.
    func bind(hooks: Int) async throws {
        let pulse = PulseConnection(try PulseConfiguration(url: try environment("AMQP_URL")), name: "benchmark")
        try await pulse.declareExchange(exchange)
        let target = try LoadTarget("HOOKS_URL")
        let start = ContinuousClock.now
        try await put(target, (0..<hooks).map { "bound-\($0)" }) { name in
            definition(["bindings": [["exchange": .string(exchange), "routingKeyPattern": .string(name)]]])
        }
        try await waitForQueues(hooks, limit: .seconds(1200))
        report([
            "run": .string(run), "exchange": .string(exchange),
            "seconds": JSONValue((ContinuousClock.now - start) / .seconds(1)),
        ])
        await pulse.shutDown()
    }

    /// Removes the hooks of an earlier run and its exchange.
    func unbind() async throws {
        let pulse = PulseConnection(try PulseConfiguration(url: try environment("AMQP_URL")), name: "benchmark")
        try await removeHooks()
        try await pulse.deleteExchange(exchange)
        await pulse.shutDown()
    }

    /// How long after a hook was created its binding is made.
    func change(count: Int) async throws {
        let pulse = PulseConnection(try PulseConfiguration(url: try environment("AMQP_URL")), name: "benchmark")
        try await pulse.declareExchange(exchange)
        let target = try LoadTarget("HOOKS_URL")
        var milliseconds: [Double] = []
        for number in 0..<count {
            let start = ContinuousClock.now
            try await put(target, ["changed-\(number)"]) { name in
                definition(["bindings": [["exchange": .string(exchange), "routingKeyPattern": .string(name)]]])
            }
            try await waitForQueues(number + 1)
            milliseconds.append((ContinuousClock.now - start).milliseconds)
        }
        let latencies = Latencies(milliseconds)
        report(["p50": JSONValue(latencies.percentile(50)), "worst": JSONValue(latencies.percentile(100))])
        try await removeHooks()
        try await pulse.deleteExchange(exchange)
        await pulse.shutDown()
    }

    // MARK: The queue over HTTP

    /// Creates, claims and completes tasks through the queue's API over so many connections.
    func work(connections: Int, seconds: Int) async throws {
        let target = try LoadTarget("TASKCLUSTER_ROOT_URL")
        let queue = queue
        let start = ContinuousClock.now
        let completed = try await onThreads(connections) { thread in
            let connection = try target.connection()
            var completed = 0
            func call(_ method: String, _ path: String, _ body: JSONValue) throws -> JSONValue {
                let (status, answer) = try connection.send(target.request(method, "/api/queue/v1" + path, body))
                guard status == 200 else {
                    throw BenchmarkError("\(path) answered \(status): \(String(decoding: answer, as: UTF8.self))")
                }
                return try JSONValue(parsing: answer)
            }
            while ContinuousClock.now - start < .seconds(Int64(seconds)) {
                let now = Timestamp.now()
                _ = try call("PUT", "/task/\(Slugid.make())", Self.task(queue: queue, now: now))
                let claims = try call(
                    "POST",
                    "/claim-work/\(queue.split(separator: "/").joined(separator: "%2F"))",
                    ["workerGroup": "bench", "workerId": .string("worker-\(thread)"), "tasks": 1]
                )
                for claim in claims["tasks"]?.array ?? [] {
                    guard let id = claim["status"]?["taskId"]?.string else { continue }
                    _ = try call("POST", "/task/\(id)/runs/0/completed", [:])
                    completed += 1
                }
            }
            return completed
        }
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        report(["rate": JSONValue(Double(completed.reduce(0, +)) / elapsed)])
    }

    private static func task(queue: String, now: Timestamp) -> JSONValue {
        [
            "taskQueueId": .string(queue), "created": .string(now.iso8601),
            "deadline": .string((now + .seconds(3600)).iso8601), "payload": ["command": ["true"]],
            "metadata": [
                "name": "benchmark", "description": "a task", "owner": "bench@example.com",
                "source": "https://example.com",
            ],
        ]
    }

    // MARK: Helpers

    private func definition(_ others: JSONObject = [:], name: String = "bench") -> JSONValue {
        var definition: JSONObject = [
            "metadata": [
                "name": .string(name), "description": "A benchmark", "owner": "bench@example.com",
                "emailOnError": false,
            ],
            "triggerSchema": ["type": "object"],
            "task": [
                "taskQueueId": .string(queue), "created": ["$fromNow": ""], "deadline": ["$fromNow": "1 hour"],
                "expires": ["$fromNow": "2 hours"],
                "metadata": [
                    "name": .string(name), "description": "fired by ${firedBy}", "owner": "bench@example.com",
                    "source": "https://example.com",
                ],
                "payload": ["n": ["$if": "defined('payload')", "then": ["$eval": "payload"], "else": 0]],
            ],
        ]
        for (key, value) in others { definition[key] = value }
        return .object(definition)
    }

    private func put(
        _ target: LoadTarget,
        _ names: [String],
        _ definition: (String) -> JSONValue
    ) async throws {
        let run = run
        let bodies = names.map(definition)
        let connections = min(8, names.count)
        _ = try await onThreads(connections) { thread in
            let connection = try target.connection()
            for index in stride(from: thread, to: names.count, by: connections) {
                let path = "/api/hooks/v1/hooks/bench-\(run)/\(names[index])"
                let (status, body) = try connection.send(target.request("PUT", path, bodies[index]))
                guard status == 200 else {
                    throw BenchmarkError("createHook answered \(status): \(String(decoding: body, as: UTF8.self))")
                }
            }
        }
    }

    private func removeHooks() async throws {
        let target = try LoadTarget("HOOKS_URL")
        let group = "bench-\(run)"
        let rows = try await pool.query("select hook_id from hooks.hooks where hook_group_id = \(group)")
        let names = try rows.map { try $0.string("hook_id") }
        _ = try await onThreads(min(8, max(1, names.count))) { thread in
            let connection = try target.connection()
            for index in stride(from: thread, to: names.count, by: 8) {
                let path = "/api/hooks/v1/hooks/\(group)/\(names[index])"
                let (status, _) = try connection.send(target.request("DELETE", path, [:]))
                guard status == 200 || status == 204 else { throw BenchmarkError("removeHook answered \(status)") }
            }
        }
    }

    private func count() async throws -> Int {
        let rows = try await pool.query("select count(*) as n from tcl.pending where task_queue_id = \(queue)")
        return try rows[0].int("n")
    }

    private func waitForTasks(
        _ expected: Int,
        since start: ContinuousClock.Instant,
        limit: Duration
    ) async throws -> Duration {
        while case let found = try await count(), found < expected {
            guard ContinuousClock.now - start < limit else {
                throw BenchmarkError("lost: only \(found) of \(expected) tasks within \(limit / .seconds(1)) s")
            }
            // Counting many takes its time, and is not what is measured.
            try await Task.sleep(for: .milliseconds(expected < 1000 ? 10 : 50))
        }
        return ContinuousClock.now - start
    }

    private func waitForQueues(_ expected: Int, limit: Duration = .seconds(30)) async throws {
        let start = ContinuousClock.now
        while true {
            let rows = try await pool.query(
                """
                select count(*) as n from hooks.queues
                where hook_group_id = \("bench-\(run)") and json_array_length(bindings) > 0 and wanted = made
                """
            )
            if try rows[0].int("n") >= expected { return }
            guard ContinuousClock.now - start < limit else {
                throw BenchmarkError("only \(try rows[0].int("n")) of \(expected) queues are bound")
            }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    /// How many tasks each number in the payload has.
    private func numbers() async throws -> [Int] {
        try await tally("definition->'payload'->'n'->>'n'")
    }

    /// How many tasks each hook has.
    private func distinctNames() async throws -> [Int] {
        try await tally("definition->'metadata'->>'name'")
    }

    private func tally(_ expression: String) async throws -> [Int] {
        let rows = try await pool.query(
            """
            select count(*) as n from tcl.tasks where task_id in
                (select task_id from tcl.pending where task_queue_id = \(queue)) group by \(unsafe: expression)
            """
        )
        return try rows.map { try $0.int("n") }
    }

    private func check(_ tally: [Int], expected: Int, each: Int = 1) throws {
        let doubled = tally.filter { $0 > each }.count
        let short = tally.filter { $0 < each }.count + expected - tally.count
        guard doubled == 0, short == 0 else {
            throw BenchmarkError("of \(expected), \(short) were lost and \(doubled) happened more than once")
        }
    }

    private func report(_ values: JSONObject) {
        print(JSONValue.object(values).text())
        // Somebody may be waiting for the line at the other end of a pipe.
        fflush(nil)
    }

    private static func parts(of instant: Timestamp) -> (hour: Int, minute: Int, second: Int) {
        let seconds = Int(instant.milliseconds / 1000)
        return (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }
}
