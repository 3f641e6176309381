// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit
import Testing
import TestSupport

@testable import PipelineKit

/// Statuses that are sent from memory are what they would be if they were made anew.
@Suite(.timeLimit(.minutes(15)))
struct StatusTests {
    /// Reads a status twice through the second replica, which knows it by heart the second time.
    private func remembered(_ world: PipelineWorld, _ uid: String) async throws -> JSONValue {
        let first = try await world.call("GET", "/\(uid)/status", replica: 1)
        let board = world.replicas[1].service.board
        let stamp = try #require(try await board.stamp(uid))
        let known = try #require(board.status(uid, stamp, at: world.replicas[1].store.now()))
        #expect(try JSONValue(parsing: known.body) == first.body)
        let second = try await world.call("GET", "/\(uid)/status", replica: 1)
        #expect(second.body == first.body)
        #expect(second.headers["ETag"] == first.headers["ETag"])
        return second.body
    }

    @Test func `a status from memory shows what was written through another replica`() async throws {
        try await PipelineWorld.with(replicas: 2, clock: TestClock(.now())) { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            #expect(try await remembered(world, "p")["state"] == "starting")
            try await world.advance(1)
            let running = try await remembered(world, "p")
            #expect(running["info"]?["steps"]?[0]?["state"] == "running")
            #expect(running["info"]?["steps"]?[1]?["blocked_by"] == ["a"])
            try await world.call("POST", "/p/pause")
            #expect(try await remembered(world, "p")["info"]?["paused"] == true)
            try await world.call("POST", "/p/resume")
            #expect(try await remembered(world, "p")["info"]?["paused"] == false)
            // What a service did not answer is no new version of the pipeline, but its status shows it.
            world.lab.set("a", Lab.Behaviour(statusCodes: [503]))
            try await world.advance(1)
            #expect(try await remembered(world, "p")["info"]?["steps"]?[0]?["poll_failures"] == 1)
            try await world.advance(4)
            #expect(try await remembered(world, "p")["state"] == "completed")
            try await world.call("DELETE", "/p")
            #expect(try await world.call("GET", "/p/status", replica: 1).status == 404)
            try await world.create("p", [world.step("c")])
            #expect(try await remembered(world, "p")["info"]?["steps_total"] == 1)
        }
    }

    @Test func `a status from memory ends with the moment or the freeze that it speaks of`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(replicas: 2, clock: clock) { world in
            let moment = clock.now() + .seconds(600)
            world.lab.set("a", Lab.Behaviour(result: nil))
            let late = world.step("b", [], ["not_before": .string(moment.iso8601)])
            try await world.create("p", [world.step("a"), late])
            func kind() async throws -> JSONValue? {
                try await remembered(world, "p")["info"]?["steps"]?[1]?["waiting_for"]?["kind"]
            }
            try await world.advance(1)
            #expect(try await kind() == "not_before")
            let freeze: JSONValue = [
                "name": "f", "reason": "test", "start": .string(moment.iso8601),
                "end": .string((moment + .seconds(600)).iso8601), "match": ["step_uid_glob": "b"],
            ]
            #expect(try await world.call("PUT", "/freezes/f", freeze).status == 200)
            #expect(try await kind() == "not_before")
            // Nothing is written when the one moment passes and the other comes.
            clock.advance(by: .seconds(700))
            #expect(try await kind() == "freeze")
            try await world.call("DELETE", "/freezes/f")
            #expect(try await kind() == nil)
        }
    }

    @Test func `what depends on other pipelines is not answered from memory`() async throws {
        try await PipelineWorld.with(replicas: 2, clock: TestClock(.now())) { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a")], ["concurrency_key": "k"])
            try await world.advance(1)
            try await world.create("q", [world.step("b")], ["concurrency_key": "k"])
            let waiting = try await world.call("GET", "/q/status", replica: 1).body
            #expect(waiting["info"]?["steps"]?[0]?["waiting_for"]?["kind"] == "concurrency")
            let board = world.replicas[1].service.board
            let stamp = try #require(try await board.stamp("q"))
            #expect(board.status("q", stamp, at: world.replicas[1].store.now()) == nil)
        }
    }

    @Test func `a board forgets what was not read for long`() {
        let board = StatusBoard(limit: 100) { _ in [:] }
        let stamp = StatusBoard.Stamp(id: 1, version: 1, revision: 0, freezes: 0)
        let now = Timestamp.now()
        for number in 0..<20 {
            let status = RenderedStatus(body: Array(repeating: 32, count: 20), entityTag: "\"1\"")
            board.keep(status, of: "p\(number)", stamp, until: .farFuture)
            #expect(board.status("p0", stamp, at: now) != nil, "it is read all the time")
        }
        #expect(board.status("p1", stamp, at: now) == nil)
        #expect(board.status("p19", stamp, at: now) != nil)
        #expect(board.status("p19", stamp, at: .farFuture) == nil)
    }
}
