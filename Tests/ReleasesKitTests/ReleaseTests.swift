// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Postgres
import StepKit
import TestSupport
import Testing

@testable import ReleasesKit

/// Releases and phases as the scripts of the original use them.
@Suite(.timeLimit(.minutes(15)))
struct ReleaseTests {
    private static let name = "Firefox-60.0b9-build1"

    @Test func `80: the calls of the release script succeed, and a repeated call for a phase is one call`() async throws
    {
        try await ReleaseWorld.with { world in
            #expect(try await world.call("GET", "/disabled-products").body == [:])
            let none = try await world.call(
                "GET",
                "/releases?product=firefox&branch=releases%2Fmozilla-beta&status=shipped"
            )
            #expect(none.body == [])
            let (status, created) = try await world.release()
            #expect(status == 201)
            #expect(created["name"] == .string(Self.name))
            #expect(created["project"] == "mozilla-beta")
            #expect(created["completed"] == "")
            let phases = created["phases"]?.array?.compactMap { $0["name"]?.string }
            #expect(phases == Surroundings.flavors)
            #expect(created["warnings"]?.array?.count == 1)
            // Again, as the script does after a lost answer.
            #expect(try await world.release().status == 400)

            let path = "/releases/\(Self.name)/promote_firefox"
            let first = try await world.call("PUT", path, as: ReleaseWorld.script)
            #expect(first.status == 200)
            #expect(first.body["skipped"] == false)
            #expect(try await world.call("PUT", path, as: ReleaseWorld.script).status == 200)
            #expect(try await world.call("PUT", path, as: "another *").status == 409)
            try await eventually("the task is there") {
                try await world.phase(Self.name, "promote_firefox")["submitted"] == true
            }
            let phase = try await world.phase(Self.name, "promote_firefox")
            #expect(phase["actionTaskId"] == .string("task-of-\(Self.name).promote_firefox"))
            // Long after the first call it is no repetition any more.
            try await world.pool.execute("update shipit_releases.phases set wanted = wanted - interval '3 minutes'")
            #expect(try await world.call("PUT", path, as: ReleaseWorld.script).status == 409)

            let body = try #require(world.around.body("\(Self.name).promote_firefox"))
            #expect(body["action"]?["taskGroupId"] == .string(Surroundings.decision))
            #expect(body["action"]?["name"] == "release-promotion")
            let input = try #require(body["action"]?["input"])
            #expect(input["release_promotion_flavor"] == "promote_firefox")
            #expect(input["previous_graph_ids"] == [.string(Surroundings.decision)])
            #expect(input["next_version"] == "60.0b10")
            #expect(input["version"] == "60.0b9")
            #expect(input["build_number"] == 1)

            let shipped = try await world.call(
                "PATCH",
                "/releases/\(Self.name)",
                ["status": "shipped"],
                as: ReleaseWorld.script
            )
            #expect(shipped.status == 200)
            let again = try await world.call("GET", "/releases/\(Self.name)")
            #expect(again.body["status"] == "shipped")
            #expect(again.body["completed"]?.string?.isEmpty == false)
            let messages = try await world.pool.query(
                "select routing_key from shipit_pipeline.outbox where routing_key = 'rebuild_product_details'"
            )
            #expect(messages.count == 1)
        }
    }

    @Test func `80: later phases are told of the tasks of the earlier ones, and what was left out is skipped`()
        async throws
    {
        try await ReleaseWorld.with { world in
            _ = try await world.release()
            // The order is kept unless the product may leave phases out.
            let push = "/releases/\(Self.name)/push_firefox"
            let early = try await world.call("PUT", push, as: ReleaseWorld.script)
            #expect(early.status == 409)
            #expect(early.body["code"] == "phase_order")
            // The task of the earlier phase is not known yet: the later one waits for that.
            world.around.state.withLock { $0.makesTasks = false }
            #expect(
                try await world.call("PUT", "/releases/\(Self.name)/promote_firefox", as: ReleaseWorld.script).status
                    == 200
            )
            #expect(try await world.call("PUT", push, as: ReleaseWorld.script).status == 200)
            try await eventually { world.around.puts("\(Self.name).promote_firefox") > 0 }
            #expect(try await world.phase(Self.name, "push_firefox")["state"] == "scheduling")
            try await world.service.callForWaiting()
            #expect(world.around.puts("\(Self.name).push_firefox") == 0)
            world.around.state.withLock { $0.makesTasks = true }
            try await eventually("push has begun") {
                try await world.service.callForWaiting()
                return world.around.puts("\(Self.name).push_firefox") > 0
            }
            let body = world.around.body("\(Self.name).push_firefox")
            #expect(
                body?["action"]?["input"]?["previous_graph_ids"]
                    == [.string(Surroundings.decision), .string("task-of-\(Self.name).promote_firefox")]
            )
        }
    }

    @Test func `81: releases are listed by product and then by version, as versions are ordered`() async throws {
        try await ReleaseWorld.with { world in
            for version in ["60.0b10", "60.0b9", "59.0.1", "60.0b2"] {
                #expect(try await world.release(version).status == 201)
            }
            _ = try await world.release("60.0b3", product: "devedition")
            let query = "/releases?status=shipped,aborted,scheduled&product=firefox"
            let versions = try await world.call("GET", query).body.array?.compactMap { $0["version"]?.string }
            #expect(versions == ["59.0.1", "60.0b2", "60.0b9", "60.0b10"])
            let all = try await world.call("GET", "/releases").body.array?.compactMap { $0["product"]?.string }
            #expect(all == ["devedition", "firefox", "firefox", "firefox", "firefox"])
            #expect(try await world.call("GET", "/releases?build_number=1").status == 400)
            let one = try await world.call("GET", "/releases?version=60.0b9&build_number=1&product=firefox").body
            #expect(one.array?.count == 1)
            #expect(try await world.call("GET", "/releases?status=lost").status == 400)
        }
    }

    @Test func `82: a signature counts for its own phase alone, and of two people for one slot one wins`() async throws
    {
        try await ReleaseWorld.with { world in
            _ = try await world.release()
            _ = try await world.release("60.0b10")
            for phase in ["promote_firefox", "push_firefox"] {
                #expect(
                    try await world.call("PUT", "/releases/\(Self.name)/\(phase)", as: ReleaseWorld.script).status
                        == 200
                )
            }
            let ship = "/signoff/\(Self.name)/ship_firefox"
            let slots = try #require(try await world.call("GET", ship).body["signoffs"]?.array)
            #expect(slots.compactMap { $0["name"]?.string } == ["RelEng", "RelMan"])
            let releng = try #require(slots[0]["uid"])
            let relman = try #require(slots[1]["uid"])
            let one = try world.person("one", ["shipit_releng"])
            let other = try world.person("other", ["shipit_releng", "shipit_relman"])

            // Unsigned, a phase is not called for.
            let unsigned = try await world.call("PUT", "/releases/\(Self.name)/ship_firefox", as: ReleaseWorld.script)
            #expect(unsigned.status == 400)
            // The slot of another phase, or of another release, is none of this one.
            #expect(try await world.call("PUT", "/signoff/\(Self.name)/promote_firefox", releng, as: one).status == 404)
            #expect(
                try await world.call("PUT", "/signoff/Firefox-60.0b10-build1/ship_firefox", releng, as: one).status
                    == 404
            )
            // Nor is a phase that nobody has to sign begun by that.
            let unasked = "/signoff/Firefox-60.0b10-build1/promote_firefox"
            #expect(try await world.call("PUT", unasked, releng, as: one).status == 404)
            try await world.service.callForWaiting()
            for (name, phase) in [
                ("Firefox-60.0b10-build1", "promote_firefox"), ("Firefox-60.0b10-build1", "ship_firefox"),
                (Self.name, "ship_firefox"),
            ] {
                let found = try await world.phase(name, phase)
                #expect(found["scheduled_at"] == "")
                #expect(found["submitted"] == false)
            }
            #expect(
                try await world.call("GET", ship).body["signoffs"]?.array?.contains { $0["signed"] == true } == false
            )
            // Scripts do not sign, neither do people without a second factor or of another group.
            let machine = try await world.call("PUT", ship, releng, as: ReleaseWorld.script)
            #expect(machine.status == 401)
            #expect(machine.body["code"] == "human_required")
            let weak = try world.person("weak", ["shipit_releng"], methods: ["pwd"])
            #expect(try await world.call("PUT", ship, releng, as: weak).body["code"] == "mfa_required")
            let stranger = try world.person("stranger", ["shipit_firefox"])
            #expect(try await world.call("PUT", ship, releng, as: stranger).status == 401)

            // Two at a time for the same slot.
            let answers = try await withThrowingTaskGroup(of: Int.self) { group in
                for person in [one, other] {
                    group.addTask { try await world.call("PUT", ship, releng, as: person).status }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.sorted() == [200, 409])
            let winner = try await world.call("GET", ship).body["signoffs"]?[0]?["completed_by"]
            if winner == "other@example.com" {
                // Who has signed does not sign again.
                #expect(try await world.call("PUT", ship, relman, as: other).status == 409)
            }
            #expect(try await world.phase(Self.name, "ship_firefox")["scheduled_at"] == "")
            let last = try world.person("last", ["shipit_relman"])
            let signed = try await world.call("PUT", ship, relman, as: last)
            #expect(signed.status == 200)
            #expect(signed.body["signoffs"]?.array?.allSatisfy { $0["signed"] == true } == true)
            try await eventually("ship has begun") {
                try await world.service.callForWaiting()
                return try await world.phase(Self.name, "ship_firefox")["submitted"] == true
            }
            #expect(world.around.body("\(Self.name).ship_firefox") != nil)
        }
    }

    @Test func `83: a phase that is signed while its tasks cannot be made is being scheduled, and made once`()
        async throws
    {
        try await ReleaseWorld.with { world in
            _ = try await world.release()
            for phase in ["promote_firefox", "push_firefox"] {
                let path = "/releases/\(Self.name)/\(phase)"
                #expect(try await world.call("PUT", path, as: ReleaseWorld.script).status == 200)
                try await eventually("\(phase) has its task") {
                    try await world.service.callForWaiting()
                    return try await world.phase(Self.name, phase)["submitted"] == true
                }
            }
            let ship = "\(Self.name).ship_firefox"
            world.around.state.withLock { $0.isUp = false }
            let slots = try #require(
                try await world.call("GET", "/signoff/\(Self.name)/ship_firefox").body["signoffs"]?.array
            )
            for (slot, group) in zip(slots, ["shipit_releng", "shipit_relman"]) {
                let person = try world.person(group, [group])
                let path = "/signoff/\(Self.name)/ship_firefox"
                let signed = try await world.call("PUT", path, slot["uid"], as: person)
                #expect(signed.status == 200)
            }
            try await eventually("it was tried") {
                try await world.service.callForWaiting()
                let steps = try await world.call("GET", "/\(Self.name)/explain", as: ReleaseWorld.script).body["steps"]
                let step = steps?.array?.first { $0["uid"] == "ship_firefox" }
                return step?["reasons"]?[0]?["kind"] == "unreachable"
            }
            let phase = try await world.phase(Self.name, "ship_firefox")
            #expect(phase["state"] == "scheduling")
            #expect(phase["submitted"] == false)
            #expect(phase["actionTaskId"] == "")
            #expect(phase["scheduled_at"]?.string?.isEmpty == false)
            #expect(world.around.puts(ship) == 0)
            world.around.state.withLock { $0.isUp = true }
            try await eventually("it is submitted") {
                try await world.phase(Self.name, "ship_firefox")["submitted"] == true
            }
            #expect(try await world.phase(Self.name, "ship_firefox")["actionTaskId"] == .string("task-of-\(ship)"))
            #expect(world.around.puts(ship) == 1)
            #expect(world.around.state.withLock { $0.bodies.count } == 3)
        }
    }

    @Test func `83: a release whose pipeline is gone keeps no other release waiting`() async throws {
        try await ReleaseWorld.with { world in
            world.around.state.withLock { $0.makesTasks = false }
            // In whatever order they are taken, one that is gone comes before the one that is there.
            let names = ["60.0b1", "60.0b2", "60.0b3"].map { "Firefox-\($0)-build1" }
            for (name, version) in zip(names, ["60.0b1", "60.0b2", "60.0b3"]) {
                #expect(try await world.release(version).status == 201)
                for phase in ["promote_firefox", "push_firefox"] {
                    let path = "/releases/\(name)/\(phase)"
                    #expect(try await world.call("PUT", path, as: ReleaseWorld.script).status == 200)
                }
            }
            for name in [names[0], names[2]] {
                try await world.pool.execute("update shipit_pipeline.steps set deleted_at = now() where uid = \(name)")
            }
            world.around.state.withLock { $0.makesTasks = true }
            try await eventually("push has begun") {
                try await world.service.callForWaiting()
                return world.around.puts("\(names[1]).push_firefox") > 0
            }
        }
    }

    @Test func `84: what is disabled is disabled for scripts, not for people`() async throws {
        try await ReleaseWorld.with { world in
            let body: JSONValue = ["product": "firefox", "branch": ""]
            let person = try world.person("manager", ["shipit_firefox"])
            #expect(try await world.call("POST", "/disabled-products", body, as: person).status == 200)
            #expect(try await world.call("GET", "/disabled-products").body == ["firefox": [""]])
            let refused = try await world.release()
            #expect(refused.status == 401)
            #expect(refused.body["code"] == "product_disabled")
            #expect(try await world.call("GET", "/releases").body == [])
            #expect(try await world.release(as: person).status == 201)
            #expect(
                try await world.call("DELETE", "/disabled-products?product=firefox&branch=", as: person).status == 200
            )
            let audit = try await world.call("GET", "/events", as: ReleaseWorld.script).body["events"]?.array ?? []
            #expect(audit.map { $0["kind"] } == ["product_disabled", "product_enabled"])
            #expect(try await world.release("60.0b10").status == 201)
            let fixed: JSONValue = ["product": "devedition", "branch": ""]
            #expect(try await world.call("POST", "/disabled-products", fixed, as: ReleaseWorld.script).status == 400)
        }
    }

    @Test func `38: who lacks a permission is told which, and nothing happens`() async throws {
        try await ReleaseWorld.with { world in
            let prefix = "project:releng:services/shipit_api"
            let weak = try await world.release(as: "c \(prefix)/add_release/devedition")
            #expect(weak.status == 401)
            #expect(
                weak.body["detail"]?.string?.hasPrefix("required permission: \(prefix)/add_release/firefox") == true
            )
            #expect(try await world.call("POST", "/releases", [:]).status == 401)
            #expect(try await world.release(as: try world.person("nobody", [])).status == 401)
            // Whoever releases one product does not release another one by its name.
            let stranger = try world.person("stranger", ["shipit_other"])
            for (product, key) in [("firefox", "other"), ("other", "firefox")] {
                let request: JSONValue = [
                    "product": .string(product), "product_key": .string(key), "branch": "releases/mozilla-beta",
                    "version": "60.0b9", "revision": "abc", "build_number": 1,
                ]
                #expect(try await world.call("POST", "/releases", request, as: stranger).status == 401, "\(key)")
            }
            #expect(try await world.release(as: "c \(prefix)/add_release/firefox").status == 201)
            let phase = "/releases/\(Self.name)/promote_firefox"
            #expect(
                try await world.call("PUT", phase, as: "c \(prefix)/schedule_phase/firefox/push_firefox").status == 401
            )
            #expect(
                try await world.call("PUT", phase, as: "c \(prefix)/schedule_phase/firefox/promote_firefox").status
                    == 200
            )
            // A token in the address is refused before anything else.
            #expect(try await world.call("POST", "/releases?access_token=x", [:]).status == 400)
        }
    }

    @Test func `an abandoned release is cancelled and shipped by nobody`() async throws {
        try await ReleaseWorld.with { world in
            _ = try await world.release()
            #expect(
                try await world.call("PUT", "/releases/\(Self.name)/promote_firefox", as: ReleaseWorld.script).status
                    == 200
            )
            try await eventually { try await world.phase(Self.name, "promote_firefox")["submitted"] == true }
            let gone = try await world.call("DELETE", "/releases/\(Self.name)", as: ReleaseWorld.script)
            #expect(gone.status == 200)
            #expect(gone.body["status"] == "aborted")
            #expect(try await world.call("DELETE", "/releases/\(Self.name)", as: ReleaseWorld.script).status == 200)
            try await eventually("its tasks are cancelled") {
                world.around.state.withLock { $0.cancelled } == ["\(Self.name).promote_firefox"]
            }
            #expect(
                try await world.call("PUT", "/releases/\(Self.name)/push_firefox", as: ReleaseWorld.script).status
                    == 409
            )
            let some = "c project:releng:services/shipit_api/update_release_status"
            let late = try await world.call("PATCH", "/releases/\(Self.name)", ["status": "shipped"], as: some)
            #expect(late.status == 409)
        }
    }

    @Test func `versions, nightly releases and decision tasks are kept by product`() async throws {
        try await ReleaseWorld.with { world in
            let path = "/versions/firefox/nightly"
            #expect(try await world.call("GET", path).status == 404)
            #expect(try await world.call("PUT", path, ["version": "61.0a1"], as: ReleaseWorld.script).status == 404)
            #expect(try await world.call("POST", path, ["version": "61.0a1"], as: ReleaseWorld.script).status == 201)
            #expect(try await world.call("POST", path, ["version": "61.0a1"], as: ReleaseWorld.script).status == 409)
            #expect(try await world.call("PUT", path, ["version": "61.0a1"], as: ReleaseWorld.script).status == 409)
            #expect(try await world.call("PUT", path, ["version": "62.0a1"], as: ReleaseWorld.script).status == 200)
            #expect(try await world.call("GET", path).body == "62.0a1")
            #expect(
                try await world.call("POST", "/versions/firefox/beta", ["version": "1.0b1"], as: ReleaseWorld.script)
                    .status == 201
            )

            for build in ["20180101000000", "20180102000000", "20180103000000"] {
                let nightly: JSONValue = [
                    "product": "firefox", "channel": "nightly", "version": "62.0a1", "buildid": .string(build),
                    "locales": ["de"],
                ]
                #expect(
                    try await world.call("POST", "/nightly-release", nightly, as: ReleaseWorld.script).status == 201
                )
                #expect(
                    try await world.call("POST", "/nightly-release", nightly, as: ReleaseWorld.script).status == 409
                )
            }
            let found = try await world.call("GET", "/nightly-release?after_buildid=20180101000000&order=asc&limit=1")
                .body
            #expect(found.array?.compactMap { $0["buildid"]?.string } == ["20180102000000"])

            let ready = "/decision-task/status?product=firefox&branch=releases/mozilla-beta&revision="
            #expect(try await world.call("GET", ready + "abc").body == ["status": "ready"])
            #expect(try await world.call("GET", ready + "def").body == ["status": "missing"])
            let me = try await world.call("GET", "/__permissions__", as: try world.person("me", ["b", "a"])).body
            #expect(me["user_id"] == "me@example.com")
            #expect(me["groups"] == ["a", "b"])
        }
    }

    @Test func `a merge is asked for, started once, and done when the script says so`() async throws {
        try await ReleaseWorld.with { world in
            #expect(try await world.call("GET", "/merge-automation/products").body == ["firefox"])
            let ways = try await world.call("GET", "/merge-automation/behaviors/firefox").body
            #expect(ways[0]?["behavior"] == "beta-to-release")
            #expect(try await world.call("GET", "/merge-automation/behaviors/devedition").status == 404)
            let person = try world.person("manager", ["shipit_firefox"])
            let wish: JSONValue = [
                "product": "firefox", "behavior": "beta-to-release", "revision": "abc", "version": "60.0b9",
                "commitMessage": "merge", "commitAuthor": "somebody",
            ]
            let added = try await world.call("POST", "/merge-automation", wish, as: person)
            #expect(added.status == 201)
            let id = try #require(added.body["id"]?.int)
            let one = "/merge-automation/\(id)"
            #expect(try await world.call("GET", "\(one)/task-status").status == 404)
            for _ in 0..<2 { #expect(try await world.call("POST", "\(one)/start", as: person).status == 200) }
            try await eventually("its task is there") {
                try await world.call("GET", "\(one)/task-status").status == 200
            }
            #expect(world.around.state.withLock { $0.bodies.count } == 1)
            let input = world.around.body("merge-automation-\(id).merge")?["action"]?["input"]
            #expect(
                input == ["behavior": "beta-to-release", "force-dry-run": true, "merge-automation-id": JSONValue(id)]
            )
            let list = try await world.call("GET", "/merge-automation?product=firefox").body
            #expect(list[0]?["status"] == "running")
            // Only the script says that it is done, and says so without a body.
            #expect(try await world.call("PATCH", one, as: person).status == 401)
            for _ in 0..<2 { #expect(try await world.call("PATCH", one, as: ReleaseWorld.script).status == 200) }
            #expect(try await world.call("DELETE", one, as: person).status == 400)
            #expect(try await world.call("GET", "/merge-automation?product=firefox").body[0]?["status"] == "completed")

            let other = try #require(
                try await world.call("POST", "/merge-automation", wish, as: person).body["id"]?.int
            )
            let pending = try await world.service.merge(other)
            #expect(
                try await world.call("DELETE", "/merge-automation/\(other)", as: person).body["status"] == "canceled"
            )
            #expect(try await world.call("POST", "/merge-automation/\(other)/start", as: person).status == 400)
            #expect(try await world.call("PATCH", "/merge-automation/\(other)", as: ReleaseWorld.script).status == 400)
            // Nor is it carried out if it was given up while its start was under way.
            let refusal = await #expect(throws: StepProblem.self) {
                try await world.service.start(pending, by: .client(name: "c", scopes: []))
            }
            #expect(refusal?.code == "merge_closed")
            #expect(try await world.call("GET", "/\(pending.pipeline)/status", as: "tests *").status == 404)
        }
    }

    @Test func `versions are ordered and counted on as the original does`() throws {
        let ordered = [
            "59.0", "59.0.1", "60.0a1", "60.0b2", "60.0b10", "60.0", "60.0esr", "60.0.1", "125.0-rc.2", "125.0",
        ]
        let versions = try ordered.map { try #require(ReleaseVersion($0)) }
        #expect(versions.shuffled().sorted().map(\.text) == ordered)
        let next = [
            "60.0b9": "60.0b10", "60.0": "60.0.1", "60.0.1": "60.0.2", "60.1.0esr": "60.1.1esr",
            "125.0-rc.2": "125.0-rc.3",
        ]
        for (version, wanted) in next { #expect(ReleaseVersion(version)?.next.text == wanted) }
        for text in ["", "b1", "60.", "60.0x1", "60.0b", "60..0", "1.2.3.4.5"] {
            #expect(ReleaseVersion(text) == nil, "\(text)")
        }
    }
}
