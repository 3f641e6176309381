// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import StepKit
import StepTestSupport
import Testing
import TestSupport

@testable import PipelineKit

/// Pipelines over HTTP, on real tables, with steps in a lab.
@Suite(.timeLimit(.minutes(15)))
struct PipelineTests {
    @Test func `1: a step that requires another starts when that one is completed`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(polls: 2))
            try await world.create("p1", [world.step("a"), world.step("b", ["a"])])
            try await world.reach("p1", "completed")
            #expect(try await world.status("p1")["status"] == "success")
            #expect(world.lab.log == ["put a", "begin a", "completed a", "put b", "begin b", "completed b"])
            #expect(try await world.call("GET", "/p1/events?verify=true").body["verified"] == true)
        }
    }

    @Test func `2: without pipelines the list is empty`() async throws {
        try await PipelineWorld.with { world in
            let answer = try await world.call("GET", "/")
            #expect(answer.status == 200)
            #expect(answer.body == ["steps": []])
        }
    }

    @Test func `3 and 4: the same pipeline again is the same, another of its name is refused`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a")])
            try await eventually { try await world.states("p") == ["running"] }
            let before = try await world.call("GET", "/p/definition").body
            let again: JSONValue = [
                "steps": [["requires": [], "parameters": [:], "api": .string(world.labURL + "/"), "uid": "a"]],
                "uid": "p",
            ]
            #expect(try await world.call("PUT", "/p", again).status == 200)
            let other = try await world.call("PUT", "/p", world.definition([world.step("b")]))
            #expect(other.status == 409)
            #expect(other.code == "definition_differs")
            #expect(other.body["error_title"]?.string?.isEmpty == false)
            #expect(other.body["error_message"]?.string?.isEmpty == false)
            // It goes on with what it had, and nothing is begun anew, neither now nor when it has ended.
            #expect(try await world.states("p") == ["running"])
            #expect(try await world.call("GET", "/p/definition").body == before)
            world.lab.finish("a")
            try await world.reach("p", "completed")
            #expect(try await world.call("PUT", "/p", again).status == 200)
            #expect(try await world.call("PUT", "/p", world.definition([world.step("b")])).status == 409)
            #expect(try await world.state("p") == "completed")
            #expect(world.lab.log == ["put a", "begin a", "completed a"])
            #expect(try await world.kinds("p").count { $0 == "created" } == 1)
        }
    }

    @Test func `5: steps that wait for each other are refused, and the circle is named`() async throws {
        try await PipelineWorld.with { world in
            let steps = [world.step("x", ["b"]), world.step("a", ["b"]), world.step("b", ["a"])]
            let answer = try await world.call("PUT", "/p", world.definition(steps))
            #expect(answer.status == 400)
            #expect(answer.code == "invalid_pipeline")
            #expect(answer.body["errors"]?[0]?["code"] == "cycle")
            #expect(answer.body["errors"]?[0]?["cycle"] == ["a", "b", "a"])
            #expect(answer.body["detail"]?.string?.contains("a → b → a") == true)
            #expect(try await world.call("GET", "/").body["steps"] == [])
        }
    }

    @Test func `6: everything that is wrong with a pipeline is said at once`() async throws {
        try await PipelineWorld.with { world in
            var bare = world.step("f").object ?? [:]
            bare["api_url"] = nil
            let steps = [
                world.step("a", ["ghost"]), world.step("b", ["b"]), world.step("c"), world.step("c"),
                .object(bare), world.step("g", [], ["api_url": "https://evil.example.com/steps"]),
                world.step("h", [], ["api_url": "http://127.0.0.1@evil.example.com/"]),
                world.step("i", [], ["timeout_s": 0]), world.step("j", [], ["retries": ["limit": 11]]),
                world.step("k", [], ["colour": "red"]),
                world.step("l", [], ["parameters_schema": ["required": ["x"]], "parameters": [:]]),
            ]
            let answer = try await world.call("PUT", "/p", world.definition(steps))
            #expect(answer.status == 400)
            let codes = answer.body["errors"]?.array?.compactMap { $0["code"]?.string } ?? []
            for code in [
                "unknown_step", "self", "duplicate", "missing", "not_allowed", "userinfo", "value", "unknown_member",
                "schema",
            ] {
                #expect(codes.contains(code), "\(code) in \(codes)")
            }
            for error in answer.body["errors"]?.array ?? [] {
                #expect(error["path"]?.string?.hasPrefix("parameters.steps[") == true, "\(error)")
                #expect(error["message"]?.string?.isEmpty == false, "\(error)")
            }
            let zero = world.definition([world.step("a")], ["labels": ["product": "fire\u{0}fox"]])
            #expect(try await world.call("PUT", "/p", zero).code == "bad_value")
            let long = JSONValue(String(repeating: "x", count: 501))
            let names = world.definition([world.step("m", [], ["locks": [long]])], ["concurrency_key": long])
            let paths = try await world.call("PUT", "/p", names).body["errors"]?.array?.compactMap {
                $0["path"]?.string
            }
            #expect(paths == ["concurrency_key", "parameters.steps[0].locks"])
            let many = (0..<501).map { world.step("s\($0)") }
            let tooMany = try await world.call("PUT", "/p", world.definition(many))
            #expect(tooMany.status == 400)
            #expect(tooMany.body["errors"]?[0]?["code"] == "too_many")
            #expect(try await world.call("GET", "/").body["steps"] == [])
        }
    }

    @Test func `7: the form of the first design makes the same pipeline`() async throws {
        try await PipelineWorld.with { world in
            let answer = try await world.call(
                "POST",
                "/",
                ["uid": "p", "pipeline": world.definition([world.step("a")])]
            )
            #expect(answer.status == 200)
            #expect(answer.headers["Location"] == "/p")
            #expect(try await world.call("PUT", "/p", world.definition([world.step("a")])).status == 200)
            try await world.reach("p", "completed")
            #expect(world.lab.begun("a") == 1)
            // The runner of the first version sends a form.
            let text = world.definition([world.step("f")]).text()
            let escaped = text.utf8.map { "%" + (($0 < 16 ? "0" : "") + String($0, radix: 16)) }.joined()
            func form(_ body: String) async throws -> Int {
                let headers: HTTPHeaders = [
                    "Authorization": StepServers.client, "Content-Type": "application/x-www-form-urlencoded",
                ]
                let url = world.replicas[0].url + "/"
                let request = HTTPRequest(method: "POST", url: url, headers: headers, body: .bytes(Array(body.utf8)))
                return try await world.curl.send(request).status
            }
            for _ in 0..<2 { #expect(try await form("uid=form&pipeline=\(escaped)") == 200) }
            #expect(try await form("uid=other&pipeline=%7B") == 400)
            try await world.reach("form", "completed")
            #expect(world.lab.begun("f") == 1)
        }
    }

    @Test func `8: a name that differs from the path's, is reserved or too long is refused`() async throws {
        try await PipelineWorld.with { world in
            let body = world.definition([world.step("a")], ["uid": "q"])
            let mismatch = try await world.call("PUT", "/p", body)
            #expect(mismatch.status == 400)
            #expect(mismatch.code == "uid_mismatch")
            let plain = world.definition([world.step("a")])
            #expect(try await world.call("PUT", "/mock", plain).status == 400)
            #expect(try await world.call("PUT", "/\(String(repeating: "a", count: 81))", plain).status == 400)
            for name in ["ticktock", "__p"] {
                #expect(try await world.call("POST", "/", ["uid": .string(name), "pipeline": plain]).status == 400)
            }
            #expect(try await world.call("GET", "/").body["steps"] == [])
            let named = world.definition([world.step("ticktock")])
            #expect(try await world.call("PUT", "/p", named).status == 400)
        }
    }

    @Test func `9: two that wait for the same run together, and what waits for both runs once`() async throws {
        try await PipelineWorld.with { world in
            for name in ["b", "c"] { world.lab.set(name, Lab.Behaviour(result: nil)) }
            try await world.create(
                "p",
                [world.step("a"), world.step("b", ["a"]), world.step("c", ["a"]), world.step("d", ["b", "c"])]
            )
            try await eventually { world.lab.isRunning("b") && world.lab.isRunning("c") }
            world.lab.finish("b")
            // What follows from the end of b is stored with it: d still waits.
            try await eventually { try await world.states("p")[1] == "completed" }
            #expect(try await world.states("p")[3] == "pending")
            world.lab.finish("c")
            try await world.reach("p", "completed")
            #expect(world.lab.log.suffix(4) == ["completed c", "put d", "begin d", "completed d"])
            #expect(world.lab.begun("d") == 1)
            #expect(world.lab.state.withLock { $0.mostConcurrent } >= 2)
        }
    }

    @Test func `10: a failure ends what depends on it, and everything where the pipeline says so`() async throws {
        try await PipelineWorld.with { world in
            for policy in ["drain", "abort"] {
                func name(_ step: String) -> String { "\(policy).\(step)" }
                world.lab.set(name("b"), Lab.Behaviour(result: nil))
                world.lab.set(name("c"), Lab.Behaviour(result: nil))
                try await world.create(
                    policy,
                    [
                        world.step("a"), world.step("b", ["a"]), world.step("c", ["a"]), world.step("d", ["b", "c"]),
                    ],
                    ["on_failure": .string(policy), "namespace_steps": true]
                )
                try await eventually { world.lab.isRunning(name("b")) && world.lab.isRunning(name("c")) }
                world.lab.finish(name("b"), "failed")
                try await eventually { try await world.states(policy)[1] == "failed" }
                if policy == "drain" {
                    #expect(try await world.state(policy) == "running")
                    world.lab.finish(name("c"))
                }
                try await world.reach(policy, "failed")
                let last = policy == "drain" ? "completed" : "cancelled"
                #expect(try await world.states(policy) == ["completed", "failed", last, "skipped"])
                #expect(world.lab.puts(name("d")) == 0)
                #expect(world.lab.log.contains("cancel \(name("c"))") == (policy == "abort"))
                let steps = try await world.status(policy)["info"]?["steps"]?.array ?? []
                #expect(steps[3]["message"]?.string?.contains(policy == "drain" ? "b is failed" : "failed") == true)
            }
        }
    }

    @Test func `14: a refused step is an exception with what its service said`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(putStatuses: [400]))
            try await world.create("p", [world.step("a")])
            try await world.reach("p", "exception")
            let step = try await world.status("p")["info"]?["steps"]?[0]
            #expect(step?["message"]?.string?.contains("as told") == true)
        }
    }

    @Test func `15: nobody is sent elsewhere with our credentials`() async throws {
        let trap = Lab()
        try await trap.serve { trapURL in
            try await PipelineWorld.with { world in
                world.lab.set("a", Lab.Behaviour(redirect: "\(trapURL)/a"))
                try await world.create("p", [world.step("a")])
                try await world.reach("p", "exception")
                #expect(trap.log.isEmpty)
            }
        }
    }

    @Test func `23: cancelling tells the services of what goes on, and nothing new starts`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            try await eventually { world.lab.isRunning("a") }
            let answer = try await world.call("POST", "/p/cancel", ["reason": "enough"])
            #expect(answer.status == 200)
            #expect(["stopping", "cancelled"].contains(answer.body["state"]?.string))
            try await world.reach("p", "cancelled")
            #expect(world.lab.log.contains("cancel a"))
            #expect(world.lab.puts("b") == 0)
            #expect(try await world.states("p") == ["cancelled", "cancelled"])
            #expect(try await world.call("POST", "/p/cancel").status == 200)
            try await world.create("q", [])
            try await world.reach("q", "completed")
            #expect(try await world.call("POST", "/q/cancel").status == 409)
        }
    }

    @Test func `24: a pipeline is deleted by force, after its steps were cancelled, and its name is free`() async throws
    {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a")])
            try await eventually { world.lab.isRunning("a") }
            #expect(try await world.call("DELETE", "/p").status == 409)
            #expect(try await world.call("DELETE", "/p?force=true").status == 200)
            #expect(world.lab.log.last == "cancel a")
            #expect(try await world.call("GET", "/p/status").status == 404)
            let events = try await world.call("GET", "/p/events?deleted=true").body["events"]?.array ?? []
            #expect(events.contains { $0["kind"] == "deleted" })
            // The new pipeline has steps of its own, though what it asks for is the same.
            world.lab.set("a.i2", Lab.Behaviour())
            try await world.create("p", [world.step("a")])
            try await world.reach("p", "completed")
            #expect(world.lab.begun("a.i2") == 1)
        }
    }

    @Test func `25: while a pipeline is paused nothing starts, and it can be cancelled`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            try await eventually { world.lab.isRunning("a") }
            #expect(try await world.call("POST", "/p/pause").body["info"]?["paused"] == true)
            world.lab.finish("a")
            try await eventually { try await world.states("p")[0] == "completed" }
            #expect(try await world.states("p")[1] == "pending")
            #expect(try await world.reasons("p", "b") == ["paused"])
            #expect(world.lab.puts("b") == 0)
            try await world.call("POST", "/p/resume")
            try await world.reach("p", "completed")
            world.lab.set("c", Lab.Behaviour(result: nil))
            try await world.create("q", [world.step("c")])
            try await world.call("POST", "/q/pause")
            try await world.call("POST", "/q/cancel")
            try await world.reach("q", "cancelled")
        }
    }

    @Test func `26: a retry runs what failed and what was skipped for it, under another name`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("b", Lab.Behaviour(result: "failed"))
            try await world.create("p", [world.step("a"), world.step("b", ["a"]), world.step("c", ["b"])])
            try await world.reach("p", "failed")
            #expect(try await world.states("p") == ["completed", "failed", "skipped"])
            let answer = try await world.call("POST", "/p/retry", ["from_failed": true])
            #expect(answer.status == 200)
            try await world.reach("p", "completed")
            #expect(world.lab.begun("a") == 1)
            #expect(world.lab.begun("b") == 1)
            #expect(world.lab.begun("b.r2") == 1)
            let steps = try await world.status("p")["info"]?["steps"]?.array ?? []
            #expect(steps.compactMap { $0["attempt"]?.int } == [1, 2, 1])
            #expect(try await world.call("POST", "/p/retry").code == "nothing_to_retry")
        }
    }

    @Test func `27: only who may decide about a step decides, and the audit says who and why`() async throws {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create("p", [world.step("a"), world.step("b", ["a"])])
            try await eventually { try await world.states("p").first == "running" }
            let body: JSONValue = ["status": "success", "reason": "done by hand"]
            let weak = "c project:releng:services/shipit_pipeline/view"
            #expect(try await world.call("POST", "/p/steps/a/resolve", body, as: weak).status == 403)
            #expect(try await world.call("POST", "/p/steps/a/resolve", ["status": "success"]).status == 400)
            let strong = "boss project:releng:services/shipit_pipeline/*"
            #expect(try await world.call("POST", "/p/steps/a/resolve", body, as: strong).status == 200)
            try await world.reach("p", "completed")
            #expect(world.lab.begun("b") == 1)
            let event = try await world.events("p").first { $0["kind"] == "resolve" }
            #expect(event?["actor"] == "boss")
            #expect(event?["data"]?["reason"] == "done by hand")
        }
    }

    @Test func `30: of two pipelines of a key the second is refused, or waits, or takes the place of the first`()
        async throws
    {
        try await PipelineWorld.with { world in
            for name in ["a1", "b1", "c1"] { world.lab.set(name, Lab.Behaviour(result: nil)) }
            func key(_ key: String, _ policy: String) -> JSONObject {
                ["concurrency_key": .string(key), "concurrency_policy": .string(policy)]
            }
            try await world.create("r1", [world.step("a1")], key("r", "reject"))
            let second = try await world.call("PUT", "/r2", world.definition([world.step("a2")], key("r", "reject")))
            #expect(second.status == 409)
            #expect(second.code == "concurrency_key_busy")
            #expect(try await world.call("GET", "/r2/status").status == 404)

            try await world.create("q1", [world.step("b1")], key("q", "queue"))
            try await world.create("q2", [world.step("b2")], key("q", "queue"))
            try await eventually { world.lab.isRunning("b1") }
            try await eventually { try await world.reasons("q2", "b2").contains("concurrency") }
            #expect(world.lab.puts("b2") == 0)
            world.lab.finish("b1")
            try await world.reach("q2", "completed")

            // What has ended does not go on again beside another one.
            world.lab.set("d1", Lab.Behaviour(result: "failed"))
            world.lab.set("d2", Lab.Behaviour(result: nil))
            try await world.create("s1", [world.step("d1")], key("s", "queue"))
            try await world.reach("s1", "failed")
            try await world.create("s2", [world.step("d2")], key("s", "queue"))
            try await eventually { world.lab.isRunning("d2") }
            #expect(try await world.call("POST", "/s1/retry").code == "concurrency_key_busy")
            #expect(try await world.state("s1") == "failed")
            world.lab.finish("d2")
            try await world.reach("s2", "completed")
            #expect(try await world.call("POST", "/s1/retry").status == 200)
            try await world.reach("s1", "completed")

            try await world.create("o1", [world.step("c1")], key("o", "cancel_oldest"))
            try await eventually { world.lab.isRunning("c1") }
            try await world.create("o2", [world.step("c2")], key("o", "cancel_oldest"))
            try await world.reach("o1", "cancelled")
            try await world.reach("o2", "completed")
        }
    }

    @Test func `31: a pipeline is a step of another one, and never of itself`() async throws {
        try await PipelineWorld.with(replicas: 2) { world in
            world.lab.set("deep", Lab.Behaviour(result: nil))
            func nested(_ uid: String, _ inner: JSONValue) -> JSONValue {
                world.step(uid, [], ["api_url": .string(world.replicas[0].url), "parameters": inner])
            }
            let inner = world.definition([world.step("deep")])
            try await world.create("outer", [nested("inner", inner)], replica: 1)
            try await eventually { world.lab.isRunning("deep") }
            #expect(try await world.state("inner") == "running")
            // However deep it is, its service learns who has asked for the whole.
            #expect(world.lab.requester("deep") == "tests")
            let found = try await world.call("GET", "/?pipeline=outer").body["steps"]?.array ?? []
            #expect(found.compactMap { $0["uid"]?.string } == ["inner"])
            world.lab.finish("deep", "failed")
            try await world.reach("outer", "failed")
            try await world.create("loop", [nested("loop", world.definition([world.step("x")]))], replica: 1)
            try await world.reach("loop", "exception")
            #expect(try await world.status("loop")["message"]?.string?.contains("nested_in_itself") == true)
            #expect(world.lab.puts("x") == 0)
        }
    }

    @Test func `32: parameters are computed from what earlier steps gave, and nonsense ends that step alone`()
        async throws
    {
        try await PipelineWorld.with { world in
            world.lab.set("a", Lab.Behaviour(output: ["x": "42"]))
            let good: JSONObject = [
                "parameters": ["value": "${steps.a.output.x}/${pipeline.uid}", "list": ["$eval": "[1, 2]"]]
            ]
            let bad: JSONObject = ["parameters": ["value": "${steps.a.output.nothing}"]]
            try await world.create(
                "p",
                [
                    world.step("a"), world.step("b", ["a"], good), world.step("c", ["a"], bad),
                    world.step("d", [], ["parameters": ["value": "${'a' in steps}"]]),
                ]
            )
            try await world.reach("p", "exception")
            #expect(world.lab.body("b")?["value"] == "42/p")
            #expect(world.lab.body("b")?["list"] == [1, 2])
            // What a step does not wait for it cannot see.
            #expect(world.lab.body("d")?["value"] == "false")
            #expect(try await world.states("p") == ["completed", "completed", "exception", "completed"])
            #expect(world.lab.puts("c") == 0)
        }
    }

    @Test func `37: a dry run tells the plan and does nothing`() async throws {
        try await PipelineWorld.with { world in
            let steps = [world.step("a"), world.step("b", ["a"]), world.step("c", ["a"]), world.step("d", ["c"])]
            let answer = try await world.call("PUT", "/p?dry_run=true", world.definition(steps))
            #expect(answer.body["order"] == [["a"], ["b", "c"], ["d"]])
            #expect(answer.body["critical_path"] == ["a", "c", "d"])
            #expect(answer.body["warnings"]?.array?.isEmpty == false)
            #expect(try await world.call("GET", "/p/status").status == 404)
            #expect(world.lab.log.isEmpty)
            let bad = try await world.call("PUT", "/p?dry_run=true", world.definition([world.step("a", ["x"])]))
            #expect(bad.status == 400)
        }
    }

    @Test func `a pipeline without steps is completed at once, and steps can be skipped and drawn`() async throws {
        try await PipelineWorld.with { world in
            try await world.create("none", [])
            try await world.reach("none", "completed")
            world.lab.set("a", Lab.Behaviour(result: nil))
            try await world.create(
                "p",
                [world.step("a"), world.step("b", ["a"], ["optional": true]), world.step("c", ["b"])]
            )
            #expect(try await world.call("POST", "/p/steps/b/skip").status == 200)
            #expect(try await world.call("POST", "/p/steps/x/skip").status == 404)
            try await eventually { try await world.states("p").first == "running" }
            let dot = try await world.curl.send(
                HTTPRequest(
                    url: world.replicas[0].url + "/p/graph?format=dot",
                    headers: ["Authorization": StepServers.client]
                )
            )
            #expect(String(decoding: dot.body, as: UTF8.self).contains("\"a\" -> \"b\""))
            let svg = try await world.curl.send(
                HTTPRequest(
                    url: world.replicas[0].url + "/p/graph?format=svg",
                    headers: ["Authorization": StepServers.client]
                )
            )
            #expect(svg.headers["Content-Type"]?.hasPrefix("image/svg+xml") == true)
            #expect(String(decoding: svg.body, as: UTF8.self).contains(">running</text>"))
            #expect(try await world.call("GET", "/p/graph").body["edges"]?.array?.count == 2)
            world.lab.finish("a")
            try await world.reach("p", "completed")
            #expect(try await world.states("p") == ["completed", "skipped", "completed"])
        }
    }
}
