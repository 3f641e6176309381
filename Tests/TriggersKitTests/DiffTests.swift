// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import TestSupport
import Testing

@testable import TriggersKit

@Suite(.timeLimit(.minutes(5)))
struct DiffTests {
    @Test func `the first look begins at the newest diff, then pages are followed and each diff fires once`()
        async throws
    {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            world.conduit.add(1...30)
            let poller = world.poller()
            #expect(try await world.look(poller) == 0)
            #expect(try await world.open() == 0)
            world.conduit.add(31...85)
            #expect(try await world.look(poller) == 55)
            #expect(try await world.look(poller) == 0)
            #expect(world.conduit.calls.filter { $0 == "differential.diff.search" }.count == 1 + 3 + 1)
            try await world.settle(world.worker())
            #expect(world.queue.tasks.count == 55)
            let ids = Set(world.queue.payloads.compactMap { $0["ANALYSIS_ID"]?.string })
            #expect(ids == Set((31...85).map { "PHID-DIFF-\($0)" }))
            #expect(world.queue.payloads.allSatisfy { $0["ANALYSIS_SOURCE"]?.string == "phabricator" })
            #expect(world.queue.tasks.values.allSatisfy { $0["extra"]?["by"]?.string == "triggerHook" })
        }
    }

    @Test func `one process looks at a time, and what another one wrote down is not written again`() async throws {
        try await TriggersWorld.with { world in
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...41)
            try await world.pool.execute("update triggers.places set next_look = now()")
            let counts = try await withThrowingTaskGroup(of: Int?.self) { group in
                for _ in 0..<4 { group.addTask { try await world.poller().look() } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(counts.compactMap { $0 } == [40])
            // A process that lost its lease writes nothing more.
            try await world.pool.execute("update triggers.places set last_id = 1")
            #expect(try await world.look(world.poller()) == 0)
            #expect(try await world.open() == 40)
        }
    }

    @Test func `what is no diff is passed by`() async throws {
        try await TriggersWorld.with { world in
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...3)
            world.conduit.state.withLock { $0.diffs[2]?.type = "DREV" }
            #expect(try await world.look(world.poller()) == 1)
            #expect(try await world.states() == ["3": "waiting"])
        }
    }

    @Test func `a revision that stays invisible is skipped after five looks and holds nobody up`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...2, isVisible: false)
            world.conduit.add(3...3)
            // A diff that belongs to no revision yet.
            world.conduit.state.withLock { $0.diffs[4] = (nil, "DIFF") }
            try await world.look(world.poller())
            let worker = world.worker(visibility: .init(tries: 5, pause: .milliseconds(300)))
            try await eventually("the visible one fires") {
                try await worker.work()
                return try await world.states()["3"] == "fired"
            }
            #expect(try await world.states()["2"] == "waiting")
            try await world.settle(worker)
            #expect(try await world.states() == ["2": "skipped", "3": "fired", "4": "skipped"])
            #expect(world.conduit.calls.filter { $0 == "differential.revision.search" }.count == 5 + 1)
            #expect(
                Set(try await world.reasons()) == [
                    "the revision is not visible after 5 looks", "the diff belongs to no revision yet after 5 looks",
                ]
            )
        }
    }

    @Test func `a revision that becomes visible in time fires`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...2, isVisible: false)
            try await world.look(world.poller())
            let worker = world.worker(visibility: .init(tries: 1000, pause: .milliseconds(10)))
            try await worker.work()
            world.conduit.show(2)
            try await world.settle(worker)
            #expect(try await world.states() == ["2": "fired"])
        }
    }

    @Test func `risk is assessed where somebody of the list reviews`() async throws {
        try await TriggersWorld.with { world in
            let risk = HookName(group: "project-relman", hook: "bugbug-classify-patch")
            try await world.makeHook(risk)
            try await world.makeHook()
            let triggers = [
                TriggersWorld.diffs,
                TriggersWorld.trigger(.risk(reviewers: ["ana", "PHID-PROJ-drivers"]), .risk, hook: risk),
            ]
            world.conduit.state.withLock { $0.users = ["PHID-USER-a": "ana", "PHID-USER-b": "ben"] }
            world.conduit.add(1...1)
            try await world.look(world.poller(triggers))
            world.conduit.add(2...5)
            world.conduit.show(2, reviewers: ["PHID-USER-b", "PHID-USER-a"])
            world.conduit.show(3, reviewers: ["PHID-USER-b"])
            world.conduit.show(4, reviewers: ["PHID-PROJ-drivers"])
            #expect(try await world.look(world.poller(triggers)) == 8)
            try await world.settle(world.worker(triggers))
            let assessed = world.queue.payloads.compactMap { $0["DIFF_ID"]?.int }
            #expect(assessed.sorted() == [2, 4])
            #expect(world.queue.payloads.filter { $0["ANALYSIS_ID"] != nil }.count == 4)
        }
    }

    @Test func `while Phabricator is unwell nothing is lost, and its refusals do not show our token`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...2)
            world.conduit.refuse(502)
            world.conduit.refuse(200, "<html>")
            world.conduit.refuse(200, #"{"result": {"data": "none"}, "error_code": null}"#)
            for _ in 0..<3 { #expect(try await world.look(world.poller()) == 0) }
            let row = try await world.pool.query("select failures, error from triggers.places").first
            #expect(try row?.int("failures") == 3)
            #expect(try await world.look(world.poller()) == 1)
            // While the revision is asked for as well.
            world.conduit.refuse(500)
            try await world.settle(world.worker())
            #expect(world.queue.tasks.count == 1)
            let stranger = "api-thistokenisnobodysbusiness00"
            let error = await #expect(throws: Conduit.Failure.self) {
                try await world.phabricator(token: stranger).newestDiff()
            }
            #expect(error?.description.contains("ERR-INVALID-AUTH") == true)
            #expect(error?.description.contains(stranger) == false)
        }
    }

    @Test func `a process that starts anew looks as its configuration says, whatever failed before`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...2)
            // As after many failures, or with an interval of hours.
            try await world.places.finish(.phabricator, error: "nobody answers", pause: .seconds(3600))
            #expect(try await world.poller().look() == nil)
            let poller = world.poller()
            try await world.places.hasten(.phabricator, within: poller.interval)
            try await eventually("the interval is over") { try await poller.look() == 1 }
            // What is due already is not put off.
            try await world.places.finish(.phabricator, error: nil, pause: .zero)
            try await world.places.hasten(.phabricator, within: .seconds(3600))
            #expect(try await poller.look() == 0)
        }
    }
}
