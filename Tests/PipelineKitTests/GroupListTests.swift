// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import TestSupport
import Testing

@testable import PipelineKit

/// Groups whose approval is needed are told without being named by a pipeline.
@Suite(.timeLimit(.minutes(10)))
struct GroupListTests {
    private static let lists: JSONValue = [
        "releng": "releng@example.com",
        "relman": ["relman@example.com", ["type": "matrix", "target": "!room:example.com"]],
        "managers": "relman@example.com", "boss@example.com": "boss@example.com",
        "qa": ["type": "slack", "target": "C0123"],
    ]

    private static func answer(_ missing: String) -> String {
        #"{"state": "running", "info": {"missing": \#(missing)}}"#
    }

    /// The keys of the notices in a database, without the number of the pipeline.
    private func keys(_ world: PipelineWorld) async throws -> [String] {
        try await world.pool.query("select dedup_key from shipit_pipeline.notices order by id").map {
            try $0.string("dedup_key").split(separator: ".", maxSplits: 1).last.map(String.init) ?? ""
        }
    }

    @Test func `each list is told once that its group's approval is needed, and reminded while it is`() async throws {
        let clock = TestClock(.now())
        let lists = try GroupLists(Self.lists, reminders: 600)
        try await PipelineWorld.with(replicas: 2, clock: clock, lists: lists) { world in
            let first = Self.answer(
                #"[{"releng": 1, "managers": 1, "boss@example.com": 1}, {"relman": 2, "nobody": 1}]"#
            )
            let then = Self.answer(#"[{"releng": 1}]"#)
            world.lab.set(
                "approve",
                Lab.Behaviour(
                    result: nil,
                    statuses: Array(repeating: first, count: 10) + Array(repeating: then, count: 100)
                )
            )
            let rule: JSONValue = [
                "on": ["signoff_needed"], "type": "email", "target": "boss@example.com",
            ]
            try await world.create("p", [world.step("approve")], ["notify": [rule]])
            for _ in 0..<50 {
                clock.advance(by: .seconds(10))
                for replica in world.replicas { _ = try await replica.runner.runOnce() }
            }
            let told = [
                "signoff_needed.approve.1.0", "signoff_needed.approve.1.list.email.releng@example.com",
                "signoff_needed.approve.1.list.email.relman@example.com",
                "signoff_needed.approve.1.list.matrix.!room:example.com",
            ]
            #expect(try await Set(keys(world)) == Set(told))
            #expect(try await keys(world).count == told.count)
            // The others' part is done: only one is reminded, and no longer than it is needed.
            for _ in 0..<80 {
                clock.advance(by: .seconds(10))
                for replica in world.replicas { _ = try await replica.runner.runOnce() }
            }
            #expect(
                try await Set(keys(world)).subtracting(told) == [
                    "signoff_reminder.approve.1.1.list.email.releng@example.com",
                    "signoff_reminder.approve.1.2.list.email.releng@example.com",
                ]
            )
            #expect(try await world.call("POST", "/p/cancel").status == 200)
            try await world.advance(5)
            #expect(try await world.state("p") == "cancelled")
            #expect(try await Set(keys(world)) == Set(told))
        }
    }

    @Test func `another attempt needs another approval`() async throws {
        let clock = TestClock(.now())
        let lists = try GroupLists(["releng": "releng@example.com"], reminders: nil)
        try await PipelineWorld.with(clock: clock, lists: lists) { world in
            let missing = Self.answer(#"[{"releng": 1}]"#)
            for name in ["a", "a.r2"] {
                let failure = #"{"state": "failed"}"#
                let statuses = Array(repeating: missing, count: 3) + [failure]
                world.lab.set(name, Lab.Behaviour(result: nil, statuses: statuses))
            }
            try await world.create("p", [world.step("a")])
            try await world.advance(20)
            #expect(try await world.state("p") == "failed")
            #expect(try await world.call("POST", "/p/retry").status == 200)
            try await world.advance(20)
            #expect(
                try await keys(world) == (1...2).map { "signoff_needed.a.\($0).list.email.releng@example.com" }
            )
        }
    }

    @Test(
        arguments: [
            [], "releng@example.com", ["releng": "nobody"], ["releng": []], ["releng": [1]],
            ["releng": ["type": "email"]],
            ["releng": ["type": "webhook", "target": "http://x/"]], ["releng": ["type": "pigeon", "target": "x"]],
            ["releng": "a b@example.com"],
        ] as [JSONValue]
    )
    func `lists that make no sense are refused`(_ lists: JSONValue) {
        #expect(throws: GroupLists.Problem.self) { try GroupLists(lists, reminders: nil) }
    }
}
