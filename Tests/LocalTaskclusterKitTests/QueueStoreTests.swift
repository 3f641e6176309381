// SPDX-License-Identifier: MPL-2.0
import JSON
import Schedules
import Taskcluster
import Testing

@testable import LocalTaskclusterKit

@Suite(.timeLimit(.minutes(5)))
struct QueueStoreTests {
    @Test func `Q19: creating the same task again changes nothing`() async throws {
        try await QueueFixture.with { queue in
            let id = Slugid.make()
            try await queue.create(id)
            let spelled = String(queue.start.iso8601.dropLast()) + "000+00:00"
            let again = try await queue.create(id, ["created": .string(spelled)])
            #expect(again.runs.count == 1)
            #expect(try await queue.store.counts("local/wt", now: queue.start).pending == 1)
        }
    }

    @Test func `Q20: the id of another definition is refused`() async throws {
        try await QueueFixture.with { queue in
            let id = Slugid.make()
            try await queue.create(id)
            await #expect(throws: QueueProblem.self) { try await queue.create(id, ["payload": ["n": 2]]) }
            #expect(try await queue.store.definition(id).contains("\"payload\":{\"n\":1}"))
        }
    }

    @Test func `Q21: repeating a creation shows the current state`() async throws {
        try await QueueFixture.with { queue in
            let id = Slugid.make()
            try await queue.create(id)
            _ = try await queue.claim()
            #expect(try await queue.create(id).state == "running")
        }
    }

    @Test func `Q22: twenty creations at once make one task`() async throws {
        try await QueueFixture.with { queue in
            let id = Slugid.make()
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<20 { group.addTask { try await queue.create(id).runs.count } }
                for try await runs in group { #expect(runs == 1) }
            }
            #expect(try await queue.announced(id) == ["task-defined", "task-pending"])
            #expect(try await queue.claim(32).count == 1)
            #expect(try await queue.claim(32).isEmpty)
        }
    }

    @Test func `Q29: a group belongs to one scheduler and can be sealed`() async throws {
        try await QueueFixture.with { queue in
            let group = Slugid.make()
            try await queue.create(group)
            await #expect(throws: QueueProblem.self) {
                try await queue.create(Slugid.make(), ["taskGroupId": .string(group), "schedulerId": "other"])
            }
            _ = try await queue.store.sealGroup(group, now: queue.start)
            await #expect(throws: QueueProblem.self) {
                try await queue.create(Slugid.make(), ["taskGroupId": .string(group)])
            }
        }
    }

    @Test func `Q35: urgent tasks are claimed first and equals in order`() async throws {
        try await QueueFixture.with { queue in
            var ids: [String: [String]] = [:]
            let names = ["lowest", "very-low", "low", "medium", "high", "very-high", "highest"]
            for priority in (names + names + names).shuffled() {
                let id = Slugid.make()
                ids[priority, default: []].append(id)
                try await queue.create(id, ["priority": .string(priority)])
            }
            let claimed = try await queue.claim(32).map(\.status.taskID)
            #expect(claimed == names.reversed().flatMap { ids[$0] ?? [] })
        }
    }

    @Test func `Q36: concurrent workers never share a run`() async throws {
        try await QueueFixture.with { queue in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<10 { group.addTask { for _ in 0..<50 { try await queue.create() } } }
                try await group.waitForAll()
            }
            let claimed = try await withThrowingTaskGroup(of: [String].self) { group in
                for number in 0..<50 {
                    group.addTask {
                        let worker = WorkerName(group: "g", id: "w\(number)")
                        var mine: [String] = []
                        while true {
                            let claims = try await queue.store.claim(
                                from: "local/wt",
                                by: worker,
                                count: 1 + number % 4,
                                now: queue.start
                            )
                            if claims.isEmpty { return mine }
                            mine += claims.map(\.status.taskID)
                        }
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            #expect(claimed.count == Set(claimed).count)
            // A worker that meets only busy rows leaves early; whatever is left can still be claimed once.
            var all = claimed
            while case let rest = try await queue.claim(32).map(\.status.taskID), !rest.isEmpty { all += rest }
            #expect(all.count == 500 && Set(all).count == 500)
        }
    }

    @Test func `Q39: a claim that was not delivered goes back to its place`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.create().taskID
            try await queue.create()
            let claim = try #require(try await queue.claim().first)
            try await queue.store.handBack(claim, now: queue.start)
            let status = try await queue.store.status(first)
            #expect(status.state == "pending")
            #expect(status.retriesLeft == 5)
            #expect(try await queue.claim().first?.status.taskID == first)
        }
    }

    @Test func `Q43: one run is claimed by name once`() async throws {
        try await QueueFixture.with { queue in
            let id = try await queue.create().taskID
            let other = WorkerName(group: "g", id: "other")
            let first = try await queue.store.claim(taskID: id, run: 0, by: queue.worker, now: queue.start)
            let again = try await queue.store.claim(taskID: id, run: 0, by: queue.worker, now: queue.start)
            #expect(first.claimID == again.claimID)
            await #expect(throws: QueueProblem.self) {
                try await queue.store.claim(taskID: id, run: 0, by: other, now: queue.start)
            }
            let counts = try await queue.store.counts("local/wt", now: queue.start)
            #expect(counts == (0, 1))
        }
    }

    @Test func `Q47: an expired claim is announced before its retry`() async throws {
        try await QueueFixture.with { queue in
            let id = try await queue.create().taskID
            _ = try await queue.claim()
            #expect(try await queue.store.expireClaims(now: queue.start + .seconds(2)) == 0)
            #expect(try await queue.store.expireClaims(now: queue.start + .seconds(3)) == 1)
            let status = try await queue.store.status(id)
            #expect(status.runs.map(\.state) == [.exception, .pending])
            let announced = try await queue.announced(id)
            #expect(announced == ["task-defined", "task-pending", "task-running", "task-exception", "task-pending"])
        }
    }

    @Test func `Q54: a report and a cancellation at once have one winner`() async throws {
        try await QueueFixture.with { queue in
            for _ in 0..<raceRounds {
                let id = try await queue.create().taskID
                _ = try await queue.claim()
                async let report = try? await queue.store.complete(taskID: id, run: 0, as: .completed, now: queue.start)
                async let cancel = try await queue.store.cancelTask(id, now: queue.start)
                let (reported, cancelled) = try await (report, cancel)
                #expect((reported != nil) == (cancelled.state == "completed"))
            }
        }
    }

    @Test func `Q64: a task that nobody takes ends with its deadline`() async throws {
        try await QueueFixture.with { queue in
            let id = try await queue.create().taskID
            let late = queue.start + .seconds(3600)
            #expect(try await queue.claim(at: late).isEmpty)
            #expect(try await queue.store.handleDeadlines(delay: .seconds(2), now: late) == 0)
            #expect(try await queue.store.handleDeadlines(delay: .seconds(2), now: late + .seconds(2)) == 1)
            #expect(try await queue.store.status(id).runs[0].reasonResolved == .deadlineExceeded)
        }
    }

    @Test func `Q70: a completed dependency schedules its dependent`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.create().taskID
            let second = try await queue.create(Slugid.make(), ["dependencies": [.string(first)]])
            #expect(second.state == "unscheduled")
            _ = try await queue.claim()
            _ = try await queue.store.complete(taskID: first, run: 0, as: .completed, now: queue.start)
            try await queue.drawAll()
            #expect(try await queue.store.status(second.taskID).state == "pending")
            #expect(try await queue.announced(second.taskID) == ["task-defined", "task-pending"])
        }
    }

    @Test func `Q52: a claim that is renewed again and again does not expire and counts once`() async throws {
        try await QueueFixture.with { queue in
            let id = try await queue.running()
            for second in 1...10 {
                let moment = queue.start + .seconds(2 * second)
                let claim = try await queue.store.reclaim(taskID: id, run: 0, now: moment)
                #expect(claim.takenUntil == moment + .seconds(3))
                #expect(try await queue.store.expireClaims(now: moment + .seconds(2)) == 0)
                #expect(try await queue.store.counts("local/wt", now: moment).claimed == 1)
            }
            #expect(try await queue.store.status(id).runs.map(\.state) == [.running])
        }
    }

    @Test func `Q71: a failed dependency satisfies only those who asked for any end`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.create().taskID
            let strict = try await queue.create(Slugid.make(), ["dependencies": [.string(first)]]).taskID
            let lenient = try await queue.create(
                Slugid.make(),
                ["dependencies": [.string(first)], "requires": "all-resolved"]
            ).taskID
            _ = try await queue.claim()
            _ = try await queue.store.complete(taskID: first, run: 0, as: .failed, now: queue.start)
            try await queue.drawAll()
            #expect(try await queue.store.status(strict).state == "unscheduled")
            #expect(try await queue.store.status(lenient).state == "pending")
        }
    }

    @Test func `Q74: a missing dependency leaves nothing behind`() async throws {
        try await QueueFixture.with { queue in
            let id = Slugid.make()
            let missing = Slugid.make()
            await #expect(throws: QueueProblem.self) {
                try await queue.create(id, ["dependencies": [.string(missing)]])
            }
            await #expect(throws: QueueProblem.self) { try await queue.store.status(id) }
            let created = try await queue.create(id)
            #expect(created.state == "pending")
        }
    }

    @Test func `Q76: a dependency that is complete already does not hold a task up`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.create().taskID
            _ = try await queue.claim()
            _ = try await queue.store.complete(taskID: first, run: 0, as: .completed, now: queue.start)
            let second = try await queue.create(Slugid.make(), ["dependencies": [.string(first)]])
            #expect(second.state == "pending")
        }
    }

    @Test func `Q77: no wake-up is lost between creation and completion`() async throws {
        try await QueueFixture.with { queue in
            for _ in 0..<raceRounds {
                let first = try await queue.create().taskID
                _ = try await queue.store.claim(taskID: first, run: 0, by: queue.worker, now: queue.start)
                let second = Slugid.make()
                async let done = queue.store.complete(taskID: first, run: 0, as: .completed, now: queue.start)
                async let made = queue.create(second, ["dependencies": [.string(first)]])
                _ = try await (done, made)
                try await queue.drawAll()
                let status = try await queue.store.status(second)
                #expect(status.runs.map(\.state) == [.pending])
            }
        }
    }

    @Test func `Q80: a group is resolved with its last task`() async throws {
        try await QueueFixture.with { queue in
            let group = Slugid.make()
            try await queue.create(group)
            try await queue.create(Slugid.make(), ["taskGroupId": .string(group)])
            for claim in try await queue.claim(2) {
                let before = try await queue.announced(group)
                #expect(!before.contains("task-group-resolved"))
                _ = try await queue.store.complete(
                    taskID: claim.status.taskID,
                    run: 0,
                    as: .completed,
                    now: queue.start
                )
                try await queue.drawAll()
            }
            #expect(try await queue.announced(group).contains("task-group-resolved"))
        }
    }

    @Test func `Q86: an artifact may be created again but not differently`() async throws {
        try await QueueFixture.with { queue in
            let status = try await queue.create()
            _ = try await queue.claim()
            func artifact(_ type: String, expires: Timestamp) -> Artifact {
                Artifact(
                    taskID: status.taskID,
                    runID: 0,
                    name: "public/x",
                    content: .blob,
                    contentType: type,
                    expires: expires
                )
            }
            let soon = status.expires - .seconds(60)
            let (first, _) = try await queue.store.createArtifact(artifact("a/b", expires: soon), now: queue.start)
            let (again, _) = try await queue.store.createArtifact(
                artifact("a/b", expires: status.expires),
                now: queue.start
            )
            #expect(first.blobID == again.blobID)
            await #expect(throws: QueueProblem.self) {
                try await queue.store.createArtifact(artifact("c/d", expires: status.expires), now: queue.start)
            }
            await #expect(throws: QueueProblem.self) {
                try await queue.store.createArtifact(artifact("a/b", expires: soon), now: queue.start)
            }
        }
    }
}
