// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import StepKit
import StepTestSupport
import Testing
import TestSupport

@testable import SignoffKit

/// Many people at many replicas at the same moment, with revocations, rejections and the end of time in between.
///
/// `SHIPIT_SCHEDULES` says how many orders are tried; a fiftieth of them run on the database.
@Suite(.timeLimit(.minutes(30)))
struct ScheduleTests {
    /// Two of one group, or one of each: what a reader of the policy would say, without counting anything.
    private static func isEnough(_ groups: [String]) -> Bool {
        groups.count { $0 == "releng" } >= 2 || (groups.contains("releng") && groups.contains("relman"))
    }

    @Test func `42, 55 and 63: a step is completed by enough different people who were not revoked, or not at all`()
        async throws
    {
        try await SignoffWorld.with(servers: 2) { world in
            var completed = 0
            let count = max(10, Dice.schedules / 50)
            for seed in 0..<count {
                let uid = "schedule-\(seed)"
                let expires = JSONValue.string((world.clock.now() + .seconds(20)).iso8601)
                let more: JSONObject = ["allow_reject": true, "expires": expires]
                try await world.create(uid, [["releng": 2], ["releng": 1, "relman": 1]], more)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for worker in 0..<4 {
                        group.addTask {
                            var dice = Dice(state: UInt64(seed * 4 + worker) &* 0x2545_F491_4F6C_DD1D)
                            for _ in 0..<5 { try await Self.act(uid, &dice, world, worker % 2) }
                        }
                    }
                    try await group.waitForAll()
                }
                if try await Self.check(uid, world) { completed += 1 }
                let late = try world.bearer("late", claims: ["iat": JSONValue(Self.seconds(world) + 30)])
                world.clock.advance(by: .seconds(30))
                let answer = try await world.sign(uid, as: late)
                #expect(answer.status == 409)
                #expect(answer.code == "step_closed")
            }
            #expect(completed > 0, "\(completed) of \(count)")
        }
    }

    private static func seconds(_ world: SignoffWorld) -> Int { Int(world.clock.now().milliseconds / 1000) }

    private static func act(_ uid: String, _ dice: inout Dice, _ world: SignoffWorld, _ server: Int) async throws {
        let number = Int.random(in: 0..<5, using: &dice)
        let group = number % 2 == 0 ? "releng" : "relman"
        let address = Bool.random(using: &dice) ? "human\(number)@example.com" : "alias\(number)@example.com"
        // Whoever was revoked logs in again at once.
        let token = try world.bearer(
            "human\(number)",
            [group],
            email: address,
            claims: ["iat": JSONValue(seconds(world) + 30)]
        )
        let answer: Answer
        switch Int.random(in: 0..<24, using: &dice) {
        case 0..<14: answer = try await world.sign(uid, group, as: token, server: server)
        case 14..<18:
            let body: JSONValue = ["group": .string(group)]
            answer = try await world.call("DELETE", "/\(uid)/sign", body, as: token, server: server)
        case 18..<22:
            let body: JSONValue = ["email": .string(address), "reason": "left"]
            answer = try await world.call("POST", "/admin/revocations", body, server: server)
        case 22:
            let id = Int.random(in: 1...20, using: &dice)
            let path = "/\(uid)/signatures/\(id)/revoke"
            answer = try await world.call("POST", path, ["reason": "a mistake"], server: server)
        default:
            let body: JSONValue = ["group": .string(group), "reason": "no"]
            answer = try await world.call("POST", "/\(uid)/reject", body, as: token, server: server)
        }
        #expect([200, 404, 409].contains(answer.status), "\(answer.status) \(answer.body)")
    }

    /// Reads the audit from its beginning; answers whether the step was completed.
    private static func check(_ uid: String, _ world: SignoffWorld) async throws -> Bool {
        let step = try #require(try await world.store.find(uid))
        let events = try await world.store.events(of: step.id, limit: 500)
        let revocations = try await world.pool.query("select sequence, email from shipit_people.revocations")
        var signers: [String: (group: String, address: String, seen: Int)] = [:]
        var seen = 0
        var isCompleted = false
        for event in events {
            let subject = event.data["sub"]?.string ?? ""
            switch event.kind {
            case "signed":
                #expect(signers[subject] == nil, "\(uid): \(subject) signs twice")
                #expect(event.data["digest"] == .string(Hexadecimal.encoded(step.digest)))
                seen = try #require(event.data["revocations_seen"]?.int)
                signers[subject] = (event.subject ?? "", event.actor, seen)
            case "unsigned", "revoked": signers[subject] = nil
            case "state" where event.data["state"] == "completed":
                isCompleted = true
                #expect(isEnough(signers.values.map(\.group)), "\(uid)")
                for signer in signers.values {
                    let isRevoked = try revocations.contains { row in
                        let sequence = try row.int("sequence")
                        return try sequence > signer.seen && sequence <= seen && row.string("email") == signer.address
                    }
                    #expect(!isRevoked, "\(uid): \(signer.address)")
                }
            default: break
            }
        }
        // Nothing happens to the signatures of what is over.
        if let end = events.firstIndex(where: { ["completed", "failed"].contains($0.data["state"]?.string) }) {
            #expect(!events[end...].contains { ["signed", "unsigned", "revoked"].contains($0.kind) }, "\(uid)")
        }
        #expect(isCompleted == (step.state == .completed))
        return isCompleted
    }
}
