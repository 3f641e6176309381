// SPDX-License-Identifier: MPL-2.0

import JSON
import Pulse
import Schedules
import TestSupport
import Testing

@testable import PipelineKit

/// Services that take back what they said of an end.
@Suite(.timeLimit(.minutes(10)))
struct RegressionTests {
    @Test func `17: a step that was completed stays completed, and that its service takes it back is noted once`()
        async throws
    {
        try await Broker.lend { pulse, exchange, queue in
            try await PipelineWorld.with(replicas: 2, exchange: exchange, bus: (pulse, queue)) { world in
                for step in ["a", "b"] { world.lab.set(step, Lab.Behaviour(result: nil)) }
                try await world.create("p", [world.step("a"), world.step("b", ["a"])])
                try await eventually { world.lab.isRunning("a") }
                world.lab.finish("a")
                try await eventually { world.lab.isRunning("b") }
                // A message about the time before the end is none about a change of mind.
                try await world.service.heard(of: "a", ["uid": "a", "state": "running"])
                #expect(try await !world.kinds("p").contains("remote_regressed"))
                world.lab.finish("a", "running")
                for _ in 0..<3 {
                    for state in ["completed", "running"] {
                        let message = PulseMessage(
                            exchange: exchange,
                            routingKey: "primary.lab.a.\(state)",
                            payload: ["uid": "a", "state": .string(state), "base_url": .string(world.labURL)]
                        )
                        try await pulse.publish(message)
                    }
                }
                try await eventually { try await world.kinds("p").contains("remote_regressed") }
                world.lab.finish("b")
                try await world.reach("p", "completed")
                // Of a pipeline that has ended, too, and by whomever it is heard.
                world.lab.finish("b", "running")
                for replica in world.replicas {
                    try await replica.service.heard(of: "b", ["uid": "b", "status": "in_progress"])
                    try await replica.service.heard(of: "a", ["uid": "a", "state": "running"])
                }
                #expect(try await world.states("p") == ["completed", "completed"])
                #expect(try await world.state("p") == "completed")
                let events = try await world.events("p").filter { $0["kind"] == "remote_regressed" }
                #expect(events.compactMap { $0["step"]?.string } == ["a", "b"])
                #expect(events.allSatisfy { $0["data"]?["attempt"] == 1 && $0["data"]?["state"] == "completed" })
            }
        }
    }

    @Test func `17: an answer that comes after the end changes nothing, and a message older than the end is not heard`()
        async throws
    {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            for step in ["a", "b"] { world.lab.set(step, Lab.Behaviour(result: nil)) }
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            try await world.advance(3)
            world.lab.finish("a")
            try await world.advance(5)
            #expect(world.lab.isRunning("b"))
            let definition = try PipelineService.parsed(
                try #require(try await world.replicas[0].store.load("p")).definition
            )
            let id = try #require(try await world.replicas[0].store.find("p")).id
            let runs = try await world.service.runs.steps(id)
            var evaluation = Evaluation(definition, runs, now: clock.now())
            let late = Observation.Result.status(.known(state: .running, message: "", output: [:], info: [:]))
            for _ in 0..<2 {
                evaluation.apply([Observation(step: "a", attempt: 1, hints: 0, result: late)])
                // Another attempt is another story.
                evaluation.apply([Observation(step: "a", attempt: 2, hints: 0, result: late)])
            }
            #expect(evaluation.notes.map(\.kind) == ["remote_regressed"])
            #expect(evaluation.steps["a"]?.state == .completed)
            world.lab.finish("a", "running")
            try await world.pool.execute(
                "update shipit_pipeline.pipeline_steps set remote_updated = '2026-01-01 12:00:00Z' where uid = 'a'"
            )
            let message: JSONValue = ["uid": "a", "state": "running", "updated": "2026-01-01T11:59:59.999Z"]
            try await world.service.heard(of: "a", message)
            #expect(try await !world.kinds("p").contains("remote_regressed"))
            try await world.service.heard(
                of: "a",
                ["uid": "a", "state": "running", "updated": "2026-01-01T12:00:00.001Z"]
            )
            #expect(try await world.kinds("p").contains("remote_regressed"))
        }
    }
}
