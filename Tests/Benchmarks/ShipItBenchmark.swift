// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON
import Schedules

/// Pipelines and sign-offs of a running suite, driven as their clients drive them.
struct ShipItBenchmark: Sendable {
    let pipelines: LoadTarget
    let signoffs: LoadTarget
    let signoffURL: String
    let run = String(UInt64.random(in: 0..<1 << 40), radix: 36)

    init() throws {
        pipelines = try LoadTarget("SHIPIT_PIPELINE_URL")
        signoffs = try LoadTarget("SHIPIT_SIGNOFF_URL")
        signoffURL = try environment("SHIPIT_SIGNOFF_URL")
    }

    // MARK: - Parts

    func policy(_ count: Int = 1) -> JSONValue {
        ["policy": ["method": "local", "definition": [["releng": JSONValue(count)]]], "parameters": [:]]
    }

    /// Sign-offs that wait for each other.
    func definition(_ steps: Int) -> JSONValue {
        let list = (0..<steps).map { number -> JSONValue in
            [
                "uid": .string("s\(number)"), "api_url": .string(signoffURL), "parameters": policy(),
                "requires": number == 0 ? [] : [.string("s\(number - 1)")],
            ]
        }
        return ["namespace_steps": true, "parameters": ["steps": .array(list)]]
    }

    /// The `Authorization` field of a release engineer.
    func bearer() throws -> String {
        let issuer = try LoadTarget("SHIPIT_OIDC_URL")
        let reply = try issuer.connection().send(issuer.request("POST", "/token", ["user": "releng1"]))
        guard let token = try JSONValue(parsing: reply.body)["access_token"]?.string else {
            throw BenchmarkError("no token: status \(reply.status)")
        }
        return "Bearer \(token)"
    }

    func signing(_ uid: String, _ bearer: String) -> [UInt8] {
        let body = JSONValue.object(["group": "releng"]).bytes()
        let head = """
            PUT /\(uid)/sign HTTP/1.1\r
            Host: \(signoffs.host):\(signoffs.port)\r
            Authorization: \(bearer)\r
            Content-Type: application/json\r
            Content-Length: \(body.count)\r
            \r

            """
        return Array(head.utf8) + body
    }

    private func reading(_ uid: String, _ bearer: String) -> [UInt8] {
        let head = """
            GET /\(uid)/status HTTP/1.1\r
            Host: \(pipelines.host):\(pipelines.port)\r
            Authorization: \(bearer)\r
            \r

            """
        return Array(head.utf8)
    }

    func expect(_ reply: (status: Int, body: [UInt8]), _ what: String) throws {
        guard reply.status == 200 else {
            throw BenchmarkError("\(what): \(reply.status) \(String(decoding: reply.body.prefix(300), as: UTF8.self))")
        }
    }

    /// The status of something, once a condition holds.
    func wait(
        _ target: LoadTarget,
        _ connection: LoadConnection,
        _ uid: String,
        until done: (JSONValue) -> Bool
    ) throws -> JSONValue {
        let limit = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < limit {
            let reply = try connection.send(target.request("GET", "/\(uid)/status", [:]))
            if reply.status == 200 {
                let status = try JSONValue(parsing: reply.body)
                if done(status) { return status }
            }
            sleepBriefly()
        }
        throw BenchmarkError("\(uid) did not get there within a minute")
    }

    private func sleepBriefly() {
        var pause = timespec(tv_sec: 0, tv_nsec: 5_000_000)
        nanosleep(&pause, nil)
    }

    func tell(_ facts: JSONObject) {
        print(JSONValue.object(facts).text())
    }

    // MARK: - What is measured

    /// Reads one pipeline's status over and over, as a client that signs each request or as a person with a token.
    func read(connections: Int, seconds: Int, asPerson: Bool) async throws {
        let bearer = asPerson ? try bearer() : nil
        let uid = "read-\(run)"
        let first = try pipelines.connection()
        try expect(first.send(pipelines.request("PUT", "/\(uid)", definition(10))), "PUT")
        _ = try wait(pipelines, first, uid) { $0["state"] == "running" }
        let usage = ProcessUsage()
        let start = ContinuousClock.now
        let times = try await onThreads(connections) { _ in
            let connection = try pipelines.connection()
            let end = start + .seconds(seconds)
            var times: [Double] = []
            while ContinuousClock.now < end {
                // Signed anew each time, as clients do.
                let request =
                    bearer.map { reading(uid, $0) } ?? pipelines.request("GET", "/\(uid)/status", [:])
                let begun = ContinuousClock.now
                try expect(connection.send(request), "GET status")
                times.append((ContinuousClock.now - begun).milliseconds)
            }
            return times
        }.flatMap(\.self)
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        let latencies = Latencies(times)
        tell([
            "rate": JSONValue(Double(times.count) / elapsed), "p50": JSONValue(latencies.percentile(50)),
            "p99": JSONValue(latencies.percentile(99)), "cpu": usage.perOperation(times.count),
        ])
    }

    /// Creates sign-offs, and then signs them.
    func sign(connections: Int, count: Int) async throws {
        let bearer = try bearer()
        let each = max(1, count / connections)
        func rate(_ request: @escaping @Sendable (String) -> [UInt8], _ what: String) async throws -> JSONObject {
            let usage = ProcessUsage()
            let start = ContinuousClock.now
            _ = try await onThreads(connections) { index in
                let connection = try signoffs.connection()
                for number in 0..<each {
                    try expect(connection.send(request("sign-\(run)-\(index)-\(number)")), what)
                }
            }
            let elapsed = (ContinuousClock.now - start) / .seconds(1)
            let total = each * connections
            return ["rate": JSONValue(Double(total) / elapsed), "cpu": usage.perOperation(total)]
        }
        let created = try await rate({ signoffs.request("PUT", "/\($0)", policy()) }, "PUT")
        let signed = try await rate({ signing($0, bearer) }, "sign")
        tell(["created": .object(created), "signed": .object(signed)])
    }

    /// How long after a step has ended the next one exists, by the one clock of their service.
    func next(count: Int) throws {
        let bearer = try bearer()
        let connection = try pipelines.connection()
        let people = try signoffs.connection()
        var times: [Double] = []
        for number in 0..<count {
            let uid = "next-\(run)-\(number)"
            try expect(connection.send(pipelines.request("PUT", "/\(uid)", definition(2))), "PUT")
            _ = try wait(signoffs, people, "\(uid).s0") { $0["state"] == "running" }
            // Until the pipeline knows that it goes on, it would ask at once anyway.
            _ = try wait(pipelines, connection, uid) { $0["info"]?["steps"]?[0]?["state"] == "running" }
            try expect(people.send(signing("\(uid).s0", bearer)), "sign")
            let second = try wait(signoffs, people, "\(uid).s1") { _ in true }
            let first = try wait(signoffs, people, "\(uid).s0") { $0["state"] == "completed" }
            guard let end = first["finished"]?.string.flatMap({ Timestamp($0) }),
                let begin = second["created"]?.string.flatMap({ Timestamp($0) })
            else { throw BenchmarkError("a status without times") }
            times.append((begin - end).milliseconds)
        }
        let latencies = Latencies(times)
        tell(["p50": JSONValue(latencies.percentile(50)), "p99": JSONValue(latencies.percentile(99))])
    }

    /// Begins pipelines whose first step waits, and says when all of them do.
    func fill(count: Int, steps: Int) async throws {
        let start = ContinuousClock.now
        let connections = 8
        let each = (count + connections - 1) / connections
        _ = try await onThreads(connections) { index in
            let connection = try pipelines.connection()
            let people = try signoffs.connection()
            let names = (0..<each).map { "fill-\(run)-\(index)-\($0)" }
            for name in names {
                try expect(connection.send(pipelines.request("PUT", "/\(name)", definition(steps))), "PUT")
            }
            for name in names { _ = try wait(signoffs, people, "\(name).s0") { $0["state"] == "running" } }
        }
        tell([
            "seconds": JSONValue((ContinuousClock.now - start) / .seconds(1)), "count": JSONValue(each * connections),
        ])
    }
}
