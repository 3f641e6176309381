// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Notices
import Pulse
import TestSupport
import Testing

@testable import TriggersKit

@Suite(.timeLimit(.minutes(5)))
struct FiringTests {
    private static let group = "fUcGNXd7Q5S8LTPwG8cmFw"

    private static func delivery(_ body: JSONValue) -> PulseDelivery {
        PulseDelivery(exchange: "exchange/e", routingKey: "primary.a.gecko-level-3._", body: body.bytes())
    }

    private static func task(_ name: String, _ environment: JSONValue? = nil) -> JSONValue {
        var payload: JSONObject = [:]
        payload["env"] = environment
        return ["status": [:], "task": ["metadata": ["name": .string(name)], "payload": .object(payload)]]
    }

    private static func environment(_ revision: String) -> JSONValue {
        [
            "GECKO_HEAD_REPOSITORY": "https://hg.mozilla.org/mozilla-central",
            "GECKO_HEAD_REV": .string(revision),
        ]
    }

    @Test func `the first coverage build of a resolved group fires once, wherever in the pages it is`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            world.queue.state.withLock { state in
                state.groups[Self.group] = [
                    (0..<200).map { Self.task("test-linux64-ccov/\($0)") }, [],
                    [Self.task("x"), Self.task("build-win64-ccov/opt", Self.environment("aa"))],
                    [Self.task("build-linux64-ccov/opt", Self.environment("bb"))],
                ]
                // One that another group has lost.
                state.groups["aUcGNXd7Q5S8LTPwG8cmFA"] = [[Self.task("build-linux64-ccov/opt", [])]]
                state.groups["bUcGNXd7Q5S8LTPwG8cmFA"] = [[Self.task("decision")]]
            }
            let intake = world.intake(TriggersWorld.coverage)
            for id in [Self.group, "aUcGNXd7Q5S8LTPwG8cmFA", "bUcGNXd7Q5S8LTPwG8cmFA", "cUcGNXd7Q5S8LTPwG8cmFA"] {
                for _ in 0..<3 {
                    #expect(await intake.accept(Self.delivery(["taskGroupId": .string(id)])) == .ack)
                }
            }
            try await world.settle(world.worker([TriggersWorld.coverage]))
            #expect(
                world.queue.payloads == [
                    ["REVISION": "aa", "REPOSITORY": "https://hg.mozilla.org/mozilla-central"]
                ]
            )
            #expect(
                try await world.states() == [
                    Self.group: "fired", "aUcGNXd7Q5S8LTPwG8cmFA": "skipped", "bUcGNXd7Q5S8LTPwG8cmFA": "skipped",
                    "cUcGNXd7Q5S8LTPwG8cmFA": "skipped",
                ]
            )
            #expect(world.queue.state.withLock { $0.pagesRead } == 3 + 1 + 1)
        }
    }

    @Test func `each commit of a series fires once, however often the message comes`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            let message: JSONValue = [
                "payload": [
                    "repository_url": "https://review.example/gecko",
                    "commits": [
                        ["rev": "aa", "review_request_id": 1, "diffset_revision": 2],
                        ["rev": "bb", "review_request_id": 3, "diffset_revision": 4],
                    ],
                ]
            ]
            let intake = world.intake(TriggersWorld.commits)
            await withTaskGroup(of: PulseDisposition.self) { group in
                for _ in 0..<4 { group.addTask { await intake.accept(Self.delivery(message)) } }
                for await disposition in group { #expect(disposition == .ack) }
            }
            try await world.settle(world.worker([TriggersWorld.commits]))
            let payloads = world.queue.payloads.sorted { "\($0)" < "\($1)" }
            #expect(payloads.count == 2)
            #expect(
                payloads.contains([
                    "ANALYSIS_SOURCE": "mozreview", "ANALYSIS_ID": "aa", "MOZREVIEW_REVISION": "1",
                    "MOZREVIEW_DIFFSET": "2",
                ])
            )
        }
    }

    @Test func `a message that cannot be read is a dead letter at its third delivery and can be read later`()
        async throws
    {
        try await TriggersWorld.with { world in
            let intake = world.intake(TriggersWorld.coverage)
            let garbage = PulseDelivery(exchange: "e\u{0}", routingKey: "k", body: [0, 255, 123])
            #expect(await intake.accept(garbage) == .requeue)
            #expect(await intake.accept(garbage) == .requeue)
            #expect(try await world.letters.list(trigger: nil, before: nil, limit: 10).isEmpty)
            #expect(await intake.accept(garbage) == .ack)
            // The acknowledgement was lost, so the broker brings it again: still one letter.
            for disposition in [PulseDisposition.requeue, .requeue, .ack] {
                #expect(await intake.accept(garbage) == disposition)
            }
            let letters = try await world.letters.list(trigger: "code-coverage", before: nil, limit: 10)
            #expect(letters.count == 1)
            #expect(letters.first?.delivery.body == garbage.body)
            #expect(letters.first?.times == 2)
            #expect(await intake.accept(Self.delivery(["taskGroupId": .string(Self.group)])) == .ack)
            #expect(try await world.open() == 1)
        }
    }

    @Test func `a hook that cannot fire is tried until it can, and then fires once`() async throws {
        try await TriggersWorld.with { world in
            let worker = world.worker([TriggersWorld.commits])
            let facts = Facts.commit(revision: "aa", review: 1, diffset: 2)
            let sighting = Sighting(subject: "aa/1/2", facts: facts, origin: .message)
            #expect(try await world.runs.add([sighting], for: TriggersWorld.commits) == 1)
            #expect(try await world.runs.add([sighting], for: TriggersWorld.commits) == 0)
            for _ in 0..<3 {
                try await world.pool.execute("update triggers.runs set due = now()")
                try await worker.work()
            }
            #expect(try await world.reasons() == ["there is no hook project/hook"])
            // Now there is one, but it wants something else; then its template is wrong.
            try await world.makeHook(schema: ["type": "object", "required": ["OTHER"]])
            try await world.pool.execute("update triggers.runs set due = now()")
            try await worker.work()
            #expect(try await world.reasons().first?.hasPrefix("triggerSchema: ") == true)
            try await world.pool.execute(
                "update hooks.hooks set trigger_schema = '{}', task = '{\"$eval\": \"nothing\"}', definition_version = definition_version + 1"
            )
            try await world.pool.execute("update triggers.runs set due = now()")
            try await worker.work()
            #expect(world.queue.tasks.isEmpty)
            try await world.pool.execute(
                "update hooks.hooks set task = '{\"payload\": {}}', definition_version = definition_version + 1"
            )
            try await world.settle(worker)
            #expect(world.queue.tasks.count == 1)
            let run = try await world.runs.list(trigger: nil, state: nil, isStuck: false, before: nil, limit: 9).first
            #expect(run?.state == "fired")
            #expect(run?.taskID.map { world.queue.tasks[$0] != nil } == true)
        }
    }

    @Test func `a queue that refuses a task for good is asked again, with another task`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            let facts = Facts.commit(revision: "aa", review: 1, diffset: 2)
            world.queue.state.withLock { $0.refusals = [503, 400] }
            _ = try await world.runs.add(
                [.init(subject: "s", facts: facts, origin: .message)],
                for: TriggersWorld.commits
            )
            try await world.settle(world.worker([TriggersWorld.commits]))
            #expect(world.queue.tasks.count == 1)
            let firings = try await world.pool.query("select firings from triggers.runs").first?.int("firings")
            // The first refusal passes by itself; after the second one the hook fires once more.
            #expect(firings == 2)
        }
    }

    @Test func `a fire that cannot be written down is told and concerns no other one`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            try await world.pool.execute("alter table hooks.fires add constraint c check (context not like '%bad%')")
            let sightings = (1...7).map { number in
                let facts = Facts.commit(revision: number == 3 ? "bad" : "aa", review: number, diffset: 1)
                return Sighting(subject: "s\(number)", facts: facts, origin: .message)
            }
            _ = try await world.runs.add(sightings, for: TriggersWorld.commits)
            let worker = world.worker([TriggersWorld.commits])
            try await eventually("all others fire") {
                try await worker.work()
                return try await world.open() == 1
            }
            let stuck = try await world.runs.list(trigger: nil, state: nil, isStuck: true, before: nil, limit: 9)
            #expect(stuck.map(\.subject) == ["s3"])
            #expect(stuck.first?.reason != nil)
            #expect(world.queue.tasks.count == 6)
            try await world.pool.execute("alter table hooks.fires drop constraint c")
            try await world.settle(worker)
            #expect(world.queue.tasks.count == 7)
        }
    }

    @Test func `a hook that declines is done`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook(task: ["$if": "false", "then": [:]])
            let facts = Facts.commit(revision: "aa", review: 1, diffset: 2)
            _ = try await world.runs.add(
                [.init(subject: "s", facts: facts, origin: .message)],
                for: TriggersWorld.commits
            )
            try await world.settle(world.worker([TriggersWorld.commits]))
            #expect(try await world.states() == ["s": "declined"])
        }
    }

    @Test func `whoever took a run and was too slow changes nothing any more`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            let facts = Facts.commit(revision: "aa", review: 1, diffset: 2)
            _ = try await world.runs.add(
                [.init(subject: "s", facts: facts, origin: .message)],
                for: TriggersWorld.commits
            )
            let names = [TriggersWorld.commits.name]
            let late = try #require(try await world.runs.take(names, limit: 9, lease: .zero).first)
            try await world.settle(world.worker([TriggersWorld.commits]))
            #expect(try await world.runs.pool.transaction { try await world.runs.lock(late, on: $0) } == false)
            try await world.runs.settle(late, "skipped", "too late")
            try await world.runs.postpone(late, by: .zero, "too late", failures: 1)
            try await world.runs.finish(late)
            #expect(try await world.states() == ["s": "fired"])
            #expect(world.queue.tasks.count == 1)
        }
    }

    @Test func `several processes that deal with many runs fire each once`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            let sightings = (0..<60).map { number in
                Sighting(
                    subject: "s\(number)",
                    facts: .commit(revision: "aa", review: number, diffset: 1),
                    origin: .message
                )
            }
            _ = try await world.runs.add(sightings, for: TriggersWorld.commits)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<3 { group.addTask { try await world.settle(world.worker([TriggersWorld.commits])) } }
                try await group.waitForAll()
            }
            #expect(world.queue.payloads.compactMap { $0["MOZREVIEW_REVISION"]?.string }.count == 60)
            #expect(Set(world.queue.payloads.compactMap { $0["MOZREVIEW_REVISION"]?.string }).count == 60)
        }
    }

    // MARK: - Reports

    private func reporter(_ world: TriggersWorld) -> Reporter {
        Reporter(
            addresses: ["a@example.com", "b@example.com"],
            interval: .seconds(3600),
            rootURL: "https://tc.example",
            places: world.places,
            tasks: world.taskStore,
            runs: world.runs,
            letters: world.letters,
            uses: world.uses,
            notices: NoticeStore(schema: "triggers", pool: world.pool)
        )
    }

    @Test func `tasks are followed, and what did not complete is told once to everybody`() async throws {
        try await TriggersWorld.with { world in
            try await world.makeHook()
            let reporter = reporter(world)
            // A first period begins.
            #expect(try await reporter.report() == 0)
            let sightings = (0..<3).map { number in
                Sighting(subject: "\(number)", facts: .commit(revision: "aa", review: 1, diffset: 1), origin: .message)
            }
            _ = try await world.runs.add(sightings, for: TriggersWorld.commits)
            try await world.settle(world.worker([TriggersWorld.commits]))
            let ids = world.queue.tasks.keys.sorted()
            world.queue.state.withLock { $0.states = [ids[0]: "completed", ids[1]: "failed", ids[2]: "running"] }
            func lookAndReport() async throws -> [Int] {
                try await world.pool.execute("update triggers.tasks set next_look = now()")
                try await world.pool.execute("update triggers.places set next_look = now()")
                try await TaskWatch(
                    tasks: world.taskStore,
                    places: world.places,
                    states: TaskStates(client: world.client)
                )
                .look()
                return try await withThrowingTaskGroup(of: Int.self) { group in
                    for _ in 0..<3 { group.addTask { try await reporter.report() } }
                    return try await group.reduce(into: []) { $0.append($1) }.sorted()
                }
            }
            #expect(try await lookAndReport() == [0, 0, 2])
            let mails = try await world.pool.query("select target, body from triggers.notices order by id")
            #expect(try mails.map { try $0.string("target") } == ["a@example.com", "b@example.com"])
            let text = try #require(try mails.first?.string("body"))
            #expect(text.contains("completed: 50.00% (1/2)"))
            #expect(text.contains("[\(ids[1])](https://tc.example/tasks/\(ids[1]))"))
            // The last one completes, so there is nothing to tell; nor is anything told twice.
            world.queue.state.withLock { $0.states[ids[2]] = "completed" }
            #expect(try await lookAndReport() == [0, 0, 0])
            #expect(try await lookAndReport() == [0, 0, 0])
        }
    }
}
