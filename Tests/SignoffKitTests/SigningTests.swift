// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Outbox
import Postgres
import Pulse
import Schedules
import StepKit
import Testing
import TestSupport

@testable import SignoffKit

/// Signing over HTTP, on real tables.
@Suite(.timeLimit(.minutes(15)))
struct SigningTests {
    @Test func `39 and 40: one person has one slot, the last signature completes the step, and the bus hears it once`()
        async throws
    {
        try await Broker.lend { pulse, exchange, queue in
            try await pulse.declareQueue(PulseQueue(queue, kind: .classic))
            try await pulse.bind(queue: queue, exchange: exchange, routingKey: "#")
            try await SignoffWorld.with(exchange: exchange) { world in
                try await world.create("r.1", ["releng": 2])
                let first = try world.bearer("releng1")
                #expect(try await world.sign("r.1", as: first).status == 200)
                let again = try await world.sign("r.1", as: first)
                #expect(again.status == 409)
                #expect(again.code == "already_signed")
                #expect(again.body["error_title"] == "Conflict")
                #expect(try await world.state("r.1") == "running")
                #expect(try await world.sign("r.1", as: try world.bearer("releng2")).status == 200)
                let status = try await world.call("GET", "/r.1/status").body
                #expect(status["state"] == "completed")
                #expect(status["status"] == "success")
                #expect(status["completed"] == status["finished"])
                #expect(status["completed"]?.string != nil)
                #expect(status["info"]?["signees"] == ["releng1@example.com", "releng2@example.com"])
                _ = try await OutboxRelay(outbox: world.store.outbox, pool: world.pool, pulse: pulse).drain()
            }
            let messages = try await drained(pulse, queue, expecting: 2)
            #expect(messages.map(\.routingKey) == ["primary.signoff.r_1.running", "primary.signoff.r_1.completed"])
            let body = try messages[1].json()
            #expect(body["service"] == "signoff")
            #expect(body["base_url"] == "http://signoff.example")
            #expect(body["state"] == "completed")
        }
    }

    private func drained(_ pulse: PulseConnection, _ queue: String, expecting count: Int) async throws
        -> [PulseDelivery]
    {
        let box = Collected()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                do {
                    let wanted = PulseSubscription(queue: PulseQueue(queue, kind: .classic), bindings: [])
                    try await pulse.consume(wanted) { delivery in
                        await box.add(delivery)
                        return .ack
                    }
                } catch is CancellationError {}
            }
            try await eventually { await box.all.count >= count }
            // One that is too many would be on its way already.
            try await Task.sleep(for: .milliseconds(100))
            group.cancelAll()
            try await group.waitForAll()
        }
        return await box.all
    }

    private actor Collected {
        var all: [PulseDelivery] = []
        func add(_ delivery: PulseDelivery) { all.append(delivery) }
    }

    @Test func `41: two of one group complete a step that would also take one of each`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", [["releng": 1, "relman": 1], ["releng": 2]])
            #expect(try await world.sign("s", as: try world.bearer("releng1")).status == 200)
            #expect(try await world.sign("s", as: try world.bearer("releng2")).status == 200)
            #expect(try await world.state("s") == "completed")
        }
    }

    @Test func `42: of twenty who sign for one slot at the same moment one gets it, a hundred times`() async throws {
        try await SignoffWorld.with(servers: 2) { world in
            let people = try (0..<20).map { try world.bearer("releng\($0)") }
            for round in 0..<100 {
                let uid = "race-\(round)"
                try await world.create(uid, ["releng": 1])
                let answers = try await withThrowingTaskGroup(of: Int.self) { group in
                    for (index, person) in people.enumerated() {
                        group.addTask { try await world.sign(uid, as: person, server: index % 2).status }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(answers.count { $0 == 200 } == 1, "round \(round): \(answers)")
                #expect(answers.count { $0 == 409 } == 19, "round \(round): \(answers)")
            }
            let rows = try await world.pool.query(
                "select count(*) as n, count(distinct step_id) as steps from shipit_signoff.signatures"
            )
            #expect(try rows[0].int("n") == 100)
            #expect(try rows[0].int("steps") == 100)
            let done = try await world.pool.query(
                "select count(*) as n from shipit_signoff.steps where state = 'completed'"
            )
            #expect(try done[0].int("n") == 100)
        }
    }

    @Test func `43: groups are claimed by their members and asked for by the policy`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 2])
            let outside = try await world.sign("s", "releng", as: try world.bearer("x", ["relman"]))
            #expect(outside.status == 403)
            #expect(outside.code == "not_in_group")
            let unasked = try await world.sign("s", "relman", as: try world.bearer("x", ["relman"]))
            #expect(unasked.status == 403)
            #expect(unasked.code == "not_in_policy")
            let silent = try await world.call("PUT", "/s/sign", [:], as: try world.bearer("releng1"))
            #expect(silent.status == 400)
            #expect(try await world.sign("none", as: try world.bearer("releng1")).status == 404)
            #expect(try await world.state("s") == "running")
        }
    }

    @Test func `44: a person named by address signs with any group of theirs, and nobody signs for them`() async throws
    {
        try await SignoffWorld.with { world in
            try await world.create("s", ["boss@example.com": 1])
            let other = try await world.sign("s", "board", as: try world.bearer("other", ["board"]))
            #expect(other.status == 403)
            #expect(try await world.sign("s", "board", as: try world.bearer("boss", ["board"])).status == 200)
            #expect(try await world.state("s") == "completed")
        }
    }

    @Test func `44: a group that a named person only claims fills no slot of that group`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", [["boss@example.com": 1, "board": 1], ["releng": 1]])
            #expect(try await world.sign("s", "releng", as: try world.bearer("boss", ["board"])).status == 200)
            #expect(try await world.state("s") == "running")
        }
    }

    @Test func `45: one who is named and belongs to the group as well is still one person`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["boss@example.com": 1, "relman": 1])
            #expect(try await world.sign("s", "relman", as: try world.bearer("boss", ["relman"])).status == 200)
            #expect(try await world.state("s") == "running")
            #expect(try await world.sign("s", "relman", as: try world.bearer("m", ["relman"])).status == 200)
            #expect(try await world.state("s") == "completed")
        }
    }

    @Test func `46: a signature is taken back and given again until the step is completed`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 2])
            let first = try world.bearer("releng1")
            let second = try world.bearer("releng2")
            let group: JSONValue = ["group": "releng"]
            let early = try await world.call("DELETE", "/s/sign", group, as: first)
            #expect(early.status == 409)
            #expect(early.code == "not_signed")
            #expect(try await world.sign("s", as: first).status == 200)
            #expect(try await world.call("DELETE", "/s/sign", group, as: second).status == 409)
            #expect(try await world.call("DELETE", "/s/sign", group, as: first).status == 200)
            #expect(try await world.call("GET", "/s/status").body["info"]?["missing"] == [["releng": 2]])
            #expect(try await world.sign("s", as: first).status == 200)
            #expect(try await world.sign("s", as: second).status == 200)
            let late = try await world.call("DELETE", "/s/sign", group, as: first)
            #expect(late.status == 409)
            #expect(late.code == "step_closed")
            let all = try await world.call("GET", "/s/signatures").body["signatures"]?.array ?? []
            #expect(all.count == 3)
            #expect(all.count { $0["revoked"] != nil } == 1)
        }
    }

    @Test func `55: what somebody has signed is revoked where it is open and listed where it is not`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("done", ["releng": 1])
            try await world.create("open", ["releng": 2])
            let member = try world.bearer("releng1")
            #expect(try await world.sign("done", as: member).status == 200)
            #expect(try await world.sign("open", as: member).status == 200)
            let outside = try world.bearer("releng1", ["other"])
            try await world.create("later", ["releng": 1])
            #expect(try await world.sign("later", as: outside).status == 403)
            #expect(try await world.call("GET", "/open/status").body["info"]?["signees"] == ["releng1@example.com"])
            let body: JSONValue = ["email": "Releng1@example.com", "reason": "left"]
            #expect(try await world.call("POST", "/admin/revocations", body, as: "c project:x").status == 403)
            let answer = try await world.call("POST", "/admin/revocations", body)
            #expect(answer.body["revoked"] == ["open"])
            #expect(answer.body["unchanged"] == ["done"])
            #expect(try await world.call("GET", "/open/status").body["info"]?["signees"] == [])
            #expect(try await world.state("done") == "completed")
            let rows = try await world.call("GET", "/open/signatures").body["signatures"]
            #expect(rows?[0]?["revoke_reason"] == "left")
        }
    }

    @Test func `57: a completed step is deleted with its audit and signatures kept for administrators`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 1])
            #expect(try await world.call("DELETE", "/s").status == 409)
            #expect(try await world.sign("s", as: try world.bearer("releng1")).status == 200)
            #expect(try await world.call("DELETE", "/s").status == 200)
            #expect(try await world.call("GET", "/s/status").status == 404)
            #expect(try await world.call("GET", "/s").status == 404)
            #expect(try await world.call("GET", "/").body["steps"] == [])
            let viewer = "v project:releng:services/shipit_signoff/view"
            #expect(try await world.call("GET", "/s/events?deleted=true", as: viewer).status == 403)
            let events = try await world.call("GET", "/s/events?deleted=true").body["events"]?.array ?? []
            #expect(events.compactMap { $0["kind"]?.string } == ["created", "state", "signed", "state", "deleted"])
            let signatures = try await world.call("GET", "/s/signatures?deleted=true").body["signatures"]
            #expect(signatures?.array?.count == 1)
            try await world.create("s", ["relman": 1])
            #expect(try await world.state("s") == "running")
            #expect(try await world.call("GET", "/s/events").body["events"]?.array?.count == 2)
        }
    }

    @Test func `58: policies that mean nothing are answered with 400`() async throws {
        try await SignoffWorld.with { world in
            let policies: [JSONValue] = [
                ["method": "fake", "definition": ["a": 1]], ["method": "local", "definition": []],
                ["method": "local", "definition": [:]], ["method": "local", "definition": ["a": 0]],
                ["method": "local", "definition": ["a@example.com": 2]],
            ]
            for policy in policies {
                let answer = try await world.call("PUT", "/s", ["policy": policy, "parameters": [:]])
                #expect(answer.status == 400, "\(policy)")
                #expect(answer.code == "invalid_policy")
                let check = try await world.call("POST", "/validate_policy", ["policy": policy])
                #expect(check.status == 422)
            }
            #expect(try await world.call("GET", "/").body["steps"] == [])
            let fine: JSONValue = ["policy": ["method": "local", "definition": ["a": 1]]]
            #expect(try await world.call("POST", "/validate_policy", fine).body["ok"] == true)
        }
    }

    @Test func `58: a policy that asks for more people than a group has is refused`() async throws {
        let directory = GroupDirectory(["releng": ["releng1@example.com", "releng2@example.com"]])
        try await SignoffWorld.with(directory: directory) { world in
            try await world.create("two", ["releng": 2])
            let body: JSONValue = ["policy": ["method": "local", "definition": ["releng": 3]], "parameters": [:]]
            #expect(try await world.call("PUT", "/three", body).status == 400)
        }
    }

    @Test func `61: a step whose time is over fails, or is cancelled, and is signed no more`() async throws {
        try await SignoffWorld.with { world in
            let end: Timestamp = world.clock.now() + .seconds(600)
            let expires = JSONValue(end.iso8601)
            try await world.create("f", ["releng": 1], ["expires": expires])
            try await world.create("c", ["releng": 1], ["expires": expires, "on_expire": "cancel"])
            let runner = StepRunner(store: world.store, owner: "test", look: world.service.look)
            #expect(try await runner.runOnce() == 0)
            world.clock.advance(by: .seconds(600))
            // Nobody has looked yet, and it is too late already.
            #expect(try await world.sign("f", as: try world.bearer("releng1")).status == 409)
            #expect(try await runner.runOnce() == 2)
            #expect(try await world.state("f") == "failed")
            #expect(try await world.state("c") == "cancelled")
            let late = try await world.sign("f", as: try world.bearer("releng1"))
            #expect(late.status == 409)
            #expect(late.code == "step_closed")
            #expect(try await runner.runOnce() == 0)
        }
    }

    @Test func `62: whoever asked for a step may not sign it where the policy says so`() async throws {
        try await SignoffWorld.with { world in
            let creator = "mozilla-auth0/ad|test|releng1/shipit *"
            try await world.create("s", ["releng": 1], ["forbid_requester": true], as: creator)
            let own = try await world.sign("s", as: try world.bearer("releng1"))
            #expect(own.status == 403)
            #expect(own.code == "self_signoff")
            #expect(try await world.sign("s", as: try world.bearer("releng2")).status == 200)
            let policy: JSONValue = ["method": "local", "definition": ["releng": 1], "forbid_requester": true]
            let body: JSONValue = ["policy": policy, "parameters": ["requester": "Releng2@example.com"]]
            #expect(try await world.call("PUT", "/t", body).status == 200)
            #expect(try await world.sign("t", as: try world.bearer("releng2")).code == "self_signoff")
            // A pipeline asks in its own name, and says who has asked for the pipeline.
            for (number, requester) in ["releng1@example.com", "mozilla-auth0/ad|test|releng1/shipit"].enumerated() {
                let name = "p\(number)"
                let plain: JSONValue = ["policy": policy, "parameters": [:]]
                let headers = ["X-Shipit-Pipeline": "p", "X-Shipit-Requester": requester]
                #expect(try await world.call("PUT", "/\(name)", plain, headers: headers).status == 200)
                #expect(try await world.sign(name, as: try world.bearer("releng1")).code == "self_signoff")
                #expect(try await world.sign(name, as: try world.bearer("releng2")).status == 200)
            }
        }
    }

    @Test func `63: two addresses of one person are one person, and so are two names with one address`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 2])
            let first = try world.bearer("releng1", email: "one@example.com")
            let alias = try world.bearer("releng1", email: "two@example.com")
            #expect(try await world.sign("s", as: first).status == 200)
            #expect(try await world.sign("s", as: alias).code == "already_signed")
            let double = try world.bearer("releng9", email: "ONE@example.com")
            #expect(try await world.sign("s", as: double).code == "already_signed")
        }
    }

    @Test func `a signature says what it approves: another digest is refused`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 1], ["require_digest": true])
            let person = try world.bearer("releng1")
            let digest = try await world.call("GET", "/s/status").body["info"]?["digest"] ?? ""
            #expect(try await world.sign("s", as: person).code == "digest_required")
            let other: JSONValue = ["group": "releng", "digest": "00"]
            #expect(try await world.call("PUT", "/s/sign", other, as: person).code == "digest_differs")
            let body: JSONValue = ["group": "releng", "digest": digest]
            #expect(try await world.call("PUT", "/s/sign", body, as: person).status == 200)
            let rows = try await world.call("GET", "/s/signatures").body["signatures"]
            #expect(rows?[0]?["digest"] == digest)
        }
    }

    @Test func `a signature that makes no difference is refused`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 1, "relman": 1])
            #expect(try await world.sign("s", as: try world.bearer("releng1")).status == 200)
            #expect(try await world.sign("s", as: try world.bearer("releng2")).code == "no_slot_left")
        }
    }

    @Test func `a rejection ends the step where the policy allows it`() async throws {
        try await SignoffWorld.with { world in
            let body: JSONValue = ["group": "releng", "reason": "broken build"]
            try await world.create("no", ["releng": 1])
            #expect(try await world.call("POST", "/no/reject", body, as: try world.bearer("releng1")).status == 403)
            try await world.create("yes", ["releng": 1], ["allow_reject": true])
            let rejected = try await world.call("POST", "/yes/reject", body, as: try world.bearer("releng1"))
            #expect(rejected.body["state"] == "failed")
            #expect(rejected.body["message"]?.string?.contains("broken build") == true)
            #expect(try await world.sign("yes", as: try world.bearer("releng2")).status == 409)
        }
    }

    @Test func `signers who left the directory do not complete a step that looks again`() async throws {
        let directory = GroupDirectory(["releng": ["releng2@example.com", "releng3@example.com"]])
        try await SignoffWorld.with(directory: directory) { world in
            try await world.create("s", ["releng": 2], ["revalidate": "completion"])
            #expect(try await world.sign("s", as: try world.bearer("releng1")).status == 200)
            #expect(try await world.sign("s", as: try world.bearer("releng2")).status == 200)
            #expect(try await world.state("s") == "running")
            #expect(try await world.sign("s", as: try world.bearer("releng3")).status == 200)
            #expect(try await world.state("s") == "completed")
        }
    }

    @Test func `people find what they can still sign`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("a", ["releng": 1])
            try await world.create("b", ["relman": 1])
            try await world.create("c", ["releng": 2])
            let person = try world.bearer("releng1")
            #expect(try await world.sign("c", as: person).status == 200)
            let list = try await world.call("GET", "/pending?for=me", as: person)
            #expect(list.body["steps"]?.array?.compactMap { $0["uid"]?.string } == ["a"])
        }
    }

    @Test func `a step is not signed before its delay is over`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 1], ["min_delay_s": 60])
            let early = try await world.sign("s", as: try world.bearer("releng1"))
            #expect(early.code == "too_early")
            #expect(early.headers["Retry-After"] == "60")
            world.clock.advance(by: .seconds(60))
            #expect(try await world.sign("s", as: try world.bearer("releng1")).status == 200)
        }
    }
}
