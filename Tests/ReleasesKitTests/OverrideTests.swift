// SPDX-License-Identifier: MPL-2.0

import JSON
import TestSupport
import Testing

@testable import ReleasesKit

/// What operators of pipelines may do to the phases of releases.
@Suite(.timeLimit(.minutes(15)))
struct OverrideTests {
    private static let name = "Firefox-60.0b9-build1"

    private static var catalogue: JSONValue {
        var catalogue = ReleaseWorld.catalogue
        var products = catalogue["products"] ?? [:]
        var firefox = products["firefox"] ?? [:]
        firefox["notify"] = [["on": ["release_overridden"], "type": "pulse", "target": "drivers"]]
        products["firefox"] = firefox
        catalogue["products"] = products
        return catalogue
    }

    @Test func `27: nobody begins a phase past its signatures, and ending one takes an administrator who says why`()
        async throws
    {
        try await ReleaseWorld.with(catalogue: Self.catalogue) { world in
            #expect(try await world.release().status == 201)
            let services = "project:releng:services"
            let operating = "op \(services)/shipit_pipeline/resolve"
            let admin = "boss \(services)/shipit_pipeline/resolve \(services)/shipit_api/admin"
            let steps = "/\(Self.name)/steps/ship_firefox"
            let action: JSONValue = ["action": ["taskGroupId": "x", "name": "release-promotion", "input": [:]]]
            for caller in [operating, admin, ReleaseWorld.script] {
                for (method, verb, body) in [("PUT", "parameters", action), ("POST", "start", ["reason": "now"])] {
                    let answer = try await world.call(method, "\(steps)/\(verb)", body, as: caller)
                    #expect(answer.status == 409)
                    #expect(answer.body["code"] == "release_phase")
                }
            }
            let why: JSONValue = ["reason": "shipped by hand"]
            let success: JSONValue = ["status": "success", "reason": "shipped by hand"]
            #expect(try await world.call("POST", "\(steps)/skip", why, as: operating).status == 403)
            #expect(try await world.call("POST", "\(steps)/resolve", success, as: operating).status == 403)
            #expect(try await world.call("POST", "\(steps)/skip", [:], as: admin).status == 400)
            #expect(try await world.call("POST", "\(steps)/resolve", ["status": "success"], as: admin).status == 400)
            #expect(try await world.phase(Self.name, "ship_firefox")["submitted"] == false)

            #expect(try await world.call("POST", "\(steps)/resolve", success, as: admin).status == 200)
            let events = try await world.call("GET", "/\(Self.name)/events", as: ReleaseWorld.script).body["events"]
            let override = try #require(events?.array?.first { $0["kind"] == "override" })
            #expect(override["actor"] == "boss")
            #expect(
                override["data"]
                    == ["decision": "resolve", "reason": "shipped by hand", "missing": ["RelEng", "RelMan"]]
            )
            let told = try await world.pool.query(
                "select body from shipit_pipeline.outbox where routing_key like '%.release_overridden.%'"
            )
            #expect(told.count == 1)
            // Nobody signs it or calls for it any more, and what was never carried out has no task.
            #expect(try await world.phase(Self.name, "ship_firefox")["actionTaskId"] == "")
            let path = "/signoff/\(Self.name)/ship_firefox"
            let slot = try #require(try await world.call("GET", path).body["signoffs"]?[0]?["uid"])
            let person = try world.person("one", ["shipit_releng"])
            #expect(try await world.call("PUT", path, slot, as: person).body["code"] == "step_closed")
            #expect(try await world.call("PUT", "/releases/\(Self.name)/ship_firefox", as: "c *").status == 409)
            #expect(world.around.puts("\(Self.name).ship_firefox") == 0)

            // A phase that nobody has to sign is skipped with a reason alone.
            let other = "/\(Self.name)/steps/push_firefox/skip"
            #expect(try await world.call("POST", other, as: operating).status == 400)
            #expect(try await world.call("POST", other, why, as: operating).status == 200)
            #expect(try await world.phase(Self.name, "push_firefox")["skipped"] == true)
            // The runs of other pipelines are nobody's phases.
            let step: JSONValue = [
                "uid": "ship_firefox", "api_url": .string("\(world.aroundURL)/steps"), "manual": true,
            ]
            let own: JSONValue = ["uid": "other", "parameters": ["steps": [step]]]
            #expect(try await world.call("PUT", "/other", own, as: ReleaseWorld.script).status == 200)
            #expect(try await world.call("POST", "/other/steps/ship_firefox/start", as: operating).status == 200)
        }
    }

    @Test func `a pipeline that takes the name of a release that was deleted carries nothing out for it`() async throws
    {
        try await ReleaseWorld.with { world in
            #expect(try await world.release().status == 201)
            let path = "/\(Self.name)"
            #expect(try await world.call("DELETE", "\(path)?force=true", as: ReleaseWorld.script).status == 200)
            try await eventually("its pipeline is gone") {
                try await world.call("GET", "\(path)/status", as: ReleaseWorld.script).status == 404
            }
            let step: JSONValue = [
                "uid": "promote_firefox", "api_url": .string("\(world.aroundURL)/steps"), "manual": true,
            ]
            let own: JSONValue = ["uid": .string(Self.name), "parameters": ["steps": [step]]]
            #expect(try await world.call("PUT", path, own, as: ReleaseWorld.script).status == 200)
            let phase = try await world.call("PUT", "/releases\(path)/promote_firefox", as: ReleaseWorld.script)
            #expect(phase.status == 409)
            #expect(phase.body["code"] == "pipeline_replaced")
            #expect(world.around.state.withLock { $0.puts.isEmpty })
        }
    }
}
