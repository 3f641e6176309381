// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import SignoffKit
import StepKit
import TestSupport
import Testing

@testable import ReleasesKit

/// Who may sign phases, what their signatures are bound to, and what becomes of them when people are revoked.
@Suite(.timeLimit(.minutes(15)))
struct PhaseSigningTests {
    private static let name = "Firefox-60.0b9-build1"
    private static let ship = "/signoff/Firefox-60.0b9-build1/ship_firefox"

    /// A release with its first phases called for, whose last one waits for two signatures.
    private static func ready(_ world: ReleaseWorld, version: String = "60.0b9") async throws -> [JSONValue] {
        #expect(try await world.release(version).status == 201)
        for phase in ["promote_firefox", "push_firefox"] {
            let path = "/releases/Firefox-\(version)-build1/\(phase)"
            #expect(try await world.call("PUT", path, as: ReleaseWorld.script).status == 200)
        }
        let slots = try await world.call("GET", "/signoff/Firefox-\(version)-build1/ship_firefox").body["signoffs"]
        return try #require(slots?.array).compactMap { $0["uid"] }
    }

    private static func kinds(_ world: ReleaseWorld, _ name: String = name) async throws -> [String] {
        let events = try await world.call("GET", "/\(name)/events?limit=500", as: ReleaseWorld.script).body["events"]
        return (events?.array ?? []).compactMap { $0["kind"]?.string }
    }

    private static func revoke(_ world: ReleaseWorld, _ name: String, at moment: Timestamp = .now()) async throws {
        let revocations = Revocations(pool: world.pool)
        _ = try await revocations.add(
            subject: "ad|test|\(name)",
            email: nil,
            at: moment,
            by: "admin",
            reason: "left"
        )
    }

    /// The products with other members for Firefox.
    private static func catalogue(_ members: JSONObject) -> JSONValue {
        var catalogue = ReleaseWorld.catalogue
        var products = catalogue["products"] ?? [:]
        var firefox = products["firefox"] ?? [:]
        for (key, value) in members { firefox[key] = value }
        products["firefox"] = firefox
        catalogue["products"] = products
        return catalogue
    }

    @Test func `55: who is revoked has signed no phase that nobody has called for, and signs with a new login alone`()
        async throws
    {
        let telling = Self.catalogue(["notify": [["on": ["release_unsigned"], "type": "pulse", "target": "us"]]])
        try await ReleaseWorld.with(catalogue: telling) { world in
            let slots = try await Self.ready(world)
            let now = Timestamp.now()
            let before = try world.person("gone", ["shipit_releng"], at: now - .seconds(60))
            #expect(try await world.call("PUT", Self.ship, slots[0], as: before).status == 200)
            try await Self.revoke(world, "gone", at: now - .seconds(30))
            // At once, before anybody has written it down.
            let shown = try await world.call("GET", Self.ship).body["signoffs"]?[0]
            #expect(shown?["signed"] == false)
            #expect(shown?["completed_by"] == "")
            let refused = try await world.call("PUT", Self.ship, slots[0], as: before)
            #expect(refused.status == 401)
            #expect(refused.body["code"] == "token_revoked")
            // The other signature is not the last one.
            let manager = try world.person("manager", ["shipit_relman"])
            #expect(try await world.call("PUT", Self.ship, slots[1], as: manager).status == 200)
            #expect(try await world.phase(Self.name, "ship_firefox")["scheduled_at"] == "")
            #expect(
                try await world.call("PUT", "/releases/\(Self.name)/ship_firefox", as: ReleaseWorld.script).status
                    == 400
            )
            for _ in 0..<2 { try await RevocationWatch(world.service).look() }
            #expect(try await Self.kinds(world).count { $0 == "revoked" } == 1)
            let told = try await world.pool.query(
                "select body from shipit_pipeline.outbox where routing_key like '%.release_unsigned.%'"
            )
            #expect(told.count == 1)
            let after = try world.person("gone", ["shipit_releng"], at: now)
            #expect(try await world.call("PUT", Self.ship, slots[0], as: after).status == 200)
            #expect(try await world.phase(Self.name, "ship_firefox")["scheduled_at"]?.string?.isEmpty == false)
            #expect(try await Self.kinds(world).count { $0 == "phase_wanted" } == 3)
            #expect(
                try await world.call("GET", "/\(Self.name)/events?verify=true", as: ReleaseWorld.script)
                    .body["verified"] == true
            )
        }
    }

    @Test func `55: a phase that was called for stays so when a signer is revoked, and shows it`() async throws {
        try await ReleaseWorld.with { world in
            let slots = try await Self.ready(world)
            for (slot, group) in zip(slots, ["releng", "relman"]) {
                let person = try world.person(group, ["shipit_\(group)"])
                #expect(try await world.call("PUT", Self.ship, slot, as: person).status == 200)
            }
            try await Self.revoke(world, "releng")
            for _ in 0..<2 { try await world.service.writeDownRevocations() }
            let shown = try await world.call("GET", Self.ship).body["signoffs"]
            #expect(shown?[0]?["signed"] == true)
            #expect(shown?[0]?["revoked"]?.string?.isEmpty == false)
            #expect(shown?[1]?["revoked"] == nil)
            #expect(try await Self.kinds(world).count { $0 == "revoked_late" } == 1)
            try await eventually("ship has begun") {
                try await world.service.callForWaiting()
                return world.around.puts("\(Self.name).ship_firefox") > 0
            }
        }
    }

    @Test func `55: a revocation and the last signature of a phase are one after the other`() async throws {
        try await ReleaseWorld.with { world in
            for round in 0..<12 {
                let version = "70.0b\(round)"
                let name = "Firefox-\(version)-build1"
                let slots = try await Self.ready(world, version: version)
                let path = "/signoff/\(name)/ship_firefox"
                let gone = try world.person("gone-\(round)", ["shipit_releng"])
                #expect(try await world.call("PUT", path, slots[0], as: gone).status == 200)
                let last = try world.person("last-\(round)", ["shipit_relman"])
                async let revoked: Void = Self.revoke(world, "gone-\(round)")
                async let signed = world.call("PUT", path, slots[1], as: last)
                #expect(try await signed.status == 200)
                _ = try await revoked
                try await world.service.writeDownRevocations()
                let isCalledFor = try await world.phase(name, "ship_firefox")["scheduled_at"] != ""
                let shown = try await world.call("GET", path).body["signoffs"]
                #expect(shown?[0]?["signed"] == JSONValue(isCalledFor), "\(name)")
                let kinds = try await Self.kinds(world, name)
                #expect(kinds.contains(isCalledFor ? "revoked_late" : "revoked"), "\(name)")
                #expect(!kinds.contains(isCalledFor ? "revoked" : "revoked_late"), "\(name)")
            }
        }
    }

    @Test func `46: a signature is taken back by its person, or by an administrator, until the phase is called for`()
        async throws
    {
        try await ReleaseWorld.with { world in
            let slots = try await Self.ready(world)
            let one = try world.person("one", ["shipit_releng"])
            let two = try world.person("two", ["shipit_releng", "shipit_relman"])
            #expect(try await world.call("DELETE", Self.ship, slots[0], as: one).body["code"] == "not_signed")
            #expect(try await world.call("PUT", Self.ship, slots[0], as: one).status == 200)
            #expect(try await world.call("DELETE", Self.ship, slots[0], as: two).status == 409)
            #expect(try await world.call("DELETE", Self.ship, slots[0], as: ReleaseWorld.script).status == 401)
            #expect(try await world.call("DELETE", Self.ship, "nothing", as: one).status == 404)
            let back = try await world.call("DELETE", Self.ship, slots[0], as: one)
            #expect(back.status == 200)
            #expect(back.body["signoffs"]?[0]?["signed"] == false)
            #expect(try await world.call("PUT", Self.ship, slots[0], as: one).status == 200)

            let wish: JSONValue = ["uid": slots[0], "reason": "a mistake"]
            let weak = "c project:releng:services/shipit_api/phase_signoff/*"
            #expect(try await world.call("POST", "\(Self.ship)/revoke", wish, as: weak).status == 401)
            let unreasoned: JSONValue = ["uid": slots[0]]
            let admin = ReleaseWorld.script
            #expect(try await world.call("POST", "\(Self.ship)/revoke", unreasoned, as: admin).status == 400)
            #expect(try await world.call("POST", "\(Self.ship)/revoke", wish, as: admin).status == 200)
            #expect(try await world.call("GET", Self.ship).body["signoffs"]?[0]?["signed"] == false)

            #expect(try await world.call("PUT", Self.ship, slots[1], as: two).status == 200)
            #expect(try await world.call("PUT", Self.ship, slots[0], as: one).status == 200)
            // It was called for by that.
            for person in [one, two] {
                for method in ["DELETE", "PUT"] {
                    let late = try await world.call(method, Self.ship, slots[0], as: person)
                    #expect(late.status == 409)
                    #expect(late.body["code"] == "step_closed")
                }
            }
            #expect(try await world.call("POST", "\(Self.ship)/revoke", wish, as: admin).status == 409)
            let kinds = try await Self.kinds(world)
            #expect(kinds.count { $0 == "unsigned" } == 1)
            #expect(kinds.count { $0 == "revoked" } == 1)
            #expect(kinds.count { $0 == "signed" } == 4)
        }
    }

    @Test func `what was signed is what is carried out: another revision has to be signed anew`() async throws {
        try await ReleaseWorld.with { world in
            let slots = try await Self.ready(world)
            let seen = try #require(try await world.call("GET", Self.ship).headers["ETag"])
            let one = try world.person("one", ["shipit_releng"])
            let two = try world.person("two", ["shipit_relman"])
            let signed = try await world.call("PUT", Self.ship, slots[0], as: one, headers: ["If-Match": seen])
            #expect(signed.status == 200)
            try await world.pool.execute("update shipit_releases.releases set revision = 'def'")
            let stale = try await world.call("PUT", Self.ship, slots[1], as: two, headers: ["If-Match": seen])
            #expect(stale.status == 412)
            #expect(try await world.call("GET", Self.ship).body["signoffs"]?[0]?["signed"] == false)
            #expect(try await world.call("PUT", Self.ship, slots[1], as: two).status == 200)
            #expect(try await world.phase(Self.name, "ship_firefox")["scheduled_at"] == "")

            // The same while the phase waits for the tasks of the earlier ones.
            world.around.state.withLock { $0.makesTasks = false }
            #expect(try await world.call("PUT", Self.ship, slots[0], as: one).status == 200)
            let isWaiting = try await world.phase(Self.name, "ship_firefox")["scheduled_at"] != ""
            #expect(isWaiting)
        }
    }

    @Test func `a phase that waits to be begun is called for again if something else would be carried out`()
        async throws
    {
        try await ReleaseWorld.with { world in
            world.around.state.withLock { $0.makesTasks = false }
            let slots = try await Self.ready(world)
            let people = [
                try world.person("one", ["shipit_releng"]), try world.person("two", ["shipit_relman"]),
            ]
            for (slot, person) in zip(slots, people) {
                #expect(try await world.call("PUT", Self.ship, slot, as: person).status == 200)
            }
            #expect(try await world.phase(Self.name, "ship_firefox")["scheduled_at"] != "")
            try await world.pool.execute(
                "update shipit_releases.releases set input = (input::jsonb || '{\"partial_updates\": {}}')::json"
            )
            world.around.state.withLock { $0.makesTasks = true }
            try await eventually("the earlier phases are there") {
                try await world.service.callForWaiting()
                return try await Self.kinds(world).contains("phase_left")
            }
            #expect(try await world.phase(Self.name, "ship_firefox")["scheduled_at"] == "")
            let shown = try await world.call("GET", Self.ship).body["signoffs"]?.array ?? []
            #expect(shown.map { $0["signed"] } == [false, false])
            #expect(world.around.puts("\(Self.name).ship_firefox") == 0)
        }
    }

    @Test func `62 and 52 to 54: requesters, the forbidden, machines, old logins and the hasty do not sign`()
        async throws
    {
        let rules: JSONObject = [
            "forbid-requester": true, "forbid-signers": ["Banned@example.com"], "max-auth-age-s": 600,
        ]
        try await ReleaseWorld.with(catalogue: Self.catalogue(rules)) { world in
            let asker = try world.person("asker", ["shipit_firefox", "shipit_releng"])
            #expect(try await world.release(as: asker).status == 201)
            let slots = try #require(try await world.call("GET", Self.ship).body["signoffs"]?.array)
            let releng = try #require(slots[0]["uid"])
            func code(_ person: String) async throws -> JSONValue? {
                let answer = try await world.call("PUT", Self.ship, releng, as: person)
                #expect((400..<500).contains(answer.status))
                return answer.body["code"]
            }
            #expect(try await code(asker) == "self_signoff")
            // Under another address it is the same person.
            let groups: JSONValue = ["shipit_releng"]
            let alias = try world.token("asker", ["groups": groups, "email": "alias@example.com"])
            #expect(try await code(alias) == "self_signoff")
            #expect(try await code(try world.person("banned", ["shipit_releng"])) == "forbidden_signer")
            let machine = try world.token("robot", ["groups": groups, "gty": "client-credentials"])
            #expect(try await code(machine) == "human_required")
            let old = try world.person("one", ["shipit_releng"], at: .now() - .seconds(700))
            #expect(try await code(old) == "mfa_required")
            // One person with two addresses has one signature.
            let everything: JSONValue = ["shipit_releng", "shipit_relman"]
            let first = try world.token("two", ["groups": everything, "email": "Two@example.com"])
            let second = try world.token("two", ["groups": everything, "email": "other@example.com"])
            let third = try world.token("three", ["groups": everything, "email": "two@example.com"])
            #expect(try await world.call("PUT", Self.ship, releng, as: first).status == 200)
            let relman = try #require(slots[1]["uid"])
            for again in [second, third] {
                let answer = try await world.call("PUT", Self.ship, relman, as: again)
                #expect(answer.status == 409)
                #expect(answer.body["code"] == "already_signed")
            }
        }
        try await ReleaseWorld.with(catalogue: Self.catalogue(["min-delay-s": 3600])) { world in
            let slots = try await Self.ready(world)
            let early = try await world.call("PUT", Self.ship, slots[0], as: try world.person("one", ["shipit_releng"]))
            #expect(early.status == 409)
            #expect(early.body["code"] == "too_early")
            let wait = try #require(early.headers["Retry-After"].flatMap { Int($0) })
            #expect((1...3600).contains(wait))
        }
    }

    @Test
    func `63: of one person who signs both slots at the same moment one signature counts, unless the product is lax`()
        async throws
    {
        try await ReleaseWorld.with { world in
            for round in 0..<8 {
                let version = "70.0b\(round)"
                let slots = try await Self.ready(world, version: version)
                let path = "/signoff/Firefox-\(version)-build1/ship_firefox"
                let person = try world.person("both", ["shipit_releng", "shipit_relman"])
                async let one = world.call("PUT", path, slots[0], as: person).status
                async let two = world.call("PUT", path, slots[1], as: person).status
                let answers = [try await one, try await two]
                #expect(answers.sorted() == [200, 409])
                #expect(try await world.phase("Firefox-\(version)-build1", "ship_firefox")["scheduled_at"] == "")
            }
        }
        try await ReleaseWorld.with(catalogue: Self.catalogue(["lax": true])) { world in
            let slots = try await Self.ready(world)
            let person = try world.person("both", ["shipit_releng", "shipit_relman"])
            for slot in slots { #expect(try await world.call("PUT", Self.ship, slot, as: person).status == 200) }
            #expect(try await world.phase(Self.name, "ship_firefox")["scheduled_at"] != "")
        }
    }

    @Test func `a phase that was left out is signed by nobody`() async throws {
        let members: JSONObject = ["phases": ["ship_firefox", "promote_firefox"], "allow-phase-skipping": true]
        try await ReleaseWorld.with(catalogue: Self.catalogue(members)) { world in
            #expect(try await world.release().status == 201)
            let path = "/releases/\(Self.name)/promote_firefox"
            #expect(try await world.call("PUT", path, as: ReleaseWorld.script).status == 200)
            let slot = try #require(try await world.call("GET", Self.ship).body["signoffs"]?[0]?["uid"])
            let late = try await world.call("PUT", Self.ship, slot, as: try world.person("one", ["shipit_releng"]))
            #expect(late.status == 409)
            #expect(try await world.phase(Self.name, "ship_firefox")["skipped"] == true)
        }
    }

    @Test func `rules for signers that are misspelt are refused`() throws {
        let wrong: [JSONObject] = [
            ["forbid-requester": "yes"], ["forbid-signers": "me"], ["min-delay-s": "1"], ["max-auth-age-s": -1],
            ["lax": 1],
        ]
        for members in wrong {
            #expect(throws: ProductCatalogue.Problem.self) {
                try ProductCatalogue(Self.catalogue(members), allowsLax: true)
            }
        }
        #expect(throws: ProductCatalogue.Problem.self) {
            try ProductCatalogue(Self.catalogue(["lax": true]), allowsLax: false)
        }
    }
}
