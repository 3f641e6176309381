// SPDX-License-Identifier: MPL-2.0

import JSON
import Testing
import TestSupport

@testable import PipelineKit

/// What is told of pipelines, and what requests that come again get.
@Suite(.timeLimit(.minutes(10)))
struct ToldTests {
    @Test func `a list says how far each pipeline is, and a definition what its steps were asked for`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(output: ["version": "1.2"]))
            world.lab.set("b", Lab.Behaviour(result: nil))
            let steps = [
                world.step("a", [], ["parameters": ["greeting": "hello ${pipeline.parameters.name}"]]),
                world.step("b", ["a"], ["parameters": ["version": "${steps.a.output.version}"]]),
                world.step("c", ["b"]),
            ]
            let definition: JSONValue = [
                "labels": ["product": "one"], "parameters": ["name": "world", "steps": .array(steps)],
            ]
            #expect(try await world.call("PUT", "/p", definition).status == 200)
            try await eventually { world.lab.isRunning("b") }
            #expect(world.lab.body("a")?["greeting"] == "hello world")
            try await eventually { try await world.states("p") == ["completed", "running", "pending"] }
            let item = try #require(try await world.call("GET", "/").body["steps"]?[0])
            #expect(item["steps_total"] == 3 && item["steps_done"] == 1 && item["current"] == ["b"])
            #expect(item["paused"] == false && item["labels"] == ["product": "one"])
            let told = try await world.call("GET", "/p").body
            #expect(told["parameters"]?["name"] == "world")
            let resolved = told["resolved"]?["steps"]?.array ?? []
            #expect(resolved.compactMap { $0["uid"]?.string } == ["a", "b"])
            #expect(resolved.last?["request"]?["version"] == "1.2")
            #expect(resolved.last?["remote_url"]?.string == "\(world.labURL)/b")
            // What was told can be asked for again.
            #expect(try await world.call("PUT", "/p", told).status == 200)
            world.lab.finish("b")
            try await world.reach("p", "completed")
        }
    }

    @Test func `a step that has failed is taken for completed, and what was left out because of it runs`() async throws
    {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(result: "failed"))
            try await world.create("p", [world.step("a"), world.step("b", ["a"]), world.step("c", ["b"])])
            try await world.reach("p", "failed")
            #expect(try await world.states("p") == ["failed", "skipped", "skipped"])
            let failure: JSONValue = ["status": "failure", "reason": "no"]
            #expect(try await world.call("POST", "/p/steps/a/resolve", failure).status == 409)
            let success: JSONValue = ["status": "success", "reason": "done by hand"]
            #expect(try await world.call("POST", "/p/steps/b/resolve", success).status == 409)
            #expect(try await world.call("POST", "/p/steps/nobody/resolve", success).status == 404)
            #expect(try await world.call("POST", "/p/steps/a/resolve", success).status == 200)
            try await world.reach("p", "completed")
            #expect(try await world.states("p") == ["completed", "completed", "completed"])
            #expect(world.lab.begun("a") == 1 && world.lab.begun("b") == 1 && world.lab.begun("c") == 1)
            #expect(try await world.kinds("p").contains("resolve"))
            #expect(try await world.call("POST", "/p/steps/a/resolve", success).status == 409)
        }
    }

    @Test func `creating again under one key gets the first answer, and another request under it is refused`()
        async throws
    {
        try await PipelineWorld.with { (world) async throws in
            func post(_ uid: String, key: String?) async throws -> Int {
                let body: JSONValue = ["uid": .string(uid), "pipeline": world.definition([])]
                return try await world.call("POST", "/", body, headers: key.map { ["Idempotency-Key": $0] } ?? [:])
                    .status
            }
            #expect(try await post("p", key: "one") == 200)
            #expect(try await post("p", key: "one") == 200)
            #expect(try await post("q", key: "one") == 422)
            #expect(try await world.call("GET", "/q").status == 404)
            #expect(try await post("q", key: "two") == 200)
            #expect(try await world.events("p").filter { $0["kind"] == "created" }.count == 1)
        }
    }
}
