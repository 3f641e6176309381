// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Testing
import TestSupport

@testable import PipelineKit

/// Templates, steps that wait to be called for, freezes that recur, and pipelines that are only played.
@Suite(.timeLimit(.minutes(15)))
struct TemplateTests {
    private static func template(_ world: PipelineWorld) -> JSONValue {
        [
            "version": "1",
            "schema": [
                "type": "object", "required": ["revision"],
                "properties": ["revision": ["type": "string"], "locales": ["type": "array", "default": ["de"]]],
            ],
            "definition": [
                "description": "what ${uid} is", "labels": ["revision": "${parameters.revision}"],
                "parameters": [
                    // Lists within lists become one, so that a step can become several.
                    "steps": [
                        "$flatten": .array([
                            .array([world.step("build", [], ["parameters": ["of": "${parameters.revision}"]])]),
                            [
                                "$map": ["$eval": "parameters.locales"],
                                "each(locale)": world.step(
                                    "repack-${locale}",
                                    ["build"],
                                    ["parameters": ["from": "$${steps.build.output.id}"]]
                                ),
                            ],
                        ])
                    ]
                ],
            ],
        ]
    }

    @Test func `a template makes pipelines that say what they were made from, and is checked before`() async throws {
        try await PipelineWorld.with { world in
            let template = Self.template(world)
            let weak = "c project:releng:services/shipit_pipeline/create"
            #expect(try await world.call("PUT", "/templates/beta", template, as: weak).status == 403)
            #expect(try await world.call("PUT", "/templates/beta", template).status == 200)
            #expect(try await world.call("PUT", "/templates/beta", template).status == 200)
            var other = template
            other["definition"]?["description"] = "another"
            #expect(try await world.call("PUT", "/templates/beta", other).code == "template_differs")
            let nonsense: JSONValue = ["definition": "text"]
            #expect(try await world.call("PUT", "/templates/bad", nonsense).status == 400)
            #expect(try await world.call("PUT", "/templates/bad", ["definition": ["description": "${"]]).status == 200)
            let unreadable = try await world.call("POST", "/templates/bad/instantiate", ["uid": "bad"])
            #expect(unreadable.code == "invalid_template")

            world.lab.set("build", Lab.Behaviour(output: ["id": "b7"]))
            let path = "/templates/beta/instantiate"
            let missing = try await world.call("POST", path, ["uid": "p", "parameters": [:]])
            #expect(missing.code == "invalid_parameters")
            let request: JSONValue = ["uid": "p", "parameters": ["revision": "abc", "locales": ["fr", "it"]]]
            let plan = try await world.call("POST", "\(path)?dry_run=true", request)
            #expect(plan.body["template"] == ["name": "beta", "version": "1"])
            #expect(try await world.call("GET", "/p/status").status == 404)
            #expect(try await world.call("POST", path, request, as: weak).status == 200)
            #expect(try await world.call("POST", path, request).status == 200)
            try await world.reach("p", "completed")
            #expect(world.lab.body("build")?["of"] == "abc")
            #expect(world.lab.body("repack-it")?["from"] == "b7")
            let definition = try await world.call("GET", "/p/definition").body
            #expect(definition["description"] == "what p is")
            #expect(definition["template"] == ["name": "beta", "version": "1"])
            #expect(try await world.call("POST", path, ["uid": "p", "parameters": ["revision": "x"]]).status == 409)
            // Nobody says of a pipeline that it was made from a template.
            var forged = definition
            forged["uid"] = "q"
            #expect(try await world.call("PUT", "/q", forged).status == 400)
            #expect(try await world.call("DELETE", "/templates/beta").status == 200)
            #expect(try await world.call("POST", path, request).status == 404)
        }
    }

    @Test func `a step that waits to be called for starts when it is, and keeps that when it is tried again`()
        async throws
    {
        try await PipelineWorld.with { world in
            world.lab.set("ship", Lab.Behaviour(result: "failed"))
            try await world.create("p", [world.step("build"), world.step("ship", ["build"], ["manual": true])])
            try await eventually { try await world.states("p") == ["completed", "pending"] }
            #expect(try await world.reasons("p", "ship") == ["manual"])
            #expect(try await world.call("POST", "/p/steps/build/start").status == 409)
            #expect(try await world.call("POST", "/p/steps/ship/start").status == 200)
            try await world.reach("p", "failed")
            #expect(try await world.call("POST", "/p/retry").status == 200)
            try await world.reach("p", "completed")
            #expect(world.lab.begun("ship.r2") == 1)
        }
    }

    @Test func `28: a freeze that recurs holds steps back by the calendar of its place, and names who may override it`()
        async throws
    {
        // A Friday, 15:59 in Berlin, in summer.
        let clock = TestClock(try #require(Timestamp("2026-07-03T13:59:00Z")))
        try await PipelineWorld.with(clock: clock) { world in
            let freeze: JSONValue = [
                "reason": "weekend", "cron_start": "0 16 * * 5", "cron_end": "0 8 * * 1", "tz": "Europe/Berlin",
                "match": ["step_uid_glob": "ship*"], "allow_override": ["release-drivers:override"],
            ]
            #expect(try await world.call("PUT", "/freezes/weekend", freeze).status == 200)
            for (member, value) in [("tz", "Mars/Base"), ("cron_end", "never"), ("start", "2026-01-01")] {
                var bad = freeze
                bad[member] = .string(value)
                #expect(try await world.call("PUT", "/freezes/bad", bad).status == 400, "\(member)")
            }
            let wrong: [JSONValue] = [
                "firefox", ["labels": "firefox"], ["labels": ["product": 1]], ["step_uid_glob": 1],
                ["api_url_prefix": ""],
            ]
            for match in wrong {
                var bad = freeze
                bad["match"] = match
                #expect(try await world.call("PUT", "/freezes/bad", bad).status == 400, "\(match)")
            }
            let list = try await world.call("GET", "/freezes").body["freezes"]
            #expect(list?.array?.count == 1)
            #expect(list?[0]?["cron_start"] == "0 16 * * 5")
            try await world.create("early", [world.step("ship-early")])
            try await world.advance(5)
            #expect(try await world.state("early") == "completed")
            try await world.advance(120, every: .seconds(20))
            try await world.create("late", [world.step("ship-late"), world.step("build")])
            try await world.create("urgent", [world.step("ship-urgent")])
            try await world.advance(10)
            #expect(try await world.states("late") == ["pending", "completed"])
            #expect(try await world.reasons("late", "ship-late") == ["freeze"])
            let explained = try await world.call("GET", "/late/explain").body["steps"]?[0]?["reasons"]?[0]?["detail"]
            #expect(explained == "nothing starts until 2026-07-06T06:00:00.000Z: weekend")
            let path = "/urgent/steps/ship-urgent/override-freeze"
            let manager = "m project:releng:services/shipit_pipeline/freeze/manage"
            #expect(try await world.call("POST", path, ["reason": "fix"], as: manager).status == 403)
            #expect(
                try await world.call("POST", path, ["reason": "fix"], as: "\(manager) release-drivers:override").status
                    == 200
            )
            try await world.advance(5)
            #expect(try await world.state("urgent") == "completed")
            let end = try #require(Timestamp("2026-07-06T06:00:00Z"))
            while clock.now() < end - .seconds(30) { try await world.advance(3600, every: .seconds(3600)) }
            try await world.advance(40)
            #expect(try await world.states("late") == ["completed", "completed"])
            #expect(world.lab.puts("ship-late") == 1)
        }
    }

    @Test func `37: a pipeline that is only played keeps locks and freezes and calls nobody`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            let soon: Timestamp = clock.now() + .seconds(60)
            let freeze: JSONValue = [
                "reason": "lunch", "start": .string(clock.now().iso8601), "end": .string(soon.iso8601),
                "match": ["step_uid_glob": "ship"],
            ]
            #expect(try await world.call("PUT", "/freezes/lunch", freeze).status == 200)
            world.lab.set("holder", Lab.Behaviour(result: nil))
            try await world.create("real", [world.step("holder", [], ["locks": ["balrog"]])])
            try await world.advance(2)
            let steps = [world.step("a", [], ["locks": ["balrog"]]), world.step("ship")]
            try await world.create("played", steps, ["dry_run": true])
            try await world.advance(5)
            #expect(try await world.reasons("played", "a") == ["lock"])
            #expect(try await world.reasons("played", "ship") == ["freeze"])
            world.lab.finish("holder")
            try await world.advance(70)
            #expect(try await world.state("played") == "completed")
            #expect(world.lab.puts("a") == 0)
            #expect(world.lab.puts("ship") == 0)
        }
    }

    @Test func `steps that only pretend run as long and end as they are told to`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(replicas: 2, clock: clock) { world in
            func mock(_ uid: String, _ requires: [String] = [], _ parameters: JSONValue) -> JSONValue {
                let address = JSONValue.string("\(world.replicas[0].url)/mock")
                return world.step(uid, requires, ["api_url": address, "parameters": ["parameters": parameters]])
            }
            func create(_ uid: String, _ steps: [JSONValue]) async throws {
                // The second replica may call the first.
                try await world.create(uid, steps, ["namespace_steps": true], replica: 1)
            }
            let retried = mock("b", ["a"], ["duration_s": 1, "fail_first": 1]).object ?? [:]
            var again = retried
            again["retries"] = ["limit": 1, "backoff_s": 1, "on": ["failed"]]
            try await create("p", [mock("a", [], ["duration_s": 30, "garbage": true]), .object(again)])
            try await create("q", [mock("a", [], ["duration_s": 5, "result": "exception"])])
            try await create("r", [mock("a", [], [:])])
            func advance(_ seconds: Int) async throws {
                for _ in 0..<seconds {
                    clock.advance(by: .seconds(1))
                    _ = try await world.replicas[1].runner.runOnce()
                }
            }
            try await advance(20)
            #expect(try await world.states("p") == ["running", "pending"])
            #expect(try await world.state("q") == "exception")
            #expect(try await world.states("r") == ["running"])
            try await world.call("POST", "/r/cancel", replica: 1)
            try await advance(150)
            #expect(try await world.state("r") == "cancelled")
            #expect(try await world.state("p") == "completed")
            let steps = try await world.status("p")["info"]?["steps"]?.array ?? []
            #expect(steps.compactMap { $0["attempt"]?.int } == [1, 2])
            #expect(try await world.call("GET", "/mock/p.b/status").body["state"] == "failed")
            let bad: [JSONValue] = [["duration_s": -1], ["result": "well"], ["colour": "red"], ["fail_first": "x"]]
            for parameters in bad {
                #expect(try await world.call("PUT", "/mock/x", ["parameters": parameters]).status == 400)
            }
        }
    }
}
