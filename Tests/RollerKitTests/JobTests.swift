// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Outbox
import Postgres
import Pulse
import Synchronization
import TestSupport
import Testing

@testable import RollerKit

private final class Received: Sendable {
    private let state = Mutex<[PulseDelivery]>([])

    var all: [PulseDelivery] { state.withLock { $0 } }

    func add(_ delivery: PulseDelivery) { state.withLock { $0.append(delivery) } }
}

@Suite(.timeLimit(.minutes(5)))
struct JobTests {
    static let worker = "t-linux64-ms-001"

    private func create(_ api: APIWorld, _ task: String = "reboot", query: String = "") async throws -> String {
        let answer = try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=\(task)\(query)")
        return try #require(answer.json["task_id"]?.string)
    }

    @Test func `R15: a job is seen pending, running and complete, and waiting for it ends with the change`()
        async throws
    {
        try await APIWorld.with { api in
            try await api.managed()
            let id = try await create(api)
            let pending = try await api.call("GET", "jobs/\(id)")
            #expect(pending.json["status"] == "PENDING" && pending.json["queue_position"] == 0)
            #expect(pending.headers["Cache-Control"]?.contains("no-store") == true)
            #expect(pending.headers["Access-Control-Allow-Methods"] == "OPTIONS,GET")
            try await api.world.claim(id, fence: 1)
            async let waited = api.call("GET", "jobs/\(id)?wait=30")
            try await Task.sleep(for: .milliseconds(300))
            #expect(try await api.world.jobs.transition(id, fence: 1, to: .running))
            #expect(try await waited.json["status"] == "RUNNING")
            let number = try #require(
                try await api.world.jobs.beginAttempt(
                    id,
                    fence: 1,
                    method: "ssh_reboot",
                    control: "ssh-x",
                    arguments: ["ssh", "x"]
                )
            )
            _ = try await api.world.jobs.endAttempt(
                id,
                number: number,
                fence: 1,
                outcome: .ok,
                exitCode: 0,
                summary: "rebooted",
                output: "Connection closed"
            )
            _ = try await api.world.jobs.finish(
                id,
                fence: 1,
                JobEnd(.succeeded, summary: "rebooted", result: ["seconds": 3])
            )
            let done = try await api.call("GET", "jobs/\(id)?wait=30").json
            #expect(done["status"] == "COMPLETE" && done["state"] == "succeeded" && done["result"] == ["seconds": 3])
            let attempt = try #require(done["attempts"]?[0])
            #expect(attempt["method"] == "ssh_reboot" && attempt["outcome"] == "ok" && attempt["n"] == 1)
            #expect(done["machine"]?["name"]?.string == Self.worker)
            let log = try await api.call("GET", "jobs/\(id)/log").text
            #expect(log.contains("attempt-ended n=1 method=ssh_reboot outcome=ok"))
            #expect(try await api.call("GET", "jobs/\(JobID.make())").json == ["detail": "Not found."])
            #expect(try await api.call("GET", "jobs/\(id.uppercased())").status == 404)
            #expect(try await api.call("GET", "jobs/\(id)?wait=31").status == 400)
        }
    }

    @Test func `who knows a job's id may see its state and no more, unless that is switched off`() async throws {
        for isPublic in [true, false] {
            try await APIWorld.with(settings: { $0.showsStateToAll = isPublic }) { api in
                try await api.managed()
                let id = try await create(api)
                let answer = try await api.call("GET", "jobs/\(id)", scopes: nil)
                guard isPublic else {
                    #expect(answer.status == 403)
                    return
                }
                #expect(answer.status == 200 && answer.json["status"] == "PENDING")
                for name in ["client_id", "attempts", "log", "params"] { #expect(answer.json[name] == nil, "\(name)") }
                #expect(try await api.call("GET", "jobs/\(id)", scopes: ["list-jobs"]).status == 403)
                #expect(try await api.call("GET", "jobs/\(id)/log", scopes: nil).status == 403)
            }
        }
    }

    @Test func `R60: a queued job is canceled at once, a running one at its next safe point`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let queued = try await create(api)
            #expect(
                try await api.call("POST", "jobs/\(queued)/cancel", scopes: ["get-job"], as: "another").status == 403
            )
            let canceled = try await api.call("POST", "jobs/\(queued)/cancel", scopes: ["get-job"])
            #expect(canceled.status == 202 && canceled.json["status"] == "CANCELED")
            #expect(try await api.call("POST", "jobs/\(queued)/cancel").status == 409)
            let running = try await create(api)
            try await api.world.claim(running, fence: 2)
            _ = try await api.world.jobs.transition(running, fence: 2, to: .running)
            let requested = try await api.call("POST", "jobs/\(running)/cancel", scopes: ["cancel"], as: "another")
            #expect(requested.status == 202 && requested.json["status"] == "RUNNING")
            #expect(try await api.world.jobs.job(running)?.isCancelRequested == true)
            #expect(
                try await api.world.jobs.finish(
                    running,
                    fence: 2,
                    JobEnd(.canceled, summary: "stopped", reason: "canceled")
                )
            )
            #expect(try await api.world.jobs.job(running)?.status == .canceled)
        }
    }

    @Test func `a job's log is text, and can be followed to its end`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let id = try await create(api)
            try await api.world.claim(id, fence: 1)
            async let followed = api.call("GET", "jobs/\(id)/log?follow=1")
            _ = try await api.world.jobs.transition(id, fence: 1, to: .running)
            try await api.world.jobs.log(id, "pinging\n4 packets")
            try await Task.sleep(for: .milliseconds(400))
            _ = try await api.world.jobs.finish(
                id,
                fence: 1,
                JobEnd(.failed, summary: "no answer", errorClass: "unreachable")
            )
            let text = try await followed.text
            let lines = text.split(separator: "\n").map { $0.split(separator: " ", maxSplits: 1).last ?? "" }
            #expect(lines.count == 5 && text.hasSuffix("\n"))
            #expect(
                lines[0].hasPrefix("queued") && lines[1] == "running" && lines[4].hasPrefix("failed summary=no answer")
            )
            #expect(text.contains("  pinging\n") && text.contains("  4 packets\n"))
            let whole = try await api.call("GET", "jobs/\(id)/log")
            #expect(whole.text == text && whole.headers["Content-Type"]?.hasPrefix("text/plain") == true)
        }
    }

    @Test func `lists of jobs come newest first, in pages and filtered`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            var ids: [String] = []
            for index in 0..<7 {
                let answer = try await api.call("POST", "workers/w\(index)/jobs?task_name=ping")
                ids.append(try #require(answer.json["task_id"]?.string))
            }
            let reboot = try await create(api)
            var seen: [String] = []
            var token = ""
            repeat {
                let page = try await api.call("GET", "jobs?limit=3" + token, scopes: ["list-jobs"]).json
                seen += page["jobs"]?.array?.compactMap { $0["task_id"]?.string } ?? []
                token = page["continuationToken"]?.string.map { "&continuationToken=\($0)" } ?? ""
            } while !token.isEmpty
            #expect(seen == [reboot] + ids.reversed())
            func found(_ query: String) async throws -> [String] {
                try await api.call("GET", "jobs?\(query)").json["jobs"]?.array?.compactMap { $0["task_id"]?.string }
                    ?? []
            }
            #expect(try await found("worker_id=W3") == [ids[3]])
            #expect(try await found("machine=\(Self.worker)") == [reboot])
            #expect(try await found("machine=nobody").isEmpty)
            #expect(try await found("task_name=reboot&status=PENDING") == [reboot])
            #expect(try await found("status=COMPLETE").isEmpty)
            #expect(try await found("since=3000-01-01T00:00:00Z").isEmpty)
            #expect(try await found("client_id=nobody").isEmpty)
            #expect(try await api.call("GET", "jobs?limit=0").status == 400)
            #expect(try await api.call("GET", "jobs?continuationToken=x").status == 400)
            #expect(try await api.call("GET", "jobs", scopes: ["get-job"]).status == 403)
        }
    }

    @Test func `R16: without a broker jobs are taken, and announced when it is back`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let id = try await create(api)
            #expect(try await api.world.count("outbox") == 2)
            // The broker comes only now.
            let world = api.world
            let received = Received()
            for name in [world.exchanges.dispatch, world.exchanges.events] {
                try await world.pulse.declareExchange(name)
            }
            let queue = PulseQueue("queue/\(world.exchanges.namespace)/all", kind: .classic)
            let bindings = [
                PulseBinding(exchange: world.exchanges.dispatch, routingKeyPattern: "job.default.#"),
                PulseBinding(exchange: world.exchanges.events, routingKeyPattern: "reboot.*.PENDING"),
            ]
            let subscription = PulseSubscription(queue: queue, bindings: bindings, prefetch: 5)
            try await world.pulse.declareQueue(queue)
            for binding in bindings {
                try await world.pulse.bind(
                    queue: queue.name,
                    exchange: binding.exchange,
                    routingKey: binding.routingKeyPattern
                )
            }
            try await OutboxRelay(outbox: world.outbox, pool: world.pool, pulse: world.pulse).drain()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    do {
                        try await world.pulse.consume(subscription) { delivery in
                            received.add(delivery)
                            return .ack
                        }
                    } catch is CancellationError {}
                }
                try await eventually { received.all.count >= 2 }
                group.cancelAll()
                try await group.waitForAll()
            }
            _ = try await world.pulse.deleteQueue(queue.name)
            let all = received.all
            let look = try #require(all.first { $0.exchange == world.exchanges.dispatch })
            let payload = try look.json()
            #expect(look.routingKey == "job.default.normal" && payload == ["jobId": .string(id)])
            let news = try #require(all.first { $0.exchange == world.exchanges.events })
            #expect(news.routingKey == "reboot.\(Self.worker).PENDING")
            #expect(try news.json()["taskId"]?.string == id)
            #expect(try await world.count("outbox") == 0)
        }
    }

    @Test func `R16: without the database requests are told so, and work again when it is back`() async throws {
        let held = Mutex<Relay?>(nil)
        try await APIWorld.with(database: { world in
            guard let place = Self.address(world.url) else { throw Unexpected() }
            let relay = try Relay(to: place.host, place.port)
            held.withLock { $0 = relay }
            let url = world.url.replacing("\(place.host):\(place.port)", with: "127.0.0.1:\(relay.port)")
            return PostgresPool(
                PostgresConfiguration(url: url, applicationName: "relay", poolSize: 2, acquireTimeout: .seconds(10))
            )
        }) { api in
            let relay = try #require(held.withLock { $0 })
            try await api.managed()
            #expect(try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=ping").status == 201)
            #expect(try await beat(api).status == 200)
            relay.refuse(true)
            let down = try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=reboot")
            #expect(down.status == 503 && down.json == ["detail": "Job store unavailable."])
            #expect(try await beat(api).status == 500)
            #expect(try await beat(api, "__lbheartbeat__").status == 200)
            relay.refuse(false)
            try await eventually {
                try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=reboot").status / 100 == 2
            }
            #expect(try await api.world.count("jobs") == 2)
        }
    }

    private func beat(_ api: APIWorld, _ path: String = "__heartbeat__") async throws -> HTTPResponse {
        try await api.curl.send(
            HTTPRequest(method: "GET", url: "http://127.0.0.1:\(api.port)/\(path)", timeout: .seconds(60))
        )
    }

    /// Host and port of a database URL.
    private static func address(_ url: String) -> (host: String, port: Int)? {
        guard let at = url.lastIndex(of: "@") ?? url.firstRange(of: "//").map({ url.index(before: $0.upperBound) })
        else { return nil }
        let place = url[url.index(after: at)...].prefix { $0 != "/" && $0 != "?" }
        let parts = place.split(separator: ":")
        guard parts.count == 2, let port = Int(parts[1]) else { return nil }
        return (String(parts[0]), port)
    }

    @Test func `R67: the heartbeat is healthy with a warning while no worker lives`() async throws {
        try await APIWorld.with { api in
            let lonely = try await beat(api)
            #expect(lonely.status == 200)
            #expect(try lonely.json()["status"] == "warning" && lonely.json()["checks"]?["workers"] == "warning")
            _ = try await api.world.pool.execute(
                "insert into roller.runners (name, pid, host, version) values ('r', 1, 'h', '0')"
            )
            #expect(try await beat(api).json()["status"] == "ok")
            let controller: JSONValue = ["kind": "ipmi", "address": "bmc", "credential_ref": "nobody-has-it"]
            #expect(try await api.send("PUT", "controllers/bmc", controller).status == 201)
            let lacking = try await beat(api)
            #expect(try lacking.status == 200 && lacking.json()["checks"]?["inventory"] == "warning")
            let small = try await beat(api, "__lbheartbeat__")
            #expect(small.status == 200 && small.body.isEmpty)
            #expect(try await beat(api, "__version__").status == 200)
            #expect(try await api.call("GET", "ping", scopes: nil).json["alive"] == true)
        }
    }

    @Test func `R72: lists of jobs cost the same however many there are`() async throws {
        try await RollerWorld.with { world in
            try await world.pool.execute(
                """
                insert into roller.jobs (id, task_name, worker_id, client_id, source, is_destructive, is_read_only, state, created)
                select gen_random_uuid(), 'ping', 'w' || n % 500, 'c' || n % 50, 'api-h', false, true,
                    case when n % 1000 = 0 then 'failed' else 'succeeded' end, now() - n * interval '1 second'
                from generate_series(1, 60000) n
                """
            )
            try await world.pool.execute("analyze roller.jobs")
            let conditions: [(JobStatus?, SQL)] = [
                (nil, "true"), (.failed, "true"), (.running, "true"), (nil, "worker_id = \("w7")"),
                (nil, "client_id = \("c7")"), (nil, "created < now() - interval '1 hour'"),
                (.failed, "worker_id = \("w0")"),
            ]
            for (status, condition) in conditions {
                let plan = try await world.pool.query(
                    "explain (analyze, format json) " + JobStore.statement(status, condition, 100)
                )
                let root = try #require(try plan.first?.json(0)[0]?["Plan"])
                let rows = Self.rows(root)
                #expect(rows < 3000, "\(rows) rows were looked at")
            }
        }
    }

    /// How many rows of jobs a plan read, those it threw away included.
    private static func rows(_ plan: JSONValue) -> Double {
        let loops = plan["Actual Loops"]?.double ?? 1
        let own = ((plan["Actual Rows"]?.double ?? 0) + (plan["Rows Removed by Filter"]?.double ?? 0)) * loops
        let isJobs = plan["Relation Name"]?.string == "jobs"
        return (isJobs ? own : 0) + (plan["Plans"]?.array ?? []).reduce(0) { $0 + rows($1) }
    }

    @Test func `actions tell what they need, to everybody`() async throws {
        try await APIWorld.with { api in
            let actions = try #require(try await api.call("GET", "actions", scopes: nil).json["actions"]?.array)
            #expect(actions.map { $0["name"]?.string } == ["ping", "reboot", "quarantine", "ipmi_reset", "reimage"])
            #expect(
                actions[3]["scope"]?.string == "project:releng:roller:ipmi_reset" && actions[3]["destructive"] == true
            )
            #expect(actions[3]["controls"] == ["ipmi"])
        }
    }
}
