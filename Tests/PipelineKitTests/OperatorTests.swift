// SPDX-License-Identifier: MPL-2.0

import JSON
import Testing
import TestSupport

@testable import PipelineKit

/// What operators decide, and what follows from it for others.
@Suite(.timeLimit(.minutes(15)))
struct OperatorTests {
    @Test func `29: whoever is ended, left out or paused by an operator keeps no lock and no place in line`()
        async throws
    {
        try await PipelineWorld.with { world in
            for name in ["p", "q", "r", "s"] {
                world.lab.set(name, Lab.Behaviour(result: nil))
                try await world.create(name, [world.step(name, [], ["locks": ["balrog"]])])
                if name == "p" {
                    try await eventually { world.lab.isRunning("p") }
                } else {
                    try await eventually { try await world.reasons(name, name) == ["lock"] }
                }
            }
            // q is next, but paused: r gets the lock that p leaves.
            #expect(try await world.call("POST", "/q/pause").status == 200)
            let decision: JSONValue = ["status": "success", "reason": "done by hand"]
            #expect(try await world.call("POST", "/p/steps/p/resolve", decision).status == 200)
            try await eventually("r holds the lock") { world.lab.isRunning("r") }
            #expect(try await world.reasons("q", "q") == ["paused"])
            #expect(try await world.call("POST", "/q/resume").status == 200)
            try await eventually { try await world.reasons("q", "q") == ["lock"] }
            // It comes before s all the same, which was ready later; then it is left out of the line.
            let wanted = try await world.call("GET", "/locks").body["wanted"]?.array ?? []
            #expect(wanted.compactMap { $0["pipeline"]?.string } == ["q", "s"])
            #expect(try await world.call("POST", "/q/steps/q/skip", ["reason": "not needed"]).status == 200)
            #expect(try await world.call("POST", "/r/steps/r/cancel").status == 200)
            try await eventually("s holds the lock") { world.lab.isRunning("s") }
            #expect(world.lab.puts("q") == 0)
            world.lab.finish("s")
            try await world.reach("s", "completed")
            #expect(try await world.call("GET", "/locks").body == ["held": [], "wanted": []])
        }
    }

    @Test func `a step that an operator leaves out holds back nobody, and stays out when others are tried again`()
        async throws
    {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            world.lab.set("c", Lab.Behaviour(result: "failed"))
            let steps = [world.step("a"), world.step("b", ["a"]), world.step("c", ["b"]), world.step("d", ["c"])]
            try await world.create("p", steps)
            let said = try await world.call("POST", "/p/steps/b/skip", ["reason": "the mirrors are known to be good"])
            #expect(said.status == 200)
            #expect(try await world.call("POST", "/p/steps/b/skip").status == 409)
            world.lab.finish("a")
            try await world.reach("p", "failed")
            #expect(try await world.states("p") == ["completed", "skipped", "failed", "skipped"])
            let event = try await world.events("p").first { $0["kind"] == "skip" }
            #expect(event?["step"] == "b")
            #expect(event?["data"]?["reason"] == "the mirrors are known to be good")
            #expect(try await world.call("POST", "/p/retry").status == 200)
            try await world.reach("p", "completed")
            #expect(try await world.states("p") == ["completed", "skipped", "completed", "completed"])
            #expect(world.lab.puts("b") == 0)
            #expect(world.lab.begun("c.r2") == 1)
        }
    }

    @Test func `26: what has failed is tried again with other parameters, by a retry that leaves the pipeline paused`()
        async throws
    {
        try await PipelineWorld.with { world in
            world.lab.set("b", Lab.Behaviour(putStatuses: [400]))
            try await world.create("p", [world.step("a"), world.step("b", ["a"], ["parameters": ["n": 1]])])
            try await world.reach("p", "exception")
            #expect(try await world.call("POST", "/p/retry", ["pause": 1]).status == 400)
            #expect(try await world.state("p") == "exception")
            let answer = try await world.call("POST", "/p/retry", ["pause": true])
            #expect(answer.body["info"]?["paused"] == true)
            try await eventually { try await world.reasons("p", "b") == ["paused"] }
            #expect(try await world.states("p") == ["completed", "pending"])
            #expect(try await world.call("PUT", "/p/steps/b/parameters", ["n": 2]).status == 200)
            #expect(world.lab.puts("b.r2") == 0)
            #expect(try await world.call("POST", "/p/resume").status == 200)
            try await world.reach("p", "completed")
            #expect(world.lab.body("b.r2")?["n"] == 2)
            #expect(
                try await world.kinds("p").filter { ["retry", "paused", "resumed"].contains($0) }
                    == ["retry", "paused", "resumed"]
            )
        }
    }

    @Test func `6: parameters use nothing but steps that come before, when a pipeline is made and afterwards`()
        async throws
    {
        try await PipelineWorld.with { world in
            func step(_ parameters: JSONValue, _ requires: [String] = ["a"]) -> JSONValue {
                world.step("b", requires, ["parameters": parameters])
            }
            let wrong: [JSONValue] = [
                ["x": "${steps.ghost.output.x}"], ["x": ["y": ["${1 + steps . c.attempt}"]]],
                ["x": ["$eval": "steps[\"roll-back\"].output"]], ["x": "${steps['b'].status}"],
                ["x": ["$if": "steps.c.status == 'success'", "then": 1]],
            ]
            for parameters in wrong {
                let definition = world.definition([world.step("a"), step(parameters), world.step("c")])
                let answer = try await world.call("PUT", "/p", definition)
                #expect(answer.status == 400, "\(parameters)")
                let codes = answer.body["errors"]?.array?.compactMap { $0["code"]?.string }
                #expect(codes == ["template_reference"], "\(parameters)")
            }
            let right: [JSONValue] = [
                ["x": "$${steps.ghost.output.x}"], ["x": "${'steps.ghost'} of ${pipeline.uid}"],
                ["x": ["$let": ["steps": ["ghost": 1]], "in": ["$eval": "steps.ghost"]]],
                ["x": "steps.ghost", "steps": ["c": 1]], ["x": "${pipeline.labels.steps.ghost}"],
            ]
            for (index, parameters) in right.enumerated() {
                let definition = world.definition([world.step("a"), step(parameters)], ["namespace_steps": true])
                #expect(try await world.call("PUT", "/right-\(index)", definition).status == 200, "\(parameters)")
            }
            world.lab.set("a", Lab.Behaviour(result: nil))
            let schema: JSONValue = ["type": "object", "properties": ["n": ["type": "integer"]]]
            let later = world.step("b", ["a"], ["parameters": ["n": 1], "parameters_schema": schema])
            try await world.create("q", [world.step("a"), later])
            let path = "/q/steps/b/parameters"
            let long = String(repeating: "x", count: 65 << 10)
            for (body, code) in [
                (["n": "one"], "schema"), (["n": "${steps.c.output.n}"], "template_reference"),
                (["text": .string(long)], "too_long"),
            ] as [(JSONValue, String)] {
                let answer = try await world.call("PUT", path, body)
                #expect(answer.status == 400)
                #expect(answer.body["errors"]?[0]?["code"] == .string(code))
            }
            #expect(try await world.call("PUT", path, ["n": 2]).status == 200)
            world.lab.finish("a")
            try await world.reach("q", "completed")
            #expect(world.lab.body("b")?["n"] == 2)
        }
    }

    @Test func `35: who has changed freezes, templates and locks is in an audit that shows when it was changed`()
        async throws
    {
        try await PipelineWorld.with { world in
            let freeze: JSONValue = [
                "reason": "holidays", "start": "2026-12-24T00:00:00Z", "end": "2026-12-27T00:00:00Z",
            ]
            let (one, two) = ("one project:releng:services/shipit_pipeline/*", "two *")
            #expect(try await world.call("PUT", "/freezes/xmas", freeze, as: one).status == 200)
            #expect(try await world.call("GET", "/freezes/xmas").body["reason"] == "holidays")
            let template: JSONValue = ["version": "1", "definition": ["steps": []]]
            #expect(try await world.call("PUT", "/templates/beta", template, as: one).status == 200)
            #expect(try await world.call("DELETE", "/freezes/xmas", as: two).status == 200)
            // What changes nothing is no entry.
            #expect(try await world.call("DELETE", "/freezes/xmas", as: two).status == 404)
            #expect(try await world.call("GET", "/freezes/xmas").status == 404)
            let other: JSONValue = ["version": "1", "definition": ["steps": [1]]]
            #expect(try await world.call("PUT", "/templates/beta", other, as: two).status == 409)
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a", [], ["locks": ["balrog"]])])
            try await eventually { world.lab.isRunning("a") }
            #expect(try await world.call("DELETE", "/locks/balrog", as: two).status == 200)
            #expect(try await world.call("DELETE", "/locks/balrog", as: two).status == 404)
            #expect(try await world.kinds("p").contains("lock_broken"))

            let weak = "c project:releng:services/shipit_pipeline/create"
            #expect(try await world.call("GET", "/events", as: weak).status == 403)
            let first = try await world.call("GET", "/events?limit=3").body
            let token = try #require(first["continuationToken"]?.string)
            let rest = try await world.call("GET", "/events?limit=3&continuationToken=\(token)").body
            let events = (first["events"]?.array ?? []) + (rest["events"]?.array ?? [])
            let told = events.map { [$0["kind"]?.string, $0["step"]?.string, $0["actor"]?.string].compactMap(\.self) }
            #expect(
                told == [
                    ["freeze_saved", "xmas", "one"], ["template_saved", "beta", "one"],
                    ["freeze_deleted", "xmas", "two"], ["lock_broken", "balrog", "two"],
                ]
            )
            #expect(events.first?["data"]?["reason"] == "holidays")
            #expect(try await world.call("GET", "/events?verify=true").body["verified"] == true)
            await #expect(throws: (any Error).self) {
                try await world.pool.execute("update shipit_pipeline.journal set actor = 'three'")
            }
            try await world.pool.execute("alter table shipit_pipeline.journal disable trigger all")
            try await world.pool.execute("update shipit_pipeline.journal set actor = 'three' where sequence = 3")
            let broken = try await world.call("GET", "/events?verify=true").body
            #expect(broken == ["verified": false, "broken_at": 3])
        }
    }
}
