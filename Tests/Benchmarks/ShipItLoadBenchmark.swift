// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON

/// Many pipelines at once, and services that fail them.
extension ShipItBenchmark {
    /// Pipelines that wait for a person to begin them.
    private func waiting(_ steps: Int) -> JSONValue {
        let list = (0..<steps).map { number -> JSONValue in
            [
                "uid": .string("s\(number)"), "api_url": .string(signoffURL), "parameters": policy(), "manual": true,
                "requires": number == 0 ? [] : [.string("s\(number - 1)")],
            ]
        }
        return ["namespace_steps": true, "parameters": ["steps": .array(list)]]
    }

    /// Makes pipelines that call nobody.
    func put(connections: Int, count: Int, steps: Int) async throws {
        let each = max(1, count / connections)
        let body = waiting(steps)
        let usage = ProcessUsage()
        let start = ContinuousClock.now
        _ = try await onThreads(connections) { index in
            let connection = try pipelines.connection()
            for number in 0..<each {
                let request = pipelines.request("PUT", "/put-\(run)-\(index)-\(number)", body)
                try expect(connection.send(request), "PUT")
            }
        }
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        let total = each * connections
        tell([
            "rate": JSONValue(Double(total) / elapsed), "count": JSONValue(total), "cpu": usage.perOperation(total),
        ])
    }

    /// What it costs that a step ends and the next one begins, beyond what the processes do while nothing happens.
    func events(pipelines count: Int, steps: Int) async throws {
        let bearer = try bearer()
        let people = try signoffs.connection()
        let connection = try pipelines.connection()
        let names = (0..<count).map { "event-\(run)-\($0)" }
        for name in names {
            try expect(connection.send(pipelines.request("PUT", "/\(name)", definition(steps))), "PUT")
        }
        for name in names { _ = try wait(signoffs, people, "\(name).s0") { $0["state"] == "running" } }
        try await Task.sleep(for: .seconds(2))
        let quiet = Duration.seconds(10)
        let before = ProcessUsage()
        try await Task.sleep(for: quiet)
        let idle = before.perOperation(1)
        let usage = ProcessUsage()
        let start = ContinuousClock.now
        for step in 0..<steps - 1 {
            for name in names { try expect(people.send(signing("\(name).s\(step)", bearer)), "sign") }
            // So that the questions about them are not what costs.
            try await Task.sleep(for: .milliseconds(20 * count))
            for name in names { _ = try wait(signoffs, people, "\(name).s\(step + 1)") { $0["state"] == "running" } }
        }
        let share = (ContinuousClock.now - start) / quiet
        let events = count * (steps - 1)
        let busy = usage.perOperation(events)
        var cost: JSONObject = [:]
        for (name, value) in busy.object ?? [:] {
            cost[name] = JSONValue((value.double ?? 0) - (idle[name]?.double ?? 0) * share / Double(events))
        }
        tell(["events": JSONValue(events), "cpu": .object(cost), "idle": idle])
    }

    /// A step ends while the pipelines' service is away: how long after it was started the next step exists.
    ///
    /// The one who stops and starts it says so with a line each.
    func restart() throws {
        let bearer = try bearer()
        let connection = try pipelines.connection()
        let people = try signoffs.connection()
        let uid = "restart-\(run)"
        try expect(connection.send(pipelines.request("PUT", "/\(uid)", definition(2))), "PUT")
        _ = try wait(pipelines, connection, uid) { $0["info"]?["steps"]?[0]?["state"] == "running" }
        say("running")
        guard readLine() != nil else { throw BenchmarkError("nobody stopped the service") }
        try expect(people.send(signing("\(uid).s0", bearer)), "sign")
        say("signed")
        guard readLine() != nil else { throw BenchmarkError("nobody started the service") }
        let start = ContinuousClock.now
        _ = try wait(signoffs, people, "\(uid).s1") { _ in true }
        tell(["milliseconds": JSONValue((ContinuousClock.now - start).milliseconds)])
    }

    private func say(_ text: String) {
        print(text)
        fflush(nil)
    }

    /// Begins pipelines whose steps are all at a service that never answers.
    func hang(url: String, pipelines count: Int, steps: Int) throws {
        let connection = try pipelines.connection()
        let list = (0..<steps).map { number -> JSONValue in ["uid": .string("s\(number)"), "api_url": .string(url)] }
        let body: JSONValue = ["namespace_steps": true, "parameters": ["steps": .array(list)]]
        for number in 0..<count {
            try expect(connection.send(pipelines.request("PUT", "/hang-\(run)-\(number)", body)), "PUT")
        }
        tell(["count": JSONValue(count)])
    }
}

/// A peer that answers each request and closes, driven by as little client as ours is.
enum PeerLoad {
    /// Sends one kind of request for some seconds over so many connections at a time; `{}` in the path becomes a name.
    static func run(_ method: String, port: Int, path: String, connections: Int, seconds: Int) async throws {
        let start = ContinuousClock.now
        let end = start + .seconds(seconds)
        let counts = try await onThreads(connections) { index in
            var count = 0
            while ContinuousClock.now < end {
                let name = path.split(separator: "{}", omittingEmptySubsequences: false).joined(
                    separator: "\(index)-\(count)-\(UInt64.random(in: 0..<1 << 40))"
                )
                let head = "\(method) \(name) HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n"
                let type = "Content-Type: application/json\r\n\r\n{}"
                let reply = try LoadConnection(host: "127.0.0.1", port: port).send(Array((head + type).utf8))
                guard reply.status == 200 else { throw BenchmarkError("\(method) \(path): \(reply.status)") }
                count += 1
            }
            return count
        }
        print(Double(counts.reduce(0, +)) / ((ContinuousClock.now - start) / .seconds(1)))
    }
}
