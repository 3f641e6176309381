// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPClient
import JSON
import Postgres
import Pulse
import Schedules
import StepKit
import Testing
import TestSupport

@testable import PipelineKit

/// Services that are down, slow, lying or talking nonsense; replicas that die; time that passes.
@Suite(.timeLimit(.minutes(15)))
struct FaultTests {
    @Test func `11: a service that is down holds up its own steps and nothing else, until it starts`() async throws {
        let clock = TestClock(.now())
        let closed = try ClosedPort()
        let nowhere = "http://127.0.0.1:\(closed.port)"
        try await PipelineWorld.with(clock: clock, services: [nowhere]) { world in
            let lost = world.step("x", [], ["api_url": .string(nowhere)])
            try await world.create("x", [lost])
            try await world.create("y", [world.step("y1"), world.step("y2", ["y1"])])
            try await world.advance(20)
            #expect(try await world.state("y") == "completed")
            #expect(try await world.state("x") == "running")
            #expect(try await world.reasons("x", "x") == ["unreachable"])
            #expect(try await !world.kinds("x").contains("unreachable"))
            try await world.advance(320, every: .seconds(10))
            #expect(try await world.kinds("x").count { $0 == "unreachable" } == 1)
            #expect(try await world.states("x") == ["starting"])
            closed.open()
            let late = Lab()
            try await late.serve(port: closed.port) { _ in
                for _ in 0..<30 where try await world.state("x") != "completed" {
                    try await world.advance(30, every: .seconds(10))
                }
                #expect(try await world.state("x") == "completed")
                #expect(late.begun("x") == 1)
            }
        }
    }

    @Test func `11: a service that accepts calls and never answers holds up no pipeline of other services`()
        async throws
    {
        let hanging = Lab()
        // More than are looked at at the same time.
        let names = (0..<60).map { "x\($0)" }
        for name in names { hanging.set(name, Lab.Behaviour(hangs: true)) }
        try await hanging.serve { url in
            try await PipelineWorld.with(services: [url], timeout: .seconds(1200)) { world in
                for name in names {
                    try await world.create(name, [world.step(name, [], ["api_url": .string(url)])])
                }
                try await eventually("the service is called") { names.contains { hanging.puts($0) > 0 } }
                for round in 0..<5 {
                    let name = "y\(round)"
                    let steps = [world.step("\(name)a"), world.step("\(name)b", ["\(name)a"])]
                    try await world.create(name, steps)
                    try await world.reach(name, "completed")
                }
                #expect(names.allSatisfy { hanging.begun($0) == 0 })
            }
        }
    }

    @Test func `12: ten failures of a service later the step runs once, without an exception`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            world.lab.set("a", Lab.Behaviour(putStatuses: Array(repeating: 500, count: 10)))
            world.lab.set("b", Lab.Behaviour(statusCodes: Array(repeating: 503, count: 10)))
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            for _ in 0..<200 where try await world.state("p") != "completed" {
                try await world.advance(10, every: .seconds(10))
            }
            #expect(try await world.state("p") == "completed")
            #expect(world.lab.begun("a") == 1)
            #expect(world.lab.puts("a") == 11)
            #expect(world.lab.begun("b") == 1)
        }
    }

    @Test func `13: answers that make no sense change nothing but the count of failures`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            let nonsense = [
                "<html>", "{}", #"{"state": "busted"}"#, #"{"state": "completed", "status": "failure"}"#,
                #"{"uid": "other", "state": "completed"}"#, "[]", String(repeating: " ", count: 5 << 20) + "{}",
            ]
            world.lab.set("a", Lab.Behaviour(statuses: nonsense))
            try await world.create("p", [world.step("a")])
            for count in 1...nonsense.count {
                for _ in 0..<100 {
                    let step = try await world.status("p")["info"]?["steps"]?[0]
                    if step?["poll_failures"]?.int == count { break }
                    try await world.advance(1, every: .milliseconds(500))
                }
                let step = try await world.status("p")["info"]?["steps"]?[0]
                #expect(step?["state"] == "running", "after \(nonsense[count - 1].prefix(60))")
                #expect(step?["poll_failures"]?.int == count)
            }
            for _ in 0..<20 where try await world.state("p") != "completed" {
                try await world.advance(30, every: .seconds(10))
            }
            #expect(try await world.state("p") == "completed")
        }
    }

    @Test func `news of a step that comes while its service is being asked is not lost`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            try await world.advance(1)
            #expect(try await world.states("p") == ["running", "pending"])
            // The answer says running; the step ends, and its service says so, before the answer has arrived.
            world.lab.meanwhile("a") {
                world.lab.finish("a")
                try await world.service.heard(of: "a")
            }
            try await world.advance(1)
            // Time has stood still since the question: nothing but the news can have made the pipeline ask again.
            #expect(try await world.states("p") == ["completed", "running"])
        }
    }

    @Test func `news of a step that comes before it is known to be accepted is not lost`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            world.lab.meanwhile("a") {
                world.lab.finish("a")
                try await world.service.heard(of: "a")
            }
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            try await world.advance(1)
            #expect(try await world.states("p") == ["completed", "running"])
            #expect(world.lab.begun("a") == 1)
        }
    }

    @Test func `16: a step that its service denies three times is lost, not at the first denial`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a")])
            try await world.advance(3)
            world.lab.forget("a")
            try await world.advance(4)
            #expect(try await world.states("p") == ["running"])
            try await world.advance(30)
            #expect(try await world.states("p") == ["exception"])
            #expect(try await world.status("p")["message"]?.string?.contains("vanished") == true)
        }
    }

    @Test func `a step that takes too long is cancelled and an exception`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a", [], ["timeout_s": 60])])
            try await world.advance(58, every: .seconds(2))
            #expect(try await world.states("p") == ["running"])
            try await world.advance(6)
            #expect(try await world.states("p") == ["exception"])
            #expect(world.lab.log.last == "cancel a")
            #expect(try await world.status("p")["message"]?.string?.contains("timeout") == true)
        }
    }

    @Test func `why a step is stopped is told of it to the end, whatever its service says meanwhile`() throws {
        let body: JSONObject = [
            "uid": "p", "parameters": ["steps": [["uid": "a", "api_url": "http://lab.example", "timeout_s": 60]]],
        ]
        let definition = try PipelineService.parsed(.object(body))
        let now = Timestamp(milliseconds: 1_700_000_000_000)
        var run = StepRun(uid: "a", position: 0)
        run.state = .running
        run.intended = now - .seconds(60)
        func evaluated(_ results: [Observation.Result], at moment: Timestamp) -> StepRun? {
            var evaluation = Evaluation(definition, [run], now: now)
            evaluation.settle()
            var later = Evaluation(definition, evaluation.ordered, now: moment)
            for result in results { later.apply([Observation(step: "a", attempt: 1, hints: 0, result: result)]) }
            return later.steps["a"]
        }
        let slow = Observation.Result.status(.known(state: .running, message: "at it", output: [:], info: [:]))
        let away = Observation.Result.unreachable("the service answered 503", retryAfter: nil)
        let done = Observation.Result.status(.known(state: .cancelled, message: "done", output: [:], info: [:]))
        #expect(evaluated([.stopped, slow, away], at: now + .seconds(5))?.state == .stopping)
        let ended = evaluated([.stopped, slow, away, done], at: now + .seconds(5))
        #expect(ended?.state == .exception)
        #expect(ended?.message == "timeout")
        let left = evaluated([away], at: now + .seconds(60))
        #expect(left?.state == .exception)
        #expect(left?.message == "timeout; given up while its service could not be reached")
    }

    @Test func `a step that fails is tried again as often as it may, each time later and under another name`()
        async throws
    {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            let retries: JSONValue = ["limit": 2, "backoff_s": 10, "on": ["exception", "failed"]]
            for name in ["a", "a.r2"] { world.lab.set(name, Lab.Behaviour(result: "failed")) }
            try await world.create("p", [world.step("a", [], ["retries": retries])])
            try await world.advance(5)
            #expect(try await world.states("p") == ["pending"])
            #expect(try await world.reasons("p", "a") == ["retry"])
            #expect(world.lab.puts("a.r2") == 0)
            try await world.advance(60)
            #expect(try await world.state("p") == "completed")
            #expect(["a", "a.r2", "a.r3"].map { world.lab.begun($0) } == [1, 1, 1])
        }
    }

    @Test func `28: while a freeze lasts nothing starts, unless somebody who may says why`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            let end: Timestamp = clock.now() + .seconds(600)
            let begin: Timestamp = clock.now() - .seconds(600)
            let freeze: JSONValue = [
                "name": "Holidays", "reason": "nobody is here", "start": .string(begin.iso8601),
                "end": .string(end.iso8601), "match": ["labels": ["product": "firefox"], "step_uid_glob": "ship*"],
            ]
            let weak = "c project:releng:services/shipit_pipeline/view"
            #expect(try await world.call("PUT", "/freezes/holidays", freeze, as: weak).status == 403)
            #expect(try await world.call("PUT", "/freezes/holidays", freeze).status == 200)
            let labels: JSONObject = ["labels": ["product": "firefox"]]
            try await world.create("p", [world.step("build"), world.step("ship-p", ["build"])], labels)
            try await world.create("q", [world.step("ship-q", [], ["respect_freeze": false])], labels)
            try await world.create("r", [world.step("ship-r")])
            try await world.create("o", [world.step("ship-o")], labels)
            try await world.advance(10)
            #expect(try await world.state("q") == "completed")
            #expect(try await world.state("r") == "completed")
            #expect(try await world.states("p") == ["completed", "pending"])
            #expect(try await world.reasons("p", "ship-p") == ["freeze"])
            let path = "/o/steps/ship-o/override-freeze"
            #expect(try await world.call("POST", path, ["reason": "hot"], as: weak).status == 403)
            #expect(try await world.call("POST", path, [:]).status == 400)
            #expect(try await world.call("POST", path, ["reason": "security fix"]).status == 200)
            try await world.advance(5)
            #expect(try await world.state("o") == "completed")
            try await world.advance(570, every: .seconds(10))
            #expect(try await world.states("p") == ["completed", "pending"])
            let left = Int(end.milliseconds - clock.now().milliseconds) / 1000
            try await world.advance(left + 2)
            #expect(world.lab.puts("ship-p") == 1)
        }
    }

    @Test func `29: a lock is held by one step at a time, in the order in which they were ready`() async throws {
        try await PipelineWorld.with(replicas: 2) { world in
            let names = (0..<6).map { "s\($0)" }
            for name in names { world.lab.set(name, Lab.Behaviour(result: nil)) }
            for (index, name) in names.enumerated() {
                let step = world.step(name, [], ["locks": ["signing", "balrog"]])
                try await world.create("p\(index)", [step], replica: index % 2)
                // The next one is ready later.
                try await eventually { try await world.states("p\(index)") != ["pending"] || index > 0 }
                try await Task.sleep(for: .milliseconds(30))
            }
            for (index, name) in names.enumerated() {
                try await eventually(within: .seconds(240), "\(name) runs") { world.lab.isRunning(name) }
                let others = names.filter { $0 != name && world.lab.isRunning($0) }
                #expect(others.isEmpty, "\(name) and \(others)")
                if index + 1 < names.count {
                    try await eventually { try await world.reasons("p\(index + 1)", names[index + 1]).contains("lock") }
                }
                world.lab.finish(name, index.isMultiple(of: 2) ? "failed" : "completed")
                try await eventually { try await world.state("p\(index)") != "running" }
            }
            let begun = world.lab.log.filter { $0.hasPrefix("begin ") }
            #expect(begun == names.map { "begin \($0)" })
            #expect(try await world.call("GET", "/locks").body == ["held": [], "wanted": []])
        }
    }

    @Test func `18: two replicas start each step of many pipelines once`() async throws {
        try await PipelineWorld.with(replicas: 2) { world in
            let count = 200
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<count {
                    group.addTask {
                        let steps = [world.step("a"), world.step("b", ["a"])]
                        try await world.create("p\(number)", steps, ["namespace_steps": true], replica: number % 2)
                    }
                }
                try await group.waitForAll()
            }
            try await eventually(within: .seconds(400), "all are completed") {
                let left = try await world.call("GET", "/?status=in_progress").body["steps"]?.array?.count
                return left == 0
            }
            let (puts, begun) = world.lab.state.withLock { ($0.puts, $0.begun) }
            #expect(begun.count == count * 2)
            #expect(begun.values.allSatisfy { $0 == 1 })
            #expect(puts.values.allSatisfy { $0 == 1 })
            let done = try await world.call("GET", "/?status=success&limit=500").body["steps"]?.array?.count
            #expect(done == count)
            let deadlocks = try await world.pool.query(
                "select deadlocks from pg_stat_database where datname = current_database()"
            )
            #expect(try deadlocks.first?.int("deadlocks") == 0)
        }
    }

    @Test func `19: what was asked for before a crash is asked for again, and exists once`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(replicas: 2, clock: clock, lease: .milliseconds(300)) { world in
            try await world.create("p", [world.step("a")])
            let first = world.replicas[0]
            // The first process makes its calls and dies before it writes down what came of them.
            let claims = try await first.store.claim(limit: 1, owner: "first", lease: .milliseconds(300))
            let claim = try #require(claims.first)
            let dead = DyingClient(world.curl)
            let service = PipelineService(
                store: first.store,
                client: StepClient(transport: dead, credentials: nil),
                services: [world.labURL]
            )
            let look = Task { try await service.look(claim) }
            try await eventually { world.lab.puts("a") == 1 }
            look.cancel()
            _ = await look.result
            #expect(try await world.states("p") == ["starting"])
            try await eventually("the lease has ended") {
                clock.advance(by: .seconds(1))
                _ = try await world.replicas[1].runner.runOnce()
                return try await world.state("p") == "completed"
            }
            #expect(world.lab.puts("a") == 2)
            #expect(world.lab.begun("a") == 1)
        }
    }

    @Test func `20: what a process writes after another has taken over is discarded`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(replicas: 2, clock: clock, lease: .milliseconds(200)) { world in
            try await world.create("p", [world.step("a")])
            let claims = try await world.replicas[0].store.claim(limit: 1, owner: "slow", lease: .milliseconds(200))
            let claim = try #require(claims.first)
            try await eventually("another has finished it") {
                clock.advance(by: .seconds(1))
                _ = try await world.replicas[1].runner.runOnce()
                return try await world.state("p") == "completed"
            }
            let before = try await world.call("GET", "/p/status")
            let late = try await claim.change { change in
                change.move(to: .running, message: "I am still here")
                change.record("late")
            }
            #expect(late == nil)
            try await world.replicas[0].service.look(claim)
            let after = try await world.call("GET", "/p/status")
            #expect(after.body == before.body)
            #expect(after.headers["ETag"] == before.headers["ETag"])
        }
    }

    @Test func `22: what the bus says makes pipelines look at once, and without it they look by themselves`()
        async throws
    {
        try await Broker.lend { pulse, exchange, queue in
            try await PipelineWorld.with(exchange: exchange, bus: (pulse, queue)) { world in
                world.lab.set("a", Lab.Behaviour(result: nil))
                try await world.create("p", [world.step("a"), world.step("b", ["a"])])
                try await eventually { world.lab.isRunning("a") }
                // As if it had been running for long: the next question is far away.
                try await world.pool.execute(
                    """
                    update shipit_pipeline.pipeline_steps set next_call = now() + interval '1 hour', started = now()
                        - interval '1 hour', poll_interval_ms = 30000 where uid = 'a'
                    """
                )
                try await world.pool.execute(
                    "update shipit_pipeline.steps set next_check_at = now() + interval '1 hour' where uid = 'p'"
                )
                try await Task.sleep(for: .milliseconds(300))
                world.lab.finish("a")
                let hint = PulseMessage(
                    exchange: exchange,
                    routingKey: "primary.lab.a.completed",
                    payload: ["uid": "a", "state": "completed", "service": "lab"]
                )
                try await pulse.publish(hint)
                try await world.reach("p", "completed")
            }
        }
    }
}

/// A port that refuses connections and that nobody else gets, until it is given back.
private final class ClosedPort: Sendable {
    struct Failed: Error {}

    let port: Int
    private let descriptor: Int32

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        guard isBound else { throw Failed() }
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    func open() { close(descriptor) }
}

/// A network on which every call is made and no answer comes back.
private struct DyingClient: HTTPTransport {
    private let curl: CurlTransport

    init(_ curl: CurlTransport) { self.curl = curl }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        _ = try await curl.send(request)
        try? await Task.sleep(for: .seconds(3600))
        throw HTTPClientError(.cancelled, "the process is dead")
    }
}
