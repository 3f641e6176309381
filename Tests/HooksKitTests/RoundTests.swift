// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import Taskcluster
import TaskclusterClient
import TestSupport
import Testing

@testable import HooksKit

/// Triggers that come at the same time share commits and calls, and nothing else.
@Suite(.timeLimit(.minutes(8)))
struct RoundTests {
    let open: JSONObject = ["triggerSchema": ["type": "object"]]

    /// Triggers hooks at once; answers statuses and bodies in the order of the payloads.
    private func trigger(
        _ world: HooksWorld,
        _ payloads: [JSONValue],
        path: @escaping @Sendable (Int) -> String = { _ in "/hooks/g/h/trigger" }
    ) async throws -> [(status: Int, body: JSONValue)] {
        try await withThrowingTaskGroup(of: (Int, Int, JSONValue).self) { group in
            for (index, payload) in payloads.enumerated() {
                group.addTask {
                    let answer = try await world.call("POST", path(index), payload)
                    return (index, answer.status, answer.body)
                }
            }
            var answers: [Int: (status: Int, body: JSONValue)] = [:]
            for try await (index, status, body) in group { answers[index] = (status, body) }
            return payloads.indices.compactMap { answers[$0] }
        }
    }

    @Test func `many triggers of several hooks at once make one task each, with their own payloads`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for hook in ["a", "b", "c"] {
                let body = HooksWorld.request(
                    ["payload": ["hook": JSONValue(hook), "n": ["$eval": "payload.n"]]],
                    open
                )
                #expect(try await world.call("PUT", "/hooks/g/\(hook)", body).status == 200)
                // The first trigger of a hook compiles its definition.
                #expect(try await world.call("POST", "/hooks/g/\(hook)/trigger", ["n": -1]).status == 200)
            }
            let payloads = (0..<60).map { number -> JSONValue in ["n": JSONValue(number)] }
            let answers = try await trigger(world, payloads) { "/hooks/g/\(["a", "b", "c"][$0 % 3])/trigger" }
            for (number, answer) in answers.enumerated() {
                #expect(answer.status == 200)
                let taskID = answer.body["taskId"]?.string ?? ""
                let payload = world.queue.tasks[taskID]?["payload"]
                #expect(payload == ["hook": JSONValue(["a", "b", "c"][number % 3]), "n": JSONValue(number)])
            }
            #expect(world.queue.tasks.count == 63)
            try await world.allEnded()
            let rows = try await world.pool.query(
                """
                select (select count(*) from hooks.fires where outcome = 'created' and definition is null) as fires,
                    (select count(distinct task_id) from hooks.last_fires where result = 'success') as shown,
                    (select count(*) from hooks.outbox where exchange like '%/hook-fired') as announced
                """
            )
            let row = try #require(rows.first)
            #expect(try row.int("fires") == 63)
            #expect(try row.int("shown") == 63)
            #expect(try row.int("announced") == 63)
        }
    }

    @Test func `the same request at once makes one fire, and a different one with its task id is refused`()
        async throws
    {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": ["x": ["$eval": "payload.x"]]], open)
            _ = try await world.call("POST", "/hooks/g/h/trigger", ["x": 0])
            for _ in 0..<5 {
                let id = JSONValue(Slugid.make())
                let same = Array(repeating: ["taskId": id, "x": 1] as JSONValue, count: 8)
                let answers = try await trigger(world, same + [["x": 3], ["taskId": id, "x": 2]])
                #expect(answers[8].status == 200)
                let made = world.queue.tasks[id.string ?? ""]?["payload"]?["x"]?.int
                for answer in answers.prefix(8) { #expect((answer.status == 200) == (made == 1)) }
                #expect((answers[9].status == 200) == (made == 2))
                try await world.allEnded()
                let rows = try await world.pool.query(
                    "select outcome from hooks.fires where task_id = \(id.string ?? "") and outcome = 'created'"
                )
                #expect(rows.count == 1)
            }
        }
    }

    @Test func `a definition that changed elsewhere counts at once, in success and in refusal`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": ["v": 1]], open)
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).status == 200)
            // As another process would do it: this one still remembers the definition it compiled.
            func change(_ assignment: SQL) async throws {
                try await world.pool.execute(
                    "update hooks.hooks set definition_version = nextval('hooks.definition_version'), \(assignment)"
                )
            }
            try await change(#"task = '{"payload":{"v":2}}'"#)
            let answers = try await trigger(world, Array(repeating: [:], count: 6))
            for answer in answers {
                #expect(world.queue.tasks[answer.body["taskId"]?.string ?? ""]?["payload"] == ["v": 2])
            }
            try await change(#"trigger_schema = '{"type":"object","required":["a"]}'"#)
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).status == 400)
            try await change(#"trigger_schema = '{"type":"object"}'"#)
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).status == 200)
            try await change(#"task = '{"$if":"false","then":{}}'"#)
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).body == [:])
            try await world.pool.execute("delete from hooks.hooks")
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).status == 404)
        }
    }

    @Test func `ends that are written together are each written once, and only by who holds the fire`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": [:]], open)
            let program = try #require(try await world.programs.program(of: HookName(group: "g", hook: "h")))
            let now = Timestamp.now()
            let drafts = (0..<12).map { _ -> FireDraft in
                let taskID = Slugid.make()
                let context = FiringContext(
                    firedBy: .triggerHook,
                    taskID: taskID,
                    created: now,
                    extras: ["payload": [:]]
                )
                return FireDraft(
                    name: HookName(group: "g", hook: "h"),
                    taskID: taskID,
                    firedBy: .triggerHook,
                    context: ["payload": [:]],
                    created: now,
                    started: now,
                    rendering: context.render(program.template)
                )
            }
            let fires = try #require(
                try await world.fires.accept(
                    drafts,
                    of: HookName(group: "g", hook: "h"),
                    version: program.version,
                    slots: 12
                )
            )
            #expect(fires.count == 12)
            // Somebody else has taken three of them meanwhile.
            let lost = fires.prefix(3).map(\.id)
            try await world.pool.execute("update hooks.fires set lease = lease + 1 where fire_id = any(\(lost))")
            let endings = fires.enumerated().map { number, fire in
                let outcome: FireOutcome = number == 11 ? .failed(FireFailure(network: "no")) : .created
                return FireStore.Ending(fire: fire, outcome: outcome, time: now)
            }
            for _ in 0..<2 { try await world.fires.finish(endings) }
            let rows = try await world.pool.query(
                """
                select coalesce(outcome, state) as state, count(*) as n from hooks.fires group by 1 order by 1
                """
            )
            let counts = try rows.map { "\(try $0.string("state")) \(try $0.int("n"))" }
            #expect(counts == ["created 8", "failed 1", "pending 3"])
            #expect(try await world.history().count == 9)
            let messages = try await world.pool.query(
                "select exchange, routing_key, body from hooks.outbox where exchange like '%/hook-f%' order by id"
            )
            #expect(messages.count == 9)
            for row in messages {
                #expect(try row.string("routing_key") == "primary.triggerHook.g.h")
                let isFailure = try row.string("exchange").hasSuffix("/hook-failed")
                let body = try row.json("body")
                #expect(body["reason"] == (isFailure ? "NetworkError" : nil))
                #expect(body["time"]?.string == now.iso8601)
            }
        }
    }
}
